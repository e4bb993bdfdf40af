//! Patching: what the patch makes of the object is then an update like any other.
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

use http::StatusCode;
use serde_json::Value;

use seaway_objects::field::{FieldError, Reason};
use seaway_objects::go_text;
use seaway_objects::kind::{DecodeError, Names};
use seaway_objects::patch::{self, PatchError};

use crate::api::Call;
use crate::options::Options;
use crate::query::FieldValidation;
use crate::reply::{self, Reply};
use crate::status::ApiError;
use crate::strict_json;
use crate::verbs::apply::apply;
use crate::verbs::get::answer;
use crate::verbs::update::{Made, Part, change_into};

/// The media type of server-side apply.
const APPLY: &str = "application/apply-patch+yaml";

/// What is sent to change an object.
#[derive(Debug)]
pub(crate) struct Patch {
    change: Change,
    /// What a strict client wants to know of the patch itself: fields given twice.
    strict: Vec<String>,
}

#[derive(Debug)]
enum Change {
    /// RFC 6902
    Json(Value),
    /// RFC 7386
    Merge(Value),
    /// As merge, but lists merge by the keys of their elements.
    Strategic(Value),
}

/// Which patches a kind can be changed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Understood {
    /// All.
    All,
    /// All but strategic merge patches.
    NotStrategic,
}

impl Understood {
    pub(crate) fn of(call: &Call<'_>) -> Self {
        if call.resource.kind.strategic_merge() {
            Self::All
        } else {
            Self::NotStrategic
        }
    }

    fn refusal(self) -> ApiError {
        match self {
            Self::All => {
                let mut error =
                    ApiError::new(415, "UnsupportedMediaType", "415: Unsupported Media Type");
                error.details = Some(Box::default());
                error
            }
            Self::NotStrategic => ApiError::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                APPLY,
            ]),
        }
    }
}

/// Whether the patch is a configuration to be applied; its media type says so.
pub(crate) fn is_apply(media_type: &str) -> bool {
    media_type == APPLY
}

impl Patch {
    /// Reads a patch; the media type says which kind it is.
    pub(crate) fn read(
        understood: Understood,
        media_type: &str,
        text: &[u8],
    ) -> Result<Self, ApiError> {
        let parse = |prefix: &str, go_type: &str| -> Result<(Value, Vec<String>), ApiError> {
            let (value, strict) = strict_json::parse(text)
                .map_err(|e| ApiError::bad_request(format!("{prefix}{e}")))?;
            let is_list = go_type.starts_with("[]");
            let fits = if is_list {
                value.is_array()
            } else {
                value.is_object()
            };
            if !fits && !value.is_null() {
                let what = match &value {
                    Value::Object(_) => "object",
                    Value::Array(_) => "array",
                    Value::String(_) => "string",
                    Value::Bool(_) => "bool",
                    _ => "number",
                };
                return Err(ApiError::bad_request(format!(
                    "{prefix}json: cannot unmarshal {what} into Go value of type {go_type}"
                )));
            }
            Ok((value, strict))
        };
        let object = "map[string]interface {}";
        let empty = || Value::Object(serde_json::Map::new());
        let (change, strict) = match (media_type, understood) {
            ("application/json-patch+json", _) => {
                let (operations, strict) =
                    parse("error decoding patch: ", "[]handlers.jsonPatchOp")?;
                operation_types(&operations)?;
                let mut wrong = strict_operations(&operations);
                wrong.extend(strict.into_iter().map(|path| duplicate(&path)));
                let wrong = wrong.into_iter().map(|w| format!("json patch {w}"));
                let operations = if operations.is_null() {
                    Value::Array(Vec::new())
                } else {
                    operations
                };
                (Change::Json(operations), wrong.collect())
            }
            ("application/merge-patch+json", _) => {
                let (changes, strict) = parse("error decoding patch: ", object)?;
                let strict = strict.iter().map(|path| duplicate(path)).collect();
                let changes = if changes.is_null() { empty() } else { changes };
                (Change::Merge(changes), strict)
            }
            ("application/strategic-merge-patch+json", Understood::All) => {
                let (changes, strict) = parse("", object)?;
                let strict = strict.iter().map(|path| duplicate(path)).collect();
                let changes = if changes.is_null() { empty() } else { changes };
                (Change::Strategic(changes), strict)
            }
            _ => return Err(understood.refusal()),
        };
        Ok(Self { change, strict })
    }

    /// What it makes of an object of the kind, not yet read as one.
    pub(crate) fn apply(&self, call: &Call<'_>, object: &Value) -> Result<Value, ApiError> {
        let patched = match &self.change {
            Change::Json(operations) => patch::json(object, operations),
            Change::Merge(changes) => patch::merge(object, changes),
            Change::Strategic(changes) => patch::strategic(&*call.resource.kind, object, changes),
        };
        patched.map_err(|e| refused(&e))
    }

    /// What it makes of an object without lists, where merging is the same for both sorts.
    pub(crate) fn apply_plain(&self, object: &Value) -> Result<Value, ApiError> {
        let patched = match &self.change {
            Change::Json(operations) => patch::json(object, operations),
            Change::Merge(changes) | Change::Strategic(changes) => patch::merge(object, changes),
        };
        patched.map_err(|e| refused(&e))
    }

    /// What is wrong with fields of the patch and of what it made, for whoever wants to know.
    fn strict_errors(&self, call: &Call<'_>, patched: &Value) -> Vec<String> {
        let mut wrong = self.strict.clone();
        let mut unknown = call.resource.kind.unknown_fields(patched);
        if matches!(self.change, Change::Strategic(_)) {
            unknown.sort();
        }
        wrong.extend(unknown);
        wrong
    }

