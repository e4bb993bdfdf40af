//! The parameters of a request. Source: Kubernetes API reference, `ListOptions`, `CreateOptions`, `DeleteOptions`.

use std::num::{IntErrorKind, ParseIntError};

use crate::status::ApiError;

/// The parameters behind the `?`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// What a client wants done about fields that the kind does not have, or has twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        Self(
            form_urlencoded::parse(query.unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// A parameter; `None` if it is missing or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A parameter, be it empty; `None` only if it is missing.
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that may be repeated.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A parameter that is on or off.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    /// A parameter that is on, off or missing. Anything but `false` and `0` is on, as in Kubernetes.
    pub(crate) fn optional_flag(&self, name: &str) -> Option<bool> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(!matches!(
            value.to_ascii_lowercase().as_str(),
            "false" | "0"
        ))
    }

    /// A number; `None` if it is missing. Refused in the words of Go's `strconv.ParseInt`, which does not take the empty
    /// text for a missing one.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some((_, text)) = self.0.iter().find(|(key, _)| key == name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|e: ParseIntError| {
            let why = match e.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
        })
    }

    /// `resourceVersion`; `None` if it is missing or empty.
    pub(crate) fn version(&self) -> Result<Option<u64>, ApiError> {
        self.text("resourceVersion").map(parse_version).transpose()
    }

    /// Whether nothing may be stored.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        let mut dry = false;
        for value in self.all("dryRun") {
            if value != "All" {
                let message = format!("Unsupported value: {value:?}: supported values: \"All\"");
                return Err(refuse_option("dryRun", "FieldValueNotSupported", &message));
            }
            dry = true;
        }
        Ok(dry)
    }

    /// `fieldValidation`; Kubernetes warns when nothing is said.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.text("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(refuse_option(
                "fieldValidation",
                "FieldValueNotSupported",
                &format!(
                    "Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
                ),
            )),
        }
    }
}

/// A revision as clients write it.
pub(crate) fn parse_version(text: &str) -> Result<u64, ApiError> {
    // Go's `ParseUint` takes no sign, Rust's takes a plus.
    let parsed = if text.starts_with('+') {
        None
    } else {
        Some(text.parse::<u64>())
    };
    let why = match parsed {
        Some(Ok(version)) => return Ok(version),
        Some(Err(e)) if *e.kind() == IntErrorKind::PosOverflow => "value out of range",
        _ => "invalid syntax",
    };
    let message = format!(
        "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}"
    );
    Err(ApiError::new(500, "", message))
}

/// An option of a request that makes no sense.
pub(crate) fn refuse_option(field: &str, reason: &str, message: &str) -> ApiError {
    let mut error = ApiError::new(
        422,
        "Invalid",
        format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: {message}"),
    )
    .with_cause(reason, message, field);
    if let Some(details) = &mut error.details {
        "meta.k8s.io".clone_into(&mut details.group);
        "ListOptions".clone_into(&mut details.kind);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_kubernetes_reads_them() {
        let query = Query::parse(Some(
            "watch=1&limit=5&labelSelector=a%3Db%2Cc&continue=&dryRun=All",
        ));
        assert!(query.flag("watch"));
        assert!(!query.flag("allowWatchBookmarks"));
        assert_eq!(query.number("limit"), Ok(Some(5)));
        assert_eq!(query.text("labelSelector"), Some("a=b,c"));
        assert_eq!(query.text("continue"), None);
        assert_eq!(query.dry_run(), Ok(true));
        for (text, message) in [
            ("limit=", "strconv.ParseInt: parsing \"\": invalid syntax"),
            (
                "limit=many",
                "strconv.ParseInt: parsing \"many\": invalid syntax",
            ),
            (
                "limit=99999999999999999999",
                "strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
            ),
        ] {
            let error = Query::parse(Some(text)).number("limit").unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (400, message));
        }
    }

    #[test]
    fn a_version_that_is_none_is_refused() {
        assert_eq!(
            Query::parse(Some("resourceVersion=junk"))
                .version()
                .unwrap_err()
                .code,
            500
        );
    }
}
