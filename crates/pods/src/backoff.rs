//! Waiting longer after every failure: the kubelet's back-off, without its clock.
//! Source: `k8s.io/client-go/util/flowcontrol/backoff.go` and the kubelet's `doBackOff`.

use jiff::{SignedDuration, Timestamp};

/// Delay before the second restart or pull.
pub const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(10);
/// The longest delay between restarts or pulls.
pub const LONGEST_DELAY: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long is taken as recovered, and its delays start again from the first.
pub const RECOVERED_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// One delay that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// How long to wait now.
    pub delay: SignedDuration,
    /// When `delay` was last raised.
    pub raised_at: Timestamp,
}

impl BackOff {
    /// The delay after a failure at `failed_at` that is acted upon at `now`.
    pub fn next(previous: Option<BackOff>, failed_at: Timestamp, now: Timestamp) -> BackOff {
        let delay = match previous {
            Some(entry) if failed_at.duration_since(entry.raised_at) <= RECOVERED_AFTER => {
                (entry.delay * 2).min(LONGEST_DELAY)
            }
            _ => FIRST_DELAY,
        };
        BackOff {
            delay,
            raised_at: now,
        }
    }

    /// When the container that ended at `failed_at` may be started again; `None` for now.
    pub fn restart_at(
        entry: Option<BackOff>,
        failed_at: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let entry = entry?;
        if failed_at.duration_since(entry.raised_at) > RECOVERED_AFTER {
            return None;
        }
        let at = failed_at.checked_add(entry.delay).ok()?;
        (at > now).then_some(at)
    }
}

/// A duration as Go prints it, whole seconds: `10s`, `1m20s`, `5m0s`.
pub fn go_seconds(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn delays_double_up_to_five_minutes() {
        let mut entry = None;
        let mut now = at(0);
        let mut delays = Vec::new();
        for _ in 0..7 {
            let next = BackOff::next(entry, now, now);
            delays.push(next.delay.as_secs());
            entry = Some(next);
            now += next.delay;
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn the_first_restart_is_at_once_and_the_second_waits() {
        assert_eq!(BackOff::restart_at(None, at(5), at(5)), None);
        let entry = BackOff::next(None, at(5), at(5));
        assert_eq!(BackOff::restart_at(Some(entry), at(6), at(7)), Some(at(16)));
        assert_eq!(BackOff::restart_at(Some(entry), at(6), at(16)), None);
    }

    #[test]
    fn ten_good_minutes_forget_the_failures_before() {
        let entry = BackOff {
            delay: LONGEST_DELAY,
            raised_at: at(0),
        };
        assert_eq!(BackOff::restart_at(Some(entry), at(601), at(601)), None);
        assert_eq!(
            BackOff::next(Some(entry), at(601), at(601)).delay,
            FIRST_DELAY
        );
        assert_eq!(
            BackOff::next(Some(entry), at(600), at(600)).delay,
            LONGEST_DELAY
        );
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (seconds, text) in [
            (0, "0s"),
            (10, "10s"),
            (80, "1m20s"),
            (300, "5m0s"),
            (3600, "1h0m0s"),
        ] {
            assert_eq!(go_seconds(SignedDuration::from_secs(seconds)), text);
        }
    }
}
