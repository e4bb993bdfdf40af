//! The server as its clients see it: what names mean, what messages look like, real sockets, and the way
//! from the API server to an answer.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how it says no")]

mod cluster;
mod messages;
mod names;
mod sockets;
mod watching;
