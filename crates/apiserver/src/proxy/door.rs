//! What a path through the proxy asks for. Pure.
//!
//! Paths are taken as they were sent: what a backend gets is escaped as the client escaped it.
//! Source: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`; `SplitSchemeNamePort`, `k8s.io/apimachinery/pkg/util/net`.

use percent_encoding::percent_decode_str;

/// What a proxy leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pods,
    Services,
    Nodes,
}

/// A path through the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) kind: Kind,
    /// Empty for nodes.
    pub(crate) namespace: String,
    /// `[scheme:]name[:port]`, not checked yet.
    pub(crate) id: String,
    /// The path up to the backend's own, without a slash at its end.
    pub(crate) prefix: String,
    /// The backend's own path: empty, or with a slash in front.
    pub(crate) path: String,
}

/// An id in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id<'a> {
    pub(crate) https: bool,
    pub(crate) name: &'a str,
    /// Empty if none was named.
    pub(crate) port: &'a str,
}

impl Door {
    /// Reads a path; `None` if it does not lead through the proxy.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/api/v1/")?;
        let parts: Vec<&str> = rest.splitn(6, '/').collect();
        // Where the backend's path begins, as a part of `parts`.
        let (kind, namespace, id, after) = match parts.as_slice() {
            // The path from before Kubernetes 1.2, which documents of that time use.
            ["proxy", "namespaces", namespace, kind, id, ..] => {
                (namespaced(kind)?, *namespace, *id, 5)
            }
            ["proxy", "nodes", id, ..] => (Kind::Nodes, "", *id, 3),
            ["namespaces", namespace, kind, id, "proxy", ..] => {
                (namespaced(kind)?, *namespace, *id, 5)
            }
            ["nodes", id, "proxy", ..] => (Kind::Nodes, "", *id, 3),
            _ => return None,
        };
        let own: usize = parts[..after].iter().map(|part| part.len() + 1).sum();
        let prefix_end = "/api/v1/".len() + own - 1;
        let decode = |part: &str| {
            let text = percent_decode_str(part).decode_utf8().ok()?;
            // A name that is not one would reach into the keys of others.
            let good = !text.is_empty() && !text.contains('/') && text != "." && text != "..";
            good.then(|| text.into_owned())
        };
        Some(Self {
            kind,
            namespace: if kind == Kind::Nodes {
                String::new()
            } else {
                decode(namespace)?
            },
            id: decode(id)?,
            prefix: path[..prefix_end].to_owned(),
            path: clean(&path[prefix_end..]),
        })
    }

    /// The parts of the id; `None` if they make no sense.
    pub(crate) fn id(&self) -> Option<Id<'_>> {
        let parts: Vec<&str> = self.id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let https = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return None,
        };
        (!name.is_empty()).then_some(Id { https, name, port })
    }
}

fn namespaced(kind: &str) -> Option<Kind> {
    match kind {
        "pods" => Some(Kind::Pods),
        "services" => Some(Kind::Services),
        _ => None,
    }
}

/// A path without empty parts, `.` and `..`, which keeps its slash at the end. Source: `JoinPreservingTrailingSlash`.
pub(super) fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            // However it is written, no backend gets to see one.
            _ if is_parent(part) => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    if kept.is_empty() {
        return if path.is_empty() { "" } else { "/" }.to_owned();
    }
    let mut clean = String::with_capacity(path.len());
    for part in kept {
        clean.push('/');
        clean.push_str(part);
    }
    if path.ends_with('/') {
        clean.push('/');
    }
    clean
}

fn is_parent(part: &str) -> bool {
    part.len() <= 6 && percent_decode_str(part).eq(*b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn door(path: &str) -> (Kind, String, String, String, String) {
        let door = Door::parse(path).unwrap();
        (door.kind, door.namespace, door.id, door.prefix, door.path)
    }

    #[test]
    fn a_path_leads_to_a_backend_and_goes_on_there() {
        for (path, kind, namespace, id, prefix, rest) in [
            (
                "/api/v1/namespaces/a/services/web:80/proxy/x/y/",
                Kind::Services,
                "a",
                "web:80",
                "/api/v1/namespaces/a/services/web:80/proxy",
                "/x/y/",
            ),
            (
                "/api/v1/namespaces/a/pods/p/proxy",
                Kind::Pods,
                "a",
                "p",
                "/api/v1/namespaces/a/pods/p/proxy",
                "",
            ),
            (
                "/api/v1/nodes/n/proxy/pods",
                Kind::Nodes,
                "",
                "n",
                "/api/v1/nodes/n/proxy",
                "/pods",
            ),
            (
                "/api/v1/proxy/namespaces/a/services/web:http/x%2Fy",
                Kind::Services,
                "a",
                "web:http",
                "/api/v1/proxy/namespaces/a/services/web:http",
                "/x%2Fy",
            ),
            (
                "/api/v1/proxy/nodes/n/",
                Kind::Nodes,
                "",
                "n",
                "/api/v1/proxy/nodes/n",
                "/",
            ),
        ] {
            let expected = (
                kind,
                namespace.to_owned(),
                id.to_owned(),
                prefix.to_owned(),
                rest.to_owned(),
            );
            assert_eq!(door(path), expected, "{path}");
        }
    }

    #[test]
    fn other_paths_do_not_lead_through_the_proxy() {
        for path in [
            "/api/v1/namespaces/a/services/web",
            "/api/v1/namespaces/a/services/web/status",
            "/api/v1/namespaces/a/secrets/web/proxy/x",
            "/api/v1/namespaces/a/services//proxy/x",
            "/api/v1/namespaces/a/services/a%2Fb/proxy/x",
            "/api/v1/namespaces/../services/a/proxy/x",
            "/apis/apps/v1/namespaces/a/services/web/proxy/x",
            "/api/v1/namespaces/proxy",
            "/api/v1/proxy",
        ] {
            assert_eq!(Door::parse(path), None, "{path}");
        }
    }

    #[test]
    fn an_id_has_a_name_and_may_have_a_port_and_a_scheme() {
        let id = |id: &str| {
            let path = format!("/api/v1/namespaces/a/services/{id}/proxy/");
            let door = Door::parse(&path)?;
            let Id { https, name, port } = door.id()?;
            Some((https, name.to_owned(), port.to_owned()))
        };
        let some = |https, name: &str, port: &str| Some((https, name.to_owned(), port.to_owned()));
        assert_eq!(id("web"), some(false, "web", ""));
        assert_eq!(id("web:80"), some(false, "web", "80"));
        assert_eq!(id("https:web:"), some(true, "web", ""));
        assert_eq!(id(":web:http"), some(false, "web", "http"));
        for bad in ["ftp:web:80", "a:b:c:d", ":80", "http::80"] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_path_is_made_plain_and_keeps_its_slash() {
        for (path, plain) in [
            ("", ""),
            ("/", "/"),
            ("//a//b/", "/a/b/"),
            ("/a/../../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/./..", "/"),
            ("/a%20b", "/a%20b"),
        ] {
            assert_eq!(clean(path), plain, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_a_backend(path in "(/[a.%2eE/]{0,6}){0,6}") {
            let clean = clean(&path);
            prop_assert!(clean.is_empty() || clean.starts_with('/'));
            prop_assert!(!clean.split('/').any(is_parent), "{}", clean);
        }

        #[test]
        fn any_path_is_read(path in ".{0,80}") {
            let _ = Door::parse(&path);
            let _ = Door::parse(&format!("/api/v1/{path}"));
        }
    }
}
