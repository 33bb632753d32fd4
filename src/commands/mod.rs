//! One file a verb: wiring, nothing else.

mod build;
mod channels;
mod doctor;
mod interrupt;
mod manual;
mod push;
mod remarks;
mod session;
mod sources;
mod stable;
mod status;

use anyhow::Error;

use crate::atomic;
use crate::cli::{Cli, Command};
use crate::problem::{Exit, Problem, printable};
use crate::report;

/// # Errors
/// What the command could not do.
pub async fn run(cli: &Cli) -> Result<Exit, Error> {
    for file in cli.command.files() {
        atomic::try_named(file)
            .map_err(|error| Problem::usage(format!("{} cannot be written: {error}", printable(&file.display().to_string()))))?;
    }
    let done = carry_out(cli).await.and_then(|exit| report::delivered().map(|()| exit));
    if let Some(path) = cli.command.timings()
        && let Err(error) = report::timings(path)
    {
        // what became of the images goes before a file that could not be written
        return done.and(Err(error));
    }
    done
}

async fn carry_out(cli: &Cli) -> Result<Exit, Error> {
    match &cli.command {
        Command::PushAll(push) => push::push(&cli.common, push, &[]).await.map(|()| Exit::Done),
        Command::PushImage { images, push } => push::push(&cli.common, push, images).await.map(|()| Exit::Done),
        Command::Build { images, variants, run } => build::build(&cli.common, *variants, run, images).await.map(|()| Exit::Done),
        Command::Status { variants, json } => status::status(&cli.common, *variants, *json).await,
        Command::Doctor { builder } => doctor::doctor(&cli.common, builder).await,
        Command::Completions { shell } => Ok(manual::completions(*shell)),
        Command::Man { dir } => Ok(manual::man(dir.as_deref())?),
        Command::Schema => Ok(manual::schema()),
        Command::Channels { command } => channels::channels(&cli.common, command.as_ref()).await,
    }
}
