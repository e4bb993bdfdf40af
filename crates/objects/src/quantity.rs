//! Amounts of resources: `100m`, `1.5Gi`, `2e3`.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`.

/// One unit (a core, a byte) in the parts that [`parse`] returns.
pub const UNIT: i128 = 1_000_000_000;

/// The amount in billionths, rounded up; `None` if the text is no quantity or too large to be one.
pub fn parse(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let number_end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    // Digits beyond the 27th after the point are below anything that a suffix could lift above a billionth.
    let fraction = &fraction[..fraction.len().min(27)];
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (numerator, decimals) = scale(suffix)?;
    let exponent = decimals - i32::try_from(fraction.len()).ok()? + 9;
    let scaled = mantissa.checked_mul(numerator)?;
    let amount = if exponent >= 0 {
        scaled.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)?
    } else {
        let divisor = 10_i128.checked_pow(exponent.unsigned_abs())?;
        scaled.checked_add(divisor - 1)? / divisor
    };
    Some(if negative { -amount } else { amount })
}

/// What a suffix multiplies with: a whole number, and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (1, Some(exponent).filter(|e| (-27..=27).contains(e))?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix_has_its_amount() {
        for (text, amount) in [
            ("0", 0),
            ("1", UNIT),
            ("100m", UNIT / 10),
            ("0.1", UNIT / 10),
            (".5", UNIT / 2),
            ("5.", 5 * UNIT),
            ("1.5Gi", 1536 * (1 << 20) * UNIT),
            ("128Mi", 128 * (1 << 20) * UNIT),
            ("1k", 1000 * UNIT),
            ("1e3", 1000 * UNIT),
            ("1E-3", UNIT / 1000),
            ("1E", 1_000_000_000_000_000_000 * UNIT),
            ("-2", -2 * UNIT),
            ("0.1n", 1),
        ] {
            assert_eq!(parse(text), Some(amount), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_has_no_amount() {
        for text in [
            "",
            "m",
            ".",
            "1.2.3",
            "1 Gi",
            "1gi",
            "ten",
            "1e",
            "--1",
            "1e99",
            &"9".repeat(60),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,20}") {
            let _ = parse(&text);
        }
    }
}
