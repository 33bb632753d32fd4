//! Every tool does every job, in turns, and what it takes counts where its result is right.

use std::fs;
use std::process::Command;

use anyhow::{Error, Result};
use serde::Serialize;

use crate::check::{Checker, Found};
use crate::measure::{self, Usage};
use crate::place::Place;
use crate::tools::{Job, Kind, Tool, YARDSTICK};
use crate::workload::Workload;

#[derive(Clone, Copy, Serialize)]
pub struct Sample {
    #[serde(flatten)]
    pub usage: Usage,
    /// In the bodies of requests to the registry.
    pub sent_bytes: u64,
    pub requests: u64,
    /// The set's layers, compressed as this tool has them, each once.
    pub set_bytes: u64,
    /// How many tags are at another digest, where nothing had changed.
    pub moved: usize,
}

/// What came of one job of one tool.
#[derive(Default, Serialize)]
pub struct Runs {
    pub samples: Vec<Sample>,
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

    /// Each round has another order, and every second one goes backwards.
    pub fn run(mut self, rounds: usize) -> Result<(Workload, Results)> {
        fs::create_dir_all(self.place.folder.join("logs"))?;
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..self.tools.len()).filter(|&index| self.tools[index].version.is_ok()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            let first = round % order.len().max(1);
            order.rotate_left(first);
            for index in order {
                eprintln!("{}, round {} of {rounds}: {}", self.place.engine, round + 1, self.tools[index].name);
                self.place.empty()?;
                match self.tools[index].kind {
                    Kind::Builds => self.build(index)?,
                    Kind::Copies => self.copy(index),
                }
            }
        }
        Ok((self.workload, self.results))
    }

    /// All jobs, up to the first that goes wrong: the others have something else to do then.
    fn build(&mut self, index: usize) -> Result<()> {
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
            before = self.job(index, job, channel, before.as_ref().filter(|_| job == Job::Nothing));
            if before.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn copy(&mut self, index: usize) {
        let tools = self.tools;
        let yardstick = tools.iter().find(|tool| tool.name == YARDSTICK).expect("it is in the list");
        if self.is_prepared(index, &yardstick.script)
            && let Some(first) = self.job(index, Job::SecondChannel, "second", None)
        {
            self.job(index, Job::Nothing, "second", Some(&first));
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

    fn job(&mut self, index: usize, job: Job, channel: &str, before: Option<&Found>) -> Option<Found> {
        match self.measured(index, job, channel, before) {
            Ok((sample, found)) => {
                eprintln!("  {:<20}{:>8.3} s", job.name(), sample.usage.seconds);
                self.results[index][job as usize].samples.push(sample);
                Some(found)
            }
            Err(error) => {
                self.went_wrong(index, job, &error);
                None
            }
        }
    }

    fn measured(&mut self, index: usize, job: Job, channel: &str, before: Option<&Found>) -> Result<(Sample, Found)> {
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
            sent_bytes: ended.bytes - begun.bytes,
            requests: ended.requests - begun.requests,
            set_bytes: found.bytes(),
            moved: before.map_or(0, |before| before.moved(&found)),
        };
        Ok((sample, found))
    }
}
