//! What the job takes with other tools, and with this one: `make bench` (CONTRIBUTING.md tells of it). Times are shown, and
//! never asserted.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it measures")]

mod check;
mod doors;
mod files;
mod floor;
mod growth;
mod measure;
mod place;
mod plot;
mod proxy;
mod rounds;
mod table;
mod tools;
mod workload;

#[path = "../registry/front.rs"]
#[expect(dead_code, reason = "the tests of the registry client use the rest")]
mod front;
#[path = "../registry/server.rs"]
#[expect(dead_code, reason = "the tests of the registry client use the rest")]
mod server;
#[path = "../registry/tokens.rs"]
#[expect(dead_code, reason = "the tests of the registry client use the rest")]
mod tokens;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow};

use place::Place;
use rounds::Bench;
use table::Report;
use tools::Job;
use workload::{Shape, Variants, Workload};

pub struct Settings {
    seed: u64,
    rounds: usize,
    /// Of the sizes.
    scale: f64,
    /// Parts of the names of those that are to run; empty: all.
    tools: String,
    /// Parts of the names of what `growth` is to look at; empty: all.
    axes: String,
    /// In megabytes, of the images that `growth` makes.
    largest: u64,
    /// In seconds: a tool that took longer when cold is not asked for the next point of the growth.
    patience: f64,
    busybox: PathBuf,
}

impl Settings {
    fn from_environment() -> Result<Self> {
        Ok(Self {
            seed: setting("BENCH_SEED", 1)?,
            rounds: setting("BENCH_ROUNDS", 5)?,
            scale: setting("BENCH_SCALE", 1.0)?,
            tools: setting("BENCH_TOOLS", String::new())?,
            axes: setting("BENCH_AXES", String::new())?,
            largest: setting("BENCH_LARGEST", 1_000)?,
            patience: setting("BENCH_PATIENCE", 30.0)?,
            busybox: env::var_os("LATTICE_TEST_BUSYBOX")
                .context("LATTICE_TEST_BUSYBOX is not set: run `make bench`")?
                .into(),
        })
    }
}

fn setting<T: FromStr>(name: &str, default: T) -> Result<T> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().map_err(|_| anyhow!("{name} cannot be {text:?}")),
        _ => Ok(default),
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if let [first, figures, script] = &arguments[..]
        && first == measure::WRAPPER
    {
        let script = script.to_str().context("a script")?;
        let is_right = measure::as_wrapper(Path::new(figures), script)?;
        return Ok(ExitCode::from(u8::from(!is_right)));
    }
    let settings = Settings::from_environment()?;
    let place = Place::find()?;
    // cargo has an argument of its own too: `--bench`
    if arguments.iter().any(|argument| argument == "growth") {
        growth::run(&place, &settings)?;
    } else {
        peers(&place, &settings)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn peers(place: &Place, settings: &Settings) -> Result<()> {
    let shape = Shape::six_services(settings.scale);
    let folder = place.folder.join("workload");
    let workload = Workload::create(&folder, shape, settings.seed, Variants::Both, &settings.busybox)?;
    let mut tools = tools::all(place.base, place.remote.as_deref());
    for tool in &mut tools {
        let is_wanted = settings.tools.split(',').any(|part| tool.name.contains(part));
        if !is_wanted {
            tool.version = Err("not asked for".to_owned());
        }
    }
    let mut bench = Bench::new(place, workload, &tools, &Job::ALL);
    bench.count()?;
    let (workload, results) = bench.run(settings.rounds, &place.registry)?;
    let report = Report {
        engine: &place.engine,
        tools: &tools,
        results: &results,
        floor: &floor::measure(&workload, &place.registry).context("the machine's floor")?,
    };
    print!("{}", report.text());
    report.add_to(&place.folder.join("results.json"), settings)
}
