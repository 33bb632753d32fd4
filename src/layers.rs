//! A layer that several images share is sent with one of them, and the others wait for it.
//!
//! Two images with the same new layer, sent at once, compress and send it twice.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Which layers are on their way, and which have arrived.
#[derive(Debug, Default)]
pub struct Layers {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    sending: BTreeSet<String>,
    sent: BTreeSet<String>,
}

impl Layers {
    /// Runs `send`, which sends an image with these layers, when none of them is on its way with another image.
    ///
    /// # Errors
    /// That of `send`; its layers go with the next image then.
    pub async fn send<T, E>(&self, layers: &[String], send: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let sending = self.claim(layers).await;
        let result = send.await;
        if result.is_ok() {
            self.lock().sent.extend(sending.mine.iter().cloned());
        }
        result
    }

    async fn claim(&self, layers: &[String]) -> Claim<'_> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if layers.iter().all(|layer| !state.sending.contains(layer)) {
                    let mine: Vec<String> = layers.iter().filter(|layer| !state.sent.contains(*layer)).cloned().collect();
                    state.sending.extend(mine.iter().cloned());
                    return Claim { layers: self, mine };
                }
            }
            changed.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layers that one image sends; let go of when that ends, however it does.
struct Claim<'l> {
    layers: &'l Layers,
    mine: Vec<String>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.layers.lock();
        for layer in &self.mine {
            state.sending.remove(layer);
        }
        drop(state);
        self.layers.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    use futures_util::future::join_all;

    async fn sent(images: &[[&str; 2]], fails: usize) -> Vec<String> {
        let (layers, log) = (Layers::default(), RefCell::new(Vec::new()));
        let (of, log_of) = (&layers, &log);
        join_all(images.iter().enumerate().map(async |(image, its)| {
            let its: Vec<String> = its.iter().map(|layer| (*layer).to_owned()).collect();
            let send = async {
                log_of.borrow_mut().push(format!("+{image}"));
                tokio::task::yield_now().await;
                log_of.borrow_mut().push(format!("-{image}"));
                if image == fails { Err(()) } else { Ok(()) }
            };
            of.send(&its, send).await
        }))
        .await;
        log.into_inner()
    }

    #[tokio::test]
    async fn a_shared_layer_is_sent_with_one_image_and_the_others_wait() {
        let log = sent(&[["base", "a"], ["base", "b"], ["other", "c"]], usize::MAX).await;
        let at = |event: &str| log.iter().position(|logged| logged == event).expect(event);
        assert!(at("+1") > at("-0"), "{log:?}");
        assert!(at("+2") < at("-0"), "{log:?}");
    }

    #[tokio::test]
    async fn what_has_arrived_is_waited_for_no_more_and_what_failed_is_sent_again() {
        let log = sent(&[["base", "a"], ["base", "b"], ["base", "c"]], usize::MAX).await;
        let at = |log: &[String], event: &str| log.iter().position(|logged| logged == event).expect(event);
        assert!(
            at(&log, "+2") < at(&log, "-1"),
            "both have only layers of their own to send: {log:?}"
        );
        let log = sent(&[["base", "a"], ["base", "b"], ["base", "c"]], 0).await;
        assert!(at(&log, "+2") > at(&log, "-1"), "the second sends the base: {log:?}");
    }
}
