//! What a list or a watch is asked for, read and checked in the order in which Kubernetes does it, so that of several
//! mistakes the same one is told.
//!
//! Source: `ListOptions` (meta/v1); `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation`,
//! `ValidateListOptions`; `k8s.io/apiserver/pkg/endpoints/handlers/get.go`, `ListResource`.

use std::time::Duration;

use crate::api::Call;
use crate::query::parse_version;
use crate::selection::Selection;
use crate::status::ApiError;

/// Seconds that a watch lasts at most: a year, which is no limit but can be added to any time.
const LONGEST: u64 = 365 * 24 * 3600;

/// How `resourceVersion` is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    NotOlderThan,
    Exact,
}

/// The options of a list or a watch.
#[derive(Debug, Clone)]
pub(crate) struct ListOptions {
    /// Which objects.
    pub(crate) selection: Selection,
    /// `resourceVersion` as it was sent; `None` if it is missing or empty. See [`ListOptions::version`].
    version: Option<String>,
    /// `resourceVersionMatch`
    pub(crate) how: Option<VersionMatch>,
    /// `limit`; `None` for no limit.
    pub(crate) limit: Option<usize>,
    /// `continue`
    pub(crate) token: Option<String>,
    /// `timeoutSeconds`; `None` if it is missing or 0.
    pub(crate) timeout: Option<Duration>,
    /// `sendInitialEvents`
    pub(crate) initial_events: Option<bool>,
    /// `allowWatchBookmarks`
    pub(crate) bookmarks: bool,
}

impl ListOptions {
    /// Reads and checks the options of a list, or of a watch.
    pub(crate) fn of(call: &Call<'_>, watch: bool) -> Result<Self, ApiError> {
        let query = call.query;
        let timeout = query.number("timeoutSeconds")?;
        let limit = query.number("limit")?;
        let selection = Selection::parse(query)?;
        let text = |name: &str| query.text(name).map(str::to_owned);
        let (version, how, token) = (
            text("resourceVersion"),
            text("resourceVersionMatch"),
            text("continue"),
        );
        let initial_events = query.optional_flag("sendInitialEvents");
        let given = Given {
            version: version.as_deref(),
            how: how.as_deref(),
            token: token.as_deref(),
            initial_events,
        };
        let mistakes = if watch {
            given.mistakes_of_watch()
        } else {
            given.mistakes_of_list()
        };
        if !mistakes.is_empty() {
            return Err(refuse(&mistakes));
        }
        selection.check(call.resource)?;
        let selection = match call.name {
            "" => selection,
            name => selection.named(name)?,
        };
        Ok(Self {
            selection,
            version,
            how: match how.as_deref() {
                Some("Exact") => Some(VersionMatch::Exact),
                Some(_) => Some(VersionMatch::NotOlderThan),
                None => None,
            },
            limit: limit
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| *n > 0),
            token,
            timeout: match timeout {
                None | Some(0) => None,
                // A time that has passed: the watch ends at once.
                Some(seconds) => {
                    let seconds = u64::try_from(seconds).unwrap_or(0);
                    Some(Duration::from_secs(seconds.min(LONGEST)))
                }
            },
            initial_events,
            bookmarks: query.flag("allowWatchBookmarks"),
        })
    }

    /// `resourceVersion`; `None` if it is missing or empty.
    pub(crate) fn version(&self) -> Result<Option<u64>, ApiError> {
        self.version.as_deref().map(parse_version).transpose()
    }
}

/// An option that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mistake {
    field: &'static str,
    reason: &'static str,
    message: String,
}

fn forbidden(field: &'static str, why: &str) -> Mistake {
    Mistake {
        field,
        reason: "FieldValueForbidden",
        message: format!("Forbidden: {why}"),
    }
}

fn not_supported(how: &str, supported: &str) -> Mistake {
    Mistake {
        field: "resourceVersionMatch",
        reason: "FieldValueNotSupported",
        message: format!("Unsupported value: {how:?}: supported values: {supported}"),
    }
}

/// The options that can contradict each other.
struct Given<'a> {
    version: Option<&'a str>,
    how: Option<&'a str>,
    token: Option<&'a str>,
    initial_events: Option<bool>,
}

const MATCH: &str = "resourceVersionMatch";

impl Given<'_> {
    fn mistakes_of_list(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if let Some(how) = self.how {
            if self.version.is_none() {
                mistakes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if self.token.is_some() {
                mistakes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if !matches!(how, "Exact" | "NotOlderThan") {
                mistakes.push(not_supported(how, "\"Exact\", \"NotOlderThan\", \"\""));
            }
            if how == "Exact" && self.version == Some("0") {
                mistakes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if self.initial_events.is_some() {
            mistakes.push(forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
        mistakes
    }

    fn mistakes_of_watch(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if self.initial_events.is_some() && self.how != Some("NotOlderThan") {
            mistakes.push(forbidden(
                MATCH,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if let Some(how) = self.how {
            if self.initial_events.is_none() {
                mistakes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if how != "NotOlderThan" {
                mistakes.push(not_supported(how, "\"NotOlderThan\""));
            }
            if self.token.is_some() {
                mistakes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
        }
        mistakes
    }
}

fn refuse(mistakes: &[Mistake]) -> ApiError {
    let told: Vec<String> = mistakes
        .iter()
        .map(|m| format!("{}: {}", m.field, m.message))
        .collect();
    let told = match told.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let mut error = ApiError::new(
        422,
        "Invalid",
        format!("ListOptions.meta.k8s.io \"\" is invalid: {told}"),
    );
    for mistake in mistakes {
        error = error.with_cause(mistake.reason, &mistake.message, mistake.field);
    }
    if let Some(details) = &mut error.details {
        "meta.k8s.io".clone_into(&mut details.group);
        "ListOptions".clone_into(&mut details.kind);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given<'a>(
        version: Option<&'a str>,
        how: Option<&'a str>,
        token: Option<&'a str>,
        initial_events: Option<bool>,
    ) -> Given<'a> {
        Given {
            version,
            how,
            token,
            initial_events,
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_all_named() {
        let list = given(None, Some("exact"), Some("t"), Some(false)).mistakes_of_list();
        let error = refuse(&list);
        assert_eq!(
            error.message,
            "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided, resourceVersionMatch: Unsupported value: \"exact\": supported values: \"Exact\", \"NotOlderThan\", \"\", sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list]"
        );
        assert_eq!(error.details.unwrap().causes.len(), 4);
        let watch = given(None, Some("Exact"), Some("t"), None).mistakes_of_watch();
        assert_eq!(
            refuse(&watch).message,
            "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\", resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided]"
        );
    }

    #[test]
    fn options_that_make_sense_are_taken() {
        let none = given(None, None, None, None);
        assert!(none.mistakes_of_list().is_empty() && none.mistakes_of_watch().is_empty());
        assert!(
            given(Some("0"), Some("NotOlderThan"), None, None)
                .mistakes_of_list()
                .is_empty()
        );
        assert!(
            given(None, Some("NotOlderThan"), None, Some(true))
                .mistakes_of_watch()
                .is_empty()
        );
        assert_eq!(
            given(Some("0"), Some("Exact"), None, None).mistakes_of_list()[0].message,
            "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""
        );
    }
}
