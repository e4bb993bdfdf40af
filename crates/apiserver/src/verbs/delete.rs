//! Deleting: at once, after a grace period, or when all finalizers are done.
//! Source: `k8s.io/apiserver/pkg/registry/rest`, `BeforeDelete`, and `pkg/registry/generic/registry/store.go`.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use seaway_objects::field::{FieldError, FieldErrors};
use seaway_objects::kind::Names;
use seaway_store::{Error as StoreError, Expectation, Record, Write};

use crate::admission::{Operation, Stage, Undo};
use crate::api::{Call, store_error};
use crate::list_options::ListOptions;
use crate::metadata;
use crate::object::{self, text};
use crate::options;
use crate::reply::{self, Reply};
use crate::status::{self, ApiError};
use crate::verbs::get::answer;
use crate::verbs::list;
use crate::verbs::update::remove;

/// How often a deletion is tried again on an object that somebody else is changing.
const TRIES: usize = 32;

/// Kinds (group, plural) whose deletion is answered with the object.
/// Source: `ReturnDeletedObject` in `k8s.io/kubernetes/pkg/registry`.
const ANSWERED_WITH_OBJECT: [(&str, &str); 5] = [
    ("", "pods"),
    ("", "services"),
    ("", "serviceaccounts"),
    ("", "resourcequotas"),
    ("", "podtemplates"),
];

/// Kinds whose dependents stay when the client does not say. Source: `DefaultGarbageCollectionPolicy` of their
/// strategies (kept for old clients; `kubectl` always says).
const ORPHANS_BY_DEFAULT: [(&str, &str); 2] = [("", "replicationcontrollers"), ("batch", "jobs")];

/// Said to who deletes a Job without saying what becomes of its Pods. Source: `deleteOptionWarnings`.
const PODS_STAY: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// How to delete. Source: API reference, `DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Options {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    dry_run: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// What a deletion that cannot be read is told: only the cause.
fn without_summary(mut error: ApiError) -> ApiError {
    if let Some((_, cause)) = error
        .message
        .split_once("(must be of type DeleteOptions): ")
    {
        let cause = cause.rsplit_once(" (").map_or(cause, |(cause, _)| cause);
        error.message = cause.to_owned();
    }
    error
}

/// Refuses options of the wrong types, in Go's words.
fn check_types(sent: &Value) -> Result<(), ApiError> {
    let wrong = |owner: &str, at: &str, value: &Value, go: &str| {
        let what = match value {
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(n) => format!("number {n}"),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            _ => "object".to_owned(),
        };
        Err(ApiError::bad_request(format!(
            "json: cannot unmarshal {what} into Go struct field {owner}.{at} of type {go}"
        )))
    };
    let given = |map: &Value, field: &str| map.get(field).filter(|v| !v.is_null()).cloned();
    let fits = |go: &str, value: &Value| match go {
        "int64" => value.is_i64(),
        "bool" => value.is_boolean(),
        "[]string" => value
            .as_array()
            .is_some_and(|list| list.iter().all(Value::is_string)),
        _ => value.is_string(),
    };
    for (field, go) in [
        ("gracePeriodSeconds", "int64"),
        ("orphanDependents", "bool"),
        ("propagationPolicy", "v1.DeletionPropagation"),
        ("dryRun", "[]string"),
    ] {
        if let Some(value) = given(sent, field).filter(|v| !fits(go, v)) {
            return wrong("DeleteOptions", field, &value, go);
        }
    }
    let Some(preconditions) = given(sent, "preconditions") else {
        return Ok(());
    };
    if !preconditions.is_object() {
        return wrong(
            "DeleteOptions",
            "preconditions",
            &preconditions,
            "v1.Preconditions",
        );
    }
    for (field, go) in [("uid", "types.UID"), ("resourceVersion", "string")] {
        if let Some(value) = given(&preconditions, field).filter(|v| !v.is_string()) {
            return wrong(
                "Preconditions",
                &format!("preconditions.{field}"),
                &value,
                go,
            );
        }
    }
    Ok(())
}

