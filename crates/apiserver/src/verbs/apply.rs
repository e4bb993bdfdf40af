//! Server-side apply: a client says what it wants of an object, and owns that.
//! Source: `applyPatcher` in `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`; KEP-555.

use http::StatusCode;
use serde_json::Value;

use crate::api::Call;
use crate::field_manager;
use crate::query::FieldValidation;
use crate::reply::{self, Reply};
use crate::status::ApiError;
use crate::verbs::create;
use crate::verbs::get::answer;
use crate::verbs::update::{Made, Part, change_into};
use crate::yaml;

/// How often applying is tried again when an object comes or goes meanwhile.
const TRIES: usize = 8;

/// Applies the configuration to the object or its status; makes the object if it is not there.
pub(crate) async fn apply(call: &Call<'_>, text: &[u8], part: Part) -> Result<Reply, ApiError> {
    let (config, duplicates) = read(text)?;
    let validation = call.query.field_validation()?;
    let force = call.query.flag("force");
    // Only told when everything else is right.
    let strict = || match (validation, duplicates.is_empty()) {
        (FieldValidation::Strict, false) => Err(ApiError::bad_request(format!(
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n{}",
            duplicates
                .iter()
                .map(|d| format!("  {d}"))
                .collect::<Vec<_>>()
                .join("\n")
        ))),
        (FieldValidation::Warn, false) => Ok(duplicates.clone()),
        _ => Ok(Vec::new()),
    };
    for _ in 0..TRIES {
        let mut before = None;
        let result = if call.record().is_ok() {
            let changed = change_into(call, part, |old| {
                before = Some(old.clone());
                let applied = field_manager::applied(call, part, Some(old), &config, force)?;
                strict()?;
                let object = applied.object.unwrap_or_else(|| old.clone());
                Ok(Made::Applied(object, applied.managed))
            })
            .await;
            changed.map(|object| (StatusCode::OK, object))
        } else if part == Part::Object {
            let applied = field_manager::applied(call, part, None, &config, force)?;
            strict()?;
            let object = applied.object.unwrap_or_else(|| config.clone());
            create::store_applied(call, object, applied.managed)
                .await
                .map(|object| (StatusCode::CREATED, object))
        } else {
            Err(call.not_found())
        };
        match result {
            // It came or went in between.
            Err(e) if e.reason == "AlreadyExists" && !e.message.starts_with("object is being") => {}
            Err(e) if e.reason == "NotFound" && part == Part::Object && is_of(call, &e) => {}
            Err(e) => return Err(e),
            Ok((code, object)) => {
                let mut warnings = strict()?;
                if part == Part::Object {
                    warnings.extend(call.resource.kind.warnings(&object, before.as_ref()));
                }
                let mut reply = answer(call, code, object)?;
                reply::warn(&mut reply, &warnings);
                return Ok(reply);
            }
        }
    }
    Err(call.modified())
}

/// Whether the refusal is about the object itself (and not its namespace).
fn is_of(call: &Call<'_>, error: &ApiError) -> bool {
    error
        .details
        .as_ref()
        .is_some_and(|d| d.name == call.name && d.kind == call.resource.stored.plural)
}

/// The configuration, and what is in it twice.
fn read(text: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let (config, duplicates) = yaml::parse(text)
        .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    match config {
        Value::Object(_) => Ok((config, duplicates)),
        Value::Null => Ok((Value::Object(serde_json::Map::new()), duplicates)),
        other => {
            let what = match &other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            Err(ApiError::bad_request(format!(
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
            )))
        }
    }
}
