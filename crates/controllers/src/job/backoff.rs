//! How long a Job waits after failures before it tries again. Source: `backoff_utils.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::count;
use super::failure_policy::{Meaning, meaning};
use super::model::Target;
use crate::pod;

/// Longest pause. Source: `MaxJobPodFailureBackOff`.
const LONGEST: Duration = Duration::from_secs(600);

/// The pause after the first failure; it doubles with each one in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tempo(pub(crate) Duration);

impl Tempo {
    /// What is left of the pause after so many failures in a row, the last one at `at`.
    pub(crate) fn left(self, failures: u32, at: Timestamp, now: Timestamp) -> Option<Duration> {
        let doublings = failures.checked_sub(1)?.min(31);
        let pause = self.0.saturating_mul(1 << doublings).min(LONGEST);
        let since = Duration::try_from(now.duration_since(at)).unwrap_or_default();
        pause.checked_sub(since).filter(|left| !left.is_zero())
    }
}

/// What is left of the pause after the last failures of the Job.
pub(crate) fn left(
    target: &Target,
    owned: &[Arc<Pod>],
    tempo: Tempo,
    now: Timestamp,
) -> Option<Duration> {
    let last_success = owned
        .iter()
        .filter(|pod| pod::phase(pod) == "Succeeded")
        .map(|pod| ended_at(pod))
        .max();
    let failures = owned
        .iter()
        .filter(|pod| count::is_failed(target, pod) && meaning(target, pod) != Meaning::Ignore)
        .map(|pod| ended_at(pod))
        .filter(|at| last_success.is_none_or(|success| *at > success));
    let failures: Vec<Timestamp> = failures.collect();
    let last = failures.iter().max()?;
    tempo.left(
        u32::try_from(failures.len()).unwrap_or(u32::MAX),
        *last,
        now,
    )
}

/// When the last container of a Pod ended; without one, when its deletion or its life began.
pub(crate) fn ended_at(pod: &Pod) -> Timestamp {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|container| {
        container
            .state
            .as_ref()?
            .terminated
            .as_ref()?
            .finished_at
            .as_ref()
            .map(|time| time.0)
    });
    let meta = &pod.metadata;
    let other = meta
        .deletion_timestamp
        .as_ref()
        .or(meta.creation_timestamp.as_ref())
        .map(|time| time.0);
    ends.max().or(other).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_minutes() {
        let tempo = Tempo(Duration::from_secs(10));
        let at: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let left = |failures, after: u64| tempo.left(failures, at, at + Duration::from_secs(after));
        assert_eq!(left(0, 0), None);
        assert_eq!(left(1, 4), Some(Duration::from_secs(6)));
        assert_eq!(left(1, 10), None);
        assert_eq!(left(3, 0), Some(Duration::from_secs(40)));
        assert_eq!(left(50, 0), Some(LONGEST));
    }
}
