//! Logs of containers: from the runtime's CRI files to what `kubectl logs` shows.
//! Source: `pkg/kubelet/kuberuntime/logs` and `PodLogOptions` in the Kubernetes API reference.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

use super::Answers;
use super::attachment::pairs;
use super::request::{Refused, logged};
use crate::runtime::{ContainerPhase, Runtime};

/// How often a followed log is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);
const CHUNK: usize = 64 * 1024;

/// `PodLogOptions`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<usize>,
    since: Option<Timestamp>,
    limit_bytes: Option<u64>,
}

impl Options {
    fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let mut options = Options::default();
        for (name, value) in pairs(query) {
            let yes = matches!(value.as_str(), "true" | "1");
            let bad = || format!("invalid value {value:?} for {name}");
            match name.as_str() {
                "follow" => options.follow = yes,
                "previous" => options.previous = yes,
                "timestamps" => options.timestamps = yes,
                "tailLines" => options.tail_lines = Some(value.parse().map_err(|_| bad())?),
                "limitBytes" => {
                    let limit: u64 = value.parse().map_err(|_| bad())?;
                    options.limit_bytes = Some(limit).filter(|limit| *limit > 0);
                    options.limit_bytes.ok_or_else(bad)?;
                }
                "sinceSeconds" => {
                    let seconds: i64 = value.parse().map_err(|_| bad())?;
                    let since = now
                        .checked_sub(SignedDuration::from_secs(seconds))
                        .map_err(|_| bad())?;
                    options.since = Some(since);
                }
                "sinceTime" => options.since = Some(value.parse().map_err(|_| bad())?),
                _ => {}
            }
        }
        Ok(options)
    }
}

pub(super) async fn container_logs(
    State(answers): State<Arc<Answers>>,
    Path(path): Path<HashMap<String, String>>,
    RawQuery(query): RawQuery,
) -> Response {
    open(&answers, &path, &query.unwrap_or_default())
        .await
        .unwrap_or_else(Refused::response)
}

async fn open(
    answers: &Answers,
    path: &HashMap<String, String>,
    query: &str,
) -> Result<Response, Refused> {
    let options = Options::parse(query, Timestamp::now())
        .map_err(|problem| Refused::new(StatusCode::BAD_REQUEST, problem))?;
    let part = |name: &str| path.get(name).map(String::as_str).unwrap_or_default();
    let container = logged(
        answers,
        part("namespace"),
        part("pod"),
        part("container"),
        options.previous,
    )?;
    let log = answers
        .runtime
        .log_path(&container.id)
        .map_err(Refused::internal)?;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    let runtime = answers.runtime.clone();
    tokio::spawn(async move {
        if let Err(error) = send_log(runtime, &container.id, &log, options, &sender).await {
            // A client that is gone needs no answer.
            let _ = sender.send(Err(error)).await;
        }
    });
    let body = Body::from_stream(stream_of(receiver));
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

fn stream_of(
    receiver: mpsc::Receiver<Result<Bytes, std::io::Error>>,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    futures::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

/// Sends a log, from the renamed file and the current one, and then what is added to it.
async fn send_log(
    runtime: Runtime,
    id: &str,
    path: &FilePath,
    options: Options,
    sender: &mpsc::Sender<Result<Bytes, std::io::Error>>,
) -> Result<(), std::io::Error> {
    let mut past = tokio::fs::read(renamed(path)).await.unwrap_or_default();
    let mut file = match File::open(path).await {
        Ok(file) => Some(file),
        // It has written nothing yet, or the log was renamed this moment.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(file) = &mut file {
        file.read_to_end(&mut past).await?;
    }
    let mut view = View::new(&options);
    let start = options
        .tail_lines
        .map_or(0, |lines| tail_start(&past, lines));
    for chunk in past[start..].chunks(CHUNK) {
        let shown = view.feed(chunk);
        if !shown.is_empty() && sender.send(Ok(shown)).await.is_err() {
            return Ok(());
        }
    }
    drop(past);
    if !options.follow {
        return Ok(());
    }
    let mut buffer = vec![0; CHUNK];
    while !view.full() {
        // Asked before reading: what is written before the end is read after it.
        let over = runtime.container(id).map_or(true, |container| {
            container.is_none_or(|c| matches!(c.phase, ContainerPhase::Exited { .. }))
        });
        loop {
            let length = match &mut file {
                Some(file) => file.read(&mut buffer).await?,
                None => 0,
            };
            if length == 0 {
                match replaced(&file, path).await {
                    Some(new) => file = Some(new),
                    None => break,
                }
                continue;
            }
            let shown = view.feed(&buffer[..length]);
            if !shown.is_empty() && sender.send(Ok(shown)).await.is_err() {
                return Ok(());
            }
        }
        if over {
            return Ok(());
        }
        tokio::select! {
            () = sender.closed() => return Ok(()),
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
        }
    }
    Ok(())
}

fn renamed(path: &FilePath) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// The log if it is another file than the one that is open.
async fn replaced(open: &Option<File>, path: &FilePath) -> Option<File> {
    let mut new = File::open(path).await.ok()?;
    if let Some(open) = open {
        let (old, now) = (open.metadata().await.ok()?, new.metadata().await.ok()?);
        if old.ino() == now.ino() {
            return None;
        }
    }
    new.rewind().await.ok()?;
    Some(new)
}

/// Where the last `lines` lines begin.
fn tail_start(data: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return data.len();
    }
    // The end of the last line does not begin another.
    let end = data.len().saturating_sub(1);
    let breaks = data[..end]
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    breaks.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0)
}

