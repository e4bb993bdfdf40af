//! Field errors, in the words of Kubernetes (`k8s.io/apimachinery/pkg/util/validation/field`).

use serde::Serialize;

/// What is wrong with a field. The name is the `reason` of a Status cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// `FieldValueRequired`
    Required,
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueNotSupported`
    NotSupported,
    /// `FieldValueDuplicate`
    Duplicate,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueTooLong`
    TooLong,
    /// `FieldValueTooMany`
    TooMany,
    /// `FieldValueNotFound`
    NotFound,
    /// `FieldValueTypeInvalid`
    TypeInvalid,
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `spec.ports[0].port`
    pub field: String,
    /// What sort of error.
    pub reason: Reason,
    /// The part after `field: `, as in the message of a Status cause: `Invalid value: 0: must be between 1 and 65535, inclusive`.
    pub message: String,
}

/// All that is wrong with an object; empty when nothing is.
pub type FieldErrors = Vec<FieldError>;

impl FieldError {
    fn new(field: impl Into<String>, reason: Reason, message: String) -> Self {
        Self {
            field: field.into(),
            reason,
            message,
        }
    }

    /// The field must be there; `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(
            field,
            Reason::Required,
            with_detail("Required value".to_owned(), detail),
        )
    }

    /// The value is wrong, and `detail` says why.
    pub fn invalid(field: impl Into<String>, value: impl Serialize, detail: &str) -> Self {
        let message = with_detail(format!("Invalid value: {}", shown(&value)), detail);
        Self::new(field, Reason::Invalid, message)
    }

    /// The value is none of the supported ones, which are listed in the order given.
    pub fn not_supported(
        field: impl Into<String>,
        value: impl Serialize,
        supported: &[&str],
    ) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let message = format!(
            "Unsupported value: {}: supported values: {}",
            shown(&value),
            list.join(", ")
        );
        Self::new(field, Reason::NotSupported, message)
    }

    /// The value is there twice in a list whose elements differ.
    pub fn duplicate(field: impl Into<String>, value: impl Serialize) -> Self {
        Self::new(
            field,
            Reason::Duplicate,
            format!("Duplicate value: {}", shown(&value)),
        )
    }

    /// The field may not be used, or not like this.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(
            field,
            Reason::Forbidden,
            with_detail("Forbidden".to_owned(), detail),
        )
    }

    /// The value has more than `max` bytes.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::new(
            field,
            Reason::TooLong,
            format!("Too long: may not be more than {max} bytes"),
        )
    }

    /// The list has `actual` elements, more than `max`.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::new(
            field,
            Reason::TooMany,
            format!("Too many: {actual}: must have at most {max} {items}"),
        )
    }

    /// The value refers to something that is not there.
    pub fn not_found(field: impl Into<String>, value: impl Serialize) -> Self {
        Self::new(
            field,
            Reason::NotFound,
            format!("Not found: {}", shown(&value)),
        )
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

fn with_detail(text: String, detail: &str) -> String {
    if detail.is_empty() {
        text
    } else {
        format!("{text}: {detail}")
    }
}

/// A value as Go's `field.Error` prints it: strings quoted, everything else as JSON.
fn shown(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    if text.starts_with('"') {
        text
    } else {
        escape_html(text)
    }
}

/// JSON text as Go writes it, which might stand in HTML: these characters occur in its strings only.
pub(crate) fn escape_html(text: String) -> String {
    if text.contains(['<', '>', '&']) {
        text.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    } else {
        text
    }
}

/// Immutable fields: `what` is the path; nothing when both are equal.
pub fn immutable<T: Serialize + PartialEq>(new: &T, old: &T, what: &str) -> FieldErrors {
    if new == old {
        Vec::new()
    } else {
        vec![FieldError::invalid(what, new, "field is immutable")]
    }
}

/// A number that may not be below zero.
pub fn not_negative(value: i64, what: &str) -> FieldErrors {
    if value < 0 {
        vec![FieldError::invalid(
            what,
            value,
            "must be greater than or equal to 0",
        )]
    } else {
        Vec::new()
    }
}

/// A value that must be one of a closed set.
pub fn one_of(value: &str, supported: &[&str], what: &str) -> FieldErrors {
    if supported.contains(&value) {
        Vec::new()
    } else {
        vec![FieldError::not_supported(what, value, supported)]
    }
}
