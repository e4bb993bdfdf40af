//! Forwarding over SPDY: every connection is a pair of streams, one for its data and one for an error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::carry::carry;
use super::pairs::{Added, Ask, Pairs};
use super::target::Target;
use crate::server::spdy::{Session, Stream};

/// How often it is looked for streams that wait too long for their other half.
const LOOK: Duration = Duration::from_secs(5);

/// Serves a client until it is gone.
pub(super) async fn serve(mut session: Session, target: Arc<Target>) {
    let closed = session.closed();
    let tasks = TaskTracker::new();
    let mut pairs = Pairs::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        let request = tokio::select! {
            request = session.next() => match request {
                Some(request) => request,
                None => return,
            },
            _ = look.tick() => {
                for (request, stream) in pairs.overdue(Instant::now()) {
                    tasks.spawn(complain(stream, format!("(request={request}) timed out waiting for streams")));
                }
                continue;
            }
        };
        let ask = match Ask::read(request.headers(), request.id()) {
            Ok(ask) => ask,
            Err(problem) => {
                debug!(problem, "a stream for port forwarding is refused");
                request.refuse().await;
                continue;
            }
        };
        let Ok(stream) = request.accept().await else {
            return;
        };
        match pairs.add(&ask, stream, Instant::now()) {
            Added::Waits => {}
            Added::Twice(stream) => {
                let problem = format!(
                    "error processing stream for request {}: stream already assigned",
                    ask.request
                );
                tasks.spawn(complain(stream, problem));
            }
            Added::Pair { data, error } => {
                let (target, closed) = (target.clone(), closed.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = forward(&target, ask.port, data, error) => {}
                        () = closed.cancelled() => {}
                    }
                });
            }
        }
    }
}

/// Tells what is wrong and ends the stream.
async fn complain(mut stream: Stream, problem: String) {
    let told = async {
        stream.output.write(Bytes::from(problem)).await?;
        stream.output.finish().await
    };
    if told.await.is_err() {
        debug!("a client of port forwarding is gone");
    }
}

/// Forwards one connection.
async fn forward(target: &Target, port: u16, data: Stream, error: Stream) {
    let Stream {
        input, mut output, ..
    } = data;
    let pod = match target.connect(port).await {
        Ok(pod) => pod,
        Err(problem) => {
            debug!(problem);
            complain(error, problem).await;
            let _ = output.finish().await;
            return;
        }
    };
    carry(pod, input, &mut output).await;
    // Nothing said means that all went well. A connection that broke in the Pod is no reason for the client to give
    // up the session, which is what it does when it is told of an error.
    let Stream {
        output: mut last, ..
    } = error;
    let _ = last.finish().await;
}
