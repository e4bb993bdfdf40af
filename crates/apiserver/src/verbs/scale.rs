//! The `scale` subresource: how many replicas there are and should be, for every kind that counts them.
//! Source: API reference, `Scale` (autoscaling/v1).

use http::StatusCode;
use serde_json::{Map, Value, json};

use seaway_objects::field::{FieldError, Reason};
use seaway_objects::kind::Scale;

use crate::api::Call;
use crate::body;
use crate::field_manager;
use crate::object::{self, text};
use crate::options::Options;
use crate::reply::{self, Reply};
use crate::status::ApiError;
use crate::verbs::patch::{Patch, Understood, is_apply};
use crate::verbs::update::{Made, Part, change_into};

/// Answers with the figures of the stored object.
pub(crate) fn get(call: &Call<'_>, scale: &Scale) -> Result<Reply, ApiError> {
    let object = call.decode(&call.record()?)?;
    Ok(reply::value(
        StatusCode::OK,
        call.accept.encoding,
        &shown(scale, &object),
    ))
}

/// Sets how many there should be.
pub(crate) async fn update(
    call: &Call<'_>,
    scale: &Scale,
    media_type: &str,
    text: &[u8],
) -> Result<Reply, ApiError> {
    Options::Update.check(call.query)?;
    let sent = body::parse("Scale", media_type, text)?.object;
    write(call, scale, |_| Ok(sent.clone())).await
}

/// Sets how many there should be by a patch of the `Scale`.
pub(crate) async fn patch(
    call: &Call<'_>,
    scale: &Scale,
    media_type: &str,
    text: &[u8],
) -> Result<Reply, ApiError> {
    if is_apply(media_type) {
        Options::Apply.check(call.query)?;
        return apply(call, scale, text).await;
    }
    Options::Patch.check(call.query)?;
    call.record()?;
    let changes = Patch::read(Understood::of(call), media_type, text)?;
    write(call, scale, |before| {
        let mut before = before.clone();
        // Zero is left out when shown, but a JSON patch replaces what is there.
        if before.pointer("/spec/replicas").is_none() {
            before["spec"]["replicas"] = json!(0);
        }
        changes.apply_plain(&before)
    })
    .await
}

/// Applies a `Scale`.
async fn apply(call: &Call<'_>, scale: &Scale, text: &[u8]) -> Result<Reply, ApiError> {
    let (config, _) = crate::yaml::parse(text)
        .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    let force = call.query.flag("force");
    let path = path(scale);
    let object = change_into(call, Part::Object, |old| {
        let managed = old.pointer("/metadata/managedFields");
        let before = shown(scale, old);
        let (sent, managed) =
            field_manager::scale_applied(call, managed, &path, &before, &config, force)?;
        Ok(Made::Applied(moved(call, scale, old, &sent)?, managed))
    })
    .await?;
    answer(call, scale, &object)
}

async fn write(
    call: &Call<'_>,
    scale: &Scale,
    make: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Reply, ApiError> {
    let path = path(scale);
    let object = change_into(call, Part::Object, |old| {
        let before = shown(scale, old);
        let sent = make(&before)?;
        let object = moved(call, scale, old, &sent)?;
        let managed = old.pointer("/metadata/managedFields");
        // As it is read: what was sent may lack what a Scale always has.
        let after = shown(scale, &object);
        let managed = field_manager::scaled(call, managed, &path, &before, &after);
        Ok(Made::Applied(object, managed))
    })
    .await?;
    answer(call, scale, &object)
}

/// The path of the number, by field names.
fn path(scale: &Scale) -> Vec<&'static str> {
    scale
        .replicas
        .split('/')
        .filter(|p| !p.is_empty())
        .collect()
}

fn answer(call: &Call<'_>, scale: &Scale, object: &Value) -> Result<Reply, ApiError> {
    Ok(reply::value(
        StatusCode::OK,
        call.accept.encoding,
        &shown(scale, object),
    ))
}

/// The object with the number of replicas that its `Scale` has.
fn moved(call: &Call<'_>, scale: &Scale, old: &Value, sent: &Value) -> Result<Value, ApiError> {
    let name = text(sent, "/metadata/name");
    if !name.is_empty() && name != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let (wanted, uid) = (text(sent, "/metadata/uid"), text(old, "/metadata/uid"));
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        );
        return Err(ApiError::conflict(call.resource.stored, call.name, &why));
    }
    let replicas = replicas(call, sent)?;
    let mut object = old.clone();
    set(&mut object, scale.replicas, replicas.into());
    // What the client says it has seen, it has seen of the object.
    let version = object::version(sent).to_owned();
    if !version.is_empty() {
        object::metadata_mut(&mut object).insert("resourceVersion".to_owned(), version.into());
    }
    Ok(object)
}

fn replicas(call: &Call<'_>, sent: &Value) -> Result<i64, ApiError> {
    let replicas = match sent.pointer("/spec/replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal {value} into Go struct field ScaleSpec.spec.replicas of type int32"
            ))
        })?,
    };
    if replicas < 0 {
        let error = FieldError {
            field: "spec.replicas".to_owned(),
            reason: Reason::Invalid,
            message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
        };
        let names = seaway_objects::kind::Names {
            group: "autoscaling",
            kind: "Scale",
            ..call.resource.names.clone()
        };
        return Err(ApiError::invalid(&names, call.name, &vec![error]));
    }
    Ok(replicas)
}

fn shown(scale: &Scale, object: &Value) -> Value {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    if number(scale.replicas) != 0 {
        spec.insert("replicas".to_owned(), number(scale.replicas).into());
    }
    let mut status = json!({"replicas": number(scale.observed)});
    let selector = object
        .pointer(scale.selector)
        .map(selector)
        .unwrap_or_default();
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A selector as a query writes it: of a plain map, or of a LabelSelector.
fn selector(selector: &Value) -> String {
    // Custom resources keep it as a query.
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let labels = selector.get("matchLabels").filter(|m| m.is_object());
    let is_plain = selector
        .as_object()
        .is_some_and(|m| m.values().all(Value::is_string));
    let equal = labels
        .or(is_plain.then_some(selector))
        .and_then(Value::as_object);
    let mut terms: Vec<String> = equal
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    for expression in selector
        .get("matchExpressions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let key = text(expression, "/key");
        let mut values: Vec<&str> = expression
            .get("values")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        match text(expression, "/operator") {
            "In" => terms.push(format!("{key} in ({values})")),
            "NotIn" => terms.push(format!("{key} notin ({values})")),
            "Exists" => terms.push(key.to_owned()),
            "DoesNotExist" => terms.push(format!("!{key}")),
            _ => {}
        }
    }
    terms.sort();
    terms.join(",")
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for part in pointer.split('/').filter(|p| !p.is_empty()) {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[part];
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_both_forms_are_written_as_queries() {
        assert_eq!(selector(&json!({"b": "2", "a": "1"})), "a=1,b=2");
        let labels = json!({"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "t", "operator": "In", "values": ["y", "x"]}, {"key": "z", "operator": "DoesNotExist"}]});
        assert_eq!(selector(&labels), "!z,a=1,t in (x,y)");
    }
}
