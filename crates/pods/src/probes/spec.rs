//! A probe with nothing left to interpret: ports are numbers, times are durations. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a probe decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Whether the container has started; others wait for it.
    Startup,
    /// Whether it gets traffic.
    Readiness,
    /// Whether it is left running.
    Liveness,
}

impl ProbeKind {
    /// As in Events: `Readiness probe failed`.
    pub fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }
}

/// An HTTP request to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// Over TLS, without looking at the certificate.
    pub tls: bool,
    /// Where; `None` is the Pod's address.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Headers in the order given.
    pub headers: Vec<(String, String)>,
}

/// What to do to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAction {
    /// A GET that must answer 200 to 399.
    Http(HttpTarget),
    /// A connection that must be accepted.
    Tcp {
        /// Where; `None` is the Pod's address.
        host: Option<String>,
        /// Its port.
        port: u16,
    },
    /// A command in the container that must end with 0.
    Exec(Vec<String>),
    /// Wait; for hooks only.
    Sleep(Duration),
    /// Cannot be done, and why.
    Invalid(String),
}

/// A probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSpec {
    /// What it decides.
    pub kind: ProbeKind,
    /// What is done.
    pub action: ProbeAction,
    /// Time after the container's start before the first probe counts.
    pub initial_delay: Duration,
    /// Time between probes.
    pub period: Duration,
    /// Time for an answer.
    pub timeout: Duration,
    /// Successes in a row that make it good.
    pub successes: u32,
    /// Failures in a row that make it bad.
    pub failures: u32,
}

impl ProbeSpec {
    /// The probe of a container of one kind, if it has one.
    pub fn of(container: &Container, kind: ProbeKind) -> Option<Self> {
        let probe = match kind {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
        }?;
        let seconds = |value: Option<i32>, default: i32| {
            let value = value.filter(|value| *value > 0).unwrap_or(default);
            Duration::from_secs(u64::try_from(value).unwrap_or(0))
        };
        let count = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        Some(ProbeSpec {
            kind,
            action: action_of_probe(container, probe),
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            // Only readiness may want more than one success (validation says so too).
            successes: if kind == ProbeKind::Readiness {
                count(probe.success_threshold, 1)
            } else {
                1
            },
            failures: count(probe.failure_threshold, 3),
        })
    }
}

fn action_of_probe(container: &Container, probe: &Probe) -> ProbeAction {
    if let Some(exec) = &probe.exec {
        return ProbeAction::Exec(exec.command.clone().unwrap_or_default());
    }
    if let Some(get) = &probe.http_get {
        return http(container, get);
    }
    if let Some(tcp) = &probe.tcp_socket {
        return match port(container, &tcp.port) {
            Ok(port) => ProbeAction::Tcp {
                host: non_empty(tcp.host.as_deref()),
                port,
            },
            Err(problem) => ProbeAction::Invalid(problem),
        };
    }
    if probe.grpc.is_some() {
        return ProbeAction::Invalid("grpc probes are not supported by seaway".to_owned());
    }
    ProbeAction::Invalid(format!(
        "missing probe handler for container {}",
        container.name
    ))
}

/// What a lifecycle hook does; the same actions, and `sleep`.
pub fn action_of_hook(container: &Container, hook: &LifecycleHandler) -> ProbeAction {
    if let Some(exec) = &hook.exec {
        return ProbeAction::Exec(exec.command.clone().unwrap_or_default());
    }
    if let Some(get) = &hook.http_get {
        return http(container, get);
    }
    if let Some(sleep) = &hook.sleep {
        return ProbeAction::Sleep(Duration::from_secs(
            u64::try_from(sleep.seconds).unwrap_or(0),
        ));
    }
    ProbeAction::Invalid(format!("invalid handler of container {}", container.name))
}

fn http(container: &Container, get: &HTTPGetAction) -> ProbeAction {
    let port = match port(container, &get.port) {
        Ok(port) => port,
        Err(problem) => return ProbeAction::Invalid(problem),
    };
    let path = get
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let headers = get
        .http_headers
        .iter()
        .flatten()
        .map(|header| (header.name.clone(), header.value.clone()));
    ProbeAction::Http(HttpTarget {
        tls: get
            .scheme
            .as_deref()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        host: non_empty(get.host.as_deref()),
        port,
        path,
        headers: headers.collect(),
    })
}

fn non_empty(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A port by number, or by the name that the container gave it.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_ref() == Some(name))
        {
            Some(port) => port.container_port,
            None => name.parse().map_err(|_| {
                format!(
                    "couldn't find port: {name:?} in container {}",
                    container.name
                )
            })?,
        },
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn readiness(probe: Value) -> ProbeSpec {
        let container: Container = serde_json::from_value(json!({
            "name": "main", "ports": [{"name": "web", "containerPort": 8080}], "readinessProbe": probe,
        }))
        .unwrap();
        ProbeSpec::of(&container, ProbeKind::Readiness).unwrap()
    }

    #[test]
    fn what_is_not_said_is_the_kubelets_default() {
        let spec = readiness(json!({"httpGet": {"port": "web"}}));
        let times = (
            spec.initial_delay.as_secs(),
            spec.period.as_secs(),
            spec.timeout.as_secs(),
        );
        assert_eq!((times, spec.successes, spec.failures), ((0, 10, 1), 1, 3));
        let ProbeAction::Http(target) = spec.action else {
            panic!("not http")
        };
        assert_eq!(
            (target.port, target.path.as_str(), target.tls, target.host),
            (8080, "/", false, None)
        );
    }

    #[test]
    fn actions_are_read_whole() {
        let spec = readiness(
            json!({"httpGet": {"port": 443, "scheme": "HTTPS", "host": "x", "path": "healthz?v=1",
            "httpHeaders": [{"name": "A", "value": "b"}]}}),
        );
        let target = HttpTarget {
            tls: true,
            host: Some("x".into()),
            port: 443,
            path: "/healthz?v=1".into(),
            headers: vec![("A".into(), "b".into())],
        };
        assert_eq!(spec.action, ProbeAction::Http(target));
        assert_eq!(
            readiness(json!({"tcpSocket": {"port": 53}})).action,
            ProbeAction::Tcp {
                host: None,
                port: 53
            }
        );
        assert_eq!(
            readiness(json!({"exec": {"command": ["true"]}})).action,
            ProbeAction::Exec(vec!["true".into()])
        );
    }

    #[test]
    fn what_cannot_be_done_says_why() {
        for probe in [
            json!({"httpGet": {"port": "none"}}),
            json!({"tcpSocket": {"port": 0}}),
            json!({"tcpSocket": {"port": 70000}}),
            json!({"grpc": {"port": 80}}),
            json!({}),
        ] {
            assert!(
                matches!(readiness(probe.clone()).action, ProbeAction::Invalid(_)),
                "{probe}"
            );
        }
    }
}