    /// 422: what the patch made is no object of the kind.
    fn made_nonsense(&self, patched: &Value, why: &str) -> ApiError {
        let shown = match &self.change {
            Change::Strategic(changes) => go_text::plain(changes),
            Change::Json(_) | Change::Merge(_) => patched.to_string(),
        };
        let nobody = Names {
            group: "",
            version: "",
            kind: "",
            plural: "",
            singular: "",
            short_names: &[],
            categories: &[],
            namespaced: false,
        };
        let error = FieldError {
            field: "patch".to_owned(),
            reason: Reason::Invalid,
            message: format!("Invalid value: {shown:?}: {why}"),
        };
        ApiError::invalid(&nobody, "", &vec![error])
    }

    /// Reads what the patch made as an object of the kind, and says what to warn of.
    fn read_back(
        &self,
        call: &Call<'_>,
        validation: FieldValidation,
        patched: Value,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let wrong = match validation {
            FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn | FieldValidation::Strict => self.strict_errors(call, &patched),
        };
        let mut patched = patched;
        // A patch that takes the type away changes nothing: the path says what it is.
        if let Some(map) = patched.as_object_mut() {
            for (field, value) in [
                ("apiVersion", call.resource.api_version.as_str()),
                ("kind", call.resource.names.kind),
            ] {
                map.entry(field).or_insert_with(|| value.into());
            }
        }
        self.same_type(call, &patched)?;
        let read = call.resource.kind.decode(patched.clone());
        let object =
            read.map_err(|DecodeError { message }| self.made_nonsense(&patched, &message))?;
        if validation == FieldValidation::Strict && !wrong.is_empty() {
            let why = format!("strict decoding error: {}", wrong.join(", "));
            return Err(self.made_nonsense(&patched, &why));
        }
        Ok((object, wrong))
    }

    /// Refuses a patch that makes the object one of another kind.
    fn same_type(&self, call: &Call<'_>, patched: &Value) -> Result<(), ApiError> {
        let text = |field: &str| {
            patched
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version == call.resource.api_version && kind == call.resource.names.kind {
            return Ok(());
        }
        match self.change {
            // Read into the type of the path, which takes both from there.
            Change::Strategic(_) => Ok(()),
            Change::Json(_) | Change::Merge(_) => {
                let why = format!(
                    "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
                );
                Err(self.made_nonsense(patched, &why))
            }
        }
    }
}

fn duplicate(path: &str) -> String {
    format!("duplicate field {path:?}")
}

/// What is wrong with an operation for Go's type of it; its library alone would not care.
fn operation_types(operations: &Value) -> Result<(), ApiError> {
    let what = |value: &Value| match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Null => "null",
    };
    let refuse = |what: &str, whereof: String| {
        Err(ApiError::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {what} into Go {whereof}"
        )))
    };
    for operation in operations.as_array().into_iter().flatten() {
        let Some(members) = operation.as_object() else {
            if operation.is_null() {
                continue;
            }
            return refuse(
                what(operation),
                "value of type handlers.jsonPatchOp".to_owned(),
            );
        };
        for field in ["op", "path", "from"] {
            if let Some(value) = members
                .get(field)
                .filter(|v| !v.is_string() && !v.is_null())
            {
                return refuse(
                    what(value),
                    format!("struct field jsonPatchOp.{field} of type string"),
                );
            }
        }
    }
    Ok(())
}

/// Members that operations of a JSON Patch do not have.
fn strict_operations(operations: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for (i, operation) in operations.as_array().into_iter().flatten().enumerate() {
        for key in operation
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
        {
            if !matches!(key.as_str(), "op" | "path" | "from" | "value") {
                wrong.push(format!("unknown field \"[{i}].{key}\""));
            }
        }
    }
    wrong
}

/// What a client is told of a patch that does not fit.
pub(crate) fn refused(error: &PatchError) -> ApiError {
    let (code, reason) = error.status();
    let mut refusal = ApiError::new(code, reason, error.to_string());
    if matches!(error, PatchError::Inapplicable { .. }) {
        refusal.details = Some(Box::default());
    }
    refusal
}

/// Patches the object or its status.
pub(crate) async fn patch(
    call: &Call<'_>,
    media_type: &str,
    text: &[u8],
    part: Part,
) -> Result<Reply, ApiError> {
    if is_apply(media_type) {
        Options::Apply.check(call.query)?;
        return apply(call, text, part).await;
    }
    let understood = Understood::of(call);
    if !matches!(
        (media_type, understood),
        (
            "application/json-patch+json" | "application/merge-patch+json",
            _
        ) | ("application/strategic-merge-patch+json", Understood::All)
    ) {
        return Err(understood.refusal());
    }
    Options::Patch.check(call.query)?;
    // What is not there is told before what is wrong with the patch.
    call.record()?;
    let patch = Patch::read(understood, media_type, text)?;
    let validation = call.query.field_validation()?;
    let (mut warnings, mut before) = (Vec::new(), Value::Null);
    let object = change_into(call, part, |old| {
        let patched = patch.apply(call, old)?;
        let (object, wrong) = patch.read_back(call, validation, patched)?;
        (warnings, before) = (wrong, old.clone());
        Ok(Made::Read(object))
    })
    .await?;
    if part == Part::Object {
        warnings.extend(call.resource.kind.warnings(&object, Some(&before)));
    }
    let mut reply = answer(call, StatusCode::OK, object)?;
    reply::warn(&mut reply, &warnings);
    Ok(reply)
}
