//! Asking in the name of somebody else (`kubectl --as`): whoever may do everything may do that, too.
//! Source: Kubernetes documentation, "User impersonation"; `WithImpersonation` in `k8s.io/apiserver`.

use std::collections::BTreeMap;

use http::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::admission::User;
use crate::status::ApiError;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";
const ACCOUNT: &str = "system:serviceaccount:";

/// In whose name a request is made that `user` sends.
///
/// # Errors
/// It names groups, say, and nobody who is in them.
pub(crate) fn subject(user: User, headers: &HeaderMap) -> Result<User, ApiError> {
    let values = |name: &str| -> Vec<String> {
        let all = headers.get_all(name).iter();
        all.filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect()
    };
    let first = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let (name, uid, mut groups) = (first(USER), first(UID), values(GROUP));
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let (Some(key), Ok(value)) = (header.as_str().strip_prefix(EXTRA), value.to_str()) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().push(value.to_owned());
        }
    }
    if name.is_empty() {
        if uid.is_empty() && groups.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        return Err(ApiError::internal(
            "requested a uid, groups or extras without impersonating a user",
        ));
    }
    if let (Some(account), true) = (name.strip_prefix(ACCOUNT), groups.is_empty()) {
        let namespace = account.split(':').next().unwrap_or_default();
        groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    let standing = if name == ANONYMOUS {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    if !groups
        .iter()
        .any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED)
    {
        groups.push(standing.to_owned());
    }
    Ok(User {
        name,
        uid,
        groups,
        extra,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn ask(headers: &[(&'static str, &'static str)]) -> Result<User, ApiError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let admin = User {
            name: "admin".to_owned(),
            ..User::default()
        };
        subject(admin, &map)
    }

    #[test]
    fn a_request_is_in_the_name_of_whom_it_names() {
        assert_eq!(ask(&[]).unwrap().name, "admin");
        let user = ask(&[
            ("impersonate-user", "ann"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("impersonate-extra-example.org%2fscope", "x"),
        ])
        .unwrap();
        assert_eq!(user.name, "ann");
        assert_eq!(user.groups, ["a", "b", AUTHENTICATED]);
        assert_eq!(user.extra["example.org/scope"], ["x"]);
        let account = ask(&[("impersonate-user", "system:serviceaccount:d:a")]).unwrap();
        assert_eq!(
            account.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:d",
                AUTHENTICATED
            ]
        );
        assert_eq!(
            ask(&[("impersonate-user", ANONYMOUS)]).unwrap().groups,
            [UNAUTHENTICATED]
        );
        assert_eq!(ask(&[("impersonate-group", "a")]).unwrap_err().code, 500);
    }
}
