//! Subresources that are no part of the generic machinery, as discovery lists them; what they do is in files of
//! their own.

/// A subresource (or, without a slash, a resource that is only a door to something else).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subresource {
    /// Plural of the kind that it belongs to (all are in the core group); empty if it stands for itself.
    pub(crate) resource: &'static str,
    pub(crate) name: &'static str,
    /// The kind of what is sent.
    pub(crate) kind: &'static str,
    /// Group and version of that kind if they are not those of the resource.
    pub(crate) group_version: Option<(&'static str, &'static str)>,
    pub(crate) verbs: &'static [&'static str],
}

const STREAM: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// All of them, by resource and name.
pub(crate) const SUBRESOURCES: &[Subresource] = &[
    Subresource {
        resource: "",
        name: "bindings",
        kind: "Binding",
        group_version: None,
        verbs: &["create"],
    },
    Subresource {
        resource: "namespaces",
        name: "finalize",
        kind: "Namespace",
        group_version: None,
        verbs: &["update"],
    },
    Subresource {
        resource: "nodes",
        name: "proxy",
        kind: "NodeProxyOptions",
        group_version: None,
        verbs: PROXY,
    },
    Subresource {
        resource: "pods",
        name: "attach",
        kind: "PodAttachOptions",
        group_version: None,
        verbs: STREAM,
    },
    Subresource {
        resource: "pods",
        name: "binding",
        kind: "Binding",
        group_version: None,
        verbs: &["create"],
    },
    Subresource {
        resource: "pods",
        name: "eviction",
        kind: "Eviction",
        group_version: Some(("policy", "v1")),
        verbs: &["create"],
    },
    Subresource {
        resource: "pods",
        name: "exec",
        kind: "PodExecOptions",
        group_version: None,
        verbs: STREAM,
    },
    Subresource {
        resource: "pods",
        name: "log",
        kind: "Pod",
        group_version: None,
        verbs: &["get"],
    },
    Subresource {
        resource: "pods",
        name: "portforward",
        kind: "PodPortForwardOptions",
        group_version: None,
        verbs: STREAM,
    },
    Subresource {
        resource: "serviceaccounts",
        name: "token",
        kind: "TokenRequest",
        group_version: Some(("authentication.k8s.io", "v1")),
        verbs: &["create"],
    },
    Subresource {
        resource: "pods",
        name: "proxy",
        kind: "PodProxyOptions",
        group_version: None,
        verbs: PROXY,
    },
    Subresource {
        resource: "services",
        name: "proxy",
        kind: "ServiceProxyOptions",
        group_version: None,
        verbs: PROXY,
    },
];
