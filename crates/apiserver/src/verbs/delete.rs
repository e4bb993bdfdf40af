//! Deleting: at once, after a grace period, or when all finalizers are done.
//! Source: `k8s.io/apiserver/pkg/registry/rest`, `BeforeDelete`, and `pkg/registry/generic/registry/store.go`.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use seaway_store::{Error as StoreError, Expectation, Record, Write};

use crate::admission::{Operation, Stage, Undo};
use crate::api::{Call, store_error};
use crate::list_options::ListOptions;
use crate::metadata;
use crate::object::{self, text};
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
const ORPHANS_BY_DEFAULT: [(&str, &str); 1] = [("", "replicationcontrollers")];

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
        let mut options = if body.iter().all(u8::is_ascii_whitespace) {
            Self {
                grace_period_seconds: call.query.number("gracePeriodSeconds")?,
                orphan_dependents: call.query.optional_flag("orphanDependents"),
                propagation_policy: call.query.text("propagationPolicy").map(str::to_owned),
                ..Self::default()
            }
        } else {
            let sent = crate::body::parse("DeleteOptions", media_type, body)?;
            serde_json::from_value(sent.object)
                .map_err(|e| ApiError::bad_request(format!("DeleteOptions cannot be read: {e}")))?
        };
        if call.query.dry_run()? {
            options.dry_run = vec!["All".to_owned()];
        }
        options.validate()?;
        Ok(options)
    }

    fn validate(&self) -> Result<(), ApiError> {
        let refuse = |field: &str, reason: &str, message: &str| {
            let text = format!("DeleteOptions.meta.k8s.io \"\" is invalid: {field}: {message}");
            let mut error = ApiError::new(422, "Invalid", text).with_cause(reason, message, field);
            if let Some(details) = &mut error.details {
                "meta.k8s.io".clone_into(&mut details.group);
                "DeleteOptions".clone_into(&mut details.kind);
            }
            Err(error)
        };
        if self.orphan_dependents.is_some() && self.propagation_policy.is_some() {
            let message =
                "Invalid value: \"\": orphanDependents and deletionPropagation cannot be both set";
            return refuse("propagationPolicy", "FieldValueInvalid", message);
        }
        if let Some(policy) = &self.propagation_policy
            && !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan")
        {
            let message = format!(
                "Unsupported value: {policy:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            );
            return refuse("propagationPolicy", "FieldValueNotSupported", &message);
        }
        if self.dry_run.iter().any(|d| d != "All") {
            return refuse(
                "dryRun",
                "FieldValueNotSupported",
                "Unsupported value: supported values: \"All\"",
            );
        }
        Ok(())
    }

    fn is_dry(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// The finalizers that the propagation policy stands for: whether each has to be there.
    fn propagation(&self, call: &Call<'_>, object: &Value) -> (bool, bool) {
        let names = call.resource.names;
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
    let names = call.resource.names;
    match delete_one(call, options).await? {
        Outcome::Gone(object) if !ANSWERED_WITH_OBJECT.contains(&(names.group, names.plural)) => {
            let status = status::deleted(names, call.name, text(&object, "/metadata/uid"));
            Ok(reply::value(StatusCode::OK, call.accept.encoding, &status))
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
    // A Namespace tells in its phase what other objects only tell in their metadata.
    if object.pointer("/spec/finalizers").is_some() {
        object["status"]["phase"] = "Terminating".into();
    }
    let metadata = object::metadata_mut(object);
    metadata.insert(
        "deletionTimestamp".to_owned(),
        metadata::timestamp(end).into(),
    );
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
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

fn check_preconditions(call: &Call<'_>, options: &Options, object: &Value) -> Result<(), ApiError> {
    let Some(preconditions) = &options.preconditions else {
        return Ok(());
    };
    let conflict = |why: String| Err(ApiError::conflict(call.resource.names, call.name, &why));
    let uid = text(object, "/metadata/uid");
    if let Some(wanted) = preconditions.uid.as_deref().filter(|wanted| *wanted != uid) {
        return conflict(format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        ));
    }
    let version = object::version(object);
    if let Some(wanted) = preconditions
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != version)
    {
        return conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
        ));
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
