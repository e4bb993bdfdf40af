//! Jobs: Pods that run until so many of them have succeeded.
//!
//! Every Pod of a Job has a finalizer until it is counted, so that none is counted twice and none is missed, whoever
//! deletes it. Source of the rules: `pkg/controller/job`; KEP-2307 (tracking), KEP-2214 (Indexed), KEP-3329 (failure
//! policy), KEP-3850 (backoff limit per index), KEP-3998 (success policy), KEP-3939 (replacement), KEP-592 (TTL).

mod backoff;
mod conditions;
mod controller;
mod count;
mod failure_policy;
mod indexes;
mod model;
mod plan;
mod pods;

pub(crate) use controller::Jobs;
