//! Every tool does every job, in turns, and what it takes counts where its result is right.

use std::fs;
use std::process::Command;

use anyhow::{Error, Result};
use serde::Serialize;

use crate::check::{Checker, Found};
use crate::files;
use crate::measure::{self, Usage};
use crate::place::Place;
use crate::proxy::Count;
use crate::tools::{Job, Kind, Tool, YARDSTICK};
use crate::workload::Workload;

#[derive(Clone, Copy, Serialize)]
pub struct Sample {
    #[serde(flatten)]
    pub usage: Usage,
    /// The set's layers, compressed as this tool has them, each once.
    pub set_bytes: u64,
    /// How many tags are at another digest, where nothing had changed.
    pub moved: usize,
}

/// What came of one job of one tool.
#[derive(Default, Serialize)]
pub struct Runs {
    pub samples: Vec<Sample>,
    /// In a round that is not among the samples.
    pub sent: Option<Count>,
    /// Why those that were not right were not.
    pub wrong: Vec<String>,
}

/// By tool, then by job.
pub type Results = Vec<[Runs; 4]>;

pub struct Bench<'a> {
    place: &'a Place,
    workload: Workload,
    checker: Checker,
    tools: &'a [Tool],
    jobs: &'a [Job],
    results: Results,
}

/// What is kept of a job that was done right.
type Keep = fn(&mut Runs, Sample, Count);

impl<'a> Bench<'a> {
    pub fn new(place: &'a Place, workload: Workload, tools: &'a [Tool], jobs: &'a [Job]) -> Self {
        let checker = Checker::new(&place.registry);
        let results = tools.iter().map(|_| Default::default()).collect();
        Self {
            place,
            workload,
            checker,
            tools,
            jobs,
            results,
        }
    }

    /// Once, through the proxy, which the times of the rounds are without: it works on the same processors as all the others.
    pub fn count(&mut self) -> Result<()> {
        self.prepare(&self.place.proxy.host)?;
        for index in self.present() {
            eprintln!("{}, what is sent: {}", self.place.engine, self.tools[index].name);
            self.turn(index, |runs, _, count| runs.sent = Some(count))?;
        }
        Ok(())
    }

    /// Each round has another order, and every second one goes backwards.
    pub fn run(mut self, rounds: usize, registry: &str) -> Result<(Workload, Results)> {
        self.prepare(registry)?;
        for round in 0..rounds {
            let mut order = self.present();
            if round % 2 == 1 {
                order.reverse();
            }
            let first = round % order.len().max(1);
            order.rotate_left(first);
            for index in order {
                eprintln!("{}, round {} of {rounds}: {}", self.place.engine, round + 1, self.tools[index].name);
                self.turn(index, |runs, sample, _| runs.samples.push(sample))?;
            }
        }
        Ok((self.workload, self.results))
    }

    fn prepare(&self, registry: &str) -> Result<()> {
        files::write(&self.workload, &format!("{registry}/bench"), self.place.base)?;
        Ok(fs::create_dir_all(self.place.folder.join("logs"))?)
    }

    fn present(&self) -> Vec<usize> {
        (0..self.tools.len()).filter(|&index| self.tools[index].version.is_ok()).collect()
    }

    fn turn(&mut self, index: usize, keep: Keep) -> Result<()> {
        self.place.empty()?;
        match self.tools[index].kind {
            Kind::Builds => self.build(index, keep)?,
            Kind::Copies => self.copy(index, keep),
        }
        Ok(())
    }

    /// All jobs, up to the first that goes wrong: the others have something else to do then.
    fn build(&mut self, index: usize, keep: Keep) -> Result<()> {
        let mut before = None;
        for &job in self.jobs {
            match job {
                Job::Cold | Job::Nothing => {}
                Job::OneChanged => self.workload.change_one()?,
                Job::SecondChannel => {
                    if let Some(script) = &self.tools[index].before_second
                        && !self.is_prepared(index, script)
                    {
                        break;
                    }
                }
            }
            let channel = if job == Job::SecondChannel { "second" } else { "bench" };
            before = self.job(index, job, channel, before.as_ref().filter(|_| job == Job::Nothing), keep);
            if before.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn copy(&mut self, index: usize, keep: Keep) {
        let tools = self.tools;
        let yardstick = tools.iter().find(|tool| tool.name == YARDSTICK).expect("it is in the list");
        if self.is_prepared(index, &yardstick.script)
            && let Some(first) = self.job(index, Job::SecondChannel, "second", None, keep)
        {
            self.job(index, Job::Nothing, "second", Some(&first), keep);
        }
    }

    /// What must be there before the second channel is filled; not measured.
    fn is_prepared(&mut self, index: usize, script: &str) -> bool {
        let log = self.place.folder.join("logs/before.log");
        let ran = measure::script(script, &self.workload.folder, &self.place.environment("bench"), &log);
        if let Err(error) = &ran {
            self.went_wrong(index, Job::SecondChannel, error);
        }
        ran.is_ok()
    }

    fn went_wrong(&mut self, index: usize, job: Job, error: &Error) {
        eprintln!("  {:<20}wrong: {error:#}", job.name());
        self.results[index][job as usize].wrong.push(format!("{error:#}"));
    }

    fn job(&mut self, index: usize, job: Job, channel: &str, before: Option<&Found>, keep: Keep) -> Option<Found> {
        match self.measured(index, job, channel, before) {
            Ok((sample, count, found)) => {
                eprintln!("  {:<20}{:>8.3} s", job.name(), sample.usage.seconds);
                keep(&mut self.results[index][job as usize], sample, count);
                Some(found)
            }
            Err(error) => {
                self.went_wrong(index, job, &error);
                None
            }
        }
    }

    fn measured(&mut self, index: usize, job: Job, channel: &str, before: Option<&Found>) -> Result<(Sample, Count, Found)> {
        let tool = &self.tools[index];
        let log = self
            .place
            .folder
            .join("logs")
            .join(format!("{} {}.log", tool.name, job.name()).replace([',', ' '], "-"));
        // what an earlier job has written is not to be waited for in this one
        Command::new("sync").status()?;
        let begun = self.place.proxy.count();
        let usage = measure::script(&tool.script, &self.workload.folder, &self.place.environment(channel), &log)?;
        let ended = self.place.proxy.count();
        let found = self.checker.channel(&self.workload, channel)?;
        let sample = Sample {
            usage,
            set_bytes: found.bytes(),
            moved: before.map_or(0, |before| before.moved(&found)),
        };
        let count = Count {
            bytes: ended.bytes - begun.bytes,
            requests: ended.requests - begun.requests,
        };
        Ok((sample, count, found))
    }
}
