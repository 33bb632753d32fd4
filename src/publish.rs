//! Which image is pushed when: a layer that several images share is sent with one of them, and the others wait for it.
//!
//! Two images with the same new layer, pushed at once, compress and send it twice.

use std::collections::BTreeSet;
use std::future::Future;

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::execute::{Limits, OnFailure, Outcome};

/// Runs one `push(index)` for each element of `layers`, which holds the layers of each image.
pub async fn push_all<T, P, F>(layers: &[&[String]], limits: &Limits, push: P) -> Vec<Outcome<T>>
where
    P: Fn(usize) -> F,
    F: Future<Output = Result<T, anyhow::Error>>,
{
    let cancel = limits.cancel.child_token();
    let mut outcomes: Vec<Option<Outcome<T>>> = layers.iter().map(|_| None).collect();
    let mut waiting: Vec<usize> = (0..layers.len()).collect();
    let mut sent: BTreeSet<&str> = BTreeSet::new();
    let mut sending: BTreeSet<&str> = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < limits.jobs && !cancel.is_cancelled() {
            let is_free = |image: &usize| layers[*image].iter().all(|layer| !sending.contains(layer.as_str()));
            let Some(position) = waiting.iter().position(is_free) else { break };
            let image = waiting.remove(position);
            let new: Vec<&str> = layers[image]
                .iter()
                .map(String::as_str)
                .filter(|layer| !sent.contains(layer))
                .collect();
            sending.extend(&new);
            let (pushing, cancel) = (push(image), &cancel);
            running.push(async move {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => (image, new, Outcome::Stopped),
                    result = pushing => (image, new, result.map_or_else(Outcome::Failed, Outcome::Done)),
                }
            });
        }
        let Some((image, new, outcome)) = running.next().await else { break };
        for layer in new {
            sending.remove(layer);
            if matches!(outcome, Outcome::Done(_)) {
                sent.insert(layer);
            }
        }
        if matches!(outcome, Outcome::Failed(_)) && limits.on_failure == OnFailure::Stop {
            cancel.cancel();
        }
        outcomes[image] = Some(outcome);
    }
    outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Stopped)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn a_shared_layer_is_sent_with_one_image_and_the_others_wait() {
        let layers: Vec<Vec<String>> = [["base", "a"], ["base", "b"], ["other", "c"]]
            .iter()
            .map(|image| image.map(str::to_owned).to_vec())
            .collect();
        let layers: Vec<&[String]> = layers.iter().map(Vec::as_slice).collect();
        let log = RefCell::new(Vec::new());
        let limits = Limits {
            jobs: 3,
            on_failure: OnFailure::KeepGoing,
            cancel: CancellationToken::new(),
        };
        let outcomes = push_all(&layers, &limits, |image| {
            let log = &log;
            async move {
                log.borrow_mut().push(format!("+{image}"));
                tokio::task::yield_now().await;
                log.borrow_mut().push(format!("-{image}"));
                Ok(())
            }
        })
        .await;
        assert!(outcomes.iter().all(|outcome| outcome.done().is_some()));
        let log = log.into_inner();
        let at = |event: &str| log.iter().position(|logged| logged == event).expect(event);
        assert!(at("+1") > at("-0"), "{log:?}");
        assert!(at("+2") < at("-0"), "{log:?}");
    }
}
