//! Progress as lines, each with its image before it: right in a pipe and in a CI log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};

use super::logs::Logs;
use super::{note, status};
use crate::event::Event;
use crate::problem::printable;

/// After so long without a line from an image, one says that it is still at work.
const SILENCE: Duration = Duration::from_secs(30);

pub async fn render(mut events: UnboundedReceiver<Event>, width: usize, mut logs: Logs) -> Logs {
    let mut lines = Lines {
        width,
        running: BTreeMap::new(),
    };
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    logs.keep(&event);
                    lines.event(event);
                }
                None => return logs,
            },
            _ = tick.tick() => lines.break_silence(),
        }
    }
}

pub async fn keep_logs(mut events: UnboundedReceiver<Event>, mut logs: Logs) -> Logs {
    while let Some(event) = events.recv().await {
        logs.keep(&event);
    }
    logs
}

struct Running {
    doing: &'static str,
    begun: Instant,
    last_line: Instant,
}

struct Lines {
    width: usize,
    running: BTreeMap<String, Running>,
}

impl Lines {
    fn event(&mut self, event: Event) {
        match event {
            Event::Note { step: None, text } => note(&text),
            Event::Note { step: Some(step), text } => self.line(&step, &format!("note: {text}")),
            Event::Building { step } => self.begin(step, "building"),
            Event::Output { step, line } => self.line(&step, &clean(&line)),
            Event::Built { step, id, elapsed } => self.end(&step, &format!("built {} in {:.1} s", id.short(), elapsed.as_secs_f64())),
            Event::Pushing { step, reference } => {
                self.begin(step.clone(), "pushing");
                self.line(&step, &format!("pushing {reference}"));
            }
            Event::Pushed { step, digest, .. } => self.end(&step, &format!("pushed {digest}")),
            Event::BuildFailed { step, message } | Event::PushFailed { step, message } => self.end(&step, &format!("failed: {message}")),
        }
    }

    fn begin(&mut self, step: String, doing: &'static str) {
        let now = Instant::now();
        self.running.insert(
            step,
            Running {
                doing,
                begun: now,
                last_line: now,
            },
        );
    }

    fn end(&mut self, step: &str, text: &str) {
        self.line(step, text);
        self.running.remove(step);
    }

    fn line(&mut self, step: &str, text: &str) {
        if let Some(running) = self.running.get_mut(step) {
            running.last_line = Instant::now();
        }
        status(format_args!("{step:width$} | {text}", width = self.width));
    }

    fn break_silence(&mut self) {
        for (step, running) in &mut self.running {
            if running.last_line.elapsed() >= SILENCE {
                running.last_line = Instant::now();
                status(format_args!(
                    "{step:width$} | still {} after {} s",
                    running.doing,
                    running.begun.elapsed().as_secs(),
                    width = self.width
                ));
            }
        }
    }
}

/// A line of a build without colours and other escape sequences.
pub fn clean(line: &str) -> String {
    printable(&anstream::adapter::strip_str(line).to_string())
}
