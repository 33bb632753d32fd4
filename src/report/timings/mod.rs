//! Where the time of a run went: a line a part with `-v`, a timeline with `--timings`.

mod chart;
mod critical;

use std::fmt;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Error};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::detail;
use crate::atomic;
use crate::timing::{NAME, STEP, TARGET};

static RECORDED: Mutex<Vec<Part>> = Mutex::new(Vec::new());
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// In seconds since the begin of the run.
#[derive(Clone, Debug, Default, PartialEq)]
struct Part {
    name: String,
    /// Empty where it is of the whole run.
    step: String,
    begin: f64,
    end: f64,
}

impl Part {
    fn seconds(&self) -> f64 {
        self.end - self.begin
    }
}

/// Records the spans of [`crate::timing`].
#[derive(Debug)]
pub struct Recorder {
    /// Whether each is told as it ends.
    tells: bool,
}

impl Recorder {
    #[must_use]
    pub fn new(tells: bool) -> Self {
        LazyLock::force(&BEGIN);
        Self { tells }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() != TARGET {
            return;
        }
        let mut part = Part {
            begin: BEGIN.elapsed().as_secs_f64(),
            ..Part::default()
        };
        attributes.record(&mut part);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(part);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(mut part) = context.span(&id).and_then(|span| span.extensions_mut().remove::<Part>()) else {
            return;
        };
        part.end = BEGIN.elapsed().as_secs_f64();
        if self.tells {
            let step = if part.step.is_empty() {
                String::new()
            } else {
                format!(" {}", part.step)
            };
            detail(&format!("{:6.3} s {}{step}", part.seconds(), part.name));
        }
        RECORDED.lock().unwrap_or_else(PoisonError::into_inner).push(part);
    }
}

impl Visit for Part {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            NAME => value.clone_into(&mut self.name),
            STEP => value.clone_into(&mut self.step),
            _ => {}
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

/// Writes the timeline of what has been recorded, as an HTML file of its own.
///
/// # Errors
/// When the file cannot be written.
pub fn timings(path: &Path) -> Result<(), Error> {
    let mut parts = RECORDED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    parts.sort_by(|left, right| left.begin.total_cmp(&right.begin));
    let html = chart::html(&parts, &critical::path(&parts));
    atomic::write_named(path, html.as_bytes()).with_context(|| format!("writing {}", path.display()))
}
