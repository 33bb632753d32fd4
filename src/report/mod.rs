//! What people see: the only place that prints. Results go to stdout, everything else to stderr.

mod channels;
mod doctor;
mod follow;
mod form;
mod github;
mod holdings;
mod json;
mod logs;
mod outcome;
mod plain;
mod plan;
mod table;
mod timings;
mod tty;
mod width;

pub use channels::{backend_vars, channels, env};
pub use doctor::{Check, doctor};
pub use form::{Form, choose};
pub use holdings::{
    Between, Comparison, Stand, channel_diff, channel_history, channel_list, channel_show, committed, removed, stands, to_remove,
};
pub use logs::Logs;
pub use outcome::{finish, metadata};
pub use plan::plan;
pub use timings::{Recorder, timings};

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anstyle::{AnsiColor, Style};
use anyhow::Error;
use tokio::task::JoinHandle;

use crate::event::Events;
use crate::plan::Plan;
use crate::problem::Problem;

const RED: Style = AnsiColor::Red.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Renders the events of a run until the last sender is gone.
pub struct Reporter(JoinHandle<Logs>);

impl Reporter {
    #[must_use]
    pub fn start(form: Form, plan: &Plan, logs: Logs) -> (Events, Self) {
        let (events, receiver) = Events::channel();
        *shown() = Some(events.clone());
        let task = match form {
            Form::Tty => tokio::spawn(tty::render(receiver, tty::State::new(plan), logs)),
            Form::Plain => tokio::spawn(plain::render(receiver, plain::Lines::new(plan), logs)),
            Form::GitHub => tokio::spawn(plain::render(receiver, plain::Lines::in_groups(plan), logs)),
            Form::Json => {
                json::planned(plan);
                tokio::spawn(json::render(receiver, json::Names::new(plan), logs))
            }
            Form::Quiet => tokio::spawn(plain::keep_logs(receiver, logs)),
        };
        (events, Self(task))
    }

    /// Waits until everything is rendered.
    pub async fn finish(self, events: Events) -> Logs {
        shown().take();
        drop(events);
        self.0.await.expect("rendering does not panic")
    }
}

/// An error at the end of the program: its causes in one line, then its hints.
pub fn error(error: &Error) {
    if form::chosen() == Form::Json {
        json::error(error);
    } else {
        failure(&format!("{error:#}"));
        hints(error);
    }
}

fn failure(message: &str) {
    match form::chosen() {
        Form::GitHub => status(github::error(message)),
        _ => status(format_args!("{RED}error{RED:#}: {}", lines(message))),
    }
}

fn lines(message: &str) -> String {
    let lines: Vec<_> = message.split('\n').map(plain::clean).collect();
    lines.join("\n")
}

fn hints(error: &Error) {
    for hint in hints_of(error) {
        for line in hint.lines() {
            status(format_args!("{CYAN}hint{CYAN:#}: {}", plain::clean(line)));
        }
    }
}

fn hints_of(error: &Error) -> impl Iterator<Item = String> {
    let problems = error.chain().filter_map(|cause| cause.downcast_ref::<Problem>());
    problems.flat_map(Problem::hints).cloned()
}

/// The run that is being shown: whatever is printed beside it would be in the way of what is redrawn.
fn shown() -> MutexGuard<'static, Option<Events>> {
    static SHOWN: Mutex<Option<Events>> = Mutex::new(None);
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn note(text: &str) {
    if let Some(events) = &*shown() {
        return events.note(text);
    }
    match form::chosen() {
        Form::Json => json::note(text),
        Form::Quiet => {}
        _ => status(note_line(text)),
    }
}

fn note_line(text: &str) -> String {
    format!("{YELLOW}note{YELLOW:#}: {}", plain::clean(text))
}

/// Whether there is a person who could answer.
#[must_use]
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks; anything but a yes is a no.
pub async fn confirm(question: &str) -> bool {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    // elsewhere, so that an interrupt is heard while nobody answers
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        let _ = io::stdin().lock().read_line(&mut answer);
        answer
    });
    let answer = answer.await.unwrap_or_default();
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// A line of the result.
pub fn result(line: impl Display) {
    written(writeln!(anstream::stdout().lock(), "{line}"));
}

/// Text that is the whole result.
pub fn text(text: &[u8]) {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(text).and_then(|()| stdout.flush()));
}

static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// A reader that has gone away, as in `| head`, is no failure.
fn written(done: io::Result<()>) {
    if let Err(error) = done
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = UNWRITTEN.set(error);
    }
}

/// # Errors
/// When a result could not be written.
pub fn delivered() -> Result<(), Error> {
    match UNWRITTEN.get() {
        Some(error) => Err(Problem::failed(format!("the result could not be written: {error}")).into()),
        None => Ok(()),
    }
}

/// What `-v` tells of the trace: a writer of whole lines.
#[derive(Debug)]
pub struct Details;

impl Write for Details {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        String::from_utf8_lossy(lines).lines().for_each(detail);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn detail(line: &str) {
    match form::chosen() {
        Form::Json => json::note(line),
        _ => status(line),
    }
}

fn status(line: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}
