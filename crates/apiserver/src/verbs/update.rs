//! Changing an object: replacing it, its status, or what a patch or a subresource makes of it.

use http::StatusCode;
use serde_json::Value;

use seaway_objects::managed;
use seaway_store::{Error as StoreError, Expectation, Record, Write};

use crate::admission::{Operation, Stage, Undo};
use crate::api::{Call, store_error};
use crate::body::Sent;
use crate::companions;
use crate::field_manager;
use crate::fields;
use crate::metadata;
use crate::object::{self, text};
use crate::reply::{self, Reply};
use crate::status::ApiError;
use crate::verbs::create;
use crate::verbs::get::answer;

/// How often a change is tried again on an object that somebody else is changing.
const TRIES: usize = 32;

/// Kinds (group, plural) whose objects are created by replacing one that is not there.
/// Source: `AllowCreateOnUpdate` of the strategies in `k8s.io/kubernetes/pkg/registry`.
const CREATED_BY_UPDATE: [(&str, &str); 6] = [
    ("", "services"),
    ("", "endpoints"),
    ("", "events"),
    ("", "limitranges"),
    ("coordination.k8s.io", "leases"),
    ("events.k8s.io", "events"),
];

/// Which part of an object a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Object,
    /// Only the status.
    Status,
    /// What a subresource changes is exactly this; the kind's rules for clients do not apply.
    Exactly,
}

/// Replaces the object, or its status.
pub(crate) async fn update(call: &Call<'_>, sent: Sent, part: Part) -> Result<Reply, ApiError> {
    let mut warnings = fields::check(call, &sent)?;
    let sent = create::decode(call, sent.object)?;
    same_place(call, &sent)?;
    let wanted = text(&sent, "/metadata/uid");
    let names = call.resource.stored;
    let before = call.api.store.get(&call.key());
    let (code, object) = if before.is_none()
        && part == Part::Object
        && CREATED_BY_UPDATE.contains(&(names.group, names.plural))
    {
        let mut object = sent;
        object::metadata_mut(&mut object).insert("name".to_owned(), call.name.into());
        (StatusCode::CREATED, create::store_new(call, object).await?)
    } else {
        let change = change(call, part, |old| {
            let uid = text(old, "/metadata/uid");
            if !wanted.is_empty() && wanted != uid {
                return Err(other_object(call, wanted, uid));
            }
            Ok(sent.clone())
        });
        (StatusCode::OK, change.await?)
    };
    if part == Part::Object {
        let before = before.map(|record| call.decode(&record)).transpose()?;
        warnings.extend(call.resource.kind.warnings(&object, before.as_ref()));
    }
    let mut reply = answer(call, code, object)?;
    reply::warn(&mut reply, &warnings);
    Ok(reply)
}

/// The client means an object that had this name before. Source: `Preconditions.Check` and `StorageError` in
/// `k8s.io/apiserver/pkg/storage`.
fn other_object(call: &Call<'_>, wanted: &str, uid: &str) -> ApiError {
    let names = call.resource.stored;
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}",
        if call.namespace.is_empty() {
            format!("{}/{}", names.plural, call.name)
        } else {
            format!("{}/{}/{}", names.plural, call.namespace, call.name)
        }
    );
    ApiError::conflict(names, call.name, &why)
}

/// What becomes of an object.
#[derive(Debug)]
pub(crate) enum Made {
    /// This was sent, or made by a patch: whoever did it owns what differs.
    Sent(Value),
    /// As [`Made::Sent`], but it was read as an object of its kind already.
    Read(Value),
    /// This was applied, and `managedFields` are known.
    Applied(Value, Option<Value>),
}

/// Changes the object into what `make` makes of it, again if somebody else changed it in between, and returns it as
/// it is stored. If `make` sets `resourceVersion`, it has to be the current one.
pub(crate) async fn change(
    call: &Call<'_>,
    part: Part,
    mut make: impl FnMut(&Value) -> Result<Value, ApiError>,
) -> Result<Value, ApiError> {
    change_into(call, part, |old| make(old).map(Made::Sent)).await
}

/// As [`change`], for what may have been applied.
pub(crate) async fn change_into(
    call: &Call<'_>,
    part: Part,
    mut make: impl FnMut(&Value) -> Result<Made, ApiError>,
) -> Result<Value, ApiError> {
    for _ in 0..TRIES {
        let record = call.record()?;
        let old = call.decode(&record)?;
        let made = make(&old)?;
        if let Some(object) = store_changed(call, part, &record, old, made).await? {
            return Ok(object);
        }
    }
    Err(call.modified())
}

