//! Label and field selectors: which objects a list, a watch or a controller is about.
//!
//! All conversions are total: an operator that does not exist is an error, never "matches everything".

mod field;
mod label;

pub use field::{FieldSelector, FieldSelectorError};
pub use label::{LabelSelector, LabelSelectorError, Operator, Requirement};
