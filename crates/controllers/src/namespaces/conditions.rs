//! The conditions of a namespace that is being deleted: they tell a user what it waits for.
//!
//! Source of types, reasons and messages: `pkg/controller/namespace/deletion/status_condition_utils.go`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What one round of deleting came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Why not all kinds are known.
    pub(crate) discovery_failure: Option<String>,
    /// What could not be deleted, and why.
    pub(crate) failures: Vec<String>,
    /// Plural (with group) → objects left.
    pub(crate) remaining: BTreeMap<String, usize>,
    /// Finalizer → objects that have it.
    pub(crate) finalizers: BTreeMap<String, usize>,
}

impl Progress {
    /// Nothing is left and nothing is in doubt.
    pub(crate) fn is_complete(&self) -> bool {
        self.discovery_failure.is_none() && self.failures.is_empty() && self.remaining.is_empty()
    }
}

/// The conditions after this round; those that say the same as before keep their time.
pub(crate) fn conditions(
    progress: &Progress,
    present: &[NamespaceCondition],
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let listed = |counts: &BTreeMap<String, usize>, between: &str, after: &str| {
        let parts: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{name} {between} {count} {after}"))
            .collect();
        parts.join(", ")
    };
    let mut all = Vec::new();
    let mut add = |type_: &str, trouble: Option<(&str, String)>, fine: (&str, &str)| {
        let (status, reason, message) = match trouble {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", fine.0, fine.1.to_owned()),
        };
        let before = present
            .iter()
            .find(|one| one.type_ == type_ && one.status == status);
        all.push(NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: before
                .and_then(|one| one.last_transition_time.clone())
                .or(Some(Time(now))),
        });
    };
    add(
        "NamespaceDeletionDiscoveryFailure",
        progress
            .discovery_failure
            .clone()
            .map(|problem| ("DiscoveryFailed", problem)),
        (
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
    );
    add(
        "NamespaceDeletionGroupVersionParsingFailure",
        None,
        (
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
    );
    let failed = (!progress.failures.is_empty()).then(|| {
        (
            "ContentDeletionFailed",
            format!(
                "Failed to delete all resource types, {} remaining: {}",
                progress.failures.len(),
                progress.failures.join(", ")
            ),
        )
    });
    add(
        "NamespaceDeletionContentFailure",
        failed,
        (
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
    );
    let remaining = (!progress.remaining.is_empty()).then(|| {
        let list = listed(&progress.remaining, "has", "resource instances");
        (
            "SomeResourcesRemain",
            format!("Some resources are remaining: {list}"),
        )
    });
    add(
        "NamespaceContentRemaining",
        remaining,
        ("ContentRemoved", "All content successfully removed"),
    );
    let finalizers = (!progress.finalizers.is_empty()).then(|| {
        let list = listed(&progress.finalizers, "in", "resource instances");
        (
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {list}"),
        )
    });
    add(
        "NamespaceFinalizersRemaining",
        finalizers,
        (
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_told() {
        let progress = Progress {
            remaining: [("pods.".to_owned(), 2)].into(),
            finalizers: [("example.org/hold".to_owned(), 1)].into(),
            ..Progress::default()
        };
        assert!(!progress.is_complete());
        let all = conditions(&progress, &[], Timestamp::UNIX_EPOCH);
        let message = |type_: &str| {
            all.iter()
                .find(|one| one.type_ == type_)
                .and_then(|one| one.message.clone())
                .unwrap()
        };
        assert_eq!(
            message("NamespaceContentRemaining"),
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: example.org/hold in 1 resource instances"
        );
        assert_eq!(all.iter().filter(|one| one.status == "True").count(), 2);
    }

    #[test]
    fn the_time_of_a_condition_is_when_its_status_changed() {
        let first = conditions(&Progress::default(), &[], Timestamp::UNIX_EPOCH);
        let later: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(conditions(&Progress::default(), &first, later), first);
        let failing = Progress {
            discovery_failure: Some("no answer".into()),
            ..Progress::default()
        };
        let then = conditions(&failing, &first, later);
        assert_eq!(then[0].last_transition_time, Some(Time(later)));
        assert_eq!(
            then[1].last_transition_time,
            Some(Time(Timestamp::UNIX_EPOCH))
        );
    }
}
