//! Loops that turn objects into objects: endpoints, replicas, scheduling, namespaces, garbage.
//!
//! [`run`] starts them all against any Kubernetes API server. They share one watch for each kind ([`cache`]); events
//! name the keys that need work ([`queue`]); each controller then looks at a snapshot, plans with pure functions, and
//! writes. What it wrote and does not see yet is remembered ([`expectations`]).

mod account_tokens;
mod aggregation;
mod cache;
mod claim;
mod cluster;
mod config;
mod cron;
mod daemon;
mod deployment;
mod endpoints;
mod error;
mod events;
mod expectations;
mod garbage;
mod history;
mod inventory;
mod job;
mod namespaces;
mod nodes;
mod object;
mod pod;
mod pod_control;
mod queue;
mod quotas;
mod replicas;
mod run;
mod scheduler;
mod service_cidrs;
mod stateful;
mod taint;

pub use config::{Config, Tuning};
pub use error::Error;
pub use run::{run, run_with};
