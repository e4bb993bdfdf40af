//! Numbers out of a range: those that somebody asks for by name, and those that are picked. What is picked comes from
//! the upper, dynamic band as long as that has any, so that people can ask for numbers of the lower, static band
//! without finding them taken. Source: KEP-3070 (addresses), KEP-3668 (node ports).
//!
//! Picking costs O(1) on the average: each band hands out its numbers once in order, and then those that came back,
//! oldest first, so that an address rests as long as possible before somebody else gets it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

/// Why a number cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not in the range.
    OutOfRange,
    /// Somebody else has it.
    Taken,
    /// There is none left.
    Full,
}

/// A range of numbers `0..len` and who has which.
#[derive(Debug)]
pub(super) struct Bands {
    len: u32,
    claims: HashMap<u32, Claim>,
    /// The dynamic band, then the static one: the order of picking.
    bands: [Band; 2],
}

/// Who has a number. The count is over versions of the same object: a new version may claim the number again before
/// the server has heard that the old one let it go.
#[derive(Debug)]
struct Claim {
    owner: String,
    count: u32,
}

#[derive(Debug)]
struct Band {
    first: u32,
    /// The next number that was never looked at; at `end` there is none.
    fresh: u32,
    end: u32,
    returned: VecDeque<u32>,
    /// What is in `returned`, so that nothing is in it twice.
    queued: HashSet<u32>,
}

impl Bands {
    /// The numbers `0..len`; those from `dynamic` on are the dynamic band.
    pub(super) fn new(len: u32, dynamic: u32) -> Self {
        let band = |first, end| Band {
            first,
            fresh: first,
            end,
            returned: VecDeque::new(),
            queued: HashSet::new(),
        };
        let dynamic = dynamic.min(len);
        Self {
            len,
            claims: HashMap::new(),
            bands: [band(dynamic, len), band(0, dynamic)],
        }
    }

    /// Gives this number to the owner, who may have it already.
    pub(super) fn claim(&mut self, number: u32, owner: &str) -> Result<(), Refusal> {
        if number >= self.len {
            return Err(Refusal::OutOfRange);
        }
        let claim = self.claims.entry(number).or_insert_with(|| Claim {
            owner: owner.to_owned(),
            count: 0,
        });
        if claim.owner != owner {
            return Err(Refusal::Taken);
        }
        claim.count += 1;
        Ok(())
    }

    /// Gives the owner any number that is free.
    pub(super) fn pick(&mut self, owner: &str) -> Result<u32, Refusal> {
        for band in &mut self.bands {
            while let Some(number) = band.next() {
                if let Entry::Vacant(free) = self.claims.entry(number) {
                    let owner = owner.to_owned();
                    free.insert(Claim { owner, count: 1 });
                    return Ok(number);
                }
            }
        }
        Err(Refusal::Full)
    }

    /// The owner lets the number go. What others have is not touched.
    pub(super) fn release(&mut self, number: u32, owner: &str) {
        let Some(claim) = self.claims.get_mut(&number).filter(|c| c.owner == owner) else {
            return;
        };
        claim.count -= 1;
        if claim.count > 0 {
            return;
        }
        self.claims.remove(&number);
        for band in &mut self.bands {
            band.give_back(number);
        }
    }

    /// How many are given out.
    #[cfg(test)]
    fn given(&self) -> usize {
        self.claims.len()
    }
}

