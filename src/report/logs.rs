//! The whole log of every build of a run, in files; a bounded number of runs is kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::plain::clean;
use crate::event::Event;

const RUNS_KEPT: usize = 20;
const TAIL_LINES: usize = 15;

pub struct Logs {
    /// `None` where it could not be made; then only the tails are kept.
    folder: Option<PathBuf>,
    begun: BTreeSet<String>,
    tails: BTreeMap<String, VecDeque<String>>,
}

impl Logs {
    /// Logs below `cache`, e.g. `~/.cache/lattice-images`, in a folder of this run's own.
    #[must_use]
    pub fn new(cache: Option<&Path>) -> Self {
        let folder = cache.map(|cache| cache.join("logs")).and_then(|logs| {
            make_room(&logs);
            let folder = logs.join(format!("{}-{}", now(), process::id()));
            fs::create_dir_all(&folder).ok().map(|()| folder)
        });
        Self {
            folder,
            begun: BTreeSet::new(),
            tails: BTreeMap::new(),
        }
    }

    pub fn keep(&mut self, event: &Event) {
        let (step, line) = match event {
            Event::Output { step, line, .. } => (step, clean(line)),
            Event::BuildFailed { step, message } => (step, message.clone()),
            _ => return,
        };
        // a log that cannot be written does not stop a build; what is shown at the end is in the tail
        let _ = self.write(step, &line);
        if matches!(event, Event::Output { .. }) {
            let tail = self.tails.entry(step.clone()).or_default();
            tail.push_back(line);
            if tail.len() > TAIL_LINES {
                tail.pop_front();
            }
        }
    }

    /// The last lines of a build.
    pub fn tail(&self, step: &str) -> impl Iterator<Item = &str> {
        self.tails.get(step).into_iter().flatten().map(String::as_str)
    }

    /// Where the whole log of a build is.
    #[must_use]
    pub fn path(&self, step: &str) -> Option<PathBuf> {
        let folder = self.folder.as_ref().filter(|_| self.begun.contains(step))?;
        Some(log_path(folder, step))
    }

    fn write(&mut self, step: &str, line: &str) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        // there may be more builds than files that a process may have open
        let mut file = File::options().create(true).append(true).open(log_path(folder, step))?;
        if !self.begun.contains(step) {
            self.begun.insert(step.to_owned());
        }
        writeln!(file, "{line}")
    }
}

fn log_path(folder: &Path, step: &str) -> PathBuf {
    folder.join(format!("{step}.log"))
}

/// UTC, to the second, so that names sort by time.
fn now() -> String {
    let mut text = String::new();
    if SystemTime.format_time(&mut Writer::new(&mut text)).is_err() {
        text.clear();
    }
    text.chars().take("2026-01-01T00:00:00".len()).collect()
}

fn make_room(logs: &Path) {
    let Ok(entries) = fs::read_dir(logs) else { return };
    let mut runs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    runs.sort();
    let excess = (runs.len() + 1).saturating_sub(RUNS_KEPT);
    for run in &runs[..excess] {
        let _ = fs::remove_dir_all(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Speaker;

    #[test]
    fn a_log_is_whole_its_tail_is_short_and_old_runs_go() {
        let cache = tempfile::tempdir().expect("a folder");
        for run in 0..30 {
            fs::create_dir_all(cache.path().join(format!("logs/2000-01-01T00:00:{run:02}-1"))).expect("created");
        }
        let mut logs = Logs::new(Some(cache.path()));
        assert_eq!(fs::read_dir(cache.path().join("logs")).expect("listed").count(), RUNS_KEPT);
        for number in 0..40 {
            let line = format!("\u{1b}[31mline {number}\u{1b}[0m");
            logs.keep(&Event::output("x", &line, Speaker::Command));
        }
        assert_eq!(logs.tail("x").next(), Some("line 25"));
        let whole = fs::read_to_string(logs.path("x").expect("a log")).expect("read");
        assert_eq!(whole.lines().count(), 40);
        assert!(logs.path("y").is_none());
    }
}
