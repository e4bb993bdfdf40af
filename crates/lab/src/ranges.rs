//! Which addresses a new lab gets: the first that no route of this machine and no other lab uses. Pure.

use ipnet::Ipv4Net;

use crate::error::Error;

/// The three ranges of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// Nodes, a /24.
    pub node_cidr: Ipv4Net,
    /// Pods.
    pub pod_cidr: Ipv4Net,
    /// Services.
    pub service_cidr: Ipv4Net,
}

/// What was asked for, or used before; `None`: any that is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Nodes.
    pub node_cidr: Option<Ipv4Net>,
    /// Pods.
    pub pod_cidr: Option<Ipv4Net>,
    /// Services.
    pub service_cidr: Option<Ipv4Net>,
}

/// A range of one sort: its option, where it is looked for, how small it may be.
struct Sort {
    option: &'static str,
    candidates: fn() -> Box<dyn Iterator<Item = Ipv4Net>>,
    longest_prefix: u8,
}

const NODES: Sort = Sort {
    option: "--node-cidr",
    candidates: || Box::new((0..=255).filter_map(|n| net([10, 87, n, 0], 24))),
    longest_prefix: 24,
};
const PODS: Sort = Sort {
    option: "--pod-cidr",
    candidates: || Box::new((0..=60).rev().filter_map(|n| net([10, 184 + n, 0, 0], 16))),
    // Each node takes a /24 of it.
    longest_prefix: 22,
};
const SERVICES: Sort = Sort {
    option: "--service-cidr",
    candidates: || Box::new((0..=4).filter_map(|n| net([10, 96 + 16 * n, 0, 0], 12))),
    longest_prefix: 24,
};

fn net(address: [u8; 4], prefix: u8) -> Option<Ipv4Net> {
    Ipv4Net::new(address.into(), prefix).ok()
}

/// Chooses the ranges. `taken` are the destinations of this machine's routes (without the default route) and the
/// ranges of other labs.
///
/// # Errors
/// [`Error::BadOption`] when a range that was asked for is in use or too small, or when none is left.
pub fn choose(wanted: &Wanted, taken: &[Ipv4Net]) -> Result<Ranges, Error> {
    let mut taken = taken.to_vec();
    let mut pick = |sort: &Sort, wanted: Option<Ipv4Net>| -> Result<Ipv4Net, Error> {
        let range = one(sort, wanted.map(|range| range.trunc()), &taken)?;
        taken.push(range);
        Ok(range)
    };
    Ok(Ranges {
        node_cidr: pick(&NODES, wanted.node_cidr)?,
        pod_cidr: pick(&PODS, wanted.pod_cidr)?,
        service_cidr: pick(&SERVICES, wanted.service_cidr)?,
    })
}

fn one(sort: &Sort, wanted: Option<Ipv4Net>, taken: &[Ipv4Net]) -> Result<Ipv4Net, Error> {
    let in_the_way = |range: &Ipv4Net| taken.iter().find(|other| overlap(range, other)).copied();
    let bad = |value: String, hint: String| Error::BadOption {
        option: sort.option,
        value,
        hint,
    };
    let Some(range) = wanted else {
        return (sort.candidates)().find(|range| in_the_way(range).is_none()).ok_or_else(|| {
            bad(
                String::new(),
                "every range that a lab takes by itself is in use on this machine; name a free one".to_owned(),
            )
        });
    };
    if range.prefix_len() > sort.longest_prefix {
        return Err(bad(
            range.to_string(),
            format!("too small; a /{} is the least", sort.longest_prefix),
        ));
    }
    match in_the_way(&range) {
        None => Ok(range),
        Some(other) => Err(bad(
            range.to_string(),
            format!(
                "{other} is in use on this machine (`ip route`, `seaway status`); name another range"
            ),
        )),
    }
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(taken: &[&str]) -> [String; 3] {
        let ranges = choose(&Wanted::default(), &nets(taken)).unwrap();
        [ranges.node_cidr, ranges.pod_cidr, ranges.service_cidr].map(|range| range.to_string())
    }

    #[test]
    fn the_first_lab_gets_the_usual_ranges() {
        assert_eq!(
            chosen(&[]),
            ["10.87.0.0/24", "10.244.0.0/16", "10.96.0.0/12"]
        );
    }

    #[test]
    fn what_is_in_use_is_passed_over() {
        assert_eq!(
            chosen(&["10.87.0.0/24", "10.244.3.0/24", "10.100.0.0/16"]),
            ["10.87.1.0/24", "10.243.0.0/16", "10.112.0.0/12"]
        );
        assert_eq!(chosen(&["10.96.0.0/11"])[2], "10.128.0.0/12");
    }

    #[test]
    fn no_lab_shares_a_range_with_another_or_itself() {
        let mut taken: Vec<Ipv4Net> = Vec::new();
        for _ in 0..5 {
            let ranges = choose(&Wanted::default(), &taken).unwrap();
            for range in [ranges.node_cidr, ranges.pod_cidr, ranges.service_cidr] {
                assert!(
                    taken.iter().all(|other| !overlap(&range, other)),
                    "{range}: {taken:?}"
                );
                taken.push(range);
            }
        }
        let none_left = choose(&Wanted::default(), &taken).unwrap_err();
        assert!(
            none_left.to_string().contains("--service-cidr"),
            "{none_left}"
        );
    }

    #[test]
    fn a_range_that_was_asked_for_is_taken_or_refused() {
        let wanted = Wanted {
            pod_cidr: Some("10.50.0.0/16".parse().unwrap()),
            ..Wanted::default()
        };
        assert_eq!(
            choose(&wanted, &[]).unwrap().pod_cidr.to_string(),
            "10.50.0.0/16"
        );
        let refused = choose(&wanted, &nets(&["10.50.7.0/24"])).unwrap_err();
        assert!(
            refused.to_string().contains("10.50.7.0/24 is in use"),
            "{refused}"
        );
        let small = Wanted {
            pod_cidr: Some("10.50.0.0/24".parse().unwrap()),
            ..Wanted::default()
        };
        assert!(
            choose(&small, &[])
                .unwrap_err()
                .to_string()
                .contains("too small")
        );
    }
}