/// Checks and stores one change; `None` if the object was changed by somebody else.
async fn store_changed(
    call: &Call<'_>,
    part: Part,
    record: &Record,
    mut old: Value,
    made: Made,
) -> Result<Option<Value>, ApiError> {
    let kind = &call.resource.kind;
    let dry_run = call.query.dry_run()?;
    // Nothing but the field manager looks at `managedFields`, which may be larger than the rest.
    let old_managed = managed::take(&mut old);
    let old = &old;
    let (mut object, applied) = match made {
        Made::Sent(made) => (create::decode(call, made)?, None),
        Made::Read(made) => (made, None),
        Made::Applied(made, managed) => (create::decode(call, made)?, Some(managed)),
    };
    let sent_managed = managed::take(&mut object);
    same_place(call, &object)?;
    if part != Part::Exactly {
        kind.default(&mut object);
    }
    let managed = match (applied, part) {
        (Some(managed), _) => managed,
        (None, Part::Exactly) => old_managed.clone(),
        (None, _) => field_manager::updated(
            call,
            part,
            Some((old, old_managed.as_ref())),
            &object,
            sent_managed.as_ref(),
        ),
    };
    metadata::prepare_update(call.resource, call.name, &mut object, old)?;
    let request = call.request(Operation::Update, Some(old), dry_run);
    let admission = &call.api.admission;
    let mut undo: Vec<Undo> = Vec::new();
    match part {
        Part::Object => {
            kind.prepare_update(&mut object, old);
            undo.extend(admission.admit(Stage::Admit, &request, &mut object)?);
            undo.extend(admission.admit(Stage::Allocate, &request, &mut object)?);
            let mut errors = kind.validate_changed(&object, old);
            errors.extend(field_manager::validate(
                sent_managed.is_some().then_some(managed.as_ref()).flatten(),
            ));
            call.valid(&errors)?;
            undo.extend(admission.admit(Stage::Reserve, &request, &mut object)?);
        }
        Part::Status => {
            kind.prepare_status(&mut object, old);
            undo.extend(admission.admit(Stage::Admit, &request, &mut object)?);
            call.valid(&kind.validate_status(&object, old))?;
        }
        Part::Exactly => {}
    }
    // A write that changes nothing but the time of a write changes nothing.
    let managed = match (managed, old_managed) {
        (Some(new), Some(had)) if object == *old && managed::same_but_for_times(&new, &had) => {
            managed::put(&mut object, Some(had));
            return Ok(Some(object));
        }
        (None, None) if object == *old => return Ok(Some(object)),
        (managed, _) => managed,
    };
    managed::put(&mut object, managed);
    if dry_run {
        return Ok(Some(object));
    }
    if goes_now(&object) {
        return remove(call, record, old)
            .await
            .map(|gone| gone.then_some(object));
    }
    if part == Part::Object {
        admission.write_through(&request).await?;
    }
    let write = Write::Put(call.resource.encode(&object)?);
    let companions = companions::of(call.api, Some(old), Some(&object))?;
    let change = (
        record.key.to_string(),
        Expectation::Revision(record.revision),
        write,
    );
    match companions::commit(call, change, companions).await {
        Ok(event) => {
            undo.into_iter().for_each(Undo::commit);
            object::metadata_mut(&mut object).insert(
                "resourceVersion".to_owned(),
                event.revision.to_string().into(),
            );
            admission.committed(Some(old), Some(&object));
            Ok(Some(object))
        }
        Err(StoreError::Conflict { .. }) => Ok(None),
        Err(e) => Err(store_error(&e)),
    }
}

/// Removes an object for good; `false` if it was changed by somebody else.
pub(crate) async fn remove(
    call: &Call<'_>,
    record: &Record,
    old: &Value,
) -> Result<bool, ApiError> {
    let companions = companions::of(call.api, Some(old), None)?;
    let change = (
        record.key.to_string(),
        Expectation::Revision(record.revision),
        Write::Delete,
    );
    match companions::commit(call, change, companions).await {
        Ok(_) => {
            call.api.admission.committed(Some(old), None);
            Ok(true)
        }
        Err(StoreError::Conflict { .. }) => Ok(false),
        Err(e) => Err(store_error(&e)),
    }
}

/// Whether nothing keeps a deleted object any more.
fn goes_now(object: &Value) -> bool {
    let grace = object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    metadata::is_terminating(object) && grace == 0 && !metadata::has_finalizers(object)
}

/// Refuses an object that says of itself that it is in another namespace.
pub(crate) fn in_namespace(call: &Call<'_>, object: &Value) -> Result<(), ApiError> {
    let namespace = text(object, "/metadata/namespace");
    if call.resource.names.namespaced && !namespace.is_empty() && namespace != call.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Refuses an object that is not the one which the path names.
/// Source: `checkName` in `k8s.io/apiserver/pkg/endpoints/handlers`.
pub(crate) fn same_place(call: &Call<'_>, object: &Value) -> Result<(), ApiError> {
    in_namespace(call, object)?;
    let name = text(object, "/metadata/name");
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.name
        )));
    }
    if name != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    Ok(())
}
