//! Progress for a person at a terminal: one line an image, redrawn in place.

mod layout;
mod screen;
mod state;

use std::io;
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use tokio::sync::mpsc::UnboundedReceiver;

use super::follow::{Moment, follow};
use super::logs::Logs;
use super::plain::clean;
use super::{RED, YELLOW};
use crate::event::Event;
use layout::{Size, layout};
use screen::Screen;
pub use state::State;

const FRAME: Duration = Duration::from_millis(100);
/// While it is resized nothing is drawn: a terminal may be of another size already than it says. tmux tells of a resize
/// up to 250 ms late where one has just been.
const SETTLING: Duration = Duration::from_millis(300);
const USUAL: Size = Size { columns: 80, rows: 24 };

pub async fn render(events: UnboundedReceiver<Event>, mut state: State, mut logs: Logs) -> Logs {
    let colour = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let (mut last_size, mut settled) = (size(), Instant::now());
    let mut screen = Screen::new(io::stderr(), colour, last_size);
    // what is said between two frames
    let mut said = Vec::new();
    let show = |moment: Moment<'_>, logs: &Logs| match moment {
        Moment::Event(event) => {
            state.apply(event, Instant::now());
            say(event, logs, colour, &mut said);
        }
        Moment::Tick => {
            let (size, now) = (size(), Instant::now());
            if size != last_size {
                (last_size, settled) = (size, now + SETTLING);
            }
            if now >= settled {
                // a terminal that is gone is no failure
                let _ = screen.frame(&said, &layout(&state.images, size, now), size);
                said.clear();
            }
        }
    };
    follow(events, FRAME, &mut logs, show).await;
    let _ = screen.frame(&said, &[], size());
    logs
}

/// What stays to be read: notes, and how the log of a failed build ends.
fn say(event: &Event, logs: &Logs, colour: bool, said: &mut Vec<String>) {
    let painted = |style: anstyle::Style, text: &str| {
        if colour {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    };
    match event {
        Event::Note { step, text } => {
            let of = step.as_ref().map(|step| format!("{step}: ")).unwrap_or_default();
            said.push(format!("{}: {of}{}", painted(YELLOW, "note"), clean(text)));
        }
        Event::BuildFailed { step, .. } => {
            said.push(format!("{} {step}, the end of its log:", painted(RED, "failed")));
            said.extend(logs.tail(step).map(|line| format!("  | {line}")));
        }
        _ => {}
    }
}

fn size() -> Size {
    let Some((width, height)) = terminal_size::terminal_size_of(io::stderr()) else {
        return USUAL;
    };
    let or = |found: u16, usual: usize| if found == 0 { usual } else { usize::from(found) };
    Size {
        columns: or(width.0, USUAL.columns),
        rows: or(height.0, USUAL.rows),
    }
}