/// What became of the object.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is gone; this is what it was.
    Gone(Value),
    /// It is on its way.
    Going(Value),
}

impl Options {
    /// From the body, or from the parameters if there is none.
    pub(crate) fn read(call: &Call<'_>, media_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        let options = if body.is_empty() {
            Self {
                grace_period_seconds: call.query.number("gracePeriodSeconds")?,
                orphan_dependents: call.query.optional_flag("orphanDependents"),
                propagation_policy: call.query.text("propagationPolicy").map(str::to_owned),
                dry_run: call.query.all("dryRun").map(str::to_owned).collect(),
                ..Self::default()
            }
        } else {
            let sent =
                crate::body::parse("DeleteOptions", media_type, body).map_err(without_summary)?;
            check_types(&sent.object)?;
            serde_json::from_value(sent.object).map_err(|e| ApiError::bad_request(e.to_string()))?
        };
        options.validate()?;
        Ok(options)
    }

    /// Source: `ValidateDeleteOptions` in `k8s.io/apimachinery/pkg/apis/meta/v1/validation`.
    fn validate(&self) -> Result<(), ApiError> {
        let mut errors = FieldErrors::new();
        if let Some(policy) = &self.propagation_policy {
            if self.orphan_dependents.is_some() {
                errors.push(FieldError::invalid(
                    "propagationPolicy",
                    policy,
                    "orphanDependents and deletionPropagation cannot be both set",
                ));
            }
            if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
                errors.push(FieldError::not_supported(
                    "propagationPolicy",
                    policy,
                    &["Foreground", "Background", "Orphan", "nil"],
                ));
            }
        }
        errors.extend(options::check_dry_run(&self.dry_run));
        options::refuse("DeleteOptions", &errors)
    }

    fn is_dry(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// The finalizers that the propagation policy stands for: whether each has to be there.
    fn propagation(&self, call: &Call<'_>, object: &Value) -> (bool, bool) {
        let names = call.resource.stored;
        match (self.orphan_dependents, self.propagation_policy.as_deref()) {
            (Some(true), _) | (None, Some("Orphan")) => (false, true),
            (None, Some("Foreground")) => (true, false),
            (Some(false), _) | (None, Some(_)) => (false, false),
            // What the object says by itself, then what its kind says.
            (None, None) => {
                let has = |name: &str| {
                    object
                        .pointer("/metadata/finalizers")
                        .and_then(Value::as_array)
                        .is_some_and(|f| f.iter().any(|f| f == name))
                };
                let by_default = ORPHANS_BY_DEFAULT.contains(&(names.group, names.plural));
                (
                    has(FOREGROUND),
                    has(ORPHAN) || (by_default && !has(FOREGROUND)),
                )
            }
        }
    }
}

/// Deletes the object.
pub(crate) async fn delete(call: &Call<'_>, options: &Options) -> Result<Reply, ApiError> {
    let mut reply = answer_deleted(call, options, delete_one(call, options).await?)?;
    let names = call.resource.stored;
    let unsaid = options.propagation_policy.is_none() && options.orphan_dependents.is_none();
    if unsaid && (names.group, names.plural) == ("batch", "jobs") {
        reply::warn(&mut reply, &[PODS_STAY.to_owned()]);
    }
    Ok(reply)
}

fn answer_deleted(call: &Call<'_>, options: &Options, outcome: Outcome) -> Result<Reply, ApiError> {
    let names = call.resource.stored;
    match outcome {
        Outcome::Gone(object) if !ANSWERED_WITH_OBJECT.contains(&(names.group, names.plural)) => {
            let status = status::deleted(names, call.name, text(&object, "/metadata/uid"));
            Ok(reply::value(StatusCode::OK, call.accept.encoding, &status))
        }
        Outcome::Going(object) if options.orphan_dependents == Some(false) => {
            answer(call, StatusCode::ACCEPTED, object)
        }
        Outcome::Gone(object) | Outcome::Going(object) => answer(call, StatusCode::OK, object),
    }
}

