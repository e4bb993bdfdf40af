//! Creating an object.

use http::StatusCode;
use serde_json::Value;

use seaway_objects::managed;
use seaway_store::{Error as StoreError, Expectation, Write};

use crate::admission::{Operation, Stage};
use crate::api::{Call, store_error};
use crate::body::Sent;
use crate::companions;
use crate::field_manager;
use crate::fields;
use crate::metadata;
use crate::object::{self, text};
use crate::reply::{self, Reply};
use crate::status::ApiError;
use crate::verbs::get::answer;
use crate::verbs::update::{Part, in_namespace, same_place};

/// How often another name is tried when a generated one is taken. Source: KEP-4420.
const GENERATED_NAMES: usize = 8;

/// Creates the object that the client sent.
pub(crate) async fn create(call: &Call<'_>, sent: Sent) -> Result<Reply, ApiError> {
    let mut warnings = fields::check(call, &sent)?;
    let object = store_new(call, sent.object).await?;
    warnings.extend(call.resource.kind.warnings(&object, None));
    let mut reply = answer(call, StatusCode::CREATED, object)?;
    reply::warn(&mut reply, &warnings);
    Ok(reply)
}

/// Checks and stores a new object, and returns it as it is stored.
pub(crate) async fn store_new(call: &Call<'_>, sent: Value) -> Result<Value, ApiError> {
    let mut sent = decode(call, sent)?;
    in_namespace(call, &sent)?;
    let sent_managed = managed::take(&mut sent);
    metadata::forget_systems(&mut sent);
    call.resource.kind.default(&mut sent);
    let managed = field_manager::updated(call, Part::Object, None, &sent, sent_managed.as_ref());
    store_prepared(call, sent, managed).await
}

/// Stores what was applied where nothing was. `managed` are its `managedFields`.
pub(crate) async fn store_applied(
    call: &Call<'_>,
    applied: Value,
    managed: Option<Value>,
) -> Result<Value, ApiError> {
    let mut object = decode(call, applied)?;
    managed::take(&mut object);
    let uid = text(&object, "/metadata/uid");
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(ApiError::conflict(call.resource.stored, call.name, &why));
    }
    same_place(call, &object)?;
    metadata::forget_systems(&mut object);
    call.resource.kind.default(&mut object);
    store_prepared(call, object, managed).await
}

async fn store_prepared(
    call: &Call<'_>,
    sent: Value,
    managed: Option<Value>,
) -> Result<Value, ApiError> {
    let name = text(&sent, "/metadata/name").to_owned();
    let base = text(&sent, "/metadata/generateName").to_owned();
    if !name.is_empty() || base.is_empty() {
        return store_named(&call.named(call.namespace, &name), sent, managed).await;
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let name = metadata::generate_name(&base);
        let mut object = sent.clone();
        object::metadata_mut(&mut object).insert("name".to_owned(), name.as_str().into());
        match store_named(&call.named(call.namespace, &name), object, managed.clone()).await {
            Err(e) if e.reason == "AlreadyExists" && tries < GENERATED_NAMES => {}
            Err(e) if e.reason == "AlreadyExists" => return Err(not_generated(call, &name)),
            result => return result,
        }
    }
}

/// Source: `NewGenerateNameConflict` in `k8s.io/apimachinery/pkg/api/errors`.
fn not_generated(call: &Call<'_>, name: &str) -> ApiError {
    let mut error = ApiError::already_exists(call.resource.stored, name);
    error
        .message
        .push_str(", the server was not able to generate a unique name for the object");
    if let Some(details) = &mut error.details {
        details.retry_after_seconds = 1;
    }
    error
}

async fn store_named(
    call: &Call<'_>,
    mut object: Value,
    managed: Option<Value>,
) -> Result<Value, ApiError> {
    let kind = &call.resource.kind;
    let dry_run = call.query.dry_run()?;
    let is_versioned = !object::version(&object).is_empty();
    metadata::prepare_create(&mut object, call.namespace);
    let request = call.request(Operation::Create, None, dry_run);
    let admission = &call.api.admission;
    admission.wait(&request, &object).await;
    let mut undo = admission.admit(Stage::Admit, &request, &mut object)?;
    kind.prepare_create(&mut object);
    undo.extend(admission.admit(Stage::Allocate, &request, &mut object)?);
    let mut errors = kind.validate_created(&object);
    errors.extend(field_manager::validate(managed.as_ref()));
    call.valid(&errors)?;
    undo.extend(admission.admit(Stage::Reserve, &request, &mut object)?);
    managed::put(&mut object, managed);
    if dry_run {
        return match call.api.store.get(&call.key()) {
            Some(_) => Err(exists(call)),
            None => Ok(object),
        };
    }
    if is_versioned {
        // No reason: to Kubernetes this is an error of the server.
        let why = "resourceVersion should not be set on objects to be created";
        return Err(ApiError::new(500, "", why));
    }
    admission.write_through(&request).await?;
    let write = Write::Put(call.resource.encode(&object)?);
    let companions = companions::of(call.api, None, Some(&object))?;
    let change = (call.key(), Expectation::Absent, write);
    let event = match companions::commit(call, change, companions).await {
        Ok(event) => event,
        Err(StoreError::Conflict { .. }) => return Err(exists(call)),
        Err(e) => return Err(store_error(&e)),
    };
    undo.into_iter().for_each(crate::admission::Undo::commit);
    object::metadata_mut(&mut object).insert(
        "resourceVersion".to_owned(),
        event.revision.to_string().into(),
    );
    admission.committed(None, Some(&object));
    Ok(object)
}

/// There is an object of that name, perhaps not for long.
fn exists(call: &Call<'_>) -> ApiError {
    let mut error = ApiError::already_exists(call.resource.stored, call.name);
    let there = call.record().and_then(|record| call.decode(&record));
    if there.is_ok_and(|there| metadata::is_terminating(&there)) {
        error.message = format!("object is being deleted: {}", error.message);
    }
    error
}

/// Reads the object through the type of its kind.
pub(crate) fn decode(call: &Call<'_>, object: Value) -> Result<Value, ApiError> {
    let names = call.resource.names;
    call.resource.kind.decode(object).map_err(|e| {
        ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: {e}",
            names.version,
            kind = names.kind
        ))
    })
}
