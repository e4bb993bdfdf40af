//! Where a link of an answer has to lead so that it leads through the proxy again. Pure.
//! Source: `rewriteURL`, `k8s.io/apimachinery/pkg/util/proxy/transport.go`.

use super::door::clean;

/// What links are rewritten for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Links {
    /// The path to the backend through the proxy, without a slash at its end.
    pub(super) prefix: String,
    /// `address:port` of the backend.
    pub(super) backend: String,
    /// The host that the client asked for.
    pub(super) client: String,
}

impl Links {
    /// The link as it has to be; `None` if it is right as it is.
    pub(super) fn rewrite(&self, link: &str) -> Option<String> {
        let url = Url::parse(link)?;
        let elsewhere = !url.host.is_empty() && url.host != self.backend && url.host != self.client;
        if elsewhere || !url.path.starts_with('/') {
            return None;
        }
        // To the client's own host a link may stay what it is.
        let head = if url.host == self.client {
            url.head
        } else {
            ""
        };
        let path = if self.leads_through(url.path) {
            url.path.to_owned()
        } else {
            clean(&format!("{}{}", self.prefix, url.path))
        };
        let rewritten = format!("{head}{path}{}", url.tail);
        (rewritten != link).then_some(rewritten)
    }

    fn leads_through(&self, path: &str) -> bool {
        path.strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A link in its parts, which together are the link.
#[derive(Debug)]
struct Url<'a> {
    /// Scheme and host with what is around them.
    head: &'a str,
    host: &'a str,
    path: &'a str,
    /// Query and fragment.
    tail: &'a str,
}

impl<'a> Url<'a> {
    /// `None` for what is no link to a path on a host.
    fn parse(link: &'a str) -> Option<Self> {
        if link
            .bytes()
            .any(|byte| byte.is_ascii_control() || byte == b' ')
        {
            return None;
        }
        let tail = link.find(['?', '#']).unwrap_or(link.len());
        let (place, tail) = link.split_at(tail);
        let scheme = match place.split_once(':') {
            Some((scheme, _)) if is_scheme(scheme) => scheme.len() + 1,
            _ => 0,
        };
        let Some(rest) = place[scheme..].strip_prefix("//") else {
            // `mailto:x` has no path that could be on a host.
            return (scheme == 0).then_some(Self {
                head: "",
                host: "",
                path: place,
                tail,
            });
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        Some(Self {
            head: &place[..place.len() - path.len()],
            host: host.rsplit_once('@').map_or(host, |(_, host)| host),
            path,
            tail,
        })
    }
}

fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn links() -> Links {
        Links {
            prefix: "/api/v1/namespaces/a/services/web/proxy".into(),
            backend: "10.244.0.5:80".into(),
            client: "localhost:8001".into(),
        }
    }

    #[test]
    fn links_to_the_backend_lead_through_the_proxy() {
        let prefix = links().prefix;
        for (link, path) in [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/a?x=/b#c", "/a?x=/b#c"),
            ("http://10.244.0.5:80/a", "/a"),
            ("//10.244.0.5:80/a", "/a"),
        ] {
            assert_eq!(
                links().rewrite(link),
                Some(format!("{prefix}{path}")),
                "{link}"
            );
        }
        assert_eq!(
            links().rewrite("http://localhost:8001/a"),
            Some(format!("http://localhost:8001{prefix}/a"))
        );
    }

    #[test]
    fn other_links_stay_as_they_are() {
        let through = format!("{}/a", links().prefix);
        for link in [
            "",
            "a/b",
            "?x",
            "#top",
            "../up",
            "http://example.com/a",
            "https://10.244.0.6:80/a",
            "//cdn.example.com/x.js",
            "mailto:a@example.com",
            "javascript:alert(1)",
            "http://10.244.0.5:80",
            " /a",
            &through,
        ] {
            assert_eq!(links().rewrite(link), None, "{link}");
        }
    }

    proptest! {
        #[test]
        fn a_link_is_right_once_it_was_rewritten(link in "(http:)?(//(10.244.0.5:80|localhost:8001|x))?[/a.?#:%]{0,12}") {
            if let Some(once) = links().rewrite(&link) {
                prop_assert_eq!(links().rewrite(&once), None, "{}", once);
            }
        }

        #[test]
        fn any_link_is_read(link in ".{0,60}") {
            let _ = links().rewrite(&link);
        }
    }
}
