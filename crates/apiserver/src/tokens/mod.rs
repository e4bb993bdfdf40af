//! Tokens of ServiceAccounts: who signs them, who gets them, and whom they make of a client.
//!
//! A token is a JSON Web Token (RFC 7519) signed with ES256 (RFC 7518, section 3.4) by a key of the lab's own, with the
//! claims that Kubernetes gives its tokens: the account, and the Pod or Secret to which it is bound and with which it
//! ends.
//!
//! Source: KEP-1205, `pkg/serviceaccount` in Kubernetes.

mod authentication;
mod issuer;
mod request;

pub(crate) use authentication::{authenticate, bearer};
pub(crate) use issuer::{ISSUER, Issuer, configuration};
pub(crate) use request::create;

use serde::{Deserialize, Serialize};

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// Whom it is meant for.
    aud: Audiences,
    /// Until when it is good, in seconds since 1970, as all times here.
    exp: i64,
    iat: i64,
    iss: String,
    /// Its own name.
    #[serde(default)]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Binding,
    nbf: i64,
    sub: String,
}

/// One or several, as RFC 7519 allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Audiences {
    Several(Vec<String>),
    One(String),
}

impl Audiences {
    fn list(&self) -> &[String] {
        match self {
            Self::Several(list) => list,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

/// What a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Binding {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    serviceaccount: Reference,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reference {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}
