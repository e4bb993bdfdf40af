//! The API server beside etcd, on the same machine, disk and client, in one run: durable writes, lists, watches, memory.
//!
//! `cargo bench -p seaway-apiserver`. etcd is Debian's (`apt-get install etcd-server`); without it its column is missing,
//! and that is said. Prints tables; it judges nothing.
//!
//! What is compared is not the same work. Both put an object of the same size on disk before they answer, and both are
//! asked in JSON over HTTP/1.1 on the loopback. Seaway's side is a whole API: TLS with client certificates, decoding,
//! defaulting, validation, allocation of a cluster address, and the object in the answer. etcd's side is a put of bytes
//! through its own gateway from JSON to gRPC, without TLS: what a Kubernetes API server would still have before it.

mod etcd;
mod http;
mod process;
mod seaway;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Connection, Request};
use process::Process;
use tokio::sync::Barrier;

/// Objects to list, and to divide the memory by.
const OBJECTS: usize = 50_000;
/// Clients at a time.
const CLIENTS: usize = 64;
/// Writes of a single client.
const ALONE: usize = 500;
/// Objects on a page.
const PAGE: usize = 500;
/// Watchers of all objects.
const WATCHERS: usize = 200;
/// Changes that they are told of, and the time between two.
const CHANGES: usize = 200;
const PAUSE: Duration = Duration::from_millis(25);
/// How long the processor is looked at while nothing happens.
const IDLE: Duration = Duration::from_secs(5);

/// A server that can be asked for the same things as another.
trait Side: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn process(&self) -> &Process;
    fn connect(&self) -> impl Future<Output = Connection> + Send;
    /// Creates the object of this number.
    fn create(&self, number: usize) -> Request;
    /// Changes it.
    fn change(&self, number: usize, turn: usize) -> Request;
    /// All objects, or a page of them from a place that [`Side::next`] found.
    fn list(&self, limit: Option<usize>, from: Option<&str>) -> Request;
    fn next(&self, page: &[u8]) -> Option<String>;
    /// Tells all changes from now on, with a line for each or for several.
    fn watch(&self) -> Request;
    /// What stands before the revision of a change, in an answer and in what a watch tells.
    fn revision_in_answer(&self) -> &'static str;
    fn revision_in_event(&self) -> &'static str;
}

fn main() {
    if process::is_server() {
        seaway::serve();
    }
    // `cargo test --benches` runs benches too, with `--test`; a benchmark proves nothing there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let mut sides = vec![figures(seaway::Seaway::start().await).await];
    match etcd::Etcd::start().await {
        Ok(etcd) => sides.push(figures(etcd).await),
        Err(why) => println!("\nNOT COMPARED: {why}"),
    }
    print(&sides);
}

/// What was measured of one side.
#[derive(Default)]
struct Figures {
    name: &'static str,
    rows: Vec<(&'static str, f64, &'static str)>,
}

async fn figures<S: Side>(side: S) -> Figures {
    let side = Arc::new(side);
    let mut rows = Vec::new();
    let before = side.process().resident();
    let cpu = side.process().cpu();

    let alone = create(&side, 1, 0..ALONE).await;
    rows.push(("durable creates, 1 client", rate(ALONE, alone), "1/s"));
    let many = create(&side, CLIENTS, ALONE..OBJECTS).await;
    rows.push((
        "durable creates, 64 clients",
        rate(OBJECTS - ALONE, many),
        "1/s",
    ));
    let cpu = side.process().cpu() - cpu;
    rows.push(("processor for a create", micros(cpu) / OBJECTS as f64, "µs"));
    let after = side.process().resident();
    let memory = after.saturating_sub(before) as f64 / OBJECTS as f64;
    rows.push(("memory for an object", memory, "bytes"));

    let (time, bytes) = list(&side).await;
    rows.push(("list of 50,000", time.as_secs_f64() * 1e3, "ms"));
    rows.push(("  its size", bytes as f64 / 1e6, "MB"));
    let time = pages(&side).await;
    rows.push((
        "list of 50,000 in pages of 500",
        time.as_secs_f64() * 1e3,
        "ms",
    ));

    let watched = watch(&side).await;
    rows.push(("change to 200 watchers, median", watched.median, "ms"));
    rows.push(("change to 200 watchers, p99", watched.p99, "ms"));
    rows.push(("memory for a watcher", watched.memory, "KiB"));
    rows.push(("processor while idle, 200 watchers", watched.idle, "%"));
    Figures {
        name: side.name(),
        rows,
    }
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Creates these objects with so many clients at a time.
async fn create<S: Side>(
    side: &Arc<S>,
    clients: usize,
    numbers: std::ops::Range<usize>,
) -> Duration {
    let (next, end) = (Arc::new(AtomicUsize::new(numbers.start)), numbers.end);
    let start = Arc::new(Barrier::new(clients + 1));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (side, next, start) = (Arc::clone(side), Arc::clone(&next), Arc::clone(&start));
            tokio::spawn(async move {
                let mut connection = side.connect().await;
                start.wait().await;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    connection.ask(side.create(number)).await;
                }
            })
        })
        .collect();
    start.wait().await;
    let since = Instant::now();
    for task in tasks {
        task.await.expect("a client");
    }
    since.elapsed()
}

