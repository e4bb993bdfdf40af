//! Binding: what a scheduler sends when it has found a node. Once bound, a Pod stays where it is.
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/storage`, `BindingREST`.

use serde_json::{Value, json};

use seaway_objects::field::{FieldError, Reason};
use seaway_objects::kind::Names;

use super::done;
use crate::api::Call;
use crate::body;
use crate::metadata;
use crate::object::{metadata_mut, text};
use crate::reply::Reply;
use crate::status::ApiError;
use crate::verbs::update::{Part, change};

/// Binds the Pod that the path or the body names.
pub(super) async fn bind(
    call: &Call<'_>,
    media_type: &str,
    sent: &[u8],
) -> Result<Reply, ApiError> {
    let binding = body::parse("Binding", media_type, sent)?.object;
    let name = if call.name.is_empty() {
        text(&binding, "/metadata/name")
    } else {
        call.name
    };
    if name.is_empty() || text(&binding, "/metadata/name") != name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    let call = call.named(call.namespace, name);
    let node = target(&call, &binding)?;
    change(&call, Part::Exactly, |pod| {
        bound(&call, pod, &binding, node)
    })
    .await?;
    Ok(done(&call))
}

fn target<'a>(call: &Call<'_>, binding: &'a Value) -> Result<&'a str, ApiError> {
    let names = Names {
        kind: "Binding",
        ..call.resource.names.clone()
    };
    let refuse = |field: &str, reason: Reason, message: &str| {
        let error = FieldError {
            field: field.to_owned(),
            reason,
            message: message.to_owned(),
        };
        Err(ApiError::invalid(&names, call.name, &vec![error]))
    };
    if !matches!(text(binding, "/target/kind"), "" | "Node") {
        let kind = text(binding, "/target/kind");
        let message =
            format!("Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\"");
        return refuse("target.kind", Reason::NotSupported, &message);
    }
    let node = text(binding, "/target/name");
    if node.is_empty() {
        refuse("target.name", Reason::Required, "Required value")
    } else {
        Ok(node)
    }
}

fn bound(call: &Call<'_>, pod: &Value, binding: &Value, node: &str) -> Result<Value, ApiError> {
    let refuse = |why: String| {
        let names = Names {
            plural: "pods/binding",
            ..call.resource.names.clone()
        };
        Err(ApiError::conflict(&names, call.name, &why))
    };
    let uid = text(binding, "/metadata/uid");
    if !uid.is_empty() && uid != text(pod, "/metadata/uid") {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(pod, "/metadata/uid")
        ));
    }
    if metadata::is_terminating(pod) {
        return refuse(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            call.name
        ));
    }
    let assigned = text(pod, "/spec/nodeName");
    if !assigned.is_empty() {
        return refuse(format!(
            "pod {} is already assigned to node {assigned:?}",
            call.name
        ));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = node.into();
    if let Some(annotations) = binding
        .pointer("/metadata/annotations")
        .and_then(Value::as_object)
    {
        let metadata = metadata_mut(&mut pod);
        let kept = metadata.entry("annotations").or_insert_with(|| json!({}));
        for (key, value) in annotations {
            kept[key] = value.clone();
        }
    }
    let scheduled =
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": metadata::now()});
    let conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let others = conditions
        .into_iter()
        .filter(|c| text(c, "/type") != "PodScheduled");
    pod["status"]["conditions"] = others.chain([scheduled]).collect();
    Ok(pod)
}
