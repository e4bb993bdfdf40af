//! SelfSubjectRulesReview: the question, what the asking user may do in a namespace. Answered, never stored.

use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;

use crate::kind::Names;
use crate::rules::Rules;

pub(super) struct SelfSubjectRulesReviews;

impl Rules for SelfSubjectRulesReviews {
    type Object = SelfSubjectRulesReview;

    const NAMES: Names = Names {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    const REVIEW: bool = true;
}
