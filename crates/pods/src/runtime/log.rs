//! The log file of a container, in the format that the CRI prescribes.
//!
//! Every line is `<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P> <text>`; `P` marks a piece of a line
//! that goes on in the next entry (KEP-2411, `kubernetes/design-proposals-archive/node/kubelet-cri-logging.md`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// At this size the file is renamed to `<path>.1`: the kubelet's default `containerLogMaxSize`. One old file is
/// kept rather than four, since the state directory is in memory.
const MAX_FILE: u64 = 10 * 1024 * 1024;
/// A line is cut here, as containerd does.
const MAX_LINE: usize = 16 * 1024;

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Writes what a container says.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    max_file: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl LogWriter {
    /// Opens the file, which is made when missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            max_file: MAX_FILE,
            stdout: Vec::new(),
            stderr: Vec::new(),
        })
    }

    /// Takes output; complete lines go to the file at once.
    pub(super) fn write(&mut self, stream: Stream, data: &[u8], now: Timestamp) -> io::Result<()> {
        let mut entries = Vec::with_capacity(data.len() + 64);
        let pending = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            pending.extend_from_slice(text);
            let mut rest = pending.as_slice();
            while rest.len() > MAX_LINE {
                let (line, after) = rest.split_at(MAX_LINE);
                entry(&mut entries, stream, 'P', line, now);
                rest = after;
            }
            if complete {
                entry(&mut entries, stream, 'F', rest, now);
                pending.clear();
            } else {
                let kept = rest.len();
                pending.drain(..pending.len() - kept);
            }
        }
        self.append(&entries)
    }

    /// Writes what came without an end of line.
    pub(super) fn finish(&mut self, now: Timestamp) -> io::Result<()> {
        let mut entries = Vec::new();
        for (stream, pending) in [
            (Stream::Stdout, &mut self.stdout),
            (Stream::Stderr, &mut self.stderr),
        ] {
            if !pending.is_empty() {
                entry(&mut entries, stream, 'P', pending, now);
                pending.clear();
            }
        }
        self.append(&entries)
    }

    fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.size > 0 && self.size + entries.len() as u64 > self.max_file {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            self.file = OpenOptions::new()
                .create_new(true)
                .append(true)
                .open(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(entries)?;
        self.size += entries.len() as u64;
        Ok(())
    }
}

fn entry(out: &mut Vec<u8>, stream: Stream, tag: char, text: &[u8], now: Timestamp) {
    out.extend_from_slice(format!("{now:.9} {} {tag} ", stream.name()).as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: i128) -> Timestamp {
        Timestamp::from_nanosecond(nanos).unwrap()
    }

    #[test]
    fn lines_are_stamped_tagged_and_kept_apart_by_stream() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path).unwrap();
        log.write(Stream::Stdout, b"one\ntw", at(5)).unwrap();
        log.write(Stream::Stderr, b"oops\n", at(1_000_000_000))
            .unwrap();
        log.write(Stream::Stdout, b"o\n\nend", at(7)).unwrap();
        log.finish(at(8)).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "1970-01-01T00:00:00.000000005Z stdout F one\n\
             1970-01-01T00:00:01.000000000Z stderr F oops\n\
             1970-01-01T00:00:00.000000007Z stdout F two\n\
             1970-01-01T00:00:00.000000007Z stdout F \n\
             1970-01-01T00:00:00.000000008Z stdout P end\n"
        );
    }

    #[test]
    fn a_long_line_is_cut_into_partial_entries_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path).unwrap();
        let line = vec![b'x'; MAX_LINE * 2 + 10];
        for piece in line.chunks(1000) {
            log.write(Stream::Stdout, piece, at(0)).unwrap();
        }
        log.write(Stream::Stdout, b"\n", at(0)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let entries: Vec<(&str, &str)> = text
            .lines()
            .map(|line| line.splitn(4, ' ').collect::<Vec<_>>())
            .map(|fields| (fields[2], fields[3]))
            .collect();
        assert_eq!(entries.iter().map(|e| e.0).collect::<String>(), "PPF");
        assert_eq!(entries.iter().map(|e| e.1.len()).sum::<usize>(), line.len());
    }

    #[test]
    fn a_full_file_is_renamed_and_one_old_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path).unwrap();
        log.max_file = 100;
        for n in 0..4 {
            log.write(
                Stream::Stdout,
                format!("line {n} {}\n", "-".repeat(20)).as_bytes(),
                at(0),
            )
            .unwrap();
        }
        assert!(fs::read_to_string(&path).unwrap().contains("line 3"));
        assert!(
            fs::read_to_string(dir.path().join("log.1"))
                .unwrap()
                .contains("line 2")
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
