//! What the API server answers when it refuses: `Status` objects in Kubernetes' own words, so that clients which
//! look at reason, code, details and causes (kubectl, client-go, kube-rs) behave as they do against Kubernetes.
//!
//! Source of the wording: `k8s.io/apimachinery/pkg/api/errors`.

use seaway_objects::field::{FieldErrors, Reason};
use seaway_objects::kind::Names;
use serde_json::{Map, Value, json};

/// One cause of a refusal. Source: `StatusCause`, meta/v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable: `FieldValueInvalid`, `NamespaceTerminating`…
    pub reason: String,
    /// For people.
    pub message: String,
    /// Path of the field that is wrong, empty if it is not about a field.
    pub field: String,
}

/// What the refusal is about. Source: `StatusDetails`, meta/v1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// Group of its kind.
    pub group: String,
    /// Plural resource name, or the kind's name for `Invalid`.
    pub kind: String,
    /// UID of the object.
    pub uid: String,
    /// More exactly why.
    pub causes: Vec<Cause>,
    /// After how many seconds asking again may help; 0 for unknown.
    pub retry_after_seconds: u32,
}

/// A refusal, sent as a `Status` object with its HTTP code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason; empty when Kubernetes sends none.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
    /// For a list whose next page cannot be had: a `continue` token with which the client may go on nevertheless.
    pub next_page: Option<String>,
}

impl ApiError {
    /// An error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            next_page: None,
        }
    }

    /// 404: there is no object of that name.
    pub fn not_found(kind: &Names, name: &str) -> Self {
        Self::about(
            404,
            "NotFound",
            kind,
            name,
            format!("{} \"{name}\" not found", resource(kind)),
        )
    }

    /// 409: an object of that name exists.
    pub fn already_exists(kind: &Names, name: &str) -> Self {
        Self::about(
            409,
            "AlreadyExists",
            kind,
            name,
            format!("{} \"{name}\" already exists", resource(kind)),
        )
    }

    /// 409: the object is not what the client thinks it is; `why` says how.
    pub fn conflict(kind: &Names, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            resource(kind)
        );
        Self::about(409, "Conflict", kind, name, message)
    }

    /// 409: somebody else wrote the object in between.
    pub fn modified(kind: &Names, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// 403: the client is known but may not do this.
    pub fn forbidden(kind: &Names, name: &str, why: &str) -> Self {
        Self::about(
            403,
            "Forbidden",
            kind,
            name,
            format!("{} \"{name}\" is forbidden: {why}", resource(kind)),
        )
    }

    /// 422: fields of the object are wrong.
    pub fn invalid(kind: &Names, name: &str, errors: &FieldErrors) -> Self {
        let causes: Vec<Cause> = errors
            .iter()
            .map(|e| Cause {
                reason: cause_reason(e.reason).to_owned(),
                message: e.message.clone(),
                field: e.field.clone(),
            })
            .collect();
        let mut seen: Vec<String> = Vec::new();
        for error in errors {
            let text = format!("{}: {}", error.field, error.message);
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        let list = match seen.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let details = Details {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.kind.to_owned(),
            causes,
            ..Details::default()
        };
        Self {
            code: 422,
            reason: "Invalid",
            message: format!("{} \"{name}\" is invalid: {list}", qualified_kind(kind)),
            details: Some(Box::new(details)),
            next_page: None,
        }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: no credentials, or bad ones.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 404: the group and version exist, the resource in it does not.
    pub fn no_such_resource() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
        .with_empty_details()
    }

    /// 405: not with this verb.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .with_empty_details()
    }

    /// 406: no form of the answer that the client accepts; `served` are those there are.
    pub fn not_acceptable(served: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            served.join(", ")
        );
        Self::new(406, "NotAcceptable", message)
    }

    /// 415: the body is in a form that the server does not read; `read` are those it does.
    pub fn unsupported_media_type(read: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            read.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 410: the history asked for is gone: list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 429: not now, for a reason that may pass.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(429, "TooManyRequests", message)
    }

    /// 503: something that the request needs cannot be reached.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 500: the server failed, not the client.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let mut error = Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        error.details = Some(Box::new(Details {
            causes: vec![Cause {
                reason: String::new(),
                message: message.to_string(),
                field: String::new(),
            }],
            ..Details::default()
        }));
        error
    }

    /// 504: the request took too long.
    pub fn timeout(message: impl std::fmt::Display) -> Self {
        let mut error = Self::new(504, "Timeout", format!("Timeout: {message}"));
        error.details = Some(Box::default());
        error
    }

    /// 504: the version asked for is not there yet; asking again after `retry` seconds may help (0: unknown).
    pub fn too_large_version(asked: u64, current: u64, retry: u32) -> Self {
        let mut error = Self::timeout(format_args!(
            "Too large resource version: {asked}, current: {current}"
        ))
        .with_cause("ResourceVersionTooLarge", "Too large resource version", "");
        if let Some(details) = &mut error.details {
            details.retry_after_seconds = retry;
        }
        error
    }

    /// The same error with one more cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        self.details.get_or_insert_default().causes.push(Cause {
            reason: reason.to_owned(),
            message: message.to_owned(),
            field: field.to_owned(),
        });
        self
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(next) = &self.next_page {
            status["metadata"]["continue"] = json!(next);
        }
        if let Some(details) = &self.details {
            status["details"] = details.to_value();
        }
        status
    }

    fn about(code: u16, reason: &'static str, kind: &Names, name: &str, message: String) -> Self {
        let details = Details {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.plural.to_owned(),
            ..Details::default()
        };
        Self {
            code,
            reason,
            message,
            details: Some(Box::new(details)),
            next_page: None,
        }
    }

    fn with_empty_details(mut self) -> Self {
        self.details = Some(Box::default());
        self
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ] {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            map.insert(
                "causes".to_owned(),
                self.causes.iter().map(Cause::to_value).collect(),
            );
        }
        if self.retry_after_seconds > 0 {
            map.insert(
                "retryAfterSeconds".to_owned(),
                json!(self.retry_after_seconds),
            );
        }
        Value::Object(map)
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [
            ("reason", &self.reason),
            ("message", &self.message),
            ("field", &self.field),
        ] {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        Value::Object(map)
    }
}

