//! When the next Job is due, and when the last one was. Costs at most a look at each day of four years.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use seaway_objects::cron::{Fields, Minute, Schedule};

/// A schedule that has no time within so many days (the 30th of February) has none. A leap day comes within eight years.
const HORIZON_DAYS: i32 = 8 * 366 + 1;

/// The first time after `after`. `base` is where equal distances are counted from.
pub(crate) fn next(
    schedule: &Schedule,
    zone: &TimeZone,
    base: Timestamp,
    after: Timestamp,
) -> Option<Timestamp> {
    match schedule {
        Schedule::Every(length) => {
            let length = SignedDuration::try_from(*length).ok()?;
            let passed = after
                .duration_since(base)
                .as_secs()
                .div_euclid(length.as_secs().max(1));
            base.checked_add(length.checked_mul(i32::try_from(passed + 1).ok()?)?)
                .ok()
        }
        Schedule::At(fields) => {
            let mut day = after.to_zoned(zone.clone()).date();
            for _ in 0..HORIZON_DAYS {
                let found = minutes(fields, day)
                    .find_map(|at| timestamp(zone, at).filter(|at| *at > after));
                if found.is_some() {
                    return found;
                }
                day = day.checked_add(1.day()).ok()?;
            }
            None
        }
    }
}

/// The last time after `after` and not after `until`.
pub(crate) fn last(
    schedule: &Schedule,
    zone: &TimeZone,
    base: Timestamp,
    after: Timestamp,
    until: Timestamp,
) -> Option<Timestamp> {
    match schedule {
        Schedule::Every(length) => {
            let length = SignedDuration::try_from(*length).ok()?;
            let passed = until
                .duration_since(base)
                .as_secs()
                .div_euclid(length.as_secs().max(1));
            let at = base
                .checked_add(length.checked_mul(i32::try_from(passed).ok()?)?)
                .ok()?;
            (passed > 0 && at > after).then_some(at)
        }
        Schedule::At(fields) => {
            let first = after.to_zoned(zone.clone()).date();
            let mut day = until.to_zoned(zone.clone()).date();
            while day >= first {
                let times = minutes(fields, day).filter_map(|at| timestamp(zone, at));
                let found = times.filter(|at| *at > after && *at <= until).max();
                if found.is_some() {
                    return found;
                }
                day = day.checked_sub(1.day()).ok()?;
            }
            None
        }
    }
}

/// A local time that a change of clocks skips or repeats is the one that the zone's rules make of it.
fn timestamp(zone: &TimeZone, at: DateTime) -> Option<Timestamp> {
    zone.to_timestamp(at).ok()
}

/// The matching minutes of a day.
fn minutes(fields: &Fields, day: Date) -> impl Iterator<Item = DateTime> {
    let fields = *fields;
    let number = |value: i8| u32::try_from(value).unwrap_or(0);
    let (of_month, month) = (number(day.day()), number(day.month()));
    let weekday = number(day.weekday().to_sunday_zero_offset());
    let hours = if fields.matches_day(of_month, month, weekday) {
        24i8
    } else {
        0
    };
    (0..hours).flat_map(move |hour| {
        (0..60i8).filter_map(move |minute| {
            let at = Minute {
                minute: number(minute),
                hour: number(hour),
                day: of_month,
                month,
                weekday,
            };
            fields.matches(at).then(|| day.at(hour, minute, 0, 0))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text).unwrap()
    }

    #[test]
    fn the_next_time_and_the_last_one() {
        let base = at("2030-01-01T00:00:00Z");
        for (text, now, next_at, last_at) in [
            (
                "*/5 * * * *",
                "2030-01-01T00:07:30Z",
                Some("2030-01-01T00:10:00Z"),
                Some("2030-01-01T00:05:00Z"),
            ),
            (
                "0 0 1 * *",
                "2030-01-15T00:00:00Z",
                Some("2030-02-01T00:00:00Z"),
                None,
            ),
            (
                "0 12 29 2 *",
                "2030-01-15T00:00:00Z",
                Some("2032-02-29T12:00:00Z"),
                None,
            ),
            ("0 0 30 2 *", "2030-01-15T00:00:00Z", None, None),
            (
                "@every 90s",
                "2030-01-01T00:04:00Z",
                Some("2030-01-01T00:04:30Z"),
                Some("2030-01-01T00:03:00Z"),
            ),
            (
                "@every 90s",
                "2030-01-01T00:01:00Z",
                Some("2030-01-01T00:01:30Z"),
                None,
            ),
        ] {
            let (schedule, now) = (schedule(text), at(now));
            assert_eq!(
                next(&schedule, &TimeZone::UTC, base, now),
                next_at.map(at),
                "{text}"
            );
            assert_eq!(
                last(&schedule, &TimeZone::UTC, base, base, now),
                last_at.map(at),
                "{text}"
            );
        }
    }

    #[test]
    fn the_time_is_that_of_the_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let base = at("2030-01-01T00:00:00Z");
        assert_eq!(
            next(&schedule("0 1 * * *"), &zone, base, base),
            Some(at("2030-01-01T23:00:00Z"))
        );
    }
}
