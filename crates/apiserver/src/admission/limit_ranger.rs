//! LimitRanges: what containers of a namespace get that say nothing, and how small and large they may be.
//! Source: the `LimitRanger` admission plugin.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use seaway_objects::quantity::Amount;
use seaway_objects::quota::{Amounts, amounts, total};

use super::stored::Stored;
use super::{Operation, Plugin, Request, Stage, Undo};
use crate::object::{metadata_mut, text};
use crate::status::ApiError;

/// Tells what a Pod got.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const LISTS: [(&str, &str); 2] = [
    ("containers", "container"),
    ("initContainers", "init container"),
];

/// Fills in requests and limits.
pub(super) struct Defaults {
    pub(super) stored: Stored,
}

/// Refuses what is too small or too large.
pub(super) struct Bounds {
    pub(super) stored: Stored,
}

/// Containers never change, so only a new Pod is looked at.
fn ranges(stored: &Stored, request: &Request<'_>) -> Vec<Value> {
    let pod = request.is_pod(Operation::Create);
    let claim = request.is("", "persistentvolumeclaims")
        && request.subresource.is_empty()
        && request.operation != Operation::Delete;
    if pod || claim {
        stored.list("limitranges", request.namespace)
    } else {
        Vec::new()
    }
}

fn items(range: &Value) -> impl Iterator<Item = &Value> {
    range["spec"]["limits"].as_array().into_iter().flatten()
}

impl Plugin for Defaults {
    fn stage(&self) -> Stage {
        Stage::Admit
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        if !request.is_pod(Operation::Create) || !object["spec"].is_object() {
            return Ok(Undo::nothing());
        }
        for range in ranges(&self.stored, request) {
            fill(object, &range);
        }
        Ok(Undo::nothing())
    }
}

/// The amounts as they are written, in the order of their names.
type Texts = BTreeMap<String, Value>;

