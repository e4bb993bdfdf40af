//! What must happen to one object, given its owners and dependents.

use super::graph::Vertex;

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It is there.
    Alive,
    /// It is there, but waits for its dependents to go.
    Waiting,
    /// The API server says that it is not.
    Absent,
}

/// What must happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing.
    Keep,
    /// All dependents that it waited for are gone.
    ReleaseForeground,
    /// Its dependents lose it as an owner, and then it goes.
    OrphanDependents,
    /// It loses these owners (UIDs) but keeps others.
    DropOwners(Vec<String>),
    /// It goes.
    Delete {
        /// How its own dependents fare.
        propagation: Propagation,
        /// Its own waiting owner would wait for ever, because a dependent waits as well: it must not block.
        unblock: bool,
    },
}

/// How the dependents of a deleted object fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// Decides. `owners` has one entry for each owner reference; `dependents` are the objects that name this one.
/// Source: `attemptToDeleteItem`.
pub(crate) fn decide(object: &Vertex, owners: &[Owner], dependents: &[&Vertex]) -> Decision {
    if object.leaves_dependents() {
        return Decision::OrphanDependents;
    }
    if object.awaits_dependents() {
        let blocked = dependents
            .iter()
            .any(|dependent| dependent.blocks(&object.uid));
        return if blocked {
            Decision::Keep
        } else {
            Decision::ReleaseForeground
        };
    }
    if object.deleting || owners.is_empty() {
        return Decision::Keep;
    }
    if owners.contains(&Owner::Alive) {
        let pairs = object.owners.iter().zip(owners);
        let useless: Vec<String> = pairs
            .filter(|(_, state)| **state != Owner::Alive)
            .map(|(owner, _)| owner.uid.clone())
            .collect();
        return if useless.is_empty() {
            Decision::Keep
        } else {
            Decision::DropOwners(useless)
        };
    }
    if owners.contains(&Owner::Waiting) && !dependents.is_empty() {
        let unblock = dependents
            .iter()
            .any(|dependent| dependent.awaits_dependents());
        return Decision::Delete {
            propagation: Propagation::Foreground,
            unblock,
        };
    }
    let propagation = if object.orphan {
        Propagation::Orphan
    } else if object.foreground {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    Decision::Delete {
        propagation,
        unblock: false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::vertex;
    use super::*;

    fn delete(propagation: Propagation) -> Decision {
        Decision::Delete {
            propagation,
            unblock: false,
        }
    }

    #[test]
    fn an_object_lives_as_long_as_one_owner_does() {
        let object = vertex("a", &[("x", true), ("y", true)]);
        let table = [
            ([Owner::Alive, Owner::Alive], Decision::Keep),
            (
                [Owner::Alive, Owner::Absent],
                Decision::DropOwners(vec!["y".into()]),
            ),
            (
                [Owner::Waiting, Owner::Alive],
                Decision::DropOwners(vec!["x".into()]),
            ),
            (
                [Owner::Absent, Owner::Absent],
                delete(Propagation::Background),
            ),
            (
                [Owner::Waiting, Owner::Absent],
                delete(Propagation::Background),
            ),
        ];
        for (owners, expected) in table {
            assert_eq!(decide(&object, &owners, &[]), expected, "{owners:?}");
        }
        assert_eq!(decide(&vertex("free", &[]), &[], &[]), Decision::Keep);
    }

    #[test]
    fn what_is_going_already_is_left_alone() {
        let object = Vertex {
            deleting: true,
            ..vertex("a", &[("x", true)])
        };
        assert_eq!(decide(&object, &[Owner::Absent], &[]), Decision::Keep);
    }

    #[test]
    fn an_owner_waits_for_those_that_block_it_only() {
        let owner = Vertex {
            deleting: true,
            foreground: true,
            ..vertex("x", &[])
        };
        let (blocking, free) = (vertex("a", &[("x", true)]), vertex("b", &[("x", false)]));
        assert_eq!(decide(&owner, &[], &[&blocking, &free]), Decision::Keep);
        assert_eq!(decide(&owner, &[], &[&free]), Decision::ReleaseForeground);
    }

    #[test]
    fn foreground_goes_down_the_tree() {
        let middle = vertex("m", &[("x", true)]);
        let leaf = vertex("l", &[("m", true)]);
        assert_eq!(
            decide(&middle, &[Owner::Waiting], &[&leaf]),
            delete(Propagation::Foreground)
        );
        let circle = Vertex {
            deleting: true,
            foreground: true,
            ..leaf
        };
        let expected = Decision::Delete {
            propagation: Propagation::Foreground,
            unblock: true,
        };
        assert_eq!(decide(&middle, &[Owner::Waiting], &[&circle]), expected);
    }

    #[test]
    fn a_finalizer_chooses_how_dependents_fare() {
        let orphaning = Vertex {
            orphan: true,
            ..vertex("a", &[("x", true)])
        };
        assert_eq!(
            decide(&orphaning, &[Owner::Absent], &[]),
            delete(Propagation::Orphan)
        );
        let leaving = Vertex {
            deleting: true,
            ..orphaning
        };
        assert_eq!(
            decide(&leaving, &[Owner::Absent], &[]),
            Decision::OrphanDependents
        );
    }
}
