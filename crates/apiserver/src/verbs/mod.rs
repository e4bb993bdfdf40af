//! What can be done with objects: one file for each verb, the same for all kinds.

pub(crate) mod apply;
pub(crate) mod continuation;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod scale;
pub(crate) mod update;
pub(crate) mod watch;
