//! The Kubernetes objects as Seaway uses them: kinds with their defaulting, validation and tables; patches,
//! selectors, schemas. Pure: no I/O, no clock, no async.

pub mod field;
pub mod kind;
