//! The fuzz targets, for some seconds: the corpus, and what becomes of it when bytes change at random.
//! `SEAWAY_FUZZ_SECONDS` says how many seconds each target gets (2 if unset); `cargo fuzz` is for longer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use seaway_apiserver::fuzzing::TARGETS;

/// What decides something in what is read.
const TOKENS: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "\\u0000",
    "\"$patch\":\"delete\"",
    "\"$setElementOrder/containers\"",
    "\n",
    "!",
    "=",
    " in (",
    ")",
    "%00",
    "&limit=",
    "99999999999999999999",
    "- ",
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

fn mutate(random: &mut StdRng, data: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=data.len());
        match random.random_range(0..6) {
            0 if at < data.len() => data[at] = random.random(),
            1 if at < data.len() => {
                data.remove(at);
            }
            2 => {
                let token = TOKENS[random.random_range(0..TOKENS.len())];
                data.splice(at..at, token.bytes());
            }
            3 => data.truncate(at),
            4 if !other.is_empty() => {
                let from = random.random_range(0..other.len());
                let to = random.random_range(from..=other.len());
                data.splice(at..at, other[from..to].iter().copied());
            }
            _ if at < data.len() => {
                let end = random.random_range(at..=data.len());
                let piece = data[at..end].to_vec();
                data.splice(end..end, piece);
            }
            _ => {}
        }
        data.truncate(64 << 10);
    }
}

#[test]
fn what_is_thrown_at_the_server_never_makes_it_fall() {
    let seconds = std::env::var("SEAWAY_FUZZ_SECONDS").map_or(2, |text| text.parse().unwrap());
    let only = std::env::var("SEAWAY_FUZZ_TARGET").ok();
    let seed: u64 =
        std::env::var("SEAWAY_FUZZ_SEED").map_or_else(|_| rand::random(), |t| t.parse().unwrap());
    for (name, target) in TARGETS {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let mut random = StdRng::seed_from_u64(seed);
        let corpus = corpus(name);
        assert!(!corpus.is_empty());
        corpus.iter().for_each(|data| target(data));
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut runs = 0_u64;
        while Instant::now() < end {
            let mut data = corpus[random.random_range(0..corpus.len())].clone();
            let other = corpus[random.random_range(0..corpus.len())].clone();
            mutate(&mut random, &mut data, &other);
            let result = std::panic::catch_unwind(|| target(&data));
            if result.is_err() {
                let file = std::env::temp_dir().join(format!("seaway-fuzz-{name}-{seed}-{runs}"));
                std::fs::write(&file, &data).unwrap();
                panic!(
                    "{name} fell over {}: {:?}",
                    file.display(),
                    String::from_utf8_lossy(&data)
                );
            }
            runs += 1;
        }
        println!("{name}: {runs} runs in {seconds} s (seed {seed})");
    }
}
