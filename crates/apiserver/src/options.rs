//! The options of a write, as a whole: each verb has its own, and all errors are told together.
//! Source: `k8s.io/apimachinery/pkg/apis/meta/v1/validation`.

use seaway_objects::field::{FieldError, FieldErrors};
use seaway_objects::kind::Names;

use crate::query::Query;
use crate::status::ApiError;

/// The longest name of a field manager, in bytes.
pub(crate) const MANAGER_MAX: usize = 128;

/// Which options are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Options {
    Create,
    Update,
    Patch,
    /// Of server-side apply.
    Apply,
}

impl Options {
    fn kind(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch | Self::Apply => "PatchOptions",
        }
    }

    /// Refuses a request whose options make no sense.
    pub(crate) fn check(self, query: &Query) -> Result<(), ApiError> {
        let mut errors = FieldErrors::new();
        let manager = query.text("fieldManager").unwrap_or_default();
        match self {
            Self::Apply if manager.is_empty() => errors.push(FieldError::required(
                "fieldManager",
                "is required for apply patch",
            )),
            Self::Patch if query.optional_flag("force").is_some() => errors.push(
                FieldError::forbidden("force", "may not be specified for non-apply patch"),
            ),
            _ => {}
        }
        errors.extend(check_manager(manager, "fieldManager"));
        errors.extend(check_dry_run(&query.all("dryRun").collect::<Vec<_>>()));
        if let Some(wanted) = query.text("fieldValidation")
            && !matches!(wanted, "Ignore" | "Warn" | "Strict")
        {
            errors.push(FieldError::not_supported(
                "fieldValidation",
                wanted,
                &["", "Ignore", "Strict", "Warn"],
            ));
        }
        refuse(self.kind(), &errors)
    }
}

/// Refuses options of that kind if there are errors.
pub(crate) fn refuse(kind: &'static str, errors: &FieldErrors) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let names = Names {
        group: "meta.k8s.io",
        version: "v1",
        kind,
        plural: "",
        singular: "",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    Err(ApiError::invalid(&names, "", errors))
}

/// What is wrong with `dryRun`.
pub(crate) fn check_dry_run(values: &[impl AsRef<str> + serde::Serialize]) -> FieldErrors {
    if values.iter().all(|v| v.as_ref() == "All") {
        FieldErrors::new()
    } else {
        vec![FieldError::not_supported("dryRun", values, &["All"])]
    }
}

/// What is wrong with the name of a field manager.
pub(crate) fn check_manager(name: &str, field: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if name.len() > MANAGER_MAX {
        errors.push(FieldError::too_long(field, MANAGER_MAX));
    }
    for (at, c) in name.char_indices() {
        if !is_printable(c) {
            let code = u32::from(c);
            let detail = format!("invalid character U+{code:04X} (at position {at})");
            errors.push(FieldError::invalid(field, name, &detail));
        }
    }
    errors
}

/// Whether Go's `unicode.IsPrint` holds: letters, marks, numbers, punctuation, symbols and the plain space.
pub(crate) fn is_printable(c: char) -> bool {
    // What Rust escapes when it prints for debugging is what is not printable, but for quotes and the backslash; it
    // lets no other space through either. Marks are escaped only when they come first.
    c == ' '
        || c == '"'
        || c == '\''
        || c == '\\'
        || format!("{:?}", format!("a{c}")) == format!("\"a{c}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(options: Options, query: &str) -> String {
        options
            .check(&Query::parse(Some(query)))
            .map_or_else(|e| e.message, |()| String::new())
    }

    #[test]
    fn options_that_make_no_sense_are_refused_together() {
        assert_eq!(message(Options::Create, "dryRun=All&fieldManager=me"), "");
        assert_eq!(
            message(Options::Create, "dryRun=Some&fieldValidation=No"),
            "CreateOptions.meta.k8s.io \"\" is invalid: [dryRun: Unsupported value: [\"Some\"]: supported values: \"All\", \
             fieldValidation: Unsupported value: \"No\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"]"
        );
        assert_eq!(
            message(Options::Patch, "force=true"),
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
        );
        assert_eq!(
            message(Options::Apply, ""),
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        );
        assert_eq!(
            message(
                Options::Update,
                &format!("fieldManager={}", "x".repeat(129))
            ),
            "UpdateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes"
        );
        assert_eq!(
            message(Options::Update, "fieldManager=a%0Ab"),
            "UpdateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)"
        );
    }

    #[test]
    fn what_go_prints_is_printable() {
        for c in "a Z9-_\"'\\é日€".chars() {
            assert!(is_printable(c), "{c:?}");
        }
        for c in ['\n', '\t', '\u{7f}', '\u{a0}', '\u{200b}', '\u{feff}'] {
            assert!(!is_printable(c), "{c:?}");
        }
    }
}
