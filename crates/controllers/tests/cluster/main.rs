//! The controllers against the real API server, in one process. Nodes are played: a task marks bound Pods as running
//! and lets deleted ones go, as a kubelet would.

// In a test, what is not as expected ends it.
#![allow(clippy::unwrap_used)]

mod endings;
mod harness;
mod jobs;
mod nodes;
mod sets;
mod workloads;
