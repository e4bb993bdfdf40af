//! SPDY/3.1 as far as Kubernetes uses it: many streams of bytes over one upgraded connection.
//!
//! kubectl before 1.31 and the SPDY executor of client-go speak it for exec, attach and port forwarding. There is no
//! flow control: `WINDOW_UPDATE` and `SETTINGS` are read and mean nothing, as in the library that Kubernetes uses.
//! `frame` and `headers` are pure; `session` drives a connection.
//!
//! Source: SPDY Protocol - Draft 3.1 (chromium.org), and the behaviour of `moby/spdystream`.

mod dictionary;
mod frame;
mod headers;
mod session;

pub(super) use headers::Headers;
pub(super) use session::{Input, Output, Received, Session, Stream};
