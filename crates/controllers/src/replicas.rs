//! ReplicationController and ReplicaSet: as many Pods of a template as asked for. One engine for both kinds.

mod controller;
mod model;
mod plan;
mod rank;

pub(crate) use controller::Replicas;
pub(crate) use rank::by_deletion_order;
