//! The Kubernetes objects as Seaway uses them: kinds with their defaulting, validation and tables; patches,
//! selectors, schemas. Pure: no I/O, no clock, no async.
//!
//! A new kind is one file in [`kinds`]: a type that implements [`rules::Rules`], and a line in the registry.

pub mod cron;
pub mod custom;
pub mod decode;
pub mod field;
pub mod go_json;
pub mod go_text;
pub mod go_value;
pub mod group;
pub mod indexes;
pub mod intern;
pub mod ip;
pub mod kind;
pub mod kinds;
pub mod list_types;
pub mod managed;
pub mod metadata;
pub mod names;
pub mod patch;
pub mod quantity;
pub mod quota;
pub mod resources;
pub mod rules;
pub mod schema;
pub mod selector;
pub mod table;
pub mod text_diff;
pub mod version;
