//! The `continue` token of a list that comes in pages.
//! Source: `k8s.io/apiserver/pkg/storage/continue.go`; Kubernetes API concepts, "Retrieving large results sets in chunks".

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::status::ApiError;

/// Where the next page of a list begins. Clients pass it on and do not look into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Continue {
    #[serde(default, rename = "v")]
    version: String,
    /// The version that all pages show; -1: whatever is there now.
    #[serde(default, rename = "rv")]
    revision: i64,
    /// The first key that may be on the page, without what the keys of the list have in common.
    #[serde(default)]
    start: String,
}

/// As lenient as Go about the bits behind the last byte.
const READ: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    NO_PAD.with_decode_allow_trailing_bits(true),
);

const VERSION: &str = "meta.k8s.io/v1";

impl Continue {
    /// The pages at this revision that begin behind the key `last`, which is one of `prefix`.
    pub(crate) fn after(prefix: &str, last: &str, revision: u64) -> Self {
        Self {
            version: VERSION.to_owned(),
            revision: i64::try_from(revision).unwrap_or(-1),
            start: format!("{}\0", last.strip_prefix(prefix).unwrap_or(last)),
        }
    }

    /// Reads what a client sends.
    pub(crate) fn read(token: &str) -> Result<Self, ApiError> {
        let invalid = |why: String| {
            ApiError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let text = READ
            .decode(token)
            .map_err(|e| invalid(illegal_base64(token, &e)))?;
        let read: Self = serde_json::from_slice(&text).map_err(|e| invalid(no_json(&text, &e)))?;
        if read.version != VERSION {
            return Err(invalid(format!(
                "server does not recognize this encoded version {:?}",
                read.version
            )));
        }
        if read.revision == 0 {
            return Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned(),
            ));
        }
        if read.start.is_empty() {
            return Err(invalid(
                "encoded start key empty (version meta.k8s.io/v1)".to_owned(),
            ));
        }
        if !is_clean(&read.start) {
            return Err(invalid(read.start));
        }
        Ok(read)
    }

    /// As it is sent.
    pub(crate) fn write(&self) -> String {
        // Two strings and a number: there is nothing that could fail.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The revision that the page shows; `None` for whatever is there now.
    pub(crate) fn revision(&self) -> Option<u64> {
        u64::try_from(self.revision).ok()
    }

    /// The first key that may be on the page of the list of `prefix`.
    pub(crate) fn from(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.start.trim_start_matches('/'))
    }

    /// The history is gone; the client may begin again, or go on with what is there now.
    pub(crate) fn expired(self) -> ApiError {
        let mut error = ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        error.next_page = Some(
            Self {
                revision: -1,
                ..self
            }
            .write(),
        );
        error
    }
}

/// Whether a path stays where it is: what the client sends must not reach into the keys of others.
fn is_clean(start: &str) -> bool {
    let path = start.strip_prefix('/').unwrap_or(start);
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// As Go's `encoding/base64` tells it: the position of the first byte that should not be there.
fn illegal_base64(token: &str, error: &base64::DecodeError) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            *at
        }
        _ => token.len() - token.len() % 4,
    };
    format!("illegal base64 data at input byte {at}")
}

/// As Go's `encoding/json` tells it, where that can be told from the first byte.
fn no_json(text: &[u8], error: &serde_json::Error) -> String {
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => "unexpected end of JSON input".to_owned(),
        Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            if error.is_eof() {
                "unexpected end of JSON input".to_owned()
            } else {
                error.to_string()
            }
        }
        Some(byte) => format!(
            "invalid character {} looking for beginning of value",
            quoted(char::from(*byte))
        ),
    }
}

/// A character as Go quotes it.
fn quoted(c: char) -> String {
    match c {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        '\u{7f}' | '\0'..='\u{1f}' => format!("'\\x{:02x}'", u32::from(c)),
        '\u{80}'..='\u{a0}' | '\u{ad}' => format!("'\\u{:04x}'", u32::from(c)),
        c => format!("'{c}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(token: &str) -> String {
        let error = Continue::read(token).unwrap_err();
        assert_eq!((error.code, error.reason), (400, "BadRequest"));
        let begin = "invalid continue token: continue key is not valid: ";
        error.message.strip_prefix(begin).unwrap().to_owned()
    }

    fn encoded(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    #[test]
    fn a_token_comes_back_as_it_was() {
        let token = Continue::after("core/pods/", "core/pods/d/a", 7);
        assert_eq!(Continue::read(&token.write()), Ok(token.clone()));
        assert_eq!(token.from("core/pods/"), "core/pods/d/a\0");
        assert_eq!(token.revision(), Some(7));
        let on = token.expired().next_page.unwrap();
        let on = Continue::read(&on).unwrap();
        assert_eq!(
            (on.revision(), on.from("core/pods/").as_str()),
            (None, "core/pods/d/a\0")
        );
    }

    #[test]
    fn what_is_no_token_is_refused_in_the_words_of_kubernetes() {
        assert_eq!(
            message("rubbish"),
            "invalid character '®' looking for beginning of value"
        );
        assert_eq!(message("a*b"), "illegal base64 data at input byte 1");
        assert_eq!(
            message(&encoded("{}")),
            "server does not recognize this encoded version \"\""
        );
        assert_eq!(
            message(&encoded(r#"{"v":"meta.k8s.io/v1","start":"a"}"#)),
            "incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
        );
        assert_eq!(
            message(&encoded(r#"{"v":"meta.k8s.io/v1","rv":1}"#)),
            "encoded start key empty (version meta.k8s.io/v1)"
        );
        assert_eq!(
            message(&encoded(
                r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../secrets/a"}"#
            )),
            "../secrets/a"
        );
        assert_eq!(
            message(&encoded(r#"{"v":"meta.k8s.io/v1""#)),
            "unexpected end of JSON input"
        );
    }

    proptest! {
        #[test]
        fn no_token_is_too_odd(text in ".{0,40}", json in ".{0,40}") {
            let _ = Continue::read(&text);
            let _ = Continue::read(&encoded(&json));
        }
    }
}
