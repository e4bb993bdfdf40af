//! Which container of a Pod is meant.
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`, `validateContainer`.

use serde_json::Value;

use crate::object::text;
use crate::status::ApiError;

/// The container of that name, or the one that is meant without a name.
pub(super) fn choose<'a>(pod: &'a Value, asked: Option<&'a str>) -> Result<&'a str, ApiError> {
    let pod_name = text(pod, "/metadata/name");
    let containers = names(pod, "/spec/containers");
    let init = names(pod, "/spec/initContainers");
    let exists = |name: &str| {
        containers.contains(&name)
            || init.contains(&name)
            || names(pod, "/spec/ephemeralContainers").contains(&name)
    };
    if let Some(asked) = asked {
        if exists(asked) {
            return Ok(asked);
        }
        return Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {pod_name}"
        )));
    }
    match containers.as_slice() {
        [] => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {pod_name}"
        ))),
        [one] => Ok(one),
        many => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod.pointer(list)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|c| text(c, "/name"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_only_container_is_meant_and_of_several_one_must_be_named() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(choose(&one, None), Ok("a"));
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}]}});
        assert_eq!(
            choose(&two, None).unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(choose(&two, Some("i")), Ok("i"));
        assert_eq!(
            choose(&two, Some("c")).unwrap_err().message,
            "container c is not valid for pod p"
        );
    }
}
