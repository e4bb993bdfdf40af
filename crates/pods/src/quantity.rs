//! Amounts as Pods state them (`500m`, `64Mi`), rounded as cgroup limits and the downward API want them.
//! Source: `k8s.io/apimachinery/pkg/api/resource`, `Quantity`.

use seaway_objects::quantity;

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

const NANO: i128 = quantity::UNIT;

impl Amount {
    /// One unit.
    pub const ONE: Amount = Amount(NANO);

    /// Whole units.
    pub fn whole(units: i64) -> Self {
        Amount(i128::from(units) * NANO)
    }

    /// Reads a quantity. Finer than billionths is rounded up, as Kubernetes does.
    pub fn parse(text: &str) -> Result<Self, InvalidQuantity> {
        quantity::parse(text)
            .map(Amount)
            .ok_or_else(|| InvalidQuantity {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
