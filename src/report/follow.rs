//! How what is shown in a terminal or as lines goes along with the events.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};

use super::logs::Logs;
use crate::event::Event;

pub enum Moment<'e> {
    Event(&'e Event),
    Tick,
}

/// Until the last sender of events is gone; with a tick at every `period`.
pub async fn follow(mut events: UnboundedReceiver<Event>, period: Duration, logs: &mut Logs, mut show: impl FnMut(Moment<'_>, &Logs)) {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { break };
                logs.keep(&event);
                show(Moment::Event(&event), logs);
            }
            _ = tick.tick() => show(Moment::Tick, logs),
        }
    }
}
