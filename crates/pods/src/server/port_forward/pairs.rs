//! Which two streams belong to one forwarded connection. Pure.
//! Source: `k8s.io/kubelet/pkg/cri/streaming/portforward/httpstream.go`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::server::spdy::Headers;

/// How long a stream waits for the other of its pair.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Data,
    Error,
}

/// What a client says of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) role: Role,
    pub(super) port: u16,
    /// The same for both streams of a pair.
    pub(super) request: String,
}

impl Ask {
    /// Reads the headers of stream number `id`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn read(headers: &Headers, id: u32) -> Result<Self, String> {
        let port = headers
            .first("port")
            .ok_or("\"port\" header is required")?
            .parse()
            .map_err(|error| format!("unable to parse the port: {error}"))?;
        if port == 0 {
            return Err("port \"0\" must be > 0".to_owned());
        }
        let role = match headers.first("streamtype") {
            Some("data") => Role::Data,
            Some("error") => Role::Error,
            Some(other) => return Err(format!("invalid stream type {other:?}")),
            None => return Err("\"streamType\" header is required".to_owned()),
        };
        let request = match headers.first("requestid") {
            Some(request) => request.to_owned(),
            // Clients from before Kubernetes 1.2 open both one after the other, the one for errors first.
            None if role == Role::Error => id.to_string(),
            None => id.saturating_sub(2).to_string(),
        };
        Ok(Self {
            role,
            port,
            request,
        })
    }
}

/// Streams that wait for the other of their pair.
#[derive(Debug)]
pub(super) struct Pairs<S>(HashMap<String, Half<S>>);

#[derive(Debug)]
struct Half<S> {
    role: Role,
    stream: S,
    since: Instant,
}

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added<S> {
    /// It waits.
    Waits,
    /// It is the second of its pair.
    Pair { data: S, error: S },
    /// There is one of its role in the pair already: this one is too much.
    Twice(S),
}

impl<S> Pairs<S> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    pub(super) fn add(&mut self, ask: &Ask, stream: S, now: Instant) -> Added<S> {
        match self.0.remove(&ask.request) {
            Some(half) if half.role == ask.role => {
                self.0.insert(ask.request.clone(), half);
                Added::Twice(stream)
            }
            Some(half) => match ask.role {
                Role::Data => Added::Pair {
                    data: stream,
                    error: half.stream,
                },
                Role::Error => Added::Pair {
                    data: half.stream,
                    error: stream,
                },
            },
            None => {
                let half = Half {
                    role: ask.role,
                    stream,
                    since: now,
                };
                self.0.insert(ask.request.clone(), half);
                Added::Waits
            }
        }
    }

    /// Streams that have waited for too long.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(String, S)> {
        let late = self
            .0
            .extract_if(|_, half| now.saturating_duration_since(half.since) >= PATIENCE);
        late.map(|(request, half)| (request, half.stream)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers::of(pairs)
    }

    #[test]
    fn a_stream_says_what_it_is() {
        let all = headers(&[("streamtype", "data"), ("port", "80"), ("requestid", "7")]);
        let ask = Ask::read(&all, 3).unwrap();
        assert_eq!(
            (ask.role, ask.port, ask.request.as_str()),
            (Role::Data, 80, "7")
        );
    }

    #[test]
    fn without_a_request_the_number_of_the_stream_tells() {
        let read = |role, id| {
            let headers = headers(&[("streamtype", role), ("port", "80")]);
            Ask::read(&headers, id).unwrap().request
        };
        assert_eq!(read("error", 5), read("data", 7));
        assert_ne!(read("error", 5), read("error", 9));
    }

    #[test]
    fn a_stream_that_does_not_say_it_is_refused() {
        for (pairs, problem) in [
            (&[("streamtype", "data")][..], "\"port\" header is required"),
            (&[("port", "x"), ("streamtype", "data")], "unable to parse"),
            (
                &[("port", "65536"), ("streamtype", "data")],
                "unable to parse",
            ),
            (&[("port", "0"), ("streamtype", "data")], "must be > 0"),
            (&[("port", "1")], "\"streamType\" header is required"),
            (
                &[("port", "1"), ("streamtype", "stdin")],
                "invalid stream type",
            ),
        ] {
            let error = Ask::read(&headers(pairs), 1).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn two_streams_of_a_request_are_a_pair_in_either_order() {
        let now = Instant::now();
        let ask = |role, request: &str| Ask {
            role,
            port: 1,
            request: request.to_owned(),
        };
        let mut pairs = Pairs::new();
        assert_eq!(pairs.add(&ask(Role::Error, "a"), 1, now), Added::Waits);
        assert_eq!(pairs.add(&ask(Role::Data, "b"), 3, now), Added::Waits);
        assert_eq!(pairs.add(&ask(Role::Error, "a"), 5, now), Added::Twice(5));
        let pair = |data, error| Added::Pair { data, error };
        assert_eq!(pairs.add(&ask(Role::Data, "a"), 7, now), pair(7, 1));
        assert_eq!(pairs.add(&ask(Role::Error, "b"), 9, now), pair(3, 9));
        assert!(pairs.0.is_empty());
    }

    #[test]
    fn who_waits_too_long_is_told() {
        let begin = Instant::now();
        let mut pairs = Pairs::new();
        let ask = Ask {
            role: Role::Data,
            port: 1,
            request: "a".into(),
        };
        pairs.add(&ask, 1, begin);
        assert!(pairs.overdue(begin).is_empty());
        assert_eq!(pairs.overdue(begin + PATIENCE), [("a".to_owned(), 1)]);
        assert!(pairs.0.is_empty());
    }
}
