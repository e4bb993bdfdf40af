//! The files of a log, read as one: the renamed one, the current one, and those that follow while it is read.
//!
//! The shim renames the file when it is full, and the one that was renamed before is gone then. Who reads has its
//! files open, and looks for new ones when it has read the last to its end, so it misses nothing unless it is more than
//! a whole file behind.

use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// Read at once when looking for the beginning of a line.
const CHUNK: u64 = 64 * 1024;
/// How often it is tried to open two files that belong together.
const TRIES: usize = 100;

/// A log.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    /// What is to be read, oldest first; what is read to its end and is not the last is dropped.
    open: VecDeque<File>,
}

impl Files {
    /// Opens a log at its beginning. One that is not there yet is empty.
    pub(super) async fn open(path: PathBuf) -> io::Result<Self> {
        let open = pair(&path).await?.into_iter().collect();
        Ok(Self { path, open })
    }

    /// Skips all but the last lines.
    pub(super) async fn skip_to_tail(&mut self, lines: u64) -> io::Result<()> {
        // Behind so many ends of lines from the end it begins. The end of the last line is one of them.
        let mut ends = lines + 1;
        let mut last = true;
        for index in (0..self.open.len()).rev() {
            let file = &mut self.open[index];
            let length = file.metadata().await?.len();
            if last && length > 0 {
                last = false;
                file.seek(SeekFrom::Start(length - 1)).await?;
                if file.read_u8().await? != b'\n' {
                    ends -= 1;
                }
            }
            let begin = match ends {
                0 => Some(length),
                _ => begin_of_tail(file, length, &mut ends).await?,
            };
            file.seek(SeekFrom::Start(begin.unwrap_or(0))).await?;
            if begin.is_some() {
                self.open.drain(..index);
                break;
            }
        }
        Ok(())
    }

    /// Reads what comes next; 0 when there is nothing now. Whether files that came since are looked for.
    pub(super) async fn read(&mut self, buffer: &mut [u8], follow: bool) -> io::Result<usize> {
        loop {
            if let Some(file) = self.open.front_mut() {
                let length = file.read(buffer).await?;
                if length > 0 {
                    return Ok(length);
                }
            }
            if self.open.len() > 1 {
                self.open.pop_front();
            } else if !follow || !self.look().await? {
                return Ok(0);
            }
        }
    }

    /// Opens what came after the last file; whether there is something. The last is read once more then, since it may
    /// have been written to before it was renamed.
    async fn look(&mut self) -> io::Result<bool> {
        let Some(last) = self.open.back() else {
            self.open = pair(&self.path).await?.into_iter().collect();
            return Ok(!self.open.is_empty());
        };
        let last = identity(last).await?;
        let mut new = Vec::new();
        for file in pair(&self.path).await? {
            if identity(&file).await? == last {
                // Whatever is before it was read.
                new.clear();
            } else {
                new.push(file);
            }
        }
        let found = !new.is_empty();
        self.open.extend(new);
        Ok(found)
    }
}

/// The renamed file and the current one, as far as they are there.
async fn pair(path: &Path) -> io::Result<Vec<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    let renamed = PathBuf::from(name);
    for _ in 0..TRIES {
        let Some(current) = open(path).await? else {
            // It is not there yet, or is being renamed this moment.
            match open(&renamed).await? {
                Some(_) => continue,
                None => return Ok(Vec::new()),
            }
        };
        let older = open(&renamed).await?;
        // Both belong together if the current one still is current.
        let Some(now) = open(path).await? else {
            continue;
        };
        if identity(&now).await? == identity(&current).await? {
            return Ok(older.into_iter().chain([current]).collect());
        }
    }
    // Whoever wrote it died between renaming and making anew.
    Ok(open(&renamed).await?.into_iter().collect())
}

async fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata().await?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Where the tail begins if it begins in this file; `ends` is how many ends of lines are still to be found.
async fn begin_of_tail(file: &mut File, length: u64, ends: &mut u64) -> io::Result<Option<u64>> {
    let mut to = length;
    while to > 0 {
        let from = to.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(from)).await?;
        let mut piece = Vec::new();
        (&mut *file).take(to - from).read_to_end(&mut piece).await?;
        for (at, _) in piece
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            *ends -= 1;
            if *ends == 0 {
                // A place in a piece fits a place in a file.
                return Ok(Some(from + at as u64 + 1));
            }
        }
        to = from;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    /// A log as the shim writes it.
    struct Log {
        directory: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            Self {
                directory: tempfile::tempdir().unwrap(),
            }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("log")
        }

        fn write(&self, text: &str) {
            let mut options = fs::OpenOptions::new();
            let mut file = options.create(true).append(true).open(self.path()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn rotate(&self) {
            fs::rename(self.path(), self.directory.path().join("log.1")).unwrap();
        }

        async fn open(&self) -> Files {
            Files::open(self.path()).await.unwrap()
        }
    }

    async fn rest(files: &mut Files, follow: bool) -> String {
        let (mut text, mut buffer) = (Vec::new(), [0; 7]);
        loop {
            match files.read(&mut buffer, follow).await.unwrap() {
                0 => return String::from_utf8(text).unwrap(),
                length => text.extend_from_slice(&buffer[..length]),
            }
        }
    }

    #[tokio::test]
    async fn the_tail_reaches_into_the_file_that_was_renamed() {
        let log = Log::new();
        log.write("one\ntwo\n");
        log.rotate();
        log.write("three\nfour\n");
        for (lines, tail) in [
            (0, ""),
            (1, "four\n"),
            (2, "three\nfour\n"),
            (3, "two\nthree\nfour\n"),
            (4, "one\ntwo\nthree\nfour\n"),
            (9, "one\ntwo\nthree\nfour\n"),
        ] {
            let mut files = log.open().await;
            files.skip_to_tail(lines).await.unwrap();
            assert_eq!(rest(&mut files, false).await, tail, "{lines}");
        }
        log.write("fi");
        let mut files = log.open().await;
        files.skip_to_tail(2).await.unwrap();
        assert_eq!(rest(&mut files, false).await, "four\nfi");
    }

    #[tokio::test]
    async fn the_tail_of_a_long_log_is_found_without_reading_all_of_it() {
        let log = Log::new();
        let line = format!("{}\n", "x".repeat(1000));
        log.write(&line.repeat(500));
        let mut files = log.open().await;
        files.skip_to_tail(200).await.unwrap();
        assert_eq!(rest(&mut files, false).await.len(), 200 * line.len());
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_is_empty_until_it_comes() {
        let log = Log::new();
        let mut files = log.open().await;
        files.skip_to_tail(3).await.unwrap();
        assert_eq!(rest(&mut files, true).await, "");
        log.write("one\n");
        assert_eq!(rest(&mut files, true).await, "one\n");
    }

    #[tokio::test]
    async fn who_follows_misses_nothing_when_the_file_is_renamed_even_twice() {
        let log = Log::new();
        log.write("1\n");
        let mut files = log.open().await;
        assert_eq!(rest(&mut files, true).await, "1\n");
        log.write("2\n");
        log.rotate();
        log.write("3\n");
        assert_eq!(rest(&mut files, true).await, "2\n3\n");
        log.write("4\n");
        log.rotate();
        log.write("5\n");
        log.rotate();
        log.write("6\n");
        assert_eq!(rest(&mut files, true).await, "4\n5\n6\n");
    }
}
