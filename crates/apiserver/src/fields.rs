//! Fields that a kind does not have, or that were given twice: told to the client, or refused.
//! Source: KEP-2885, server side unknown field validation.

use crate::api::Call;
use crate::body::Sent;
use crate::query::FieldValidation;
use crate::status::ApiError;

/// What to warn the client of.
///
/// # Errors
/// When the client wants it to be an error.
pub(crate) fn check(call: &Call<'_>, sent: &Sent) -> Result<Vec<String>, ApiError> {
    let wanted = call.query.field_validation()?;
    if wanted == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let mut wrong: Vec<String> = sent
        .duplicates
        .iter()
        .map(|path| format!("duplicate field {path:?}"))
        .collect();
    wrong.extend(call.resource.kind.unknown_fields(&sent.object));
    if wanted == FieldValidation::Strict && !wrong.is_empty() {
        let names = call.resource.names;
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
            names.version,
            wrong.join(", "),
            kind = names.kind
        )));
    }
    Ok(wrong)
}
