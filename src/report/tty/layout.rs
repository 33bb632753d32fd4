//! Lines for a terminal: a pure function of the images, the terminal's size and the time.

use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

use super::state::{Doing, Image};
use crate::report::RED;
use crate::report::outcome::size;
use crate::report::width::{end_cut, middle_cut, width};

const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const PLAIN: Style = Style::new();
const GAP: &str = "  ";
const TIME: usize = 7;

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The label and, where there is room, the time.
    head: String,
    style: Style,
    doing: String,
}

impl Line {
    /// How many columns it takes.
    pub fn width(&self) -> usize {
        width(&self.head) + width(&self.doing)
    }

    pub fn text(&self, colour: bool) -> String {
        let style = if colour { self.style } else { PLAIN };
        format!("{}{style}{}{style:#}", self.head, self.doing)
    }
}

/// In the order in which they are shown where not all can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Running,
    Failed,
    Waiting,
    NotBuilt,
    Done,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Running, "running"),
    (Kind::Failed, "failed"),
    (Kind::Waiting, "waiting"),
    (Kind::NotBuilt, "not built"),
    (Kind::Done, "done"),
];

fn kind(image: &Image) -> Kind {
    match image.doing {
        Doing::Building { .. } | Doing::Copying { .. } | Doing::Pushing(_) => Kind::Running,
        Doing::Waiting => Kind::Waiting,
        Doing::Built if image.publish => Kind::Waiting,
        Doing::Built | Doing::Pushed { .. } | Doing::Settled(_) => Kind::Done,
        Doing::Failed(_) => Kind::Failed,
        Doing::NotBuilt { .. } => Kind::NotBuilt,
    }
}

/// At most one line less than there are rows, each at most one column less than there are: what ends at the edge of a
/// terminal, some wrap.
pub fn layout(images: &[Image], terminal: Size, now: Instant) -> Vec<Line> {
    let columns = terminal.columns.saturating_sub(1);
    let room = terminal.rows.saturating_sub(1).max(1);
    let longest = images.iter().map(|image| width(&image.label)).max().unwrap_or(0);
    let label = longest.min(if has_times(columns) { columns * 2 / 5 } else { columns / 3 });
    let line = |image: &Image| line(image, label, columns, now);
    if images.len() <= room {
        return images.iter().map(line).collect();
    }
    let mut order: Vec<&Image> = images.iter().collect();
    order.sort_by_key(|image| kind(image));
    let (shown, rest) = order.split_at(room - 1);
    let mut lines: Vec<_> = shown.iter().map(|image| line(image)).collect();
    lines.push(summary(rest, columns));
    lines
}

fn line(image: &Image, label: usize, columns: usize, now: Instant) -> Line {
    let mut head = padded(&middle_cut(&image.label, label), label) + GAP;
    if has_times(columns) {
        head += &format!("{:>TIME$}{GAP}", time(image, now));
    }
    let head = end_cut(&head, columns);
    let room = columns.saturating_sub(width(&head));
    let (style, doing) = doing(image, now, room);
    let doing = end_cut(&doing, room);
    Line { head, style, doing }
}

/// A narrow terminal has no room for them.
fn has_times(columns: usize) -> bool {
    columns >= 59
}

fn summary(rest: &[&Image], columns: usize) -> Line {
    let count = |of: Kind| rest.iter().filter(|image| kind(image) == of).count();
    let counts = KINDS.map(|(kind, name)| (count(kind), name));
    let counts: Vec<_> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    Line {
        head: String::new(),
        style: DIM,
        doing: end_cut(&format!("… and {} more ({})", rest.len(), counts.join(", ")), columns),
    }
}

fn doing(image: &Image, now: Instant, room: usize) -> (Style, String) {
    let built = if image.cached { "cached" } else { "built" };
    let fitting = |long: String, short: String| (PLAIN, if width(&long) <= room { long } else { short });
    match &image.doing {
        Doing::Waiting => (DIM, "waiting".to_owned()),
        Doing::Building { sent, total, .. } if sent < total => {
            let (sent, total) = (size(*sent), size(*total));
            fitting(format!("context {sent} of {total}"), format!("{sent} of {total}"))
        }
        Doing::Building { at: Some(at), .. } => (PLAIN, at.clone()),
        Doing::Building { .. } => (PLAIN, "reading the context".to_owned()),
        Doing::Built if image.publish => (GREEN, format!("{built}, not yet pushed")),
        Doing::Built => (GREEN, built.to_owned()),
        Doing::Pushing(upload) if upload.total == 0 => (PLAIN, "pushing".to_owned()),
        Doing::Pushing(upload) => {
            let (sent, total, speed) = (size(upload.sent), size(upload.total), size(upload.speed(now)));
            fitting(format!("pushing {sent} of {total}, {speed}/s"), format!("push {sent}, {speed}/s"))
        }
        Doing::Pushed { bytes: 0 } => (GREEN, format!("done: {built}, pushed")),
        Doing::Pushed { bytes } => (GREEN, format!("done: {built}, pushed {}", size(*bytes))),
        Doing::Copying { from } => (PLAIN, format!("copying from {from}")),
        Doing::Settled(how) => (GREEN, how.to_string()),
        Doing::Failed(message) => (RED, format!("failed: {message}")),
        Doing::NotBuilt { by } => (RED, format!("not built because {by} failed")),
    }
}

