//! Fields that a kind does not have, or that were given twice: told to the client, or refused.
//! Source: KEP-2885, server side unknown field validation.

use seaway_objects::kind::Kind;

use crate::api::Call;
use crate::body::Sent;
use crate::query::FieldValidation;
use crate::status::ApiError;
use crate::strict_json;

/// What to warn the client of.
///
/// # Errors
/// When the client wants it to be an error.
pub(crate) fn check(call: &Call<'_>, sent: &Sent) -> Result<Vec<String>, ApiError> {
    check_kind(call, &*call.resource.kind, sent)
}

/// As [`check`], for an object of another kind than the request is about.
pub(crate) fn check_kind(
    call: &Call<'_>,
    kind: &dyn Kind,
    sent: &Sent,
) -> Result<Vec<String>, ApiError> {
    let wanted = call.query.field_validation()?;
    if wanted == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let mut wrong = wrong_fields(kind, sent);
    if wanted == FieldValidation::Strict {
        if !sent.yaml_duplicates.is_empty() {
            let lines: Vec<String> = sent
                .yaml_duplicates
                .iter()
                .map(|l| format!("  {l}"))
                .collect();
            wrong.insert(0, format!("yaml: unmarshal errors:\n{}", lines.join("\n")));
        }
        if !wrong.is_empty() {
            let names = kind.names();
            return Err(ApiError::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
                names.version,
                wrong.join(", "),
                kind = names.kind
            )));
        }
    }
    Ok(sent.yaml_duplicates.iter().cloned().chain(wrong).collect())
}

/// Unknown fields and those given twice, in the order in which they stand in what was sent.
fn wrong_fields(kind: &dyn Kind, sent: &Sent) -> Vec<String> {
    let unknown = kind.unknown_fields(&sent.object);
    let duplicates = sent
        .duplicates
        .iter()
        .map(|path| format!("duplicate field {path:?}"));
    if sent.source.is_empty() || unknown.len() + sent.duplicates.len() < 2 {
        return duplicates.chain(unknown).collect();
    }
    // Nothing is read below a field that is not known.
    let quoted = |text: &str| text.split('"').nth(1).unwrap_or_default().to_owned();
    let roots: Vec<String> = unknown.iter().map(|text| quoted(text)).collect();
    let is_below = |path: &str| {
        roots.iter().any(|root| {
            path.strip_prefix(root.as_str())
                .is_some_and(|rest| rest.starts_with(['.', '[']))
        })
    };
    let mut ordered = Vec::with_capacity(unknown.len() + sent.duplicates.len());
    let mut seen = std::collections::HashSet::new();
    for path in strict_json::paths(&sent.source) {
        let again = !seen.insert(path.clone());
        if again && !is_below(&path) {
            ordered.push(format!("duplicate field {path:?}"));
        }
        if roots.contains(&path) {
            ordered.push(format!("unknown field {path:?}"));
        }
    }
    let mut told = std::collections::HashSet::new();
    ordered.retain(|text| told.insert(text.clone()));
    // Whatever kinds find beside that keeps its place behind.
    ordered.extend(unknown.into_iter().filter(|text| !told.contains(text)));
    ordered
}
