//! Dev-only: namespaces without a way out, probes, waiting on conditions.
//!
//! What tests of every crate need to try the real kernel without touching the machine: [`Outer`] stands for the
//! machine, [`serve`] and [`probe`] send real packets, [`wait_until`] waits for a condition instead of a time,
//! and [`Snapshot`] tells what was left behind. Like a test, it panics when something is not as it must be.

mod outer;
pub mod probe;
pub mod serve;
mod snapshot;
mod wait;

pub use outer::Outer;
pub use snapshot::{Difference, Snapshot, Watch};
pub use wait::{wait_until, wait_until_async};