fn fill(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (Texts::new(), Texts::new());
    for item in items(range).filter(|item| item["type"] == "Container") {
        let list = |field: &str| item[field].as_object().cloned().unwrap_or_default();
        requests.extend(list("defaultRequest"));
        limits.extend(list("default"));
    }
    let mut told: Vec<String> = Vec::new();
    for (list, what) in LISTS {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = text(container, "/name").to_owned();
            for (field, word, wanted) in [
                ("requests", "request", &requests),
                ("limits", "limit", &limits),
            ] {
                let set = set_missing(container, field, wanted);
                if !set.is_empty() {
                    told.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if told.is_empty() {
        return;
    }
    let annotations = metadata_mut(pod)
        .entry("annotations")
        .or_insert_with(|| Value::Object(Map::new()));
    annotations[ANNOTATION] = format!("LimitRanger plugin set: {}", told.join("; ")).into();
}

/// Sets what a container does not have; the names of what was set.
fn set_missing(container: &mut Value, field: &str, wanted: &Texts) -> Vec<String> {
    let has = |name: &str| !container["resources"][field][name].is_null();
    let missing: Vec<String> = wanted.keys().filter(|name| !has(name)).cloned().collect();
    for name in &missing {
        // Decoded before, so whatever is there is an object.
        container["resources"][field][name] = wanted[name].clone();
    }
    missing
}

impl Plugin for Bounds {
    fn stage(&self) -> Stage {
        Stage::Reserve
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        for range in ranges(&self.stored, request) {
            let mut wrong: Vec<String> = Vec::new();
            if request.is_pod(Operation::Create) {
                check_pod(object, &range, &mut wrong);
            } else {
                check_claim(object, &range, &mut wrong);
            }
            // Each is told once, as Go's aggregated errors are.
            let mut told: Vec<String> = Vec::new();
            for words in wrong {
                if !told.contains(&words) {
                    told.push(words);
                }
            }
            match told.as_slice() {
                [] => {}
                [one] => return Err(ApiError::forbidden(request.kind, request.name, one)),
                many => {
                    let all = format!("[{}]", many.join(", "));
                    return Err(ApiError::forbidden(request.kind, request.name, &all));
                }
            }
        }
        Ok(Undo::nothing())
    }
}

fn check_pod(pod: &Value, range: &Value, wrong: &mut Vec<String>) {
    for item in items(range) {
        match item["type"].as_str() {
            Some("Container") => {
                for (list, _) in LISTS {
                    for container in pod["spec"][list].as_array().into_iter().flatten() {
                        let resources = &container["resources"];
                        let (requests, limits) = (
                            amounts(&resources["requests"]),
                            amounts(&resources["limits"]),
                        );
                        check(item, "Container", &requests, &limits, wrong);
                    }
                }
            }
            Some("Pod") => check(
                item,
                "Pod",
                &total(pod, "requests"),
                &total(pod, "limits"),
                wrong,
            ),
            _ => {}
        }
    }
}

fn check_claim(claim: &Value, range: &Value, wrong: &mut Vec<String>) {
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    for item in items(range).filter(|item| item["type"] == "PersistentVolumeClaim") {
        let of = "PersistentVolumeClaim";
        for (name, most) in amounts(&item["max"]) {
            match requests.get(&name) {
                None => wrong.push(format!(
                    "maximum {name} usage per {of} is {most}.  No request is specified"
                )),
                Some(request) if *request > most => {
                    wrong.push(format!(
                        "maximum {name} usage per {of} is {most}, but request is {request}"
                    ));
                }
                Some(_) => {}
            }
        }
        for (name, least) in amounts(&item["min"]) {
            check_least(&name, of, least, &requests, &Amounts::new(), wrong);
        }
    }
}

fn check(item: &Value, of: &str, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    for (name, least) in amounts(&item["min"]) {
        check_least(&name, of, least, requests, limits, wrong);
    }
    for (name, most) in amounts(&item["max"]) {
        let begin = format!("maximum {name} usage per {of} is {most}");
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => wrong.push(format!("{begin}.  No limit is specified")),
            (Some(limit), _) if *limit > most => {
                wrong.push(format!("{begin}, but limit is {limit}"))
            }
            (_, Some(request)) if *request > most => {
                wrong.push(format!("{begin}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, ratio) in amounts(&item["maxLimitRequestRatio"]) {
        check_ratio(&name, of, ratio, requests, limits, wrong);
    }
}

fn check_least(
    name: &str,
    of: &str,
    least: Amount,
    requests: &Amounts,
    limits: &Amounts,
    wrong: &mut Vec<String>,
) {
    let begin = format!("minimum {name} usage per {of} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => wrong.push(format!("{begin}.  No request is specified")),
        (Some(request), _) if *request < least => {
            wrong.push(format!("{begin}, but request is {request}"))
        }
        (_, Some(limit)) if *limit < least => wrong.push(format!("{begin}, but limit is {limit}")),
        _ => {}
    }
}

fn check_ratio(
    name: &str,
    of: &str,
    ratio: Amount,
    requests: &Amounts,
    limits: &Amounts,
    wrong: &mut Vec<String>,
) {
    let begin = format!("{name} max limit to request ratio per {of} is {ratio}, but ");
    let some = |list: &Amounts| list.get(name).copied().filter(|amount| !amount.is_zero());
    let Some(request) = some(requests) else {
        return wrong.push(format!("{begin}no request is specified or request is 0"));
    };
    let Some(limit) = some(limits) else {
        return wrong.push(format!("{begin}no limit is specified or limit is 0"));
    };
    let observed = as_float(limit.milli()) / as_float(request.milli());
    if observed * 1000.0 > as_float(ratio.milli()) {
        wrong.push(format!("{begin}provided ratio is {observed:.6}"));
    }
}

/// Ratios are compared as floating point numbers, as Kubernetes does.
#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio of two amounts is approximate"
)]
fn as_float(number: i128) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}, {"name": "d", "resources": {}}]}})
    }

    fn range(limits: Value) -> Value {
        json!({"spec": {"limits": limits}})
    }

    #[test]
    fn a_container_that_says_nothing_gets_the_defaults_and_the_pod_tells() {
        let mut object = pod(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
        fill(
            &mut object,
            &range(
                json!([{"type": "Container", "default": {"cpu": "200m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]),
            ),
        );
        assert_eq!(
            object["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: memory limit for container c; cpu request for container d; cpu, memory limit for container d"
        );
        assert_eq!(
            object["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}})
        );
    }

    #[test]
    fn what_is_out_of_bounds_is_told_in_kubernetes_words() {
        let wrong = |resources: Value, limits: Value| {
            let mut wrong = Vec::new();
            let mut object = pod(resources.clone());
            object["spec"]["containers"] = json!([{"name": "c", "resources": resources}]);
            check_pod(&object, &range(limits), &mut wrong);
            wrong
        };
        let both = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}});
        assert_eq!(
            wrong(
                both.clone(),
                json!([{"type": "Container", "max": {"cpu": "500m"}, "min": {"cpu": "200m"}}])
            ),
            [
                "minimum cpu usage per Container is 200m, but request is 100m",
                "maximum cpu usage per Container is 500m, but limit is 1"
            ]
        );
        assert_eq!(
            wrong(
                json!({}),
                json!([{"type": "Pod", "max": {"memory": "1Gi"}, "min": {"memory": "1"}}])
            ),
            [
                "minimum memory usage per Pod is 1.  No request is specified",
                "maximum memory usage per Pod is 1Gi.  No limit is specified"
            ]
        );
        assert_eq!(
            wrong(
                both.clone(),
                json!([{"type": "Container", "maxLimitRequestRatio": {"cpu": "4"}}])
            ),
            ["cpu max limit to request ratio per Container is 4, but provided ratio is 10.000000"]
        );
        assert_eq!(
            wrong(
                both,
                json!([{"type": "Container", "maxLimitRequestRatio": {"cpu": "10"}}])
            ),
            [""; 0]
        );
    }
}
