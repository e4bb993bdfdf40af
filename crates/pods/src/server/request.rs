//! Which container of which Pod a request is about.

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::Answers;
use crate::model::container_of;
use crate::runtime::{Container, ContainerPhase};

/// An answer other than success; the text is the kubelet's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refused {
            status,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }

    pub(super) fn response(self) -> Response {
        let mut response = (self.status, self.message).into_response();
        for (name, value) in self.headers {
            let value = HeaderValue::from_static(value);
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// The attempts of a container that the runtime has, oldest first.
fn attempts(answers: &Answers, pod: &Pod, name: &str) -> Result<Vec<Container>, Refused> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let containers = answers.runtime.containers(uid).map_err(Refused::internal)?;
    let mut attempts: Vec<_> = containers
        .into_iter()
        .filter(|container| container.spec.name == name)
        .collect();
    attempts.sort_by_key(|container| container.spec.attempt);
    Ok(attempts)
}

/// The Pod of that name.
pub(super) fn pod_named(
    answers: &Answers,
    namespace: &str,
    pod: &str,
) -> Result<std::sync::Arc<Pod>, Refused> {
    answers.pods.find(namespace, pod).ok_or_else(|| {
        let message = format!("pod {pod:?} does not exist");
        Refused::new(StatusCode::NOT_FOUND, message)
    })
}

fn pod_of(
    answers: &Answers,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<std::sync::Arc<Pod>, Refused> {
    let found = pod_named(answers, namespace, pod)?;
    if found
        .spec
        .as_ref()
        .is_none_or(|spec| container_of(spec, container).is_none())
    {
        let message = format!("container {container} is not valid for pod {pod}");
        return Err(Refused::new(StatusCode::BAD_REQUEST, message));
    }
    Ok(found)
}

/// The running attempt of a container.
pub(super) fn running(
    answers: &Answers,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<Container, Refused> {
    let found = pod_of(answers, namespace, pod, container)?;
    attempts(answers, &found, container)?
        .pop()
        .filter(|attempt| matches!(attempt.phase, ContainerPhase::Running { .. }))
        .ok_or_else(|| {
            Refused::new(
                StatusCode::NOT_FOUND,
                format!("container not found ({container:?})"),
            )
        })
}

/// The attempt of a container whose log is asked for.
pub(super) fn logged(
    answers: &Answers,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<Container, Refused> {
    let found = pod_of(answers, namespace, pod, container)?;
    let mut attempts = attempts(answers, &found, container)?;
    let newest = attempts.pop();
    if previous {
        // A container that ended and waits to be started again is its own previous attempt.
        let over = newest.filter(|attempt| {
            matches!(attempt.phase, ContainerPhase::Exited { .. }) && waits(&found, container)
        });
        return over.or_else(|| attempts.pop()).ok_or_else(|| {
            let message =
                format!("previous terminated container {container:?} in pod {pod:?} not found");
            Refused::new(StatusCode::BAD_REQUEST, message)
        });
    }
    newest.ok_or_else(|| {
        let reason = waiting_reason(&found, container);
        let message =
            format!("container {container:?} in pod {pod:?} is waiting to start: {reason}");
        Refused::new(StatusCode::BAD_REQUEST, message)
    })
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
        .chain(status.ephemeral_container_statuses.iter().flatten());
    all.into_iter().find(|status| status.name == container)
}

fn waits(pod: &Pod, container: &str) -> bool {
    status_of(pod, container)
        .and_then(|status| status.state.as_ref())
        .is_some_and(|state| state.waiting.is_some())
}

fn waiting_reason(pod: &Pod, container: &str) -> String {
    let waiting = status_of(pod, container)
        .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    match waiting {
        Some("ErrImagePull") => "image can't be pulled",
        Some("ImagePullBackOff") => "trying and failing to pull image",
        Some(reason) => reason,
        None => "ContainerCreating",
    }
    .to_owned()
}
