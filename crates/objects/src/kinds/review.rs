//! What questions about access have in common.
//!
//! Source: `pkg/apis/authorization/validation`.

use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReviewSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::field::{FieldError, FieldErrors};

/// A question is about a resource or about a path.
pub(super) fn validate_attributes(
    resource: bool,
    path: Option<&NonResourceAttributes>,
) -> FieldErrors {
    match (resource, path) {
        (true, Some(path)) => vec![FieldError::invalid(
            "spec.nonResourceAttributes",
            shown(path),
            "cannot be specified in combination with resourceAttributes",
        )],
        (false, None) => vec![FieldError::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => FieldErrors::new(),
    }
}

/// In its internal form, whose fields have Go's names.
fn shown(path: &NonResourceAttributes) -> Value {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    json!({"Path": text(&path.path), "Verb": text(&path.verb)})
}

/// A question about somebody.
pub(super) fn validate_subject(spec: &SubjectAccessReviewSpec) -> FieldErrors {
    let mut errors = validate_attributes(
        spec.resource_attributes.is_some(),
        spec.non_resource_attributes.as_ref(),
    );
    let user = spec.user.as_deref().unwrap_or_default();
    if user.is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        errors.push(FieldError::invalid(
            "spec.user",
            user,
            "at least one of user or group must be specified",
        ));
    }
    errors
}

/// Questions have no names.
pub(super) fn validate_empty(metadata: &ObjectMeta) -> FieldErrors {
    let metadata = ObjectMeta {
        managed_fields: None,
        ..metadata.clone()
    };
    if metadata == ObjectMeta::default() {
        return FieldErrors::new();
    }
    vec![FieldError::invalid("metadata", metadata, "must be empty")]
}

/// Questions about a namespace have none either, and are about no other.
pub(super) fn validate_local(metadata: &ObjectMeta, spec: &SubjectAccessReviewSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let place = metadata.namespace.clone().unwrap_or_default();
    let rest = ObjectMeta {
        namespace: None,
        managed_fields: None,
        ..metadata.clone()
    };
    if rest != ObjectMeta::default() {
        let words = "must be empty except for namespace";
        errors.push(FieldError::invalid("metadata", metadata, words));
    }
    if let Some(resource) = &spec.resource_attributes {
        let asked = resource.namespace.clone().unwrap_or_default();
        if asked != place {
            errors.push(FieldError::invalid(
                "spec.resourceAttributes.namespace",
                asked,
                "must match metadata.namespace",
            ));
        }
    }
    if let Some(path) = &spec.non_resource_attributes {
        errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            shown(path),
            "disallowed on this kind of request",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    fn errors(plural: &str, object: Value) -> Vec<String> {
        let kind = kinds::find("authorization.k8s.io", "v1", plural).expect(plural);
        let object = kind.decode(object).expect("decodes");
        kind.validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_question_is_about_one_thing_and_has_no_name() {
        assert_eq!(
            errors(
                "selfsubjectaccessreviews",
                json!({"spec": {}, "metadata": {"name": "a"}})
            ),
            [
                "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
                "metadata: Invalid value: {\"name\":\"a\"}: must be empty"
            ]
        );
        assert_eq!(
            errors(
                "subjectaccessreviews",
                json!({"spec": {"resourceAttributes": {}, "nonResourceAttributes": {"path": "/x"}}})
            ),
            [
                "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/x\",\"Verb\":\"\"}: cannot be specified in combination with resourceAttributes",
                "spec.user: Invalid value: \"\": at least one of user or group must be specified"
            ]
        );
        assert_eq!(
            errors(
                "localsubjectaccessreviews",
                json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}}})
            ),
            [
                "spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace"
            ]
        );
    }
}
