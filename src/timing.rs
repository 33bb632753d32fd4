//! The parts of a run, for whoever wants to know where its time goes. They are spans of `tracing`, which cost nothing unless
//! they are recorded.

use tracing::{Span, info_span};

/// The target of these spans. They are no context for lines of the log.
pub const TARGET: &str = "lattice_images::timing";
/// What these spans tell.
pub const NAME: &str = "name";
pub const STEP: &str = "step";

/// A part of what the whole run does.
#[must_use]
pub fn part(name: &'static str) -> Span {
    part_of("", name)
}

/// A part of what is done for one step.
#[must_use]
pub fn part_of(step: &str, name: &'static str) -> Span {
    // a part ends by itself, whatever it has begun meanwhile
    info_span!(target: TARGET, parent: None, "part", name, step)
}
