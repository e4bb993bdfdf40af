//! TokenReview: the question, whose token something is. Answered, never stored.

use k8s_openapi::api::authentication::v1::TokenReview;

use crate::kind::Names;
use crate::rules::Rules;

pub(super) struct TokenReviews;

impl Rules for TokenReviews {
    type Object = TokenReview;

    const NAMES: Names = Names {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    const REVIEW: bool = true;
}
