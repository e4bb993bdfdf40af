//! Waiting for a condition. Tests never sleep for a fixed time: that is too long on a fast machine and too short
//! on a slow one.

use std::thread;
use std::time::{Duration, Instant};

/// The pause after the first try; it doubles from try to try.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Tries `condition` until it holds and returns its value.
///
/// # Panics
/// When it does not hold within `limit`: with `what`, and the reason that the last try gave for why not.
#[track_caller]
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(reason) if start.elapsed() >= limit => {
                panic!(
                    "waited {:.1?} for {what}; at last: {reason}",
                    start.elapsed()
                )
            }
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// [`wait_until`] for a condition that has to be awaited.
///
/// # Panics
/// As [`wait_until`] does.
pub async fn wait_until_async<T, F>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(reason) if start.elapsed() >= limit => {
                panic!(
                    "waited {:.1?} for {what}; at last: {reason}",
                    start.elapsed()
                )
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_returned_as_soon_as_the_condition_holds() {
        let mut tries = 0;
        let value = wait_until("three tries", Duration::from_secs(10), || {
            tries += 1;
            if tries == 3 {
                Ok(tries)
            } else {
                Err(format!("{tries} so far"))
            }
        });
        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "for the moon; at last: still not here")]
    fn a_condition_that_never_holds_is_reported_with_its_last_reason() {
        wait_until("the moon", Duration::from_millis(5), || {
            Err::<(), _>("still not here".to_owned())
        });
    }
}
