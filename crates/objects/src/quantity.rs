//! Amounts of resources: `100m`, `1.5Gi`, `2e3`.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`.

use std::fmt;
use std::ops::{Add, Neg, Sub};

/// Said of a text that is no quantity. Source: `ErrFormatWrong`.
pub const NOT_A_QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
/// Said of a quantity whose suffix is none. Source: `ErrSuffix`.
const NO_SUFFIX: &str = "unable to parse quantity's suffix";
/// Said of a quantity that is too large to be one. Source: `ErrNumeric`.
const NO_NUMBER: &str = "unable to parse numeric part of quantity";
/// The powers of a thousand that have a letter, from the smallest: 10⁻⁹ to 10¹⁸.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// The powers of 1024 that have a name.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// How a quantity was written, and how sums that begin with it are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `1500m`, `2k`
    #[default]
    Decimal,
    /// `2e3`
    Exponent,
    /// `128Mi`
    Binary,
}

/// A quantity that can be computed with: an amount and how it is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amount {
    /// Billionths of one.
    pub nano: i128,
    /// How it is written.
    pub format: Format,
}

impl Amount {
    /// That many whole ones.
    pub fn whole(count: i64) -> Self {
        Self {
            nano: i128::from(count) * UNIT,
            format: Format::Decimal,
        }
    }

    /// Reads a quantity; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let suffix =
            text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
        let format = if suffix.ends_with('i') {
            Format::Binary
        } else if suffix.len() > 1 && suffix.starts_with(['e', 'E']) {
            Format::Exponent
        } else {
            Format::Decimal
        };
        let nano = parse(text)?;
        // What is smaller than one cannot be written in powers of 1024.
        let format = if format == Format::Binary && nano.abs() < UNIT {
            Format::Decimal
        } else {
            format
        };
        Some(Self { nano, format })
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// Thousandths, rounded up. Source: `Quantity.MilliValue`.
    pub fn milli(&self) -> i128 {
        div_up(self.nano, UNIT / 1000)
    }

    /// Whole ones, rounded up. Source: `Quantity.Value`.
    pub fn value(&self) -> i128 {
        div_up(self.nano, UNIT)
    }
}

fn div_up(amount: i128, by: i128) -> i128 {
    amount.div_euclid(by) + i128::from(amount.rem_euclid(by) != 0)
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Amount {
    type Output = Self;

    /// A sum is written as its first part, unless that is nothing.
    fn add(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_add(other.nano),
            format: if self.is_zero() {
                other.format
            } else {
                self.format
            },
        }
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Amount {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            nano: -self.nano,
            ..self
        }
    }
}

impl fmt::Display for Amount {
    /// The canonical form: no fraction, and the largest suffix that needs none.
    /// Source: `Quantity.CanonicalizeBytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let whole = self.nano / UNIT;
        if self.format == Format::Binary && self.nano % UNIT == 0 && whole.abs() >= 1024 {
            let (mut mantissa, mut power) = (whole, 0);
            while mantissa % 1024 == 0 && power + 1 < BINARY.len() {
                mantissa /= 1024;
                power += 1;
            }
            return write!(f, "{mantissa}{}", BINARY[power]);
        }
        let (mut mantissa, mut power) = (self.nano, 0);
        while mantissa % 1000 == 0 && power + 1 < DECIMAL.len() {
            mantissa /= 1000;
            power += 1;
        }
        if self.format == Format::Exponent && power != 3 {
            return write!(
                f,
                "{mantissa}e{}",
                3 * i32::try_from(power).unwrap_or(3) - 9
            );
        }
        write!(f, "{mantissa}{}", DECIMAL[power])
    }
}

/// A quantity as Kubernetes writes it once it has read it: `500m` for `0.5`, `1Ti` for `1024Gi`.
///
/// # Errors
/// What Kubernetes says of a text that is no quantity.
pub fn canonical(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let Some(amount) = Amount::parse(text) else {
        return Err(refusal(text));
    };
    if keeps_its_form(text) {
        return Ok(text.to_owned());
    }
    Ok(amount.to_string())
}

