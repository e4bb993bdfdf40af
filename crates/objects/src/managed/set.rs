//! Sets of paths into an object, kept as a tree.
//! Source: `structured-merge-diff`, `fieldpath/set.go`.

use super::element::Element;
use super::schema::{Schema, TypeRef};

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// Steps whose end is in the set, sorted.
    pub(super) members: Vec<Element>,
    /// Steps below which something is in the set, sorted. Being here does not make a step a member.
    pub(super) children: Vec<(Element, Set)>,
}

impl Set {
    /// A set of these paths, each a list of field names.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(path.iter().map(|name| Element::field(name)).collect());
        }
        set
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.iter().all(|(_, set)| set.is_empty())
    }

    /// So many paths are in it.
    pub fn len(&self) -> usize {
        self.members.len()
            + self
                .children
                .iter()
                .map(|(_, set)| set.len())
                .sum::<usize>()
    }

    /// Adds a path. The empty path is the whole object, which nobody owns.
    pub fn insert(&mut self, mut path: Vec<Element>) {
        let Some(last) = path.pop() else { return };
        let mut at = self;
        for step in path {
            at = at.descend(step);
        }
        at.add_member(last);
    }

    pub(super) fn add_member(&mut self, element: Element) {
        if self.members.last().is_none_or(|last| *last < element) {
            self.members.push(element);
        } else if let Err(at) = self.members.binary_search(&element) {
            self.members.insert(at, element);
        }
    }

    pub(super) fn add_child(&mut self, element: Element, set: Self) {
        if self.children.last().is_none_or(|(last, _)| *last < element) {
            self.children.push((element, set));
            return;
        }
        match self.children.binary_search_by(|(e, _)| e.cmp(&element)) {
            Ok(at) => {
                let merged = self.children[at].1.union(&set);
                self.children[at].1 = merged;
            }
            Err(at) => self.children.insert(at, (element, set)),
        }
    }

    fn descend(&mut self, element: Element) -> &mut Self {
        let at = match self.children.binary_search_by(|(e, _)| e.cmp(&element)) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (element, Self::default()));
                at
            }
        };
        &mut self.children[at].1
    }

    /// What is below a step.
    pub fn child(&self, element: &Element) -> Option<&Self> {
        self.children
            .binary_search_by(|(e, _)| e.cmp(element))
            .ok()
            .map(|at| &self.children[at].1)
    }

    /// Whether the end of a single step is in the set.
    pub(super) fn has_member(&self, element: &Element) -> bool {
        self.members.binary_search(element).is_ok()
    }

    /// Whether the path is in the set.
    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.child(first).is_some_and(|set| set.has(rest)),
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut members = Vec::with_capacity(self.members.len() + other.members.len());
        zip(
            &self.members,
            &other.members,
            |e| e,
            |a, b| {
                members.extend(a.or(b).cloned());
            },
        );
        let mut children = Vec::with_capacity(self.children.len() + other.children.len());
        zip(
            &self.children,
            &other.children,
            |(e, _)| e,
            |a, b| {
                children.extend(match (a, b) {
                    (Some((e, a)), Some((_, b))) => Some((e.clone(), a.union(b))),
                    (one, other) => one.or(other).cloned(),
                });
            },
        );
        Self { members, children }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut members = Vec::new();
        zip(
            &self.members,
            &other.members,
            |e| e,
            |a, b| {
                members.extend(a.filter(|_| b.is_some()).cloned());
            },
        );
        let mut children = Vec::new();
        zip(
            &self.children,
            &other.children,
            |(e, _)| e,
            |a, b| {
                if let (Some((e, a)), Some((_, b))) = (a, b) {
                    let both = a.intersection(b);
                    if !both.is_empty() {
                        children.push((e.clone(), both));
                    }
                }
            },
        );
        Self { members, children }
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// As [`Set::difference`], but what is in the other one takes everything below it along.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.without(other, true)
    }

    fn without(&self, other: &Self, recursive: bool) -> Self {
        let mut members = Vec::new();
        zip(
            &self.members,
            &other.members,
            |e| e,
            |a, b| {
                members.extend(a.filter(|_| b.is_none()).cloned());
            },
        );
        let mut children = Vec::new();
        zip(
            &self.children,
            &other.children,
            |(e, _)| e,
            |a, b| {
                let Some((element, set)) = a else { return };
                if recursive && other.has_member(element) {
                    return;
                }
                let Some((_, gone)) = b else {
                    children.push((element.clone(), set.clone()));
                    return;
                };
                let left = set.without(gone, recursive);
                if !left.is_empty() {
                    children.push((element.clone(), left));
                }
            },
        );
        Self { members, children }
    }

    /// The set with all fields of structs as members that only have something below them: `spec.replicas` makes
    /// `spec` a member, but `metadata.labels.a` does not do that for a map.
    #[must_use]
    pub(super) fn with_named_fields(&self, schema: &Schema, of: Option<TypeRef>) -> Self {
        let atom = of.map(|of| schema.atom(of));
        let map = atom.and_then(|a| a.map.as_ref());
        let list = atom.and_then(|a| a.list.as_ref());
        let mut all = Self {
            members: self.members.clone(),
            children: Vec::with_capacity(self.children.len()),
        };
        for (element, set) in &self.children {
            let below = match element {
                Element::Field(name) => map.and_then(|map| match map.field(name) {
                    Some(field) => {
                        all.add_member(element.clone());
                        Some(field.of)
                    }
                    None => map.values,
                }),
                Element::Key(_) => list.map(|list| list.element),
                _ => None,
            };
            all.children
                .push((element.clone(), set.with_named_fields(schema, below)));
        }
        all
    }

    /// Calls `each` with every path in the set: those that end here first, then those that go deeper.
    pub fn each(&self, each: &mut impl FnMut(&[Element])) {
        fn walk(set: &Set, path: &mut Vec<Element>, each: &mut impl FnMut(&[Element])) {
            for member in &set.members {
                path.push(member.clone());
                each(path);
                path.pop();
            }
            for (element, set) in &set.children {
                path.push(element.clone());
                walk(set, path, each);
                path.pop();
            }
        }
        walk(self, &mut Vec::new(), each);
    }
}