fn time(image: &Image, now: Instant) -> String {
    let running = image.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
    let seconds = (image.took + running).as_secs();
    match (&image.doing, seconds) {
        (Doing::Waiting | Doing::Settled(_) | Doing::NotBuilt { .. }, _) => String::new(),
        (_, 0..60) => format!("{seconds} s"),
        _ => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}

fn padded(text: &str, columns: usize) -> String {
    text.to_owned() + &" ".repeat(columns.saturating_sub(width(text)))
}

#[cfg(test)]
mod tests {
    use super::super::state::State;
    use super::*;
    use crate::event::{Event, Instruction};
    use proptest::prelude::*;

    const WIDE: Size = Size { columns: 80, rows: 24 };
    const NARROW: Size = Size { columns: 40, rows: 12 };

    fn instruction(step: &str, stage: Option<&str>, text: &str) -> Event {
        Event::Instruction {
            step: step.into(),
            instruction: Instruction {
                stage: stage.map(str::to_owned),
                number: 2,
                total: 5,
                text: text.into(),
            },
        }
    }

    fn built(step: &str, cached: bool) -> Event {
        Event::Built {
            step: step.into(),
            id: format!("sha256:{}", "0".repeat(64)).parse().expect("a digest"),
            cached,
            elapsed: Duration::ZERO,
        }
    }

    fn building(step: &str) -> Event {
        Event::Building { step: step.into() }
    }

    /// The lines at a size, 75 s after all these events.
    fn shown(labels: &[&str], events: &[Event], terminal: Size) -> Vec<String> {
        let mut state = State::of(labels.iter().map(|label| ((*label).to_owned(), !label.starts_with("base"))));
        let begin = Instant::now();
        for event in events {
            state.apply(event, begin);
        }
        let lines = layout(&state.images, terminal, begin + Duration::from_secs(75));
        lines.iter().map(|line| line.text(false)).collect()
    }

    const LABELS: [&str; 8] = [
        "base-x",
        "api",
        "web",
        "kubernetes-envoy-xds-api-rest-per-node:debug",
        "a",
        "b",
        "c",
        "d",
    ];

    fn events() -> Vec<Event> {
        vec![
            building("base-x"),
            built("base-x", true),
            building("api"),
            Event::Sending {
                step: "api".into(),
                sent: 12_340_000,
                total: 45_000_000,
            },
            instruction("api", None, "COPY x /x"),
            building("web"),
            instruction("web", Some("build"), "RUN make -C /src/somewhere all the targets there are in it"),
            Event::Pushing {
                step: "kubernetes-envoy-xds-api-rest-per-node:debug".into(),
                reference: "r".into(),
            },
            Event::Uploading {
                step: "kubernetes-envoy-xds-api-rest-per-node:debug".into(),
                sent: 7_500_000,
                total: 10_000_000,
            },
            building("a"),
            Event::BuildFailed {
                step: "a".into(),
                message: "exit\tcode: 1\u{1b}[2J".into(),
            },
            Event::Blocked {
                step: "b".into(),
                by: "a".into(),
            },
            built("c", false),
        ]
    }

    #[test]
    fn at_80_columns() {
        assert_eq!(
            shown(&LABELS, &events(), WIDE),
            [
                "base-x                               0 s  cached",
                "api                                1m15s  context 12.3 MB of 45.0 MB",
                "web                                1m15s  step build 2/5 RUN make -C /src/some…",
                "kubernetes…-rest-per-node:debug    1m15s  pushing 7.5 MB of 10.0 MB, 0 B/s",
                "a                                    0 s  failed: exit code: 1",
                "b                                         not built because a failed",
                "c                                    0 s  built, not yet pushed",
                "d                                         waiting",
            ]
        );
    }

    #[test]
    fn at_40_columns() {
        assert_eq!(
            shown(&LABELS, &events(), NARROW),
            [
                "base-x         cached",
                "api            12.3 MB of 45.0 MB",
                "web            step build 2/5 RUN make…",
                "kube…de:debug  push 7.5 MB, 0 B/s",
                "a              failed: exit code: 1",
                "b              not built because a fai…",
                "c              built, not yet pushed",
                "d              waiting",
            ]
        );
    }

    #[test]
    fn with_more_images_than_rows_the_running_ones_are_shown_and_the_rest_counted() {
        let terminal = Size { columns: 80, rows: 5 };
        let lines = shown(&LABELS, &events(), terminal);
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("api ") && lines[1].starts_with("web ") && lines[2].starts_with("kube"));
        assert_eq!(lines[3], "… and 5 more (1 failed, 2 waiting, 1 not built, 1 done)");
        assert_eq!(shown(&LABELS, &events(), Size { columns: 80, rows: 9 }).len(), 8);
        assert_eq!(
            shown(&LABELS, &events(), Size { columns: 80, rows: 1 }),
            ["… and 8 more (3 running, 1 failed, 2 waiting, 1 not built, 1 done)"]
        );
    }

    #[test]
    fn wide_characters_are_counted_as_the_terminal_does() {
        let events = [building("a"), instruction("a", None, &"日本語".repeat(20))];
        let line = &shown(&["a"], &events, NARROW)[0];
        assert_eq!(width(line), 39, "{line}");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_or_higher_than_the_terminal(
            columns in 1usize..120, rows in 1usize..12, text in any::<String>(), label in "\\PC{0,60}", images in 0usize..15,
        ) {
            let labels: Vec<String> = (0..images).map(|number| format!("{label}{number}")).collect();
            let mut state = State::of(labels.iter().map(|label| (label.clone(), true)));
            let now = Instant::now();
            for label in &labels {
                state.apply(&building(label), now);
                state.apply(&instruction(label, None, &text), now);
            }
            let lines = layout(&state.images, Size { columns, rows }, now);
            prop_assert!(lines.len() <= rows.saturating_sub(1).max(1));
            for line in lines {
                prop_assert!(line.width() < columns.max(2), "{line:?}");
                prop_assert!(!line.text(false).chars().any(char::is_control), "{line:?}");
            }
        }
    }
}