fn refusal(text: &str) -> &'static str {
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = rest.len()
        - rest
            .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
            .len();
    let (number, suffix) = rest.split_at(number);
    let letters = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let digits = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    let well_formed = !number.is_empty()
        && number.bytes().filter(|b| *b == b'.').count() <= 1
        && digits.bytes().all(|b| b.is_ascii_digit());
    if !well_formed {
        NOT_A_QUANTITY
    } else if scale(suffix).is_none() {
        NO_SUFFIX
    } else {
        NO_NUMBER
    }
}

/// Whether Kubernetes keeps the text that it has read instead of writing it anew: it looks at a few signs that the
/// form is canonical, and takes `1.500` for it. Source: the quick way through `ParseQuantity`.
fn keeps_its_form(text: &str) -> bool {
    if text == "0" {
        return true;
    }
    let rest = text
        .strip_prefix(['+', '-'])
        .unwrap_or(text)
        .trim_start_matches('0');
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = if whole.is_empty() { "0" } else { whole };
    let shifted = format!("{whole}{fraction}");
    if let Some(power) = BINARY.iter().skip(1).position(|name| *name == suffix) {
        let power = power + 1;
        let last = shifted.parse::<u64>().unwrap_or(0);
        return fraction.is_empty() && shifted.len() + 3 * power < 15 && last & 7 != 0;
    }
    let Some((_, exponent)) = scale(suffix) else {
        return false;
    };
    let exponent = exponent - i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2);
    shifted.len() <= 18
        && exponent >= -9
        && exponent % 3 == 0
        && !shifted.ends_with("000")
        && !shifted.starts_with('0')
}

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

    #[test]
    fn quantities_are_written_in_their_canonical_form() {
        for (text, form) in [
            ("0.5", "500m"),
            ("1", "1"),
            ("10", "10"),
            ("1000", "1k"),
            ("2000", "2k"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("0", "0"),
            ("0.0", "0"),
            ("0.1", "100m"),
            ("1024Gi", "1Ti"),
            ("512Mi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("1e3", "1e3"),
            ("1E6", "1E6"),
            ("1e4", "10e3"),
            ("-1", "-1"),
            ("0.0000000001", "1n"),
            ("1.2345", "1234500u"),
            (" 3 ", "3"),
            ("007", "007"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(form), "{text}");
        }
        for (text, words) in [
            ("ten", NOT_A_QUANTITY),
            ("", NOT_A_QUANTITY),
            ("1gi", NOT_A_QUANTITY),
            ("1mm", NO_SUFFIX),
            ("1Mk", NO_SUFFIX),
        ] {
            assert_eq!(canonical(text), Err(words), "{text}");
        }
    }

    #[test]
    fn a_sum_is_written_as_its_first_part() {
        let sum = |a: &str, b: &str| {
            (Amount::parse(a).expect(a) + Amount::parse(b).expect(b)).to_string()
        };
        assert_eq!(sum("100m", "1"), "1100m");
        assert_eq!(sum("128Mi", "128Mi"), "256Mi");
        assert_eq!(sum("0", "1Gi"), "1Gi");
        assert_eq!(sum("1Gi", "1G"), "2073741824");
        assert_eq!((Amount::whole(3) - Amount::whole(5)).to_string(), "-2");
    }

    proptest::proptest! {
        #[test]
        fn the_canonical_form_means_the_same(text in "[0-9]{1,6}(\\.[0-9]{0,4})?(m|k|Ki|Mi|G|e2|)") {
            if let Ok(form) = canonical(&text) {
                proptest::prop_assert_eq!(parse(&form), parse(&text));
                proptest::prop_assert_eq!(canonical(&form), Ok(form.clone()));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,20}") {
            let _ = parse(&text);
            let _ = canonical(&text);
        }
    }
}
