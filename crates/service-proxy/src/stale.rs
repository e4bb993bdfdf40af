//! What the kernel remembers of clients and must forget when endpoints go: flows of datagrams, which never end by
//! themselves while somebody sends, and who answered a client that comes back. Pure.
//!
//! Source: `CleanStaleEntries` in `k8s.io/kubernetes/pkg/proxy/conntrack/cleanup.go`.

use std::collections::BTreeSet;

use seaway_kernel::conntrack::Flow;

use crate::model::Protocol;
use crate::plan::{Backend, Forwarding, FrontendKey};

/// Whether the kernel must forget this flow: its packets go where the Service has no endpoint any more, or nowhere
/// although by now there is one. `gone` are frontends that were there and are no more.
pub(crate) fn flow_is_stale(
    flow: &Flow,
    forwarding: &Forwarding,
    gone: &BTreeSet<FrontendKey>,
) -> bool {
    let Some(protocol) = Protocol::from_number(flow.protocol) else {
        return false;
    };
    let asked_for = flow.original.destination;
    let at_address = FrontendKey::Address {
        ip: asked_for.ip(),
        protocol,
        port: asked_for.port(),
    };
    if let Some(frontend) = forwarding.frontend(&at_address) {
        let answers = !frontend.backends.is_empty() || frontend.policy.inside.is_some();
        return (answers || flow.is_redirected()) && !frontend.has(&flow.reply.source);
    }
    if gone.contains(&at_address) || forwarding.is_service_address(asked_for.ip()) {
        return flow.is_redirected();
    }
    let at_node_port = FrontendKey::NodePort {
        protocol,
        port: asked_for.port(),
    };
    // What is not redirected is for a program on the node, or passing through.
    if !flow.is_redirected() || !forwarding.is_node_port_address(asked_for.ip()) {
        return false;
    }
    match forwarding.frontend(&at_node_port) {
        Some(frontend) => !frontend.has(&flow.reply.source),
        None => gone.contains(&at_node_port),
    }
}

/// Whether a client must not be sent any more to the backend that answered it last.
pub(crate) fn affinity_is_stale(
    key: &FrontendKey,
    backend: &Backend,
    forwarding: &Forwarding,
) -> bool {
    forwarding
        .frontend(key)
        .is_none_or(|frontend| frontend.policy.affinity.is_none() || !frontend.has(backend))
}
