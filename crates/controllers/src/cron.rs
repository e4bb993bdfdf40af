//! CronJobs: Jobs at the times of a schedule.
//!
//! Source of the rules: `pkg/controller/cronjob`; the API reference for `CronJobSpec`.

mod controller;
mod due;
mod model;

pub(crate) use controller::CronJobs;
