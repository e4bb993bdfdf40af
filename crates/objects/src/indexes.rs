//! Sets of completion indexes of a Job, as its status and its success policy write them: `0,3-5,9`.
//!
//! Source: API reference, `completedIndexes` of JobStatus; `parseIndexInterval` and `validateIndexesFormat` in
//! `pkg/apis/batch/validation`.

use std::fmt;

/// A set of indexes; ranges in order that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

/// Why a text is no set of indexes, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotIndexes(String);

impl Indexes {
    /// Reads a set of indexes below `completions`.
    ///
    /// # Errors
    /// The text is malformed, not in order, or has an index that is too large.
    pub fn parse(text: &str, completions: i32) -> Result<Self, NotIndexes> {
        let mut set = Self::default();
        if text.is_empty() {
            return Ok(set);
        }
        let mut last: Option<i32> = None;
        for part in text.split(',') {
            let (first, end) = interval(part, completions)?;
            if let Some(last) = last.filter(|last| *last >= first) {
                return Err(NotIndexes(format!(
                    "non-increasing order, previous: {last}, current: {first}"
                )));
            }
            last = Some(end);
            set.0.push((first, end));
        }
        Ok(set.with(&Self::default()))
    }

    /// As [`Indexes::parse`], but what is wrong or not below `completions` is passed over: for figures that were
    /// written before the Job became smaller.
    pub fn parse_lenient(text: &str, completions: i32) -> Self {
        let numbers = text
            .split(',')
            .filter_map(|part| interval(part, i32::MAX).ok());
        let ranges = numbers
            .filter(|(first, _)| *first < completions)
            .map(|(first, end)| (first, end.min(completions - 1)));
        Self(ranges.collect()).with(&Self::default())
    }

    /// How many there are.
    pub fn count(&self) -> i32 {
        self.0.iter().map(|(first, end)| end - first + 1).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the index is one of them.
    pub fn contains(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|(_, end)| *end >= index)
    }

    /// How many of them are in the other set too.
    pub fn count_in(&self, other: &Self) -> i32 {
        let mut count = 0;
        let mut others = other.0.iter().peekable();
        for (first, end) in &self.0 {
            while let Some((other_first, other_end)) = others.peek() {
                count += (end.min(other_end) - first.max(other_first) + 1).max(0);
                if other_end > end {
                    break;
                }
                others.next();
            }
        }
        count
    }

    /// The first index in both sets.
    pub fn overlap(&self, other: &Self) -> Option<i32> {
        let common = self.0.iter().filter_map(|(first, end)| {
            let hits = other
                .0
                .iter()
                .filter(|(from, to)| from <= end && to >= first);
            hits.map(|(from, _)| *from.max(first)).next()
        });
        common.min()
    }

    /// Both sets together.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut all: Vec<(i32, i32)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::with_capacity(all.len());
        for (first, end) in all {
            match joined.last_mut() {
                Some(last) if first <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => joined.push((first, end)),
            }
        }
        Self(joined)
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        Self(indexes.into_iter().map(|index| (index, index)).collect()).with(&Self::default())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, end)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match end - first {
                0 => write!(f, "{comma}{first}")?,
                // Two in a row are no range. Source: `orderedIntervals.String` of the Job controller.
                1 => write!(f, "{comma}{first},{end}")?,
                _ => write!(f, "{comma}{first}-{end}")?,
            }
        }
        Ok(())
    }
}

fn interval(part: &str, completions: i32) -> Result<(i32, i32), NotIndexes> {
    let number = |text: &str| {
        let number: i64 = text.parse().map_err(|_| {
            NotIndexes(format!(
                "cannot convert string to integer for index: {text:?}"
            ))
        })?;
        i32::try_from(number)
            .ok()
            .filter(|number| *number < completions)
            .ok_or_else(|| NotIndexes(format!("too large index: {text:?}")))
    };
    let limits: Vec<&str> = part.split('-').collect();
    match limits.as_slice() {
        [one] => number(one).map(|one| (one, one)),
        [first, end] => {
            let (first, end) = (number(first)?, number(end)?);
            if first >= end {
                return Err(NotIndexes(format!(
                    "non-increasing order, previous: {first}, current: {end}"
                )));
            }
            Ok((first, end))
        }
        _ => Err(NotIndexes(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn sets_are_read_and_written() {
        for (text, count, shown) in [
            ("", 0, ""),
            ("0", 1, "0"),
            ("0,1", 2, "0,1"),
            ("0-1,2", 3, "0-2"),
            ("1,3-5,9", 5, "1,3-5,9"),
        ] {
            let set = Indexes::parse(text, 10).expect(text);
            assert_eq!((set.count(), set.to_string().as_str()), (count, shown));
        }
        for (text, words) in [
            ("1,1", "non-increasing order, previous: 1, current: 1"),
            ("5-3", "non-increasing order, previous: 5, current: 3"),
            ("10", "too large index: \"10\""),
            ("a", "cannot convert string to integer for index: \"a\""),
            (
                "1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
        ] {
            assert_eq!(Indexes::parse(text, 10).expect_err(text).to_string(), words);
        }
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set(a in proptest::collection::btree_set(0i32..60, 0..40), b in proptest::collection::btree_set(0i32..60, 0..40)) {
            let (x, y): (Indexes, Indexes) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(Indexes::parse(&x.to_string(), 60).unwrap(), x.clone());
            prop_assert_eq!(Indexes::parse_lenient(&x.to_string(), 30).count(), i32::try_from(a.range(..30).count()).unwrap());
            let both: BTreeSet<i32> = a.union(&b).copied().collect();
            prop_assert_eq!(x.with(&y), both.iter().copied().collect());
            prop_assert_eq!(x.count_in(&y), i32::try_from(a.intersection(&b).count()).unwrap());
            prop_assert_eq!(x.overlap(&y), a.intersection(&b).next().copied());
            for index in 0..60 {
                prop_assert_eq!(x.contains(index), a.contains(&index));
            }
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,30}") {
            let _ = Indexes::parse(&text, 100);
            let _ = Indexes::parse_lenient(&text, 100);
        }
    }
}