/// Turns CRI lines into what is shown. Pure; is fed pieces of any size.
#[derive(Debug)]
struct View {
    timestamps: bool,
    since: Option<Timestamp>,
    room: Option<u64>,
    rest: Vec<u8>,
    at_line_start: bool,
}

impl View {
    fn new(options: &Options) -> Self {
        View {
            timestamps: options.timestamps,
            since: options.since,
            room: options.limit_bytes,
            rest: Vec::new(),
            at_line_start: true,
        }
    }

    /// Nothing more will be shown.
    fn full(&self) -> bool {
        self.room == Some(0)
    }

    fn feed(&mut self, data: &[u8]) -> Bytes {
        let mut shown = Vec::with_capacity(data.len());
        self.rest.extend_from_slice(data);
        let whole = self
            .rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.show(&line[..line.len() - 1], &mut shown);
        }
        if let Some(room) = &mut self.room {
            shown.truncate(usize::try_from(*room).unwrap_or(usize::MAX));
            *room -= u64::try_from(shown.len()).unwrap_or(*room).min(*room);
        }
        shown.into()
    }

    fn show(&mut self, line: &[u8], shown: &mut Vec<u8>) {
        let Some(Line {
            time,
            partial,
            text,
        }) = Line::parse(line)
        else {
            return;
        };
        if let Some(since) = self.since
            && time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        if self.timestamps && self.at_line_start {
            shown.extend_from_slice(time.as_bytes());
            shown.push(b' ');
        }
        shown.extend_from_slice(text);
        if !partial {
            shown.push(b'\n');
        }
        self.at_line_start = !partial;
    }
}

/// `<RFC 3339> stdout|stderr F|P <text>`
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    partial: bool,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    /// `None` for what is not a line of a log: it is left out.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        if !matches!(parts.next()?, b"stdout" | b"stderr") {
            return None;
        }
        let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Line {
            time,
            partial,
            text: parts.next().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOG: &[u8] = b"2026-11-21T10:00:00.1Z stdout F one\n\
                         2026-11-21T10:00:01.2Z stderr P two \n\
                         2026-11-21T10:00:01.3Z stderr F and a half\n\
                         2026-11-21T10:00:02.4Z stdout F \n\
                         2026-11-21T10:00:03.5Z stdout F four\n";

    fn show(query: &str) -> String {
        let now = "2026-11-21T10:00:04Z".parse().unwrap();
        let options = Options::parse(query, now).unwrap();
        let start = options.tail_lines.map_or(0, |lines| tail_start(LOG, lines));
        let mut view = View::new(&options);
        String::from_utf8(view.feed(&LOG[start..]).to_vec()).unwrap()
    }

    #[test]
    fn options_choose_what_is_shown() {
        for (query, text) in [
            ("", "one\ntwo and a half\n\nfour\n"),
            ("tailLines=1", "four\n"),
            ("tailLines=2", "\nfour\n"),
            ("tailLines=0", ""),
            ("tailLines=100", "one\ntwo and a half\n\nfour\n"),
            ("sinceTime=2026-11-21T10:00:02Z", "\nfour\n"),
            ("sinceSeconds=1", "four\n"),
            ("limitBytes=6", "one\ntw"),
            (
                "timestamps=true",
                "2026-11-21T10:00:00.1Z one\n2026-11-21T10:00:01.2Z two and a half\n\
                 2026-11-21T10:00:02.4Z \n2026-11-21T10:00:03.5Z four\n",
            ),
        ] {
            assert_eq!(show(query), text, "{query}");
        }
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        for query in [
            "tailLines=x",
            "tailLines=-1",
            "sinceTime=yesterday",
            "limitBytes=0",
            "sinceSeconds=9e9",
        ] {
            assert!(
                Options::parse(query, Timestamp::UNIX_EPOCH).is_err(),
                "{query}"
            );
        }
    }

    #[test]
    fn what_is_not_a_log_line_is_left_out() {
        for line in [
            &b""[..],
            b"x",
            b"t stdout",
            b"t stdin F x",
            b"t stdout Q x",
            b"\xff\xfe stdout F x",
        ] {
            assert_eq!(Line::parse(line), None, "{line:?}");
        }
        assert_eq!(
            Line::parse(b"t stdout F"),
            Some(Line {
                time: "t",
                partial: false,
                text: b""
            })
        );
        assert_eq!(
            Line::parse(b"t stderr P:x a b"),
            Some(Line {
                time: "t",
                partial: true,
                text: b"a b"
            })
        );
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_show_the_same(cuts in proptest::collection::vec(0..LOG.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.push(LOG.len());
            cuts.sort_unstable();
            let mut view = View::new(&Options::default());
            let (mut shown, mut from) = (Vec::new(), 0);
            for cut in cuts {
                shown.extend_from_slice(&view.feed(&LOG[from..cut]));
                from = cut;
            }
            prop_assert_eq!(String::from_utf8(shown).unwrap(), show(""));
        }

        #[test]
        fn any_bytes_can_be_fed(data in proptest::collection::vec(any::<u8>(), 0..200), lines in 0usize..5) {
            let start = tail_start(&data, lines);
            let _ = View::new(&Options::default()).feed(&data[start..]);
        }
    }
}
