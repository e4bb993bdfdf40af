//! TokenRequest: the wish for a token of a ServiceAccount. It has no place of its own: it is sent to the account's
//! `token` subresource.
//!
//! Source: `pkg/apis/authentication/validation`.

use k8s_openapi::api::authentication::v1::TokenRequest;

use crate::field::{FieldError, FieldErrors};
use crate::kind::Names;
use crate::rules::Rules;

/// How long a token lasts unless somebody says otherwise, in seconds.
const DEFAULT_SECONDS: i64 = 3600;
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;

pub(super) struct TokenRequests;

impl Rules for TokenRequests {
    type Object = TokenRequest;

    const NAMES: Names = Names {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        plural: "tokenrequests",
        singular: "tokenrequest",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };
    const REVIEW: bool = true;
    const NULLS: &'static [&'static str] = &["/spec/boundObjectRef"];

    fn default(object: &mut TokenRequest) {
        let spec = object.spec.get_or_insert_default();
        spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
    }

    fn validate(object: &TokenRequest) -> FieldErrors {
        let seconds = object
            .spec
            .as_ref()
            .and_then(|spec| spec.expiration_seconds)
            .unwrap_or(0);
        let words = if seconds < LEAST_SECONDS {
            "may not specify a duration less than 10 minutes"
        } else if seconds > MOST_SECONDS {
            "may not specify a duration larger than 2^32 seconds"
        } else {
            return FieldErrors::new();
        };
        vec![FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            words,
        )]
    }
}
