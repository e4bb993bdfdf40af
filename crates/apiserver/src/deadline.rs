//! How long a request may take. Source: `k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go` and
//! `pkg/server/filters/timeout.go`; Go's `time.ParseDuration` for how a client says it.

use std::time::Duration;

use crate::query::Query;
use crate::status::ApiError;

/// The longest that a request may take. Source: kube-apiserver, `--request-timeout`.
pub(crate) const MOST: Duration = Duration::from_secs(60);

/// How long a request with these parameters may take.
pub(crate) fn of(query: &Query) -> Result<Duration, ApiError> {
    let Some(text) = query.text("timeout") else {
        return Ok(MOST);
    };
    match parse(text) {
        // None is no time at all, and more than the most cannot be had.
        Ok(nanoseconds) if nanoseconds <= 0 => Ok(MOST),
        Ok(nanoseconds) => Ok(MOST.min(Duration::from_nanos(
            u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        ))),
        Err(why) => Err(ApiError::bad_request(format!(
            "invalid timeout specified in the request URL - time: {why}"
        ))),
    }
}

/// The time has passed.
pub(crate) fn passed() -> ApiError {
    ApiError::timeout("request did not complete within the allotted timeout")
}

/// Nanoseconds of a duration as Go writes them (`1h2m3.5s`).
fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid duration {text:?}");
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0_f64;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let value: f64 = rest[..number].parse().map_err(|_| invalid())?;
        rest = &rest[number..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let nanoseconds = match &rest[..unit] {
            "" => return Err(format!("missing unit in duration {text:?}")),
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            other => return Err(format!("unknown unit {other:?} in duration {text:?}")),
        };
        total += value * nanoseconds;
        rest = &rest[unit..];
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    let total = total as i64;
    Ok(if text.starts_with('-') { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_text(text: &str) -> Result<Duration, String> {
        of(&Query::parse(Some(&format!("timeout={text}")))).map_err(|e| e.message)
    }

    #[test]
    fn a_time_is_read_as_go_writes_it() {
        assert_eq!(of_text("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(of_text("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(of_text("0m1s20ms"), Ok(Duration::from_millis(1020)));
        for most in ["", "0", "0s", "-5s", "1h"] {
            assert_eq!(of_text(most), Ok(MOST), "{most}");
        }
        let begin = "invalid timeout specified in the request URL - time:";
        for (text, why) in [
            ("junk", "invalid duration \"junk\""),
            ("5", "missing unit in duration \"5\""),
            ("5x", "unknown unit \"x\" in duration \"5x\""),
            ("1..5s", "invalid duration \"1..5s\""),
        ] {
            assert_eq!(of_text(text), Err(format!("{begin} {why}")));
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in ".{0,20}") {
            let _ = parse(&text);
        }
    }
}
