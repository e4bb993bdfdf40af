//! Logs of containers: from the runtime's CRI files to what `kubectl logs` shows.
//! Source: `pkg/kubelet/kuberuntime/logs` and `PodLogOptions` in the Kubernetes API reference.

mod files;
mod options;
mod view;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::Answers;
use super::request::{Refused, logged};
use crate::runtime::{ContainerPhase, Runtime};
use files::Files;
use options::Options;
use view::View;

/// How long a followed log is left alone after something was in it, and at most.
const FOLLOW: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));
const CHUNK: usize = 64 * 1024;

pub(super) async fn container_logs(
    State(answers): State<Arc<Answers>>,
    Path(path): Path<HashMap<String, String>>,
    RawQuery(query): RawQuery,
) -> Response {
    open(&answers, &path, &query.unwrap_or_default())
        .await
        .unwrap_or_else(Refused::response)
}

async fn open(
    answers: &Answers,
    path: &HashMap<String, String>,
    query: &str,
) -> Result<Response, Refused> {
    let options = Options::parse(query, Timestamp::now())
        .map_err(|problem| Refused::new(StatusCode::BAD_REQUEST, problem))?;
    let part = |name: &str| path.get(name).map(String::as_str).unwrap_or_default();
    let container = logged(
        answers,
        part("namespace"),
        part("pod"),
        part("container"),
        options.previous,
    )?;
    let log = answers
        .runtime
        .log_path(&container.id)
        .map_err(Refused::internal)?;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, io::Error>>(16);
    let runtime = answers.runtime.clone();
    tokio::spawn(async move {
        let sending = async {
            let files = Files::open(log).await?;
            send(&runtime, &container.id, files, options, &sender).await
        };
        if let Err(error) = sending.await {
            // A client that is gone needs no answer.
            let _ = sender.send(Err(error)).await;
        }
    });
    let body = Body::from_stream(stream_of(receiver));
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

fn stream_of(
    receiver: mpsc::Receiver<Result<Bytes, io::Error>>,
) -> impl futures::Stream<Item = Result<Bytes, io::Error>> {
    futures::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

/// Sends a log, and then what is added to it until the container has ended.
async fn send(
    runtime: &Runtime,
    id: &str,
    mut files: Files,
    options: Options,
    sender: &mpsc::Sender<Result<Bytes, io::Error>>,
) -> io::Result<()> {
    if let Some(lines) = options.tail_lines {
        files.skip_to_tail(lines).await?;
    }
    let mut view = View::new(&options);
    let mut buffer = vec![0; CHUNK];
    let mut pause = FOLLOW.0;
    while !view.full() {
        // Asked before reading: what is written before the end is read after it.
        let over = options.follow
            && runtime.container(id).map_or(true, |container| {
                container.is_none_or(|c| matches!(c.phase, ContainerPhase::Exited { .. }))
            });
        let mut something = false;
        loop {
            let length = files.read(&mut buffer, options.follow).await?;
            if length == 0 || view.full() {
                break;
            }
            something = true;
            let shown = view.feed(&buffer[..length]);
            if !shown.is_empty() && sender.send(Ok(shown)).await.is_err() {
                return Ok(());
            }
        }
        if over || !options.follow {
            return Ok(());
        }
        pause = if something {
            FOLLOW.0
        } else {
            (pause * 2).min(FOLLOW.1)
        };
        tokio::select! {
            () = sender.closed() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(())
}