/// The median of three, and the size.
async fn list<S: Side>(side: &Arc<S>) -> (Duration, usize) {
    let mut connection = side.connect().await;
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..3 {
        let since = Instant::now();
        bytes = connection.ask(side.list(None, None)).await.len();
        times.push(since.elapsed());
    }
    times.sort_unstable();
    (times[1], bytes)
}

async fn pages<S: Side>(side: &Arc<S>) -> Duration {
    let mut connection = side.connect().await;
    let since = Instant::now();
    let mut from = None;
    let mut count = 0;
    loop {
        let page = connection.ask(side.list(Some(PAGE), from.as_deref())).await;
        count += 1;
        from = side.next(&page);
        if from.is_none() {
            assert!(count >= OBJECTS / PAGE, "{count} pages are too few");
            return since.elapsed();
        }
    }
}

struct Watched {
    /// Milliseconds.
    median: f64,
    p99: f64,
    /// KiB of each watcher.
    memory: f64,
    /// Percent of one processor.
    idle: f64,
}

/// From before a change is sent until each watcher has heard of it.
async fn watch<S: Side>(side: &Arc<S>) -> Watched {
    let before = side.process().resident();
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let mut lines = side.connect().await.listen(side.watch()).await;
        let mark = side.revision_in_event();
        watchers.push(tokio::spawn(async move {
            let mut heard = Vec::with_capacity(CHANGES);
            while heard.len() < CHANGES {
                let line = lines.next().await;
                let at = Instant::now();
                heard.extend(revisions(&line, mark).map(|revision| (revision, at)));
            }
            (heard, lines)
        }));
    }
    let memory = side.process().resident().saturating_sub(before) as f64;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu = side.process().cpu();
    tokio::time::sleep(IDLE).await;
    let idle = side.process().cpu() - cpu;

    let mut connection = side.connect().await;
    let mut sent = HashMap::new();
    for turn in 0..CHANGES {
        let at = Instant::now();
        let answer = connection.ask(side.change(turn * 7 % OBJECTS, turn)).await;
        let revision = revisions(&answer, side.revision_in_answer()).next();
        sent.insert(revision.expect("a revision"), at);
        tokio::time::sleep(PAUSE).await;
    }
    let mut times = Vec::new();
    for watcher in watchers {
        let (heard, _) = watcher.await.expect("a watcher");
        times.extend(
            heard.iter().filter_map(|(revision, at)| {
                sent.get(revision).map(|sent| at.duration_since(*sent))
            }),
        );
    }
    assert_eq!(
        times.len(),
        WATCHERS * CHANGES,
        "everybody hears of everything"
    );
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    Watched {
        median: at(50),
        p99: at(99),
        memory: memory / 1024.0 / WATCHERS as f64,
        idle: idle.as_secs_f64() / IDLE.as_secs_f64() * 100.0,
    }
}

/// The numbers behind each `mark`.
fn revisions<'a>(text: &'a [u8], mark: &'a str) -> impl Iterator<Item = u64> + 'a {
    let text = String::from_utf8_lossy(text);
    let found: Vec<u64> = text
        .match_indices(mark)
        .filter_map(|(at, _)| {
            let digits = &text[at + mark.len()..];
            let end = digits.find(|c: char| !c.is_ascii_digit())?;
            digits[..end].parse().ok()
        })
        .collect();
    found.into_iter()
}

fn print(figures: &[Figures]) {
    let Some(first) = figures.first() else {
        return;
    };
    println!(
        "\n{OBJECTS} Services of about 1 KB, both servers on the loopback and on the same disk"
    );
    print!("{:<38}", "");
    for side in figures {
        print!("{:>18}", side.name);
    }
    println!("{:>10}", if figures.len() > 1 { "ratio" } else { "" });
    for (index, (what, value, unit)) in first.rows.iter().enumerate() {
        print!("{:<38}", format!("{what} [{unit}]"));
        for side in figures {
            print!("{:>18.1}", side.rows[index].1);
        }
        match figures.get(1) {
            Some(other) if other.rows[index].1 > 0.0 => {
                println!("{:>10.2}", value / other.rows[index].1);
            }
            _ => println!(),
        }
    }
}
