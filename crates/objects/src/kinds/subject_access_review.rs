//! SubjectAccessReview: a question, whether somebody may do something. Answered, never stored.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;

use super::review;
use crate::field::FieldErrors;
use crate::kind::Names;
use crate::rules::Rules;

pub(super) struct SubjectAccessReviews;

impl Rules for SubjectAccessReviews {
    type Object = SubjectAccessReview;

    const NAMES: Names = Names {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    const REVIEW: bool = true;

    fn validate(object: &SubjectAccessReview) -> FieldErrors {
        let mut errors = review::validate_subject(&object.spec);
        errors.extend(review::validate_empty(&object.metadata));
        errors
    }
}
