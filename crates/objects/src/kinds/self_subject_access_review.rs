//! SelfSubjectAccessReview: the question, whether the asking user may do something. Answered, never stored.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

use super::review;
use crate::field::FieldErrors;
use crate::kind::Names;
use crate::rules::Rules;

pub(super) struct SelfSubjectAccessReviews;

impl Rules for SelfSubjectAccessReviews {
    type Object = SelfSubjectAccessReview;

    const NAMES: Names = Names {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    const REVIEW: bool = true;

    fn validate(object: &SelfSubjectAccessReview) -> FieldErrors {
        let spec = &object.spec;
        let mut errors = review::validate_attributes(
            spec.resource_attributes.is_some(),
            spec.non_resource_attributes.as_ref(),
        );
        errors.extend(review::validate_empty(&object.metadata));
        errors
    }
}