/// Walks two sorted lists together.
fn zip<'a, T>(
    a: &'a [T],
    b: &'a [T],
    element: impl Fn(&T) -> &Element,
    mut each: impl FnMut(Option<&'a T>, Option<&'a T>),
) {
    let (mut i, mut j) = (0, 0);
    loop {
        match (a.get(i), b.get(j)) {
            (None, None) => return,
            (Some(x), None) => {
                each(Some(x), None);
                i += 1;
            }
            (None, Some(y)) => {
                each(None, Some(y));
                j += 1;
            }
            (Some(x), Some(y)) => match element(x).cmp(element(y)) {
                std::cmp::Ordering::Less => {
                    each(Some(x), None);
                    i += 1;
                }
                std::cmp::Ordering::Greater => {
                    each(None, Some(y));
                    j += 1;
                }
                std::cmp::Ordering::Equal => {
                    each(Some(x), Some(y));
                    i += 1;
                    j += 1;
                }
            },
        }
    }
}

/// A path as conflicts name it: `.spec.ports[port=80,protocol="TCP"].name`.
pub fn path_text(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sets() -> impl Strategy<Value = Set> {
        let path = proptest::collection::vec("[abc]", 1..4);
        proptest::collection::vec(path, 0..8).prop_map(|paths| {
            let mut set = Set::default();
            for path in paths {
                set.insert(path.iter().map(|n| Element::field(n)).collect());
            }
            set
        })
    }

    fn paths(set: &Set) -> Vec<String> {
        let mut all = Vec::new();
        set.each(&mut |path| all.push(path_text(path)));
        all.sort();
        all
    }

    #[test]
    fn taking_a_parent_away_recursively_takes_its_children() {
        let set = Set::of_fields(&[&["status", "replicas"], &["status"], &["spec", "replicas"]]);
        let status = Set::of_fields(&[&["status"]]);
        assert_eq!(
            paths(&set.difference(&status)),
            [".spec.replicas", ".status.replicas"]
        );
        assert_eq!(
            paths(&set.recursive_difference(&status)),
            [".spec.replicas"]
        );
    }

    proptest! {
        #[test]
        fn sets_behave_like_sets_of_their_paths(a in sets(), b in sets()) {
            let (pa, pb) = (paths(&a), paths(&b));
            let both: Vec<String> = pa.iter().filter(|p| pb.contains(p)).cloned().collect();
            prop_assert_eq!(paths(&a.intersection(&b)), both);
            let left: Vec<String> = pa.iter().filter(|p| !pb.contains(p)).cloned().collect();
            prop_assert_eq!(paths(&a.difference(&b)), left);
            let mut either = pa.clone();
            either.extend(pb.iter().filter(|p| !pa.contains(p)).cloned());
            either.sort();
            prop_assert_eq!(paths(&a.union(&b)), either);
            prop_assert_eq!(a.len(), pa.len());
            prop_assert!(a.difference(&a).is_empty());
        }
    }
}
