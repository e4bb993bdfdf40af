//! Times that come again and again, as CronJobs name them: `*/5 8-18 * * mon-fri`, `@daily`, `@every 1h30m`.
//!
//! Source: `robfig/cron/v3`, `ParseStandard`, whose messages these are; `crontab(5)`. When day of month and day of week
//! are both given, either of them is enough.

use std::time::Duration;

/// When something is due, in whole minutes of local time, or in equal distances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that match.
    At(Fields),
    /// Again after so much time. Whole seconds, at least one.
    Every(Duration),
}

/// Which values of each field match, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

/// A minute of local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 23.
    pub hour: u32,
    /// Day of the month, from 1.
    pub day: u32,
    /// 1 to 12.
    pub month: u32,
    /// 0 is Sunday.
    pub weekday: u32,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotASchedule(String);

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds {
    min: 0,
    max: 59,
    names: &[],
};
const HOURS: Bounds = Bounds {
    min: 0,
    max: 23,
    names: &[],
};
const DAYS: Bounds = Bounds {
    min: 1,
    max: 31,
    names: &[],
};
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAYS: Bounds = Bounds {
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// The text is none.
    pub fn parse(text: &str) -> Result<Self, NotASchedule> {
        if text.is_empty() {
            return wrong("empty spec string".to_owned());
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return wrong(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            ));
        };
        Ok(Self::At(Fields {
            minutes: field(minute, &MINUTES)?.0,
            hours: field(hour, &HOURS)?.0,
            days: field(day, &DAYS)?.0,
            months: field(month, &MONTHS)?.0,
            weekdays: field(weekday, &WEEKDAYS)?.0,
            any_day: field(day, &DAYS)?.1,
            any_weekday: field(weekday, &WEEKDAYS)?.1,
        }))
    }
}

impl Fields {
    /// Whether the minute matches.
    pub fn matches(&self, at: Minute) -> bool {
        let has = |bits: u64, value: u32| bits.checked_shr(value).is_some_and(|bits| bits & 1 == 1);
        has(self.minutes, at.minute)
            && has(self.hours, at.hour)
            && self.matches_day(at.day, at.month, at.weekday)
    }

    /// Whether any minute of the day matches.
    pub fn matches_day(&self, day: u32, month: u32, weekday: u32) -> bool {
        let has = |bits: u64, value: u32| bits.checked_shr(value).is_some_and(|bits| bits & 1 == 1);
        let (day, weekday) = (has(self.days, day), has(self.weekdays, weekday));
        let either = if self.any_day || self.any_weekday {
            day && weekday
        } else {
            day || weekday
        };
        has(self.months, month) && either
    }
}

fn wrong<T>(message: String) -> Result<T, NotASchedule> {
    Err(NotASchedule(message))
}

fn descriptor(text: &str) -> Result<Schedule, NotASchedule> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(length) = text.strip_prefix("@every ") else {
                return wrong(format!("unrecognized descriptor: {text}"));
            };
            let Some(length) = duration(length) else {
                return wrong(format!(
                    "failed to parse duration {text}: time: invalid duration {length:?}"
                ));
            };
            return Ok(Schedule::Every(Duration::from_secs(
                length.as_secs().max(1),
            )));
        }
    };
    Schedule::parse(fields)
}

/// A duration as Go writes it: `1h30m`, `1.5s`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// The bits of a field, and whether it is a star.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), NotASchedule> {
    let mut bits = 0;
    let mut star = false;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (more, any) = range(part, bounds)?;
        bits |= more;
        star |= any;
    }
    Ok((bits, star))
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), NotASchedule> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let mut star = matches!(ends[0], "*" | "?");
    let (start, mut end) = if star {
        (bounds.min, bounds.max)
    } else {
        let start = number(ends[0], bounds)?;
        match ends.as_slice() {
            [_] => (start, start),
            [_, end] => (start, number(end, bounds)?),
            _ => return wrong(format!("too many hyphens: {text}")),
        }
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            // With a step, one number is the beginning of a range.
            if ends.len() == 1 {
                end = bounds.max;
            }
            star = star && *step == "1";
            plain_number(step)?
        }
        _ => return wrong(format!("too many slashes: {text}")),
    };
    if start < bounds.min {
        return wrong(format!(
            "beginning of range ({start}) below minimum ({}): {text}",
            bounds.min
        ));
    }
    if end > bounds.max {
        return wrong(format!(
            "end of range ({end}) above maximum ({}): {text}",
            bounds.max
        ));
    }
    if start > end {
        return wrong(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    if step == 0 {
        return wrong(format!("step of range should be a positive number: {text}"));
    }
    let values = (start..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    Ok((values.fold(0, |bits, value| bits | 1 << value), star))
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, NotASchedule> {
    let lower = text.to_lowercase();
    let named = bounds.names.iter().position(|name| *name == lower);
    match named.and_then(|at| u32::try_from(at).ok()) {
        Some(at) => Ok(at + bounds.min),
        None => plain_number(text),
    }
}

fn plain_number(text: &str) -> Result<u32, NotASchedule> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => {
            wrong(format!("negative number ({number}) not allowed: {text}"))
        }
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => wrong(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(text: &str, at: [u32; 5]) -> bool {
        let [minute, hour, day, month, weekday] = at;
        match Schedule::parse(text).expect(text) {
            Schedule::At(fields) => fields.matches(Minute {
                minute,
                hour,
                day,
                month,
                weekday,
            }),
            Schedule::Every(_) => false,
        }
    }

    #[test]
    fn a_minute_matches_when_every_field_does() {
        for (text, at, expected) in [
            ("* * * * *", [1, 2, 3, 4, 5], true),
            ("*/5 * * * *", [10, 0, 1, 1, 0], true),
            ("*/5 * * * *", [11, 0, 1, 1, 0], false),
            ("5/20 * * * *", [45, 0, 1, 1, 0], true),
            ("0 8-18/2 * * mon-fri", [0, 10, 1, 1, 3], true),
            ("0 8-18/2 * * mon-fri", [0, 10, 1, 1, 6], false),
            ("0 0 13 * fri", [0, 0, 1, 1, 5], true),
            ("0 0 13 * fri", [0, 0, 13, 1, 2], true),
            ("0 0 13 * fri", [0, 0, 14, 1, 2], false),
            ("0 0 * JAN,dec ?", [0, 0, 14, 12, 2], true),
            ("@monthly", [0, 0, 1, 7, 2], true),
        ] {
            assert_eq!(matches(text, at), expected, "{text} {at:?}");
        }
        assert_eq!(
            Schedule::parse("@every 1h30m"),
            Ok(Schedule::Every(Duration::from_secs(5400)))
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_the_librarys_words() {
        for (text, message) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-3 * * * *",
                "beginning of range (5) beyond end of range (3): 5-3",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(Schedule::parse(text).expect_err(text).to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "[-@*/?,0-9a-z ]{0,30}") {
            let _ = Schedule::parse(&text);
        }
    }
}
