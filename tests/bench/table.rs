//! What is shown, and what is written to `results.json`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::Settings;
use crate::floor::Floor;
use crate::rounds::{Results, Runs, Sample};
use crate::tools::{Job, Tool, YARDSTICK};

pub struct Report<'a> {
    pub engine: &'a str,
    pub tools: &'a [Tool],
    pub results: &'a Results,
    pub floor: &'a [Floor],
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

fn least(values: Vec<f64>) -> Option<f64> {
    values.into_iter().min_by(f64::total_cmp)
}

pub fn plain(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

type Measure = (&'static str, fn(&Runs) -> Vec<f64>);

const MEASURES: [Measure; 5] = [
    ("seconds", |runs| of_each(runs, |sample| sample.usage.seconds)),
    ("MB sent", |runs| runs.sent.iter().map(|sent| millions(sent.bytes)).collect()),
    ("requests", |runs| runs.sent.iter().map(|sent| whole(sent.requests)).collect()),
    ("client CPU seconds", |runs| of_each(runs, |sample| sample.usage.cpu_seconds)),
    ("client MB of memory", |runs| {
        of_each(runs, |sample| millions(sample.usage.memory_bytes))
    }),
];

fn of_each(runs: &Runs, measure: fn(&Sample) -> f64) -> Vec<f64> {
    runs.samples.iter().map(measure).collect()
}

fn whole(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "to be read by people")]
fn millions(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

pub fn rounded(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 => format!("{value}"),
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.1}"),
    }
}

impl Report<'_> {
    pub fn text(&self) -> String {
        let mut text = format!("## Engine {}\n\n", self.engine);
        let [(_, seconds), others @ ..] = MEASURES;
        text += &self.table("seconds, the median", seconds, median);
        text += &self.table("seconds, at best", seconds, least);
        for (what, measure) in others {
            text += &self.table(what, measure, median);
        }
        text += "The machine's floor:\n";
        for floor in self.floor {
            text += &format!("  {}\n", floor.line());
        }
        for note in self.notes() {
            text += &format!("note: {note}\n");
        }
        text
    }

    fn table(&self, what: &str, measure: fn(&Runs) -> Vec<f64>, summary: fn(Vec<f64>) -> Option<f64>) -> String {
        let of = |runs: &Runs| summary(measure(runs));
        let yardstick = self.tools.iter().position(|tool| tool.name == YARDSTICK);
        let rows = self.tools.iter().zip(self.results).filter(|(tool, _)| tool.version.is_ok());
        let rows = rows.map(|(tool, results)| {
            let cells = results.iter().enumerate().map(|(job, runs)| {
                let Some(value) = of(runs) else {
                    return if runs.wrong.is_empty() { String::new() } else { "wrong".to_owned() };
                };
                let loops = yardstick
                    .and_then(|index| of(&self.results[index][job]))
                    .filter(|_| what.starts_with("seconds"));
                let ratio = loops.map(|loops| format!(" ({:.3})", value / loops)).unwrap_or_default();
                let wrong = if runs.wrong.is_empty() { "" } else { " *" };
                format!("{}{ratio}{wrong}", rounded(value))
            });
            [tool.name.to_owned()].into_iter().chain(cells).collect()
        });
        plain(&[&[what], &Job::ALL.map(Job::name)[..]].concat(), rows) + "\n\n"
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (tool, results) in self.tools.iter().zip(self.results) {
            match &tool.version {
                Ok(version) => notes.push(format!("{} is {version}", tool.name)),
                Err(reason) => notes.push(format!("{}: {reason}", tool.name)),
            }
            for (job, runs) in Job::ALL.iter().zip(results) {
                let all = runs.samples.len() + runs.wrong.len();
                if let Some(why) = runs.wrong.first() {
                    notes.push(format!("{}, {}: {} of {all} wrong: {why}", tool.name, job.name(), runs.wrong.len()));
                }
                if let Some(moved) = runs.samples.iter().map(|sample| sample.moved).max().filter(|&moved| moved > 0) {
                    notes.push(format!("{}, {}: up to {moved} tags moved", tool.name, job.name()));
                }
            }
        }
        notes
    }

    fn json(&self) -> Value {
        let tools = self.tools.iter().zip(self.results).map(|(tool, results)| {
            let jobs = Job::ALL.iter().zip(results).map(|(job, runs)| {
                let medians = MEASURES
                    .iter()
                    .map(|(what, measure)| ((*what).to_owned(), json!(median(measure(runs)))));
                let medians: serde_json::Map<_, _> = medians.collect();
                (
                    job.name().to_owned(),
                    json!({ "medians": medians, "samples": runs.samples, "sent": runs.sent, "wrong": runs.wrong }),
                )
            });
            let jobs: serde_json::Map<_, _> = jobs.collect();
            let (version, missing) = (tool.version.as_ref().ok(), tool.version.as_ref().err());
            json!({ "name": tool.name, "version": version, "missing": missing, "script": tool.script, "jobs": jobs })
        });
        json!({ "engine": self.engine, "floor": self.floor, "tools": tools.collect::<Vec<_>>() })
    }

    /// Adds this engine to those that are in the file.
    pub fn add_to(&self, file: &Path, settings: &Settings) -> Result<()> {
        let mut all: Value = match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(_) => json!({
                "format": 2,
                "seed": settings.seed,
                "rounds": settings.rounds,
                "scale": settings.scale,
                "machine": machine(),
                "engines": [],
            }),
        };
        all["engines"].as_array_mut().expect("written by us").push(self.json());
        fs::write(file, serde_json::to_string_pretty(&all)? + "\n")?;
        Ok(())
    }
}

/// Processor, cores, kernel, how busy it is, and the date.
pub fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let date = Command::new("date").args(["-u", "+%F %R"]).output();
    json!({
        "processor": model.trim_start_matches(['\t', ':', ' ']),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").split(' ').next(),
        "date": date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default(),
    })
}
