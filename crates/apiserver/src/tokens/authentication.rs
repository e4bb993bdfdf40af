//! Who a client is that shows a token. A token is good for as long as everything that it is bound to is there.
//! Source: `validator.Validate` in `pkg/serviceaccount/claims.go`.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use serde_json::Value;

use super::{Claims, ISSUER, Reference};
use crate::admission::User;
use crate::api::Api;
use crate::object::text;

/// How far clocks may differ, in seconds.
const LEEWAY: i64 = 60;

/// A client that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authenticated {
    pub(crate) user: User,
    /// For whom the token is good, of those that were asked for.
    pub(crate) audiences: Vec<String>,
}

/// The token in the header of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Who shows the token to one of these audiences; `None` if no ServiceAccount here ever had it.
///
/// # Errors
/// Why a token of this lab is not good, or not any more.
pub(crate) fn authenticate(
    api: &Api,
    token: &str,
    audiences: &[String],
) -> Result<Option<Authenticated>, String> {
    let Some(claims) = api.issuer.read(token) else {
        return Ok(None);
    };
    let own = [ISSUER.to_owned()];
    let asked = if audiences.is_empty() {
        &own
    } else {
        audiences
    };
    let given = claims.aud.list();
    let good: Vec<String> = asked
        .iter()
        .filter(|a| given.contains(a))
        .cloned()
        .collect();
    if good.is_empty() {
        return Err(format!(
            "token audiences {} is invalid for the target audiences {}",
            quoted(given),
            quoted(asked)
        ));
    }
    let now = Timestamp::now().as_second();
    if now > claims.exp + LEEWAY {
        return Err("service account token has expired".to_owned());
    }
    if now < claims.nbf - LEEWAY {
        return Err("service account token is not valid yet".to_owned());
    }
    check_bound(api, &claims, now)?;
    Ok(Some(Authenticated {
        user: user(&claims),
        audiences: good,
    }))
}

/// As Go prints a list of texts with `%q`.
fn quoted(list: &[String]) -> String {
    let list: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", list.join(" "))
}

fn check_bound(api: &Api, claims: &Claims, now: i64) -> Result<(), String> {
    let bound = &claims.kubernetes;
    let find = |plural: &str, namespace: &str, reference: &Reference| -> Option<Value> {
        let resource = api.core(plural).ok()?;
        api.object(&resource, namespace, &reference.name).ok()?
    };
    let account = &bound.serviceaccount;
    let name = format!("{}/{}", bound.namespace, account.name);
    let Some(object) = find("serviceaccounts", &bound.namespace, account) else {
        return Err(format!("serviceaccounts \"{}\" not found", account.name));
    };
    if is_gone(&object, now) {
        return Err(format!("service account {name} has been deleted"));
    }
    let uid = text(&object, "/metadata/uid");
    if uid != account.uid {
        return Err(format!(
            "service account UID ({uid}) does not match claim ({})",
            account.uid
        ));
    }
    for (plural, what, claim, namespace, reference) in [
        (
            "secrets",
            "secret",
            "service account secret ref",
            bound.namespace.as_str(),
            &bound.secret,
        ),
        (
            "pods",
            "pod",
            "service account pod ref",
            &bound.namespace,
            &bound.pod,
        ),
    ] {
        let Some(reference) = reference else { continue };
        let invalidated = || "service account token has been invalidated".to_owned();
        let object = find(plural, namespace, reference).ok_or_else(invalidated)?;
        if is_gone(&object, now) {
            return Err(invalidated());
        }
        let uid = text(&object, "/metadata/uid");
        if uid != reference.uid {
            return Err(format!(
                "{what} UID ({uid}) does not match {claim} claim ({})",
                reference.uid
            ));
        }
    }
    // A token of a Pod names the node for information only; one that is bound to a node itself ends with it.
    if let (Some(node), None) = (&bound.node, &bound.pod) {
        let object = find("nodes", "", node);
        if object.is_none_or(|object| text(&object, "/metadata/uid") != node.uid) {
            return Err("service account token has been invalidated".to_owned());
        }
    }
    Ok(())
}

/// Whether an object's deletion is over but for the removal.
fn is_gone(object: &Value, now: i64) -> bool {
    let deleted = text(object, "/metadata/deletionTimestamp").parse::<Timestamp>();
    deleted.is_ok_and(|time| time.as_second() < now - LEEWAY)
}

fn user(claims: &Claims) -> User {
    let bound = &claims.kubernetes;
    let mut extra = BTreeMap::new();
    let mut tell = |name: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(
                format!("authentication.kubernetes.io/{name}"),
                vec![value.to_owned()],
            );
        }
    };
    for (what, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(reference) = reference {
            tell(&format!("{what}-name"), &reference.name);
            tell(&format!("{what}-uid"), &reference.uid);
        }
    }
    if !claims.jti.is_empty() {
        tell("credential-id", &format!("JTI={}", claims.jti));
    }
    User {
        name: claims.sub.clone(),
        uid: bound.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", bound.namespace),
            "system:authenticated".to_owned(),
        ],
        extra,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_token_comes_after_the_word_bearer() {
        let find = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(text));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(find("Bearer a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(find("bearer  a ").as_deref(), Some("a"));
        for text in ["Basic a", "Bearer", "Bearer ", ""] {
            assert_eq!(find(text), None, "{text}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
