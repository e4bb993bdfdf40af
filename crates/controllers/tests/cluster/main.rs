//! The controllers against the real API server, in one process. Nodes are played: a task marks bound Pods as running
//! and lets deleted ones go, as a kubelet would.

mod endings;
mod harness;
mod nodes;
mod workloads;
