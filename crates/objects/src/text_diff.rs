//! How two texts differ, as a unified diff with three lines of context.
//!
//! Kubernetes puts such diffs into messages, so which of several possible diffs it is matters. Source: `SequenceMatcher`
//! and `unified_diff` of Python's `difflib`, of which Go's `difflib` is a port; that includes passing over lines that
//! are very frequent in long texts.

use std::collections::HashMap;

/// Unchanged lines shown around each change.
const CONTEXT: usize = 3;
/// From so many lines on, lines that make up more than a hundredth of the text start no match.
const LONG: usize = 200;

/// The difference of two texts without the lines that name files; empty if there is none. It ends with a line break.
pub fn unified(old: &str, new: &str) -> String {
    let (old, new) = (lines(old), lines(new));
    let mut text = String::new();
    for group in groups(changes(&old, &new)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        text.push_str(&format!(
            "@@ -{} +{} @@\n",
            range(first.old.0, last.old.1),
            range(first.new.0, last.new.1)
        ));
        let mut put = |sign: char, lines: &[&str]| {
            for line in lines {
                text.push(sign);
                text.push_str(line);
                text.push('\n');
            }
        };
        for part in &group {
            if part.equal {
                put(' ', &old[part.old.0..part.old.1]);
            } else {
                put('-', &old[part.old.0..part.old.1]);
                put('+', &new[part.new.0..part.new.1]);
            }
        }
    }
    text
}

fn lines(text: &str) -> Vec<&str> {
    text.split('\n').collect()
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        length => format!("{},{length}", start + 1),
    }
}

/// A stretch of both texts (first line and the line after the last) that is equal, or that replaces the other.
#[derive(Debug, Clone, Copy)]
struct Part {
    equal: bool,
    old: (usize, usize),
    new: (usize, usize),
}

/// A stretch of equal lines: where it starts in both, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    old: usize,
    new: usize,
    length: usize,
}

fn changes(old: &[&str], new: &[&str]) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut i, mut j) = (0, 0);
    let end = Match {
        old: old.len(),
        new: new.len(),
        length: 0,
    };
    for found in matches(old, new).into_iter().chain([end]) {
        if i < found.old || j < found.new {
            parts.push(Part {
                equal: false,
                old: (i, found.old),
                new: (j, found.new),
            });
        }
        (i, j) = (found.old + found.length, found.new + found.length);
        if found.length > 0 {
            parts.push(Part {
                equal: true,
                old: (found.old, i),
                new: (found.new, j),
            });
        }
    }
    parts
}

/// All equal stretches in order: the longest first, then those before and after it.
fn matches(old: &[&str], new: &[&str]) -> Vec<Match> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (j, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(j);
    }
    if new.len() >= LONG {
        let most = new.len() / 100 + 1;
        places.retain(|_, at| at.len() <= most);
    }
    let mut found = Vec::new();
    let mut open = vec![((0, old.len()), (0, new.len()))];
    while let Some((within_old, within_new)) = open.pop() {
        let best = longest(old, new, &places, within_old, within_new);
        if best.length == 0 {
            continue;
        }
        found.push(best);
        if within_old.0 < best.old && within_new.0 < best.new {
            open.push(((within_old.0, best.old), (within_new.0, best.new)));
        }
        let (i, j) = (best.old + best.length, best.new + best.length);
        if i < within_old.1 && j < within_new.1 {
            open.push(((i, within_old.1), (j, within_new.1)));
        }
    }
    found.sort_unstable();
    // Stretches that touch are one.
    let mut joined: Vec<Match> = Vec::new();
    for next in found {
        match joined.last_mut() {
            Some(last)
                if last.old + last.length == next.old && last.new + last.length == next.new =>
            {
                last.length += next.length;
            }
            _ => joined.push(next),
        }
    }
    joined
}

