//! What load balancers and people are told about this proxy: whether it works, and for Services that keep external
//! traffic on the node, whether there are endpoints here. Pure; `health_server.rs` has the sockets.
//!
//! Source: `k8s.io/kubernetes/pkg/proxy/healthcheck`; KEP-3836 for nodes that are on their way out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::ObjectName;

/// Longer than this no change may wait for the kernel before the proxy counts as ill.
const PATIENCE: Duration = Duration::from_secs(60);
/// Cluster autoscalers put it on nodes that they are about to take away.
pub(crate) const TAINT_TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What the proxy knows of its own health; shared between its loop and those who ask.
#[derive(Debug, Clone)]
pub(crate) struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Since when the kernel is not as it should be; `None`: it is.
    behind_since: Option<Instant>,
    /// Whether it was ever as it should be.
    programmed: bool,
    /// Whether new traffic from outside should come to this node.
    eligible: bool,
    /// By port: the Service, and how many of its endpoints are here.
    services: BTreeMap<u16, (ObjectName, usize)>,
}

/// An answer over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 200 or 503.
    pub(crate) code: u16,
    /// JSON.
    pub(crate) body: String,
    /// `X-Load-Balancing-Endpoint-Weight`: how much of the traffic should come here.
    pub(crate) weight: Option<usize>,
}

impl Health {
    /// A proxy that has not programmed the kernel yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            behind_since: Some(now),
            programmed: false,
            eligible: true,
            services: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete in itself, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel is as it should be.
    pub(crate) fn in_step(&self) {
        let mut state = self.state();
        state.behind_since = None;
        state.programmed = true;
    }

    /// The kernel is not as it should be, at least since now.
    pub(crate) fn behind(&self, now: Instant) {
        self.state().behind_since.get_or_insert(now);
    }

    /// Whether new traffic from outside should come to this node.
    pub(crate) fn set_eligible(&self, eligible: bool) {
        self.state().eligible = eligible;
    }

    /// A Service has this health-check port and so many endpoints here; `None`: no port any more. Returns the ports
    /// that should be listened on if that changed.
    pub(crate) fn set_service(
        &self,
        name: &ObjectName,
        now: Option<(u16, usize)>,
    ) -> Option<Vec<u16>> {
        let mut state = self.state();
        let before: Vec<u16> = state.services.keys().copied().collect();
        state.services.retain(|_, (service, _)| service != name);
        if let Some((port, endpoints)) = now {
            // The API server gives a port to one Service; if not, the first by name has it.
            let taken = state
                .services
                .get(&port)
                .is_some_and(|(other, _)| other < name);
            if !taken {
                state.services.insert(port, (name.clone(), endpoints));
            }
        }
        let after: Vec<u16> = state.services.keys().copied().collect();
        (before != after).then_some(after)
    }

    fn works(state: &State, now: Instant) -> bool {
        state
            .behind_since
            .is_none_or(|since| now.saturating_duration_since(since) < PATIENCE)
    }

    /// Whether this node has endpoints for the Service with this health-check port; `None` if there is no such.
    pub(crate) fn of_service(&self, port: u16, now: Instant) -> Option<Answer> {
        let state = self.state();
        let (service, endpoints) = state.services.get(&port)?;
        let works = Self::works(&state, now);
        let text = service.to_string();
        let (namespace, name) = text.split_once('/').unwrap_or_default();
        let body = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace:?},\n\t\t\"name\": {name:?}\n\t}},\n\
             \t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {works}\n}}"
        );
        Some(Answer {
            code: if *endpoints > 0 && works { 200 } else { 503 },
            body,
            weight: Some(*endpoints),
        })
    }

    /// `/healthz` (and `/readyz`): whether traffic should come to this node; `/livez`: whether the proxy works.
    pub(crate) fn of_proxy(&self, path: &str, now: Instant) -> Option<Answer> {
        let state = self.state();
        let works = Self::works(&state, now);
        // Before the first round there is nothing that could carry traffic.
        let (good, body) = match path {
            "/livez" => (works, format!("{{\"healthy\": {works}}}")),
            "/healthz" | "/readyz" => {
                let good = works && state.eligible && state.programmed;
                let eligible = state.eligible;
                (
                    good,
                    format!("{{\"healthy\": {good}, \"nodeEligible\": {eligible}}}"),
                )
            }
            _ => return None,
        };
        Some(Answer {
            code: if good { 200 } else { 503 },
            body,
            weight: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(health: &Health, path: &str, now: Instant) -> u16 {
        health.of_proxy(path, now).unwrap().code
    }

    #[test]
    fn a_service_is_well_here_while_it_has_endpoints_and_the_proxy_works() {
        let start = Instant::now();
        let health = Health::new(start);
        health.in_step();
        let web = ObjectName::new("default", "web");
        assert_eq!(
            health.set_service(&web, Some((31000, 2))),
            Some(vec![31000])
        );
        assert_eq!(health.set_service(&web, Some((31000, 1))), None);
        let answer = health.of_service(31000, start).unwrap();
        assert_eq!((answer.code, answer.weight), (200, Some(1)));
        assert_eq!(
            answer.body,
            "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\
             \t\"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true\n}"
        );
        health.behind(start);
        assert_eq!(
            health.of_service(31000, start + PATIENCE).unwrap().code,
            503
        );
        health.in_step();
        let _ = health.set_service(&web, Some((31000, 0)));
        assert_eq!(health.of_service(31000, start).unwrap().code, 503);
        assert_eq!(
            health.set_service(&web, Some((31001, 1))),
            Some(vec![31001])
        );
        assert_eq!(health.of_service(31000, start), None);
        assert_eq!(health.set_service(&web, None), Some(vec![]));
    }

    #[test]
    fn a_port_that_two_services_have_goes_to_the_first_by_name_in_either_order() {
        let (a, b) = (ObjectName::new("x", "a"), ObjectName::new("x", "b"));
        for order in [[&a, &b], [&b, &a]] {
            let health = Health::new(Instant::now());
            for name in order {
                let _ = health.set_service(name, Some((31000, 1)));
            }
            let answer = health.of_service(31000, Instant::now()).unwrap();
            assert!(answer.body.contains("\"a\""), "{answer:?}");
        }
    }

    #[test]
    fn a_node_that_goes_is_alive_and_takes_no_new_traffic() {
        let start = Instant::now();
        let health = Health::new(start);
        assert_eq!(code(&health, "/livez", start), 200);
        assert_eq!(
            code(&health, "/healthz", start),
            503,
            "nothing is programmed yet"
        );
        health.in_step();
        assert_eq!(code(&health, "/healthz", start), 200);
        health.set_eligible(false);
        assert_eq!(code(&health, "/healthz", start), 503);
        assert_eq!(code(&health, "/livez", start), 200);
        health.set_eligible(true);
        health.behind(start);
        assert_eq!(
            code(&health, "/healthz", start),
            200,
            "a change is under way"
        );
        assert_eq!(code(&health, "/healthz", start + PATIENCE), 503);
        assert_eq!(code(&health, "/livez", start + PATIENCE), 503);
        assert_eq!(health.of_proxy("/other", start), None);
    }
}
