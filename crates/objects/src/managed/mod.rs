//! Who owns which field of an object: `metadata.managedFields`, and server-side apply.
//!
//! Every write is compared with the object as it was, and the writer becomes the owner of what changes. Applying a
//! configuration merges it into the object by the types of its fields ([`Schema`]), takes out what the manager applied
//! before and does not apply now, and refuses to change what others own, unless it is forced to.
//!
//! Source: KEP-555 and "Server-Side Apply" in the Kubernetes documentation; the files name the Go packages whose
//! behaviour they have.

mod check;
mod collect;
mod compare;
mod element;
mod entries;
mod errors;
mod items;
mod json;
mod manager;
mod merge;
mod reconcile;
mod remove;
mod scale;
mod schema;
mod set;
#[cfg(test)]
mod tests;
mod update;

pub use check::check;
pub use element::Element;
pub use entries::{Managed, Manager, Managers, Operation, Owned, is_reset, same_but_for_times};
pub use errors::TypeErrors;
pub use json::{from_value, to_value};
pub use manager::{Applied, ApplyError, Write, put, take};
pub use scale::{SCALE_VERSION, to_object, to_scale};
pub use schema::{Schema, TypeRef};
pub use set::{Set, path_text};
pub use update::{Conflict, Types, UpdateError, Writable};
