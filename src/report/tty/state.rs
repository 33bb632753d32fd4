//! What each image is doing, as far as a person wants to see it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::event::{Event, Settled};
use crate::plan::Plan;
use crate::report::plain::clean;

/// Speed is that of so long.
const WINDOW: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Image {
    pub label: String,
    pub publish: bool,
    pub doing: Doing,
    /// The build came from the builder's cache.
    pub cached: bool,
    /// When what it is doing now began, where it is doing anything.
    pub begun: Option<Instant>,
    /// What is done took so long.
    pub took: Duration,
}

#[derive(Debug)]
pub enum Doing {
    Waiting,
    Building { sent: u64, total: u64, at: Option<String> },
    Built,
    Pushing(Upload),
    Pushed { bytes: u64 },
    Copying { from: String },
    Settled(Settled),
    Failed(String),
    NotBuilt { by: String },
}

#[derive(Debug)]
pub struct Upload {
    pub sent: u64,
    pub total: u64,
    /// When how much had been sent, the oldest first.
    samples: VecDeque<(Instant, u64)>,
}

impl Upload {
    pub fn new(now: Instant) -> Self {
        Self {
            sent: 0,
            total: 0,
            samples: VecDeque::from([(now, 0)]),
        }
    }

    pub fn reach(&mut self, sent: u64, total: u64, now: Instant) {
        (self.sent, self.total) = (sent, total);
        self.samples.push_back((now, sent));
        while self.samples.get(1).is_some_and(|(time, _)| now.duration_since(*time) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Bytes a second.
    pub fn speed(&self, now: Instant) -> u64 {
        let old = self.samples.iter().rev().find(|(time, _)| now.duration_since(*time) >= WINDOW);
        let Some((time, sent)) = old.or_else(|| self.samples.front()) else {
            return 0;
        };
        let milliseconds = u64::try_from(now.duration_since(*time).as_millis()).unwrap_or(u64::MAX);
        (self.sent.saturating_sub(*sent) * 1000).checked_div(milliseconds).unwrap_or(0)
    }
}

/// The images of a run, in the order of its plan.
#[derive(Debug)]
pub struct State {
    pub images: Vec<Image>,
    by_label: BTreeMap<String, usize>,
}

impl State {
    pub fn new(plan: &Plan) -> Self {
        Self::of(plan.steps.iter().map(|step| (step.label(), step.publish)))
    }

    pub fn of(steps: impl IntoIterator<Item = (String, bool)>) -> Self {
        let image = |(label, publish)| Image {
            label,
            publish,
            doing: Doing::Waiting,
            cached: false,
            begun: None,
            took: Duration::ZERO,
        };
        let images: Vec<_> = steps.into_iter().map(image).collect();
        let by_label = images
            .iter()
            .enumerate()
            .map(|(index, image)| (image.label.clone(), index))
            .collect();
        Self { images, by_label }
    }

    pub fn apply(&mut self, event: &Event, now: Instant) {
        let index = event.step().and_then(|step| self.by_label.get(step));
        if let Some(index) = index {
            self.images[*index].apply(event, now);
        }
    }
}

impl Image {
    fn apply(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Building { .. } => {
                self.begun = Some(now);
                self.doing = Doing::Building {
                    sent: 0,
                    total: 0,
                    at: None,
                };
            }
            Event::Sending { sent, total, .. } => {
                if let Doing::Building { sent: s, total: t, .. } = &mut self.doing {
                    (*s, *t) = (*sent, *total);
                }
            }
            Event::Instruction { instruction, .. } => {
                if let Doing::Building { at, .. } = &mut self.doing {
                    *at = Some(clean(&format!("step {instruction}")));
                }
            }
            Event::Built { cached, .. } => {
                self.cached = *cached;
                self.end(Doing::Built, now);
            }
            Event::Copying { from, .. } => {
                self.begun = Some(now);
                self.doing = Doing::Copying { from: from.clone() };
            }
            Event::Settled { how, .. } => self.end(Doing::Settled(how.clone()), now),
            Event::Pushing { .. } => {
                self.begun = Some(now);
                self.doing = Doing::Pushing(Upload::new(now));
            }
            Event::Uploading { sent, total, .. } => {
                if let Doing::Pushing(upload) = &mut self.doing {
                    upload.reach(*sent, *total, now);
                }
            }
            Event::Pushed { .. } => {
                let bytes = if let Doing::Pushing(upload) = &self.doing { upload.sent } else { 0 };
                self.end(Doing::Pushed { bytes }, now);
            }
            Event::BuildFailed { message, .. } | Event::PushFailed { message, .. } => self.end(Doing::Failed(clean(message)), now),
            Event::Blocked { by, .. } => self.end(Doing::NotBuilt { by: by.clone() }, now),
            Event::Note { .. } | Event::Cached { .. } | Event::Output { .. } => {}
        }
    }

    fn end(&mut self, doing: Doing, now: Instant) {
        if let Some(begun) = self.begun.take() {
            self.took += now.duration_since(begun);
        }
        self.doing = doing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_that_of_the_last_seconds() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut upload = Upload::new(begin);
        assert_eq!(upload.speed(begin), 0);
        upload.reach(1_000, 9_000, at(1));
        assert_eq!(upload.speed(at(1)), 1_000);
        for second in 2..=8 {
            upload.reach(second * 1_000, 9_000, at(second));
        }
        assert_eq!(upload.speed(at(8)), 1_000);
        assert!(upload.samples.len() < 6);
        assert_eq!(upload.speed(at(20)), 0);
    }
}
