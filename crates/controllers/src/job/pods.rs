//! What the Pods of a Job look like.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::indexes::Try;
use super::model::{TRACKING, Target};
use crate::claim::owner_reference;
use crate::object;

/// Annotation and label: the index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation: how often the index failed before.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Environment variable with the index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// A new Pod; one that is for an index is named, called and told after it.
pub(crate) fn new_pod(target: &Target, attempt: Option<Try>) -> Pod {
    let template = target.template.metadata.clone().unwrap_or_default();
    let mut labels = template.labels.unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let mut spec = target.template.spec.clone().unwrap_or_default();
    let mut base = target.key.name.clone();
    if let Some(Try { index, failures }) = attempt {
        base = format!("{base}-{index}");
        spec.hostname = Some(base.clone());
        labels.insert(INDEX.to_owned(), index.to_string());
        annotations.insert(INDEX.to_owned(), index.to_string());
        if let Some(failures) = failures {
            annotations.insert(FAILURES.to_owned(), failures.to_string());
        }
        let init = spec.init_containers.iter_mut().flatten();
        init.chain(&mut spec.containers).for_each(tell_index);
    }
    let mut finalizers = template.finalizers.unwrap_or_default();
    if !finalizers.iter().any(|one| one == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{base}-")),
            namespace: Some(target.key.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations).filter(|all| !all.is_empty()),
            finalizers: Some(finalizers),
            owner_references: Some(vec![owner_reference::<Job>(&target.meta)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables
        .iter()
        .any(|variable| variable.name == INDEX_VARIABLE)
    {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{INDEX}']"),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
        value: None,
    });
}

/// The index of a Pod; `None` if it has none.
pub(crate) fn index(pod: &Pod) -> Option<i32> {
    let text = object::annotation(&pod.metadata, INDEX)?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// How often the index of a Pod had failed before it.
pub(crate) fn failures_before(pod: &Pod) -> i32 {
    let text = object::annotation(&pod.metadata, FAILURES);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
