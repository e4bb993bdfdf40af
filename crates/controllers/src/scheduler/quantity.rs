//! Amounts of cpu, memory and the like as the API writes them: `250m`, `1.5`, `64Mi`, `2e3`.
//!
//! Source: API reference, `Quantity`.

/// An amount in billionths of the unit.
pub(crate) type Nanos = i128;

/// Billionths in one.
pub(crate) const ONE: Nanos = 1_000_000_000;

/// Reads an amount. `None` when it is none, or too large for any machine. Fractions of a billionth round up.
pub(crate) fn parse(text: &str) -> Option<Nanos> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (numerator, denominator) = multiplier(suffix)?;
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: Nanos = 0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value
            .checked_mul(10)?
            .checked_add(Nanos::from(digit.to_digit(10)?))?;
    }
    let scale =
        Nanos::checked_pow(10, u32::try_from(fraction.len()).ok()?)?.checked_mul(denominator)?;
    let scaled = value.checked_mul(numerator)?.checked_mul(ONE)?;
    let rounded = scaled.checked_add(scale - 1)? / scale;
    Some(if negative { -rounded } else { rounded })
}

/// What a suffix multiplies by, as a fraction.
fn multiplier(suffix: &str) -> Option<(Nanos, Nanos)> {
    let thousand = |power: u32| Nanos::pow(1000, power);
    let kibi = |power: u32| Nanos::pow(1024, power);
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, thousand(3)),
        "u" => (1, thousand(2)),
        "m" => (1, thousand(1)),
        "k" => (thousand(1), 1),
        "M" => (thousand(2), 1),
        "G" => (thousand(3), 1),
        "T" => (thousand(4), 1),
        "P" => (thousand(5), 1),
        "E" => (thousand(6), 1),
        "Ki" => (kibi(1), 1),
        "Mi" => (kibi(2), 1),
        "Gi" => (kibi(3), 1),
        "Ti" => (kibi(4), 1),
        "Pi" => (kibi(5), 1),
        "Ei" => (kibi(6), 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let size = Nanos::checked_pow(10, power.unsigned_abs().min(40))?;
            if power < 0 { (1, size) } else { (size, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_the_reference_says() {
        let table = [
            ("0", Some(0)),
            ("1", Some(ONE)),
            ("250m", Some(ONE / 4)),
            ("1.5", Some(ONE * 3 / 2)),
            (".5", Some(ONE / 2)),
            ("64Mi", Some(64 * 1024 * 1024 * ONE)),
            ("2e3", Some(2000 * ONE)),
            ("2E3", Some(2000 * ONE)),
            ("1E", Some(1_000_000_000_000_000_000 * ONE)),
            ("5e-1", Some(ONE / 2)),
            ("1n", Some(1)),
            ("-3", Some(-3 * ONE)),
            ("", None),
            (".", None),
            ("abc", None),
            ("1x", None),
            ("1.2.3", None),
            ("1-2", None),
            ("99999999999999999999999999999999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
