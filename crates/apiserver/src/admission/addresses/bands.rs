//! The order in which numbers of a range are handed out. What is picked comes from the upper, dynamic band as long as
//! that has any, so that people can ask for numbers of the lower, static band without finding them taken.
//! Source: KEP-3070 (addresses), KEP-3668 (node ports).
//!
//! Picking costs O(1) on the average: each band hands out its numbers once in order, and then those that came back,
//! oldest first, so that an address rests as long as possible before somebody else gets it. Who has which number is
//! not known here; whoever picks passes over what is taken.

use std::collections::{HashSet, VecDeque};

/// A range of numbers `0..len`.
#[derive(Debug)]
pub(super) struct Bands {
    /// The dynamic band, then the static one: the order of picking.
    bands: [Band; 2],
}

#[derive(Debug)]
struct Band {
    first: u64,
    /// The next number that was never looked at; at `end` there is none.
    fresh: u64,
    end: u64,
    returned: VecDeque<u64>,
    /// What is in `returned`, so that nothing is in it twice.
    queued: HashSet<u64>,
}

impl Bands {
    /// The numbers `0..len`; those from `dynamic` on are the dynamic band.
    pub(super) fn new(len: u64, dynamic: u64) -> Self {
        let band = |first, end| Band {
            first,
            fresh: first,
            end,
            returned: VecDeque::new(),
            queued: HashSet::new(),
        };
        let dynamic = dynamic.min(len);
        Self {
            bands: [band(dynamic, len), band(0, dynamic)],
        }
    }

    /// The next candidate; none if there is none left. It is not offered again before it is given back.
    pub(super) fn next(&mut self) -> Option<u64> {
        self.bands.iter_mut().find_map(Band::next)
    }

    /// A number is free again.
    pub(super) fn give_back(&mut self, number: u64) {
        for band in &mut self.bands {
            band.give_back(number);
        }
    }
}

impl Band {
    fn next(&mut self) -> Option<u64> {
        if self.fresh < self.end {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        let number = self.returned.pop_front()?;
        self.queued.remove(&number);
        Some(number)
    }

    /// Queues a number that this band has handed out or passed over; those still ahead of it come by themselves.
    fn give_back(&mut self, number: u64) {
        if (self.first..self.fresh).contains(&number) && self.queued.insert(number) {
            self.returned.push_back(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_dynamic_band_is_used_up_before_the_static_one() {
        let mut bands = Bands::new(6, 4);
        let picked: Vec<_> = (0..7).map(|_| bands.next()).collect();
        assert_eq!(
            picked,
            [Some(4), Some(5), Some(0), Some(1), Some(2), Some(3), None]
        );
    }

    #[test]
    fn what_comes_back_is_handed_out_last() {
        let mut bands = Bands::new(4, 0);
        assert_eq!((bands.next(), bands.next()), (Some(0), Some(1)));
        bands.give_back(0);
        assert_eq!(
            [bands.next(), bands.next(), bands.next(), bands.next()],
            [Some(2), Some(3), Some(0), None]
        );
    }

    #[test]
    fn picking_looks_at_one_number_however_many_are_given() {
        let mut bands = Bands::new(u64::MAX, 256);
        for i in 0..100_000 {
            assert_eq!(bands.next(), Some(256 + i));
        }
        for i in (0..100_000).step_by(2) {
            bands.give_back(256 + i);
        }
        assert_eq!(bands.next(), Some(256 + 100_000));
    }

    proptest! {
        #[test]
        fn nothing_is_offered_twice_and_nothing_is_lost(steps in prop::collection::vec(prop::option::of(0_u64..12), 0..80)) {
            let mut bands = Bands::new(10, 4);
            let mut held = BTreeSet::new();
            for step in steps {
                match step {
                    Some(number) if held.remove(&number) => bands.give_back(number),
                    Some(_) => {}
                    None => match bands.next() {
                        Some(number) => prop_assert!(held.insert(number)),
                        None => prop_assert_eq!(held.len(), 10),
                    },
                }
            }
            for _ in held.len()..10 {
                prop_assert!(bands.next().is_some());
            }
            prop_assert_eq!(bands.next(), None);
        }
    }
}
