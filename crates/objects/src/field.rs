//! Field errors, in the words of Kubernetes (`k8s.io/apimachinery/pkg/util/validation/field`).

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