impl Band {
    /// The next candidate; it may have been claimed by name in the meantime.
    fn next(&mut self) -> Option<u32> {
        if self.fresh < self.end {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        let number = self.returned.pop_front()?;
        self.queued.remove(&number);
        Some(number)
    }

    /// Queues a number that this band has handed out or passed over; those still ahead of it come by themselves.
    fn give_back(&mut self, number: u32) {
        if (self.first..self.fresh).contains(&number) && self.queued.insert(number) {
            self.returned.push_back(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_dynamic_band_is_used_up_before_the_static_one() {
        let mut bands = Bands::new(6, 4);
        let picked: Vec<_> = (0..7).map(|_| bands.pick("a")).collect();
        assert_eq!(
            picked,
            [Ok(4), Ok(5), Ok(0), Ok(1), Ok(2), Ok(3), Err(Refusal::Full)]
        );
    }

    #[test]
    fn what_comes_back_is_given_out_last() {
        let mut bands = Bands::new(4, 0);
        assert_eq!((bands.pick("a"), bands.pick("b")), (Ok(0), Ok(1)));
        bands.release(0, "a");
        assert_eq!(
            [bands.pick("c"), bands.pick("d"), bands.pick("e")],
            [Ok(2), Ok(3), Ok(0)]
        );
        assert_eq!(bands.pick("f"), Err(Refusal::Full));
    }

    #[test]
    fn a_number_is_asked_for_by_name_and_then_passed_over() {
        let mut bands = Bands::new(3, 0);
        assert_eq!(bands.claim(1, "a"), Ok(()));
        assert_eq!(bands.claim(1, "b"), Err(Refusal::Taken));
        assert_eq!(bands.claim(3, "b"), Err(Refusal::OutOfRange));
        assert_eq!([bands.pick("c"), bands.pick("d")], [Ok(0), Ok(2)]);
        bands.release(1, "a");
        assert_eq!(bands.pick("e"), Ok(1));
    }

    #[test]
    fn only_its_owner_lets_a_number_go_and_every_claim_counts() {
        let mut bands = Bands::new(1, 0);
        assert_eq!((bands.claim(0, "a"), bands.claim(0, "a")), (Ok(()), Ok(())));
        bands.release(0, "b");
        bands.release(0, "a");
        assert_eq!(bands.pick("c"), Err(Refusal::Full));
        bands.release(0, "a");
        assert_eq!(bands.pick("c"), Ok(0));
    }

    #[test]
    fn picking_looks_at_one_number_however_many_are_given() {
        let mut bands = Bands::new(1 << 20, 0);
        for i in 0..100_000 {
            assert_eq!(bands.pick("a"), Ok(i));
            assert_eq!(bands.bands[0].fresh, i + 1);
        }
        for i in (0..100_000).step_by(2) {
            bands.release(i, "a");
        }
        assert_eq!(bands.pick("a"), Ok(100_000));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Claim(u32, u8),
        Pick(u8),
        Release(u32, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u32..12, 0_u8..3).prop_map(|(n, o)| Step::Claim(n, o)),
            (0_u8..3).prop_map(Step::Pick),
            (0_u32..12, 0_u8..3).prop_map(|(n, o)| Step::Release(n, o)),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_given_twice_and_nothing_is_lost(steps in prop::collection::vec(step(), 0..80)) {
            let mut bands = Bands::new(10, 4);
            let mut held: HashMap<u32, (u8, u32)> = HashMap::new();
            for step in steps {
                match step {
                    Step::Claim(n, o) => {
                        let fits = n < 10 && held.get(&n).is_none_or(|(owner, _)| *owner == o);
                        prop_assert_eq!(bands.claim(n, &o.to_string()).is_ok(), fits);
                        if fits {
                            held.entry(n).or_insert((o, 0)).1 += 1;
                        }
                    }
                    Step::Pick(o) => match bands.pick(&o.to_string()) {
                        Ok(n) => prop_assert!(held.insert(n, (o, 1)).is_none()),
                        Err(e) => prop_assert_eq!((e, held.len()), (Refusal::Full, 10)),
                    },
                    Step::Release(n, o) => {
                        bands.release(n, &o.to_string());
                        if let Some((owner, count)) = held.get_mut(&n) && *owner == o {
                            *count -= 1;
                            if *count == 0 {
                                held.remove(&n);
                            }
                        }
                    }
                }
                prop_assert_eq!(bands.given(), held.len());
            }
            for _ in held.len()..10 {
                prop_assert!(bands.pick("rest").is_ok());
            }
            prop_assert_eq!(bands.pick("rest"), Err(Refusal::Full));
        }
    }
}
