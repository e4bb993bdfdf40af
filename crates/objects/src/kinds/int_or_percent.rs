//! Amounts that are a number or a share: `2`, `"25%"`. Update strategies have them.
//!
//! Source: `ValidatePositiveIntOrPercent` and its neighbours in `pkg/apis/apps/validation`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::field::{FieldError, FieldErrors, not_negative};

const NOT_A_PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// A number that is not below zero, or a share.
pub(super) fn validate(value: &IntOrString, at: &str) -> FieldErrors {
    match value {
        IntOrString::Int(number) => not_negative((*number).into(), at),
        IntOrString::String(text) if percent(text).is_none() => {
            vec![FieldError::invalid(at, text, NOT_A_PERCENT)]
        }
        IntOrString::String(_) => FieldErrors::new(),
    }
}

/// A share is of one whole at most.
pub(super) fn validate_share(value: &IntOrString, at: &str) -> FieldErrors {
    match value {
        IntOrString::String(text) if percent(text).is_some_and(|share| share > 100) => {
            vec![FieldError::invalid(
                at,
                text,
                "must not be greater than 100%",
            )]
        }
        _ => FieldErrors::new(),
    }
}

/// Whether it says nothing at all: `0`, `"0%"`, and what is no amount.
pub(super) fn is_zero(value: Option<&IntOrString>) -> bool {
    match value {
        None => true,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(IntOrString::String(text)) => {
            let plain = || text.parse::<i32>().ok().and_then(|n| u64::try_from(n).ok());
            percent(text).or_else(plain).unwrap_or(0) == 0
        }
    }
}

/// The number of a share; a number too large to hold is a very large share.
fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    let numeric = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    numeric.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> IntOrString {
        match text.parse() {
            Ok(number) => IntOrString::Int(number),
            Err(_) => IntOrString::String(text.to_owned()),
        }
    }

    #[test]
    fn an_amount_is_a_number_or_a_share() {
        for (text, valid, at_most_all, zero) in [
            ("0", true, true, true),
            ("7", true, true, false),
            ("-1", false, true, false),
            ("0%", true, true, true),
            ("100%", true, true, false),
            ("101%", true, false, false),
            ("99999999999999999999%", true, false, false),
            ("%", false, true, true),
            ("many", false, true, true),
        ] {
            let value = value(text);
            assert_eq!(validate(&value, "x").is_empty(), valid, "{text}");
            assert_eq!(
                validate_share(&value, "x").is_empty(),
                at_most_all,
                "{text}"
            );
            assert_eq!(is_zero(Some(&value)), zero, "{text}");
        }
        assert!(is_zero(None));
    }
}
