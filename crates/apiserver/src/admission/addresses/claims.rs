//! Who has what. A claim is counted over versions of the same object: a new version may claim a thing again before the
//! server has heard that the old one let it go.

use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct Claims<K> {
    held: HashMap<K, Claim>,
}

#[derive(Debug)]
struct Claim {
    owner: String,
    count: u32,
}

impl<K: Copy + Eq + Hash> Claims<K> {
    pub(super) fn new() -> Self {
        Self {
            held: HashMap::new(),
        }
    }

    /// Who has it.
    pub(super) fn owner(&self, thing: K) -> Option<&str> {
        self.held.get(&thing).map(|claim| claim.owner.as_str())
    }

    /// Gives it to the owner, who may have it already; `false` if somebody else has it.
    pub(super) fn claim(&mut self, thing: K, owner: &str) -> bool {
        let claim = self.held.entry(thing).or_insert_with(|| Claim {
            owner: owner.to_owned(),
            count: 0,
        });
        if claim.owner != owner {
            return false;
        }
        claim.count += 1;
        true
    }

    /// The owner lets it go; `true` if it is free now. What others have is not touched.
    pub(super) fn release(&mut self, thing: K, owner: &str) -> bool {
        let Some(claim) = self.held.get_mut(&thing).filter(|c| c.owner == owner) else {
            return false;
        };
        claim.count -= 1;
        let free = claim.count == 0;
        if free {
            self.held.remove(&thing);
        }
        free
    }

    /// Everything that is held, with its owner.
    pub(super) fn all(&self) -> impl Iterator<Item = (K, &str)> {
        self.held
            .iter()
            .map(|(thing, claim)| (*thing, claim.owner.as_str()))
    }

    /// Takes it from its owner, however often it was claimed; `true` if it was the owner's.
    pub(super) fn forfeit(&mut self, thing: K, owner: &str) -> bool {
        let theirs = self.owner(thing) == Some(owner);
        if theirs {
            self.held.remove(&thing);
        }
        theirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_lets_a_thing_go_and_every_claim_counts() {
        let mut claims = Claims::new();
        assert!(claims.claim(1, "a") && claims.claim(1, "a"));
        assert!(!claims.claim(1, "b"));
        assert!(!claims.release(1, "b"));
        assert!(!claims.release(1, "a"));
        assert_eq!(claims.owner(1), Some("a"));
        assert!(claims.release(1, "a"));
        assert!(claims.claim(1, "b"));
    }
}
