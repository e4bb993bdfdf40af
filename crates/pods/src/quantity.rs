//! Amounts as Pods state them (`500m`, `64Mi`), exact, for cgroup limits and the downward API.
//! Source: `k8s.io/apimachinery/pkg/api/resource`, `Quantity`.

/// An amount in billionths of its unit: of a CPU, of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(i128);

/// The text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a quantity (such as 500m, 0.5, 64Mi, 1e3)")]
pub struct InvalidQuantity {
    /// As given.
    pub text: String,
}

const NANO: i128 = 1_000_000_000;

impl Amount {
    /// One unit.
    pub const ONE: Amount = Amount(NANO);

    /// Whole units.
    pub fn whole(units: i64) -> Self {
        Amount(i128::from(units) * NANO)
    }

    /// Reads a quantity. Finer than billionths is rounded up, as Kubernetes does.
    pub fn parse(text: &str) -> Result<Self, InvalidQuantity> {
        parse(text).ok_or_else(|| InvalidQuantity {
            text: text.to_owned(),
        })
    }

    /// Thousandths, rounded up.
    pub fn millis(self) -> i64 {
        clamp(ceiling(self.0, NANO / 1000))
    }

    /// Whole units, rounded up.
    pub fn units(self) -> i64 {
        clamp(ceiling(self.0, NANO))
    }

    /// How often `divisor` fits, rounded up; a divisor of zero counts as one.
    pub fn divided_by(self, divisor: Amount) -> i64 {
        let divisor = if divisor.0 <= 0 { NANO } else { divisor.0 };
        clamp(ceiling(self.0, divisor))
    }
}

fn ceiling(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn parse(text: &str) -> Option<Amount> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    // 10^exponent × 2^shift, as the suffix says.
    let (exponent, shift) = match suffix {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => (suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?, 0),
    };
    let digits = format!("{whole}{fraction}");
    let mantissa: i128 = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    let scale = 9 + exponent - i32::try_from(fraction.len()).ok()?;
    let shifted = mantissa.checked_mul(1i128 << shift)?;
    let nanos = if scale >= 0 {
        shifted.checked_mul(10i128.checked_pow(u32::try_from(scale).ok()?)?)?
    } else {
        match 10i128.checked_pow(scale.unsigned_abs()) {
            Some(by) => ceiling(shifted, by),
            None => i128::from(shifted > 0),
        }
    };
    Some(Amount(if negative { -nanos } else { nanos }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_read_as_kubernetes_reads_them() {
        for (text, millis, units) in [
            ("0", 0, 0),
            ("1", 1000, 1),
            ("500m", 500, 1),
            ("0.5", 500, 1),
            (".5", 500, 1),
            ("1.", 1000, 1),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("64Mi", 67_108_864_000, 67_108_864),
            ("128974848", 128_974_848_000, 128_974_848),
            ("129e6", 129_000_000_000, 129_000_000),
            ("129M", 129_000_000_000, 129_000_000),
            ("1n", 1, 1),
            ("-2", -2000, -2),
            ("+3k", 3_000_000, 3000),
        ] {
            let amount = Amount::parse(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((amount.millis(), amount.units()), (millis, units), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        for text in [
            "", "m", ".", "1.2.3", "1KiB", "1 Gi", "e3", "1ee3", "0x10", "∞",
        ] {
            assert!(Amount::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn division_rounds_up_as_the_downward_api_does() {
        let memory = Amount::parse("64Mi").unwrap();
        assert_eq!(memory.divided_by(Amount::parse("1Mi").unwrap()), 64);
        assert_eq!(Amount::parse("250m").unwrap().divided_by(Amount::ONE), 1);
        assert_eq!(
            Amount::parse("250m")
                .unwrap()
                .divided_by(Amount::parse("1m").unwrap()),
            250
        );
        assert_eq!(memory.divided_by(Amount::default()), 67_108_864);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = Amount::parse(&text);
        }
    }
}
