//! One file a verb: wiring, nothing else.

mod build;
mod channels;
mod push;
mod session;

use anyhow::Error;

use crate::cli::{Cli, Command};

/// # Errors
/// What the command could not do.
pub async fn run(cli: &Cli) -> Result<(), Error> {
    match &cli.command {
        Command::PushAll(push) => push::push(&cli.common, push, &[]).await,
        Command::PushImage { images, push } => push::push(&cli.common, push, images).await,
        Command::Build { images, variants, run } => build::build(&cli.common, *variants, run, images).await,
        Command::Channels { command } => Ok(channels::channels(&cli.common, command.as_ref())?),
    }
}