/// The answer to a deletion that is complete. Source: `DELETE` in the API reference.
pub fn deleted(kind: &Names, name: &str, uid: &str) -> Value {
    let details = Details {
        name: name.to_owned(),
        group: kind.group.to_owned(),
        kind: kind.plural.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details.to_value(),
    })
}

/// `deployments.apps`, or `pods` in the core group.
pub fn resource(kind: &Names) -> String {
    if kind.group.is_empty() {
        kind.plural.to_owned()
    } else {
        format!("{}.{}", kind.plural, kind.group)
    }
}

/// `Deployment.apps`, or `Pod` in the core group.
pub fn qualified_kind(kind: &Names) -> String {
    if kind.group.is_empty() {
        kind.kind.to_owned()
    } else {
        format!("{}.{}", kind.kind, kind.group)
    }
}

fn cause_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Required => "FieldValueRequired",
        Reason::Invalid => "FieldValueInvalid",
        Reason::NotSupported => "FieldValueNotSupported",
        Reason::Duplicate => "FieldValueDuplicate",
        Reason::Forbidden => "FieldValueForbidden",
        Reason::TooLong => "FieldValueTooLong",
        Reason::TooMany => "FieldValueTooMany",
        Reason::NotFound => "FieldValueNotFound",
        Reason::TypeInvalid => "FieldValueTypeInvalid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaway_objects::field::FieldError;

    const DEPLOYMENTS: Names = Names {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };

    fn wrong(field: &str, message: &str) -> FieldError {
        FieldError {
            field: field.to_owned(),
            reason: Reason::Invalid,
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_missing_object_is_named_with_its_resource_and_group() {
        let status = ApiError::not_found(&DEPLOYMENTS, "web").to_value();
        assert_eq!(status["message"], "deployments.apps \"web\" not found");
        assert_eq!(
            status["details"],
            json!({"name": "web", "group": "apps", "kind": "deployments"})
        );
        assert_eq!(status["code"], 404);
    }

    #[test]
    fn several_field_errors_are_listed_once_each_but_every_one_is_a_cause() {
        let errors = vec![
            wrong("a", "Invalid value: 1: x"),
            wrong("a", "Invalid value: 1: x"),
            wrong("b", "y"),
        ];
        let status = ApiError::invalid(&DEPLOYMENTS, "web", &errors).to_value();
        assert_eq!(
            status["message"],
            "Deployment.apps \"web\" is invalid: [a: Invalid value: 1: x, b: y]"
        );
        assert_eq!(
            status["details"]["causes"].as_array().map(Vec::len),
            Some(3)
        );
        assert_eq!(status["details"]["kind"], "Deployment");
    }

    #[test]
    fn an_unknown_resource_has_empty_details() {
        assert_eq!(
            ApiError::no_such_resource().to_value()["details"],
            json!({})
        );
    }
}
