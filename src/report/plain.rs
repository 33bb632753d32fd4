//! Progress as lines, each with its image before it: right in a pipe and in a CI log.
//!
//! What the builder had is not told of, nor its own doings: a run that changes nothing says little. Logs keep everything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;

use super::follow::{Moment, follow};
use super::logs::Logs;
use super::{github, note_line, status};
use crate::event::{Event, Instruction, Speaker};
use crate::plan::Plan;
use crate::problem::printable;

/// After so long without a line from an image, one says that it is still at work.
const SILENCE: Duration = Duration::from_secs(30);
/// An instruction that takes so long is told of before it is known whether the builder had its result.
const PATIENCE: Duration = Duration::from_secs(1);

pub async fn render(events: UnboundedReceiver<Event>, mut lines: Lines, mut logs: Logs) -> Logs {
    let show = |moment: Moment<'_>, _: &Logs| {
        match moment {
            Moment::Event(event) => lines.event(event, Instant::now()),
            Moment::Tick => lines.tick(Instant::now()),
        }
        lines.said.drain(..).for_each(status);
    };
    follow(events, PATIENCE, &mut logs, show).await;
    lines.end_groups();
    lines.said.drain(..).for_each(status);
    logs
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
    /// Instructions that have begun, and nothing came of them yet.
    held: Vec<(Instant, Instruction)>,
    /// The log, where logs are shown when they are whole.
    group: Vec<String>,
}

pub struct Lines {
    width: usize,
    running: BTreeMap<String, Running>,
    groups: bool,
    said: Vec<String>,
}

impl Lines {
    pub fn new(plan: &Plan) -> Self {
        Self::of(plan.steps.iter().map(|step| step.label().len()).max().unwrap_or(0))
    }

    /// For GitHub Actions.
    pub fn in_groups(plan: &Plan) -> Self {
        Self {
            groups: true,
            ..Self::new(plan)
        }
    }

    fn of(width: usize) -> Self {
        Self {
            width,
            running: BTreeMap::new(),
            groups: false,
            said: Vec::new(),
        }
    }

    fn event(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Note { step: None, text } => self.said.push(note_line(text)),
            Event::Note { step: Some(step), text } => self.line(step, &format!("note: {}", clean(text)), now),
            Event::Building { step } => self.begin(step, "building", now),
            Event::Instruction { step, instruction } => self.hold(step, instruction, now),
            Event::Cached { step, instruction } => self.let_go(step, instruction),
            Event::Output { step, line, by } => self.output(step, &clean(line), *by, now),
            Event::Built { step, id, cached, elapsed } => {
                let (id, seconds) = (id.short(), elapsed.as_secs_f64());
                let from = if *cached { ", from the cache" } else { "" };
                self.end(step, &format!("built {id} in {seconds:.1} s{from}"), !cached, now);
            }
            Event::Blocked { step, by } => self.line(step, &format!("not built because {by} failed"), now),
            Event::Copying { step, from } => self.line(step, &format!("copying from {from}"), now),
            // the table at the end tells what was settled
            Event::Sending { .. } | Event::Uploading { .. } | Event::Settled { .. } => {}
            Event::Pushing { step, reference } => {
                self.begin(step, "pushing", now);
                self.line(step, &format!("pushing {}", with_short_tag(reference)), now);
            }
            Event::Pushed { step, digest, .. } => self.end(step, &format!("pushed {digest}"), true, now),
            Event::BuildFailed { step, message } | Event::PushFailed { step, message } => {
                self.end(step, &format!("failed: {}", clean(message)), true, now);
            }
        }
    }

    fn begin(&mut self, step: &str, doing: &'static str, now: Instant) {
        let running = Running {
            doing,
            begun: now,
            last_line: now,
            held: Vec::new(),
            group: Vec::new(),
        };
        self.running.insert(step.to_owned(), running);
    }

    fn hold(&mut self, step: &str, instruction: &Instruction, now: Instant) {
        if let Some(running) = self.running.get_mut(step).filter(|_| !self.groups) {
            running.held.push((now, instruction.clone()));
        }
    }

    fn let_go(&mut self, step: &str, instruction: &Instruction) {
        if let Some(running) = self.running.get_mut(step) {
            running.held.retain(|(_, held)| held != instruction);
        }
    }

    fn output(&mut self, step: &str, text: &str, by: Speaker, now: Instant) {
        if self.groups {
            let line = self.prefixed(step, text);
            if let Some(running) = self.running.get_mut(step) {
                running.group.push(line);
            }
        } else if by == Speaker::Command {
            self.line(step, text, now);
        }
    }

    fn end(&mut self, step: &str, text: &str, with_log: bool, now: Instant) {
        if let Some(running) = self.running.get_mut(step).filter(|_| with_log) {
            let log = std::mem::take(&mut running.group);
            self.said.extend(github::group(step, log));
        }
        self.line(step, text, now);
        self.running.remove(step);
    }

    /// The logs of builds that were stopped.
    fn end_groups(&mut self) {
        for (step, running) in std::mem::take(&mut self.running) {
            self.said.extend(github::group(&step, running.group));
        }
    }

    fn line(&mut self, step: &str, text: &str, now: Instant) {
        self.tell_held(step, now);
        if let Some(running) = self.running.get_mut(step) {
            running.last_line = now;
        }
        self.said.push(self.prefixed(step, text));
    }

    fn tell_held(&mut self, step: &str, now: Instant) {
        let Some(running) = self.running.get_mut(step) else { return };
        let held = std::mem::take(&mut running.held);
        if !held.is_empty() {
            running.last_line = now;
        }
        for (_, instruction) in held {
            self.said.push(self.prefixed(step, &clean(&format!("step {instruction}"))));
        }
    }

    fn tick(&mut self, now: Instant) {
        let steps: Vec<String> = self.running.keys().cloned().collect();
        for step in steps {
            let running = &self.running[&step];
            if running
                .held
                .first()
                .is_some_and(|(begun, _)| now.duration_since(*begun) >= PATIENCE)
            {
                self.tell_held(&step, now);
            } else if now.duration_since(running.last_line) >= SILENCE {
                let seconds = now.duration_since(running.begun).as_secs();
                self.line(&step, &format!("still {} after {seconds} s", running.doing), now);
            }
        }
    }

    fn prefixed(&self, step: &str, text: &str) -> String {
        format!("{step:width$} | {text}", width = self.width)
    }
}

