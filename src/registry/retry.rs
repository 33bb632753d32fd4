//! Trying again what may fare better: a few times, a little later each time.

use std::future::Future;
use std::time::Duration;

use tracing::debug;

use super::error::{Again, Error};

const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A registry that asks for a longer pause than this is given up.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(super) async fn retried<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut tried = 1;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Some(pause) = pause(error.worth(), tried) else {
            // whoever tries something larger again need not try this again
            return Err(error.again(Again::Never));
        };
        debug!("{error}; trying again in {pause:?}");
        tokio::time::sleep(pause).await;
        tried += 1;
    }
}

fn pause(again: Again, tried: u32) -> Option<Duration> {
    if tried == TRIES {
        return None;
    }
    let own = FIRST_PAUSE * 2_u32.pow(tried - 1);
    match again {
        Again::Never => None,
        Again::Once => (tried == 1).then(|| jittered(own)),
        Again::Soon => Some(jittered(own)),
        Again::After(asked) => (asked <= LONGEST_PAUSE).then(|| asked.max(jittered(own))),
    }
}

/// Between a half and the whole of `pause`, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // without random bytes there is no jitter
    let _ = getrandom::fill(&mut byte);
    pause.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for tried in 1..TRIES {
            let whole = FIRST_PAUSE * 2_u32.pow(tried - 1);
            let soon = pause(Again::Soon, tried).expect("worth it");
            assert!(soon >= whole / 2 && soon <= whole, "{soon:?}");
        }
        assert_eq!(pause(Again::After(Duration::from_secs(3)), 1), Some(Duration::from_secs(3)));
        assert!(pause(Again::After(Duration::ZERO), 1).expect("worth it") >= FIRST_PAUSE / 2);
        assert_eq!(pause(Again::After(LONGEST_PAUSE * 2), 1), None);
        assert_eq!(pause(Again::Never, 1), None);
        assert_eq!(pause(Again::Soon, TRIES), None);
        assert!(pause(Again::Once, 1).is_some() && pause(Again::Once, 2).is_none());
    }
}