/// Deletes all objects that the selectors of the request select, and answers with what they were.
pub(crate) async fn delete_all(call: &Call<'_>, options: &Options) -> Result<Reply, ApiError> {
    let page = list::page(call, &ListOptions::of(call, false)?)?;
    let mut items = Vec::with_capacity(page.records.len());
    for record in &page.records {
        let object = call.decode(record)?;
        let (namespace, name) = (
            text(&object, "/metadata/namespace"),
            text(&object, "/metadata/name"),
        );
        match delete_one(&call.named(namespace, name), options).await {
            // Somebody else was quicker.
            Err(e) if e.reason == "NotFound" => {}
            Err(e) => return Err(e),
            Ok(Outcome::Gone(object) | Outcome::Going(object)) => {
                items.push(call.resource.item(object))
            }
        }
    }
    let mut metadata = Map::new();
    metadata.insert(
        "resourceVersion".to_owned(),
        page.revision.to_string().into(),
    );
    Ok(reply::value(
        StatusCode::OK,
        call.accept.encoding,
        &list::list_of(call, metadata, items),
    ))
}

/// Deletes one object, again if somebody else changed it in between.
pub(crate) async fn delete_one(call: &Call<'_>, options: &Options) -> Result<Outcome, ApiError> {
    for _ in 0..TRIES {
        let record = call.record()?;
        let object = call.decode(&record)?;
        check_preconditions(call, options, &object)?;
        if let Some(outcome) = attempt(call, options, &record, object).await? {
            return Ok(outcome);
        }
    }
    Err(call.modified())
}

/// One try; `None` if the object was changed by somebody else.
async fn attempt(
    call: &Call<'_>,
    options: &Options,
    record: &Record,
    old: Value,
) -> Result<Option<Outcome>, ApiError> {
    let mut object = old.clone();
    let request = call.request(Operation::Delete, Some(&old), options.is_dry());
    let undo = call
        .api
        .admission
        .admit(Stage::Admit, &request, &mut object)?;
    let (foreground, orphan) = options.propagation(call, &old);
    set_finalizer(&mut object, FOREGROUND, foreground);
    set_finalizer(&mut object, ORPHAN, orphan);
    let grace = grace_seconds(call, options, &old);
    mark(&mut object, &old, grace);
    if !metadata::is_terminating(&old) {
        call.resource.kind.prepare_delete(&mut object);
    }
    if grace == 0 && !metadata::has_finalizers(&object) {
        if options.is_dry() || remove(call, record, &old).await? {
            undo.into_iter().for_each(Undo::commit);
            return Ok(Some(Outcome::Gone(old)));
        }
        return Ok(None);
    }
    if options.is_dry() || object == old {
        return Ok(Some(Outcome::Going(object)));
    }
    let write = Write::Put(call.resource.encode(&object)?);
    match call
        .api
        .store
        .commit(&record.key, Expectation::Revision(record.revision), write)
        .await
    {
        Ok(event) => {
            undo.into_iter().for_each(Undo::commit);
            object::metadata_mut(&mut object).insert(
                "resourceVersion".to_owned(),
                event.revision.to_string().into(),
            );
            call.api.admission.committed(Some(&old), Some(&object));
            Ok(Some(Outcome::Going(object)))
        }
        Err(StoreError::Conflict { .. }) => Ok(None),
        Err(e) => Err(store_error(&e)),
    }
}

/// How long the object may take to end, in seconds: only where somebody works on ending it.
fn grace_seconds(call: &Call<'_>, options: &Options, object: &Value) -> i64 {
    let Some(default) = call.resource.kind.default_grace_seconds(object) else {
        return 0;
    };
    // Nothing runs that would have to end.
    let unscheduled = text(object, "/spec/nodeName").is_empty();
    let finished = matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
    if unscheduled || finished {
        return 0;
    }
    match options.grace_period_seconds {
        // Only 0 takes an object away from under the node that runs it.
        Some(seconds) if seconds < 0 => 1,
        Some(seconds) => seconds,
        None => default,
    }
}

