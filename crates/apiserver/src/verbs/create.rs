//! Creating an object.

use http::StatusCode;
use serde_json::Value;

use seaway_objects::field::{FieldError, Reason};
use seaway_store::{Error as StoreError, Expectation, Write};

use crate::admission::{Operation, Stage};
use crate::api::{Call, store_error};
use crate::body::Sent;
use crate::fields;
use crate::metadata;
use crate::object::{self, text};
use crate::reply::{self, Reply};
use crate::status::ApiError;
use crate::verbs::get::answer;

/// How often another name is tried when a generated one is taken. Source: KEP-4420.
const GENERATED_NAMES: usize = 8;

/// Creates the object that the client sent.
pub(crate) async fn create(call: &Call<'_>, sent: Sent) -> Result<Reply, ApiError> {
    let warnings = fields::check(call, &sent)?;
    let object = store_new(call, sent.object).await?;
    let mut reply = answer(call, StatusCode::CREATED, object)?;
    reply::warn(&mut reply, &warnings);
    Ok(reply)
}

/// Checks and stores a new object, and returns it as it is stored.
pub(crate) async fn store_new(call: &Call<'_>, sent: Value) -> Result<Value, ApiError> {
    let sent = decode(call, sent)?;
    let given = text(&sent, "/metadata/namespace");
    if !given.is_empty() && given != call.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !object::version(&sent).is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let name = text(&sent, "/metadata/name").to_owned();
    let base = text(&sent, "/metadata/generateName").to_owned();
    if !name.is_empty() {
        return store_named(&call.named(call.namespace, &name), sent).await;
    }
    if base.is_empty() {
        let error = FieldError {
            field: "metadata.name".to_owned(),
            reason: Reason::Required,
            message: "Required value: name or generateName is required".to_owned(),
        };
        return Err(ApiError::invalid(call.resource.names, "", &vec![error]));
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let name = metadata::generate_name(&base);
        let mut object = sent.clone();
        object::metadata_mut(&mut object).insert("name".to_owned(), name.as_str().into());
        match store_named(&call.named(call.namespace, &name), object).await {
            Err(e) if e.reason == "AlreadyExists" && tries < GENERATED_NAMES => {}
            result => return result,
        }
    }
}

async fn store_named(call: &Call<'_>, mut object: Value) -> Result<Value, ApiError> {
    let kind = &call.resource.kind;
    let dry_run = call.query.dry_run()?;
    metadata::prepare_create(&mut object, call.namespace);
    kind.default(&mut object);
    let request = call.request(Operation::Create, None, dry_run);
    let admission = &call.api.admission;
    let exists = || ApiError::already_exists(call.resource.names, call.name);
    admission.wait(&request, &object).await;
    let mut undo = admission.admit(Stage::Admit, &request, &mut object)?;
    kind.prepare_create(&mut object);
    call.valid(&kind.validate(&object))?;
    undo.extend(admission.admit(Stage::Reserve, &request, &mut object)?);
    if dry_run {
        let taken = call.api.store.get(&call.key()).is_some();
        return if taken { Err(exists()) } else { Ok(object) };
    }
    admission.write_through(&request).await?;
    let write = Write::Put(call.resource.encode(&object)?);
    let event = match call
        .api
        .store
        .commit(&call.key(), Expectation::Absent, write)
        .await
    {
        Ok(event) => event,
        Err(StoreError::Conflict { .. }) => return Err(exists()),
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