/// With twelve digits of the fingerprint, where that is the tag.
fn with_short_tag(reference: &str) -> &str {
    let fingerprint = reference.rfind(":in-").map_or(reference.len(), |tag| tag + ":in-".len());
    reference.get(..fingerprint + 12).unwrap_or(reference)
}

/// A line of a build without colours and other escape sequences.
pub fn clean(line: &str) -> String {
    printable(&anstream::adapter::strip_str(line).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(number: u32, text: &str) -> Instruction {
        Instruction {
            stage: None,
            number,
            total: 3,
            text: text.into(),
        }
    }

    fn begins(number: u32, text: &str) -> Event {
        Event::Instruction {
            step: "api".into(),
            instruction: instruction(number, text),
        }
    }

    fn cached(number: u32, text: &str) -> Event {
        Event::Cached {
            step: "api".into(),
            instruction: instruction(number, text),
        }
    }

    fn output(line: &str, by: Speaker) -> Event {
        Event::output("api", line, by)
    }

    fn built(cached: bool) -> Event {
        Event::Built {
            step: "api".into(),
            id: format!("sha256:{}", "0".repeat(64)).parse().expect("a digest"),
            cached,
            elapsed: Duration::from_millis(1_250),
        }
    }

    fn said(mut lines: Lines, events: &[Event]) -> Vec<String> {
        let now = Instant::now();
        lines.event(&Event::Building { step: "api".into() }, now);
        for event in events {
            lines.event(event, now);
        }
        lines.said
    }

    fn in_groups() -> Lines {
        Lines {
            groups: true,
            ..Lines::of(3)
        }
    }

    #[test]
    fn what_the_builder_had_is_not_told_of() {
        let nothing_new = [
            output("[internal] load build context", Speaker::Builder),
            begins(1, "FROM base"),
            begins(2, "COPY a /a"),
            cached(1, "FROM base"),
            cached(2, "COPY a /a"),
            output("exporting to image", Speaker::Builder),
            built(true),
        ];
        let expected = ["api | built 000000000000 in 1.2 s, from the cache"];
        assert_eq!(said(Lines::of(3), &nothing_new), expected);
        assert_eq!(said(in_groups(), &nothing_new), expected);
    }

    #[test]
    fn what_is_done_is_told_before_what_comes_of_it() {
        let events = [
            begins(1, "FROM base"),
            cached(1, "FROM base"),
            begins(2, "RUN make"),
            output("[2/3] RUN make", Speaker::Builder),
            output("\u{1b}[32mok\u{1b}[0m", Speaker::Command),
            begins(3, "COPY a /a"),
            built(false),
        ];
        assert_eq!(
            said(Lines::of(5), &events),
            [
                "api   | step 2/3 RUN make",
                "api   | ok",
                "api   | step 3/3 COPY a /a",
                "api   | built 000000000000 in 1.2 s"
            ]
        );
        assert_eq!(
            said(in_groups(), &events),
            [
                "::group::log of api",
                "api | [2/3] RUN make",
                "api | ok",
                "::endgroup::",
                "api | built 000000000000 in 1.2 s"
            ]
        );
    }

    #[test]
    fn a_fingerprint_is_told_by_its_first_digits() {
        let fingerprint = "0123456789abcdef".repeat(4);
        let staged = format!("h.test:5000/p/kevin-api:in-{fingerprint}");
        assert_eq!(with_short_tag(&staged), "h.test:5000/p/kevin-api:in-0123456789ab");
        assert_eq!(with_short_tag("h.test:5000/p/in-house:latest"), "h.test:5000/p/in-house:latest");
    }

    #[test]
    fn what_takes_long_is_told_of_and_silence_is_broken() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut lines = Lines::of(3);
        lines.event(&Event::Building { step: "api".into() }, begun);
        lines.event(&begins(1, "RUN make"), at(10));
        let mut told = Vec::new();
        for second in 10..=80 {
            lines.tick(at(second));
            told.extend(lines.said.drain(..).map(|line| (second, line)));
        }
        let lines: Vec<_> = told.iter().map(|(second, line)| (*second, line.as_str())).collect();
        assert_eq!(
            lines,
            [
                (11, "api | step 1/3 RUN make"),
                (41, "api | still building after 41 s"),
                (71, "api | still building after 71 s")
            ]
        );
    }
}
