//! What a request's path asks for.
//!
//! Source: Kubernetes API concepts, "Resource URIs"; `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go` for the
//! two meanings of what follows `namespaces/`.

use percent_encoding::percent_decode_str;

/// A place in the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/healthz`, `/livez`, `/readyz`
    Health,
    /// `/version`
    Version,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/<version>` or `/apis/<group>/<version>`
    Resources { group: String, version: String },
    /// `/.well-known/openid-configuration`
    OpenIdConfiguration,
    /// `/openid/v1/jwks`
    OpenIdKeys,
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiV3,
    /// `/openapi/v3/<path>`
    OpenApiV3Document(String),
    /// Objects.
    Objects(Place),
}

/// Where objects are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty: of all namespaces, or the kind has none.
    pub(crate) namespace: String,
    /// Plural name of the kind.
    pub(crate) resource: String,
    /// Empty: all.
    pub(crate) name: String,
    /// Empty: the object itself.
    pub(crate) subresource: String,
    /// A watch, by its place: `/api/v1/watch/…`, deprecated but served.
    pub(crate) watch: bool,
}

impl Target {
    /// Reads a path; `None` if there is nothing there.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let parts = segments(path)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            // The checks behind them have no names of their own to tell of here.
            ["healthz" | "livez" | "readyz", ..] => Some(Self::Health),
            ["version"] => Some(Self::Version),
            ["api"] => Some(Self::CoreVersions),
            ["apis"] => Some(Self::Groups),
            ["apis", group] => Some(Self::Group((*group).to_owned())),
            [".well-known", "openid-configuration"] => Some(Self::OpenIdConfiguration),
            ["openid", "v1", "jwks"] => Some(Self::OpenIdKeys),
            ["openapi", "v2"] => Some(Self::OpenApiV2),
            ["openapi", "v3"] => Some(Self::OpenApiV3),
            ["openapi", "v3", rest @ ..] => Some(Self::OpenApiV3Document(rest.join("/"))),
            ["api", version, rest @ ..] => Self::within("", version, rest),
            ["apis", group, version, rest @ ..] => Self::within(group, version, rest),
            _ => None,
        }
    }

    fn within(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let (watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            _ => (false, rest),
        };
        let (namespace, rest) = match rest {
            [] => {
                return Some(Self::Resources {
                    group: group.to_owned(),
                    version: version.to_owned(),
                });
            }
            // Of the Namespace object itself, not of what is in it.
            ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, resource @ ..] if !resource.is_empty() => {
                (*namespace, resource)
            }
            _ => ("", rest),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (*resource, "", ""),
            [resource, name] => (*resource, *name, ""),
            [resource, name, subresource] => (*resource, *name, *subresource),
            _ => return None,
        };
        Some(Self::Objects(Place {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            watch,
        }))
    }
}

fn segments(path: &str) -> Option<Vec<String>> {
    path.split('/')
        .filter(|s| !s.is_empty())
        .map(|s| {
            percent_decode_str(s)
                .decode_utf8()
                .ok()
                .map(|s| s.into_owned())
        })
        // A name that is not one would reach into the keys of others.
        .map(|s| s.filter(|s| !s.contains('/') && s != "." && s != ".."))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> (String, String, String, String, String) {
        match Target::parse(path) {
            Some(Target::Objects(p)) => (p.group, p.namespace, p.resource, p.name, p.subresource),
            other => panic!("{path} is {other:?}"),
        }
    }

    fn of(
        group: &str,
        namespace: &str,
        resource: &str,
        name: &str,
        sub: &str,
    ) -> (String, String, String, String, String) {
        (
            group.into(),
            namespace.into(),
            resource.into(),
            name.into(),
            sub.into(),
        )
    }

    #[test]
    fn a_namespace_is_an_object_and_a_place_of_objects() {
        assert_eq!(
            place("/api/v1/namespaces"),
            of("", "", "namespaces", "", "")
        );
        assert_eq!(
            place("/api/v1/namespaces/a"),
            of("", "", "namespaces", "a", "")
        );
        assert_eq!(
            place("/api/v1/namespaces/a/finalize"),
            of("", "", "namespaces", "a", "finalize")
        );
        assert_eq!(
            place("/api/v1/namespaces/a/pods"),
            of("", "a", "pods", "", "")
        );
        assert_eq!(
            place("/api/v1/namespaces/a/pods/b/log"),
            of("", "a", "pods", "b", "log")
        );
        assert_eq!(
            place("/apis/apps/v1/deployments"),
            of("apps", "", "deployments", "", "")
        );
    }

    #[test]
    fn a_name_cannot_reach_into_other_keys() {
        assert_eq!(Target::parse("/api/v1/namespaces/a%2Fb/pods"), None);
        assert_eq!(Target::parse("/api/v1/namespaces/a/pods/.."), None);
        assert_eq!(
            place("/api/v1/namespaces/a/pods/b%41"),
            of("", "a", "pods", "bA", "")
        );
    }

    #[test]
    fn the_old_places_of_watches_are_known() {
        for (path, namespace, name) in [
            ("/api/v1/watch/pods", "", ""),
            ("/api/v1/watch/namespaces/a/pods", "a", ""),
            ("/apis/apps/v1/watch/namespaces/a/pods/b", "a", "b"),
        ] {
            let Some(Target::Objects(place)) = Target::parse(path) else {
                panic!("{path}");
            };
            assert!(place.watch);
            assert_eq!(
                (place.namespace.as_str(), place.name.as_str()),
                (namespace, name)
            );
        }
    }

    #[test]
    fn what_is_not_an_api_path_is_nothing() {
        assert_eq!(Target::parse("/nothing"), None);
        assert_eq!(Target::parse("/api/v1/namespaces/a/pods/b/log/more"), None);
    }
}
