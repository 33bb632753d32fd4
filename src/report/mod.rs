//! What people see: the only place that prints. Results go to stdout, everything else to stderr.

mod channels;
mod logs;
mod outcome;
mod plain;
mod plan;
mod table;

pub use channels::{backend_vars, channels, env};
pub use logs::Logs;
pub use outcome::{finish, metadata};
pub use plan::plan;

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use anyhow::Error;
use tokio::task::JoinHandle;

use crate::cli::Progress;
use crate::event::Events;
use crate::problem::Problem;

const RED: Style = AnsiColor::Red.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Renders the events of a run until the last sender is gone.
pub struct Reporter(JoinHandle<Logs>);

impl Reporter {
    #[must_use]
    pub fn start(progress: Progress, width: usize, logs: Logs) -> (Events, Self) {
        let (events, receiver) = Events::channel();
        let task = match progress {
            Progress::Plain => tokio::spawn(plain::render(receiver, width, logs)),
            Progress::Quiet => tokio::spawn(plain::keep_logs(receiver, logs)),
        };
        (events, Self(task))
    }

    /// Waits until everything is rendered.
    pub async fn finish(self, events: Events) -> Logs {
        drop(events);
        self.0.await.expect("rendering does not panic")
    }
}

/// An error at the end of the program: its causes in one line, then its hints.
pub fn error(error: &Error) {
    status(format_args!("{RED}error{RED:#}: {error:#}"));
    hints(error);
}

fn hints(error: &Error) {
    let problems = error.chain().filter_map(|cause| cause.downcast_ref::<Problem>());
    for hint in problems.flat_map(Problem::hints) {
        for line in hint.lines() {
            status(format_args!("{CYAN}hint{CYAN:#}: {line}"));
        }
    }
}

pub fn note(text: &str) {
    status(format_args!("{YELLOW}note{YELLOW:#}: {text}"));
}

/// Whether there is a person who could answer.
#[must_use]
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks; anything but a yes is a no.
#[must_use]
pub fn confirm(question: &str) -> bool {
    let mut stderr = anstream::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// A line of the result. A reader that has gone away, as in `| head`, is no failure.
fn result(line: impl Display) {
    let _ = writeln!(anstream::stdout().lock(), "{line}");
}

fn status(line: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}
