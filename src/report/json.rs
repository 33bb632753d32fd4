//! `--progress json`: one event a line, as `docs/progress.md` describes them. What stands there is a promise.

use std::collections::BTreeMap;

use anyhow::Error;
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::logs::Logs;
use super::plain::clean;
use super::{hints_of, status};
use crate::event::Event;
use crate::plan::{Plan, Step};
use crate::summary::{Fate, Row};

/// Raised when a field changes its meaning or goes; new fields and events do not raise it.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Line<'a> {
    /// RFC 3339, UTC.
    time: &'a str,
    #[serde(flatten)]
    of: Option<&'a Named>,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
struct Named {
    image: String,
    variant: String,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum What {
    Begin {
        format: u32,
    },
    Planned {
        reference: String,
        push: bool,
    },
    Note {
        text: String,
    },
    Building,
    Sending {
        sent_bytes: u64,
        total_bytes: u64,
    },
    Instruction(Instruction),
    Cached(Instruction),
    Output {
        text: String,
    },
    Built {
        id: String,
        cached: bool,
        seconds: f64,
    },
    BuildFailed {
        message: String,
    },
    NotBuilt {
        because_of: String,
    },
    Copying {
        from: String,
    },
    Settled {
        how: String,
    },
    Pushing {
        reference: String,
    },
    Uploading {
        sent_bytes: u64,
        total_bytes: u64,
    },
    Pushed {
        digest: String,
        seconds: f64,
    },
    PushFailed {
        message: String,
    },
    Result {
        reference: String,
        published: bool,
        seconds: f64,
        #[serde(flatten)]
        outcome: Outcome,
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    },
    Error(Failure),
}

#[derive(Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
enum Outcome {
    Built {
        id: String,
    },
    Pushed {
        id: String,
        digest: String,
        sent_bytes: Option<u64>,
    },
    UpToDate {
        digest: String,
    },
    Found {
        digest: String,
    },
    Copied {
        digest: String,
        from: String,
    },
    BuildFailed(Failure),
    PushFailed(Failure),
    NotBuilt {
        because_of: String,
    },
    Stopped,
}

#[derive(Serialize)]
struct Instruction {
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    number: u32,
    total: u32,
    text: String,
}

#[derive(Serialize)]
struct Failure {
    message: String,
    hints: Vec<String>,
}

/// The image and the variant of each label.
pub struct Names(BTreeMap<String, Named>);

impl Names {
    pub fn new(plan: &Plan) -> Self {
        Self(plan.steps.iter().map(|step| (step.label(), Named::new(step))).collect())
    }
}

impl Named {
    fn new(step: &Step) -> Self {
        Self {
            image: step.image.to_string(),
            variant: step.variant.to_string(),
        }
    }
}

pub async fn render(mut events: UnboundedReceiver<Event>, names: Names, mut logs: Logs) -> Logs {
    while let Some(event) = events.recv().await {
        logs.keep(&event);
        let of = event.step().and_then(|step| names.0.get(step));
        tell(of, What::from(&event));
    }
    logs
}

/// What a run is about to do.
pub fn planned(plan: &Plan) {
    tell(None, What::Begin { format: FORMAT });
    for step in &plan.steps {
        let (reference, push) = (step.reference.to_string(), step.publish);
        tell(Some(&Named::new(step)), What::Planned { reference, push });
    }
}

/// What came of it.
pub fn results(rows: &[Row<'_>], logs: &Logs) {
    for row in rows {
        let result = What::Result {
            reference: row.step.reference.to_string(),
            published: row.published,
            seconds: rounded(row.elapsed.as_secs_f64()),
            outcome: Outcome::from(&row.fate),
            log: logs.path(&row.step.label()).map(|path| path.display().to_string()),
        };
        tell(Some(&Named::new(row.step)), result);
    }
}

pub fn note(text: &str) {
    tell(None, What::Note { text: clean(text) });
}

pub fn error(error: &Error) {
    tell(None, What::Error(Failure::from(error)));
}

fn tell(of: Option<&Named>, what: What) {
    let mut time = String::new();
    let formatted = SystemTime.format_time(&mut Writer::new(&mut time));
    formatted.expect("a string takes all that is written to it");
    status(line(&time, of, what));
}

fn line(time: &str, of: Option<&Named>, what: What) -> String {
    serde_json::to_string(&Line { time, of, what }).expect("text, numbers and lists of text are JSON")
}

impl From<&Event> for What {
    fn from(event: &Event) -> Self {
        let seconds = |elapsed: &std::time::Duration| rounded(elapsed.as_secs_f64());
        match event {
            Event::Note { text, .. } => Self::Note { text: clean(text) },
            Event::Building { .. } => Self::Building,
            Event::Sending { sent, total, .. } => Self::Sending {
                sent_bytes: *sent,
                total_bytes: *total,
            },
            Event::Instruction { instruction, .. } => Self::Instruction(instruction.into()),
            Event::Cached { instruction, .. } => Self::Cached(instruction.into()),
            Event::Output { line, .. } => Self::Output { text: clean(line) },
            Event::Built { id, cached, elapsed, .. } => Self::Built {
                id: id.to_string(),
                cached: *cached,
                seconds: seconds(elapsed),
            },
            Event::BuildFailed { message, .. } => Self::BuildFailed { message: clean(message) },
            Event::Blocked { by, .. } => Self::NotBuilt { because_of: by.clone() },
            Event::Copying { from, .. } => Self::Copying { from: from.clone() },
            Event::Settled { how, .. } => Self::Settled { how: how.to_string() },
            Event::Pushing { reference, .. } => Self::Pushing {
                reference: reference.clone(),
            },
            Event::Uploading { sent, total, .. } => Self::Uploading {
                sent_bytes: *sent,
                total_bytes: *total,
            },
            Event::Pushed { digest, elapsed, .. } => Self::Pushed {
                digest: digest.to_string(),
                seconds: seconds(elapsed),
            },
            Event::PushFailed { message, .. } => Self::PushFailed { message: clean(message) },
        }
    }
}

impl From<&Fate> for Outcome {
    fn from(fate: &Fate) -> Self {
        match fate {
            Fate::Built { id } => Self::Built { id: id.to_string() },
            Fate::Pushed { id, digest, bytes } => Self::Pushed {
                id: id.to_string(),
                digest: digest.to_string(),
                sent_bytes: *bytes,
            },
            Fate::UpToDate { digest } => Self::UpToDate {
                digest: digest.to_string(),
            },
            Fate::Found { digest } => Self::Found {
                digest: digest.to_string(),
            },
            Fate::Copied { digest, from } => Self::Copied {
                digest: digest.to_string(),
                from: from.clone(),
            },
            Fate::BuildFailed { problem } => Self::BuildFailed(problem.into()),
            Fate::PushFailed { problem } => Self::PushFailed(problem.into()),
            Fate::Blocked { by } => Self::NotBuilt { because_of: by.clone() },
            Fate::Stopped => Self::Stopped,
        }
    }
}

impl From<&crate::event::Instruction> for Instruction {
    fn from(instruction: &crate::event::Instruction) -> Self {
        Self {
            stage: instruction.stage.as_deref().map(clean),
            number: instruction.number,
            total: instruction.total,
            text: clean(&instruction.text),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            message: clean(&format!("{error:#}")),
            hints: hints_of(error).collect(),
        }
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::Settled;
    use crate::event::{Instruction, Speaker};
    use crate::problem::Problem;
    use crate::reference::Digest;

    const TIME: &str = "2026-01-31T12:00:00.000000Z";
    const REFERENCE: &str = "gcr.io/lattice-dev/kevin-api:latest";

    fn digest(digit: &str) -> Digest {
        format!("sha256:{}", digit.repeat(64)).parse().expect("a digest")
    }

    fn events() -> Vec<Event> {
        let step = || "api".to_owned();
        let elapsed = Duration::from_millis(12_345);
        let instruction = || Instruction {
            stage: Some("build".into()),
            number: 2,
            total: 3,
            text: "RUN make".into(),
        };
        vec![
            Event::Note {
                step: None,
                text: "the daemon has no BuildKit".into(),
            },
            Event::Note {
                step: Some(step()),
                text: "links lead out of the context".into(),
            },
            Event::Building { step: step() },
            Event::Sending {
                step: step(),
                sent: 1_250_000,
                total: 4_000_000,
            },
            Event::Instruction {
                step: step(),
                instruction: instruction(),
            },
            Event::Cached {
                step: step(),
                instruction: instruction(),
            },
            Event::output("api", "\u{1b}[32mok\u{1b}[0m\u{9b}31m", Speaker::Command),
            Event::Built {
                step: step(),
                id: digest("1"),
                cached: false,
                elapsed,
            },
            Event::BuildFailed {
                step: step(),
                message: "exit code: 1".into(),
            },
            Event::Blocked {
                step: "api:debug".into(),
                by: step(),
            },
            Event::Copying {
                step: step(),
                from: "gcr.io/lattice-dev/stable-api".into(),
            },
            Event::Settled {
                step: step(),
                how: Settled::Copied { from: "stable".into() },
            },
            Event::Pushing {
                step: step(),
                reference: REFERENCE.into(),
            },
            Event::Uploading {
                step: step(),
                sent: 500_000,
                total: 2_000_000,
            },
            Event::Pushed {
                step: step(),
                digest: digest("2"),
                elapsed,
            },
            Event::PushFailed {
                step: step(),
                message: "denied".into(),
            },
        ]
    }

    fn fates() -> Vec<Fate> {
        let problem = || Problem::failed("denied").hint("docker login gcr.io").into();
        vec![
            Fate::Pushed {
                id: digest("1"),
                digest: digest("2"),
                bytes: Some(2_000_000),
            },
            Fate::Built { id: digest("1") },
            Fate::UpToDate { digest: digest("2") },
            Fate::Found { digest: digest("2") },
            Fate::Copied {
                digest: digest("2"),
                from: "stable".into(),
            },
            Fate::BuildFailed { problem: problem() },
            Fate::PushFailed { problem: problem() },
            Fate::Blocked { by: "base".into() },
            Fate::Stopped,
        ]
    }

    #[test]
    fn lines_are_as_documented() {
        let named = |variant: &str| Named {
            image: "api".into(),
            variant: variant.into(),
        };
        let (api, debug) = (named("normal"), named("debug"));
        let line = |of: Option<&Named>, what| super::line(TIME, of, what);
        let planned = What::Planned {
            reference: REFERENCE.into(),
            push: true,
        };
        let mut lines = vec![line(None, What::Begin { format: FORMAT }), line(Some(&api), planned)];
        lines.extend(events().iter().map(|event| {
            let of = event.step().map(|step| if step == "api" { &api } else { &debug });
            line(of, event.into())
        }));
        lines.extend(fates().iter().map(|fate| {
            let log = matches!(fate, Fate::BuildFailed { .. }).then(|| "/home/kevin/.cache/lattice-images/logs/1/api.log".to_owned());
            let result = What::Result {
                reference: REFERENCE.into(),
                published: fate.digest().is_some(),
                seconds: rounded(12.345_678),
                outcome: fate.into(),
                log,
            };
            line(Some(&api), result)
        }));
        let error = Problem::failed("1 of 1 images failed").hint("read the log").into();
        lines.push(line(None, What::Error(Failure::from(&error))));

        let page = include_str!("../../docs/progress.md");
        let documented: Vec<_> = page.lines().filter(|line| line.starts_with('{')).collect();
        assert_eq!(lines.join("\n"), documented.join("\n"));
    }
}
