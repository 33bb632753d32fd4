use std::process::ExitCode;
use std::time::Duration;

use anyhow::Error;
use clap::Parser;
use lattice_images::cli::Cli;
use lattice_images::problem::{Exit, Problem};
use lattice_images::{commands, report, timing};
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What still runs when the result is known is given up after this.
const SHUTDOWN: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = Cli::parse();
    trace(&cli);
    // what takes a core is done beside it; what waits for answers is soonest done by one thread
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Error::from).and_then(|runtime| {
        let result = runtime.block_on(commands::run(&cli));
        runtime.shutdown_timeout(SHUTDOWN);
        result
    });
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            report::error(&error);
            let exit = error
                .chain()
                .find_map(|cause| cause.downcast_ref::<Problem>())
                .map_or(Exit::Failed, Problem::exit);
            ExitCode::from(exit as u8)
        }
    }
}

/// Only our own targets: what others trace may hold credentials.
fn trace(cli: &Cli) {
    let verbose = cli.common.verbose;
    if !verbose && cli.command.timings().is_none() {
        return;
    }
    let log = tracing_subscriber::fmt::layer()
        .with_writer(|| report::Details)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_filter(filter_fn(move |metadata| verbose && metadata.target() != timing::TARGET));
    tracing_subscriber::registry()
        .with(log)
        .with(report::Recorder::new(verbose))
        .with(Targets::new().with_target("lattice_images", Level::DEBUG))
        .init();
}
