//! SelfSubjectReview: the question, who the asking user is. Answered, never stored.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;

use crate::kind::Names;
use crate::rules::Rules;

pub(super) struct SelfSubjectReviews;

impl Rules for SelfSubjectReviews {
    type Object = SelfSubjectReview;

    const NAMES: Names = Names {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    const REVIEW: bool = true;
}
