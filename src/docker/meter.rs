//! How far something that takes long has come, told often enough for a person and no oftener.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

const EVERY: Duration = Duration::from_millis(100);

/// Does `work`. What `read` gives, bytes done and bytes in all, is told at most ten times a second where it changed, and at the end.
pub(super) async fn metered<T>(work: impl Future<Output = T>, read: impl Fn() -> (u64, u64), tell: impl Fn(u64, u64)) -> T {
    let mut work = Box::pin(work);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = (0, 0);
    let mut tell_change = || {
        let now = read();
        if now != told {
            told = now;
            tell(now.0, now.1);
        }
    };
    loop {
        tokio::select! {
            biased;
            result = &mut work => {
                tell_change();
                return result;
            }
            _ = tick.tick() => tell_change(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::metered;
    use std::cell::{Cell, RefCell};

    #[tokio::test]
    async fn what_is_reached_at_the_end_is_told_once() {
        let (reached, told) = (Cell::new((0, 0)), RefCell::new(Vec::new()));
        let work = async {
            for sent in 1..=1000 {
                reached.set((sent, 1000));
                tokio::task::yield_now().await;
            }
            "done"
        };
        let result = metered(work, || reached.get(), |sent, total| told.borrow_mut().push((sent, total))).await;
        assert_eq!(result, "done");
        let told = told.into_inner();
        assert_eq!(told.last(), Some(&(1000, 1000)));
        assert!(told.len() < 50, "{told:?}");
        assert!(told.is_sorted_by(|a, b| a < b));
    }

    #[tokio::test]
    async fn where_nothing_moves_nothing_is_told() {
        metered(async {}, || (0, 0), |_, _| panic!("told")).await;
    }
}
