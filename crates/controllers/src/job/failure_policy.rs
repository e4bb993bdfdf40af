//! What the failure of a Pod means to its Job. Source: `matchPodFailurePolicy`; KEP-3329.

use k8s_openapi::api::batch::v1::{PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::Pod;

use super::model::Target;
use crate::object::ObjectKey;
use crate::pod;

/// What a failure means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It counts.
    Count,
    /// It is as if it had not been.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed; this is why.
    FailJob(String),
}

/// What the failure of this Pod means. One that is only on its way out has not failed by itself: it counts.
pub(crate) fn meaning(target: &Target, pod: &Pod) -> Meaning {
    if pod::phase(pod) != "Failed" {
        return Meaning::Count;
    }
    let rules = target.failure_rules.iter().enumerate();
    let matched = rules
        .filter_map(|(index, rule)| matches(rule, pod).map(|what| (index, rule, what)))
        .next();
    let Some((index, rule, what)) = matched else {
        return Meaning::Count;
    };
    match rule.action.as_str() {
        "Ignore" => Meaning::Ignore,
        "FailIndex" if target.backoff_limit_per_index.is_some() => Meaning::FailIndex,
        "FailJob" => {
            let key = ObjectKey::of(&pod.metadata);
            Meaning::FailJob(match what {
                Match::ExitCode { container, code } => format!(
                    "Container {container} for pod {key} failed with exit code {code} matching FailJob rule at index {index}"
                ),
                Match::Condition(kind) => {
                    format!("Pod {key} has condition {kind} matching FailJob rule at index {index}")
                }
            })
        }
        _ => Meaning::Count,
    }
}

enum Match {
    ExitCode { container: String, code: i32 },
    Condition(String),
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<Match> {
    if let Some(codes) = &rule.on_exit_codes {
        return exit_code(codes, pod);
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    let mut held = patterns.filter(|pattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        pod::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == wanted)
    });
    held.next()
        .map(|pattern| Match::Condition(pattern.type_.clone()))
}

fn exit_code(codes: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<Match> {
    let status = pod.status.as_ref()?;
    let containers = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten();
    let mut failed = containers.filter_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let meant = codes
            .container_name
            .as_ref()
            .is_none_or(|name| *name == container.name);
        (code != 0 && meant).then(|| (container.name.clone(), code))
    });
    let wanted = codes.operator == "In";
    let (container, code) = failed.find(|(_, code)| codes.values.contains(code) == wanted)?;
    Some(Match::ExitCode { container, code })
}
