//! LocalSubjectAccessReview: a question, whether somebody may do something in one namespace. Answered, never stored.

use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;

use super::review;
use crate::field::FieldErrors;
use crate::kind::Names;
use crate::rules::Rules;

pub(super) struct LocalSubjectAccessReviews;

impl Rules for LocalSubjectAccessReviews {
    type Object = LocalSubjectAccessReview;

    const NAMES: Names = Names {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };
    const REVIEW: bool = true;

    fn validate(object: &LocalSubjectAccessReview) -> FieldErrors {
        let mut errors = review::validate_subject(&object.spec);
        errors.extend(review::validate_local(&object.metadata, &object.spec));
        errors
    }
}