/// The longest equal stretch within both ranges; of equally long ones that which starts first in the old text, and of
/// those that which starts first in the new one.
fn longest(
    old: &[&str],
    new: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    (old_start, old_end): (usize, usize),
    (new_start, new_end): (usize, usize),
) -> Match {
    let mut best = Match {
        old: old_start,
        new: new_start,
        length: 0,
    };
    // Length of the equal stretch that ends with the line before in the old text, by its last line in the new one.
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (i, line) in old.iter().enumerate().take(old_end).skip(old_start) {
        let mut next = HashMap::new();
        for &j in places.get(line).into_iter().flatten() {
            if j < new_start {
                continue;
            }
            if j >= new_end {
                break;
            }
            let length = 1 + j
                .checked_sub(1)
                .and_then(|j| lengths.get(&j))
                .copied()
                .unwrap_or(0);
            next.insert(j, length);
            if length > best.length {
                best = Match {
                    old: i + 1 - length,
                    new: j + 1 - length,
                    length,
                };
            }
        }
        lengths = next;
    }
    // Frequent lines start no stretch, but they lengthen one.
    while best.old > old_start && best.new > new_start && old[best.old - 1] == new[best.new - 1] {
        best = Match {
            old: best.old - 1,
            new: best.new - 1,
            length: best.length + 1,
        };
    }
    while best.old + best.length < old_end
        && best.new + best.length < new_end
        && old[best.old + best.length] == new[best.new + best.length]
    {
        best.length += 1;
    }
    best
}

/// Changes with their context; changes that are near each other are in one group.
fn groups(mut parts: Vec<Part>) -> Vec<Vec<Part>> {
    if parts.iter().all(|part| part.equal) {
        return Vec::new();
    }
    if let Some(first) = parts.first_mut().filter(|part| part.equal) {
        first.old.0 = first.old.0.max(first.old.1.saturating_sub(CONTEXT));
        first.new.0 = first.new.0.max(first.new.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = parts.last_mut().filter(|part| part.equal) {
        last.old.1 = last.old.1.min(last.old.0 + CONTEXT);
        last.new.1 = last.new.1.min(last.new.0 + CONTEXT);
    }
    let mut groups = Vec::new();
    let mut group = Vec::new();
    for part in parts {
        let long = part.old.1 - part.old.0 > 2 * CONTEXT;
        if part.equal && long {
            group.push(Part {
                equal: true,
                old: (part.old.0, part.old.0 + CONTEXT),
                new: (part.new.0, part.new.0 + CONTEXT),
            });
            groups.push(std::mem::take(&mut group));
            group.push(Part {
                equal: true,
                old: (part.old.1 - CONTEXT, part.old.1),
                new: (part.new.1 - CONTEXT, part.new.1),
            });
        } else {
            group.push(part);
        }
    }
    if group.iter().any(|part| !part.equal) {
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_texts_have_no_difference() {
        assert_eq!(unified("a\nb", "a\nb"), "");
    }

    #[test]
    fn changes_have_three_lines_around_them() {
        assert_eq!(
            unified("1\n2\n3\n4\n5\n6\n7\n8\n9", "1\n2\n3\n4\nfive\n6\n7\n8\n9"),
            "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
        );
        assert_eq!(unified("a", "a\nb"), "@@ -1 +1,2 @@\n a\n+b\n");
        assert_eq!(unified("a\nb", "b"), "@@ -1,2 +1 @@\n-a\n b\n");
    }

    #[test]
    fn changes_that_are_far_apart_are_apart() {
        let old: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        let mut new = old.clone();
        new[2] = "x".to_owned();
        new[20] = "y".to_owned();
        let text = unified(&old.join("\n"), &new.join("\n"));
        assert_eq!(text.matches("@@ -").count(), 2, "{text}");
    }

    /// The new text from the old one and the difference.
    fn patched(old: &[&str], diff: &str) -> Vec<String> {
        let mut made = Vec::new();
        let mut at = 0;
        for line in diff.lines() {
            if let Some(head) = line.strip_prefix("@@ -") {
                let from = head.split(' ').next().expect("a range");
                let (start, length) = from.split_once(',').unwrap_or((from, "1"));
                let start: usize = start.parse().expect("a number");
                let start = if length == "0" { start } else { start - 1 };
                made.extend(old[at..start].iter().map(ToString::to_string));
                at = start;
            } else if let Some(added) = line.strip_prefix('+') {
                made.push(added.to_owned());
            } else if let Some(removed) = line.strip_prefix('-') {
                assert_eq!(removed, old[at]);
                at += 1;
            } else {
                assert_eq!(&line[1..], old[at]);
                made.push(old[at].to_owned());
                at += 1;
            }
        }
        made.extend(old[at..].iter().map(ToString::to_string));
        made
    }

    proptest! {
        #[test]
        fn the_difference_leads_from_one_text_to_the_other(
            old in proptest::collection::vec("[a-d]", 1..300), new in proptest::collection::vec("[a-d]", 1..300)
        ) {
            let diff = unified(&old.join("\n"), &new.join("\n"));
            let old: Vec<&str> = old.iter().map(String::as_str).collect();
            prop_assert_eq!(patched(&old, &diff), new);
        }
    }
}
