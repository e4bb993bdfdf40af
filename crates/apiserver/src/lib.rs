//! The Kubernetes HTTP API over a store.
//!
//! Everything is generic over [`seaway_objects::kind::Kind`]: a new kind needs no line here. A request takes this way:
//!
//! - `server`, `tls`: a connection, and who is at its other end
//! - `path`, `query`, `negotiate`, `body`: what is asked for
//! - `router`: which verb answers
//! - `verbs`: get, list, watch, create, update, patch, delete, scale; `pod`, `namespace`: what only those kinds have
//! - `options`, `fields`, `field_manager`: how a write is meant, whether the kind has the fields, and whose they become
//! - `reviews`: questions that are answered and not stored; `tokens`: those of ServiceAccounts;
//!   `impersonation`: asking in the name of others
//! - [`admission`]: what may change or refuse a write; `companions`: what is written with it; `repair`: what has gone
//!   wrong with addresses and ports nevertheless
//! - `object`, `registry`: how objects are stored; `selection`, `table`: which of them are shown, and how
//! - `reply`, [`status`]: the answer
//!
//! `custom_resources` serves the kinds that come as CustomResourceDefinitions.
//!
//! `discovery` and `openapi` tell clients what there is, `bootstrap` makes what every cluster has, [`pki`] the
//! credentials, `node` reaches the agents of nodes, and `proxy` whoever serves in a Pod.

pub mod admission;
mod api;
mod body;
mod bootstrap;
mod companions;
mod custom_resources;
mod deadline;
mod discovery;
mod error;
mod event;
mod field_manager;
mod fields;
mod finish;
#[doc(hidden)]
pub mod fuzzing;
mod go_syntax;
mod impersonation;
mod indent;
mod list_options;
mod metadata;
mod namespace;
mod negotiate;
mod node;
mod object;
mod openapi;
mod options;
mod path;
pub mod pki;
mod pod;
mod protobuf;
mod proxy;
mod query;
mod registry;
mod repair;
mod reply;
mod reviews;
mod router;
mod selection;
mod server;
pub mod status;
mod strict_json;
mod subresource;
mod table;
mod tls;
mod tokens;
mod tunnel;
mod verbs;
mod yaml;

pub use error::Error;
pub use server::{Config, Server, Tuning, serve};