/// Marks the object as being deleted; a second deletion can only shorten what the first one gave.
fn mark(object: &mut Value, old: &Value, grace: i64) {
    let pending = old
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    if metadata::is_terminating(old) && pending.is_none_or(|pending| pending <= grace) {
        return;
    }
    let generation = old.pointer("/metadata/generation").and_then(Value::as_i64);
    let end = Timestamp::now()
        .checked_add(SignedDuration::from_secs(grace))
        .unwrap_or(Timestamp::MAX);
    // A Namespace tells in its phase what other objects only tell in their metadata, and has no grace.
    let namespace = object.pointer("/spec/finalizers").is_some();
    if namespace {
        object["status"]["phase"] = "Terminating".into();
    }
    let metadata = object::metadata_mut(object);
    metadata.insert(
        "deletionTimestamp".to_owned(),
        metadata::timestamp(end).into(),
    );
    if !namespace {
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    }
    if let Some(generation) = generation.filter(|g| *g > 0) {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
}

fn set_finalizer(object: &mut Value, name: &str, wanted: bool) {
    let metadata = object::metadata_mut(object);
    let mut list: Vec<Value> = metadata
        .get("finalizers")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let before = list.len();
    let has = list.iter().any(|f| f == name);
    if wanted && !has {
        list.push(name.into());
    } else if !wanted && has {
        list.retain(|f| f != name);
    }
    if list.len() == before {
        return;
    }
    if list.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), Value::Array(list));
    }
}

/// Source: `BeforeDelete` in `k8s.io/apiserver/pkg/registry/rest`, which names the kind where others name the
/// resource; Namespaces have a check of their own.
fn check_preconditions(call: &Call<'_>, options: &Options, object: &Value) -> Result<(), ApiError> {
    let Some(preconditions) = &options.preconditions else {
        return Ok(());
    };
    let names = call.resource.stored;
    let is_namespace = (names.group, names.plural) == ("", "namespaces");
    let conflict = |what: &str, wanted: &str, found: &str, hint: &str| {
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {hint}"
        );
        if is_namespace {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            return Err(ApiError::conflict(names, call.name, &why));
        }
        let names = Names {
            plural: names.kind,
            ..names.clone()
        };
        Err(ApiError::conflict(&names, call.name, &why))
    };
    let uid = text(object, "/metadata/uid");
    if let Some(wanted) = preconditions.uid.as_deref().filter(|wanted| *wanted != uid) {
        return conflict("UID", wanted, uid, "deleted and then recreated");
    }
    let version = object::version(object);
    if let Some(wanted) = preconditions
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != version)
    {
        return conflict("ResourceVersion", wanted, version, "modified");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_second_deletion_only_shortens_the_grace_of_the_first() {
        let mut first = json!({"metadata": {"name": "a"}});
        mark(&mut first, &json!({"metadata": {"name": "a"}}), 30);
        assert_eq!(first["metadata"]["deletionGracePeriodSeconds"], 30);
        let mut longer = first.clone();
        mark(&mut longer, &first, 60);
        assert_eq!(longer, first);
        let mut shorter = first.clone();
        mark(&mut shorter, &first, 5);
        assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    }

    #[test]
    fn finalizers_come_and_go_with_the_policy() {
        let mut object = json!({"metadata": {"name": "a"}});
        set_finalizer(&mut object, FOREGROUND, true);
        set_finalizer(&mut object, FOREGROUND, true);
        assert_eq!(object["metadata"]["finalizers"], json!([FOREGROUND]));
        set_finalizer(&mut object, FOREGROUND, false);
        assert_eq!(object["metadata"].get("finalizers"), None);
    }
}
