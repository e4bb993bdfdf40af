//! The durable part of IP address management: what was given out is on disk before anyone hears of it.
//!
//! One small JSON file holds the whole [`Allocator`]. Every change writes a new file beside it, makes that
//! durable, puts it in the old one's place and makes the directory durable; only then the change counts. A
//! crash at any point leaves the old file or the new one. So an address is never given out twice; at worst one
//! stays taken by a Pod that never got it, until [`crate::PodNetwork::retain`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::error::Error;
use crate::ipam::Allocator;

/// Name of the file in the state directory.
const FILE: &str = "ipam.json";
/// Name of the file that is being written.
const NEW: &str = "ipam.json.new";

/// The allocator and its file.
#[derive(Debug)]
pub(crate) struct Reservations {
    directory: PathBuf,
    /// As on disk. `None` before the node has a range.
    allocator: Option<Allocator>,
}

impl Reservations {
    /// Reads what was given out before. `directory` is made if it is not there.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |cause| Error::File {
                operation,
                path,
                cause,
            }
        };
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
        let path = directory.join(FILE);
        let allocator = match fs::read(&path) {
            Ok(bytes) => Some(parse(&bytes).map_err(|reason| Error::Damaged { path, reason })?),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(failed("read", &path)(cause)),
        };
        Ok(Self {
            directory: directory.to_owned(),
            allocator,
        })
    }

    /// The range that new addresses come from.
    pub(crate) fn range(&self) -> Option<IpNet> {
        self.allocator.as_ref().map(Allocator::range)
    }

    /// Sets the range that new addresses come from.
    pub(crate) fn set_range(&mut self, range: IpNet) -> Result<(), Error> {
        let changed = match self.allocator.clone() {
            None => Some(Allocator::new(range)?),
            Some(mut allocator) => allocator.set_range(range)?.then_some(allocator),
        };
        changed.map_or(Ok(()), |allocator| self.replace(allocator))
    }

    /// The owner's address, durable. `None` if the node has no range yet.
    pub(crate) fn reserve(&mut self, owner: &str) -> Result<Option<Ipv4Addr>, Error> {
        let Some(mut allocator) = self.allocator.clone() else {
            return Ok(None);
        };
        let known = allocator.address_of(owner);
        let address = allocator.reserve(owner)?;
        if known.is_none() {
            self.replace(allocator)?;
        }
        Ok(Some(address))
    }

    /// Takes the owner's address back.
    pub(crate) fn release(&mut self, owner: &str) -> Result<(), Error> {
        let Some(mut allocator) = self.allocator.clone() else {
            return Ok(());
        };
        if allocator.release(owner).is_some() {
            self.replace(allocator)?;
        }
        Ok(())
    }

    /// Everyone who has an address.
    pub(crate) fn owners(&self) -> Vec<String> {
        let owners = self.allocator.iter().flat_map(Allocator::owners);
        owners.map(|(owner, _)| owner.to_owned()).collect()
    }

    /// Makes a change durable, then true.
    fn replace(&mut self, allocator: Allocator) -> Result<(), Error> {
        let path = self.directory.join(NEW);
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(&serde_json::to_vec(&allocator)?)?;
            file.sync_all()?;
            fs::rename(&path, self.directory.join(FILE))?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|cause| Error::File {
            operation: "write",
            path: path.clone(),
            cause,
        })?;
        self.allocator = Some(allocator);
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<Allocator, String> {
    let allocator: Allocator = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    allocator.check()?;
    Ok(allocator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(directory: &Path) -> Reservations {
        let mut reservations = Reservations::open(directory).unwrap();
        reservations
            .set_range("10.244.1.0/28".parse().unwrap())
            .unwrap();
        reservations
    }

    #[test]
    fn a_restart_changes_no_address_and_gives_none_out_twice() {
        let directory = tempfile::tempdir().unwrap();
        let mut before = opened(directory.path());
        let a = before.reserve("a").unwrap();
        before.reserve("b").unwrap();
        before.release("b").unwrap();
        drop(before);
        let mut after = Reservations::open(directory.path()).unwrap();
        assert_eq!(after.range(), Some("10.244.1.0/28".parse().unwrap()));
        assert_eq!(after.reserve("a").unwrap(), a);
        assert_eq!(
            after.reserve("c").unwrap().unwrap().to_string(),
            "10.244.1.4"
        );
        assert_eq!(after.owners(), ["a", "c"]);
    }

    #[test]
    fn a_crash_while_writing_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let a = opened(directory.path()).reserve("a").unwrap();
        fs::write(directory.path().join(NEW), b"{\"range\":\"10.2").unwrap();
        assert_eq!(
            Reservations::open(directory.path())
                .unwrap()
                .reserve("a")
                .unwrap(),
            a
        );
    }

    #[test]
    fn an_address_that_cannot_be_written_down_is_not_given_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut reservations = opened(directory.path());
        // A directory in the file's place cannot be written to, not even by root.
        fs::create_dir(directory.path().join(NEW)).unwrap();
        assert!(matches!(reservations.reserve("a"), Err(Error::File { .. })));
        assert!(reservations.owners().is_empty());
        fs::remove_dir(directory.path().join(NEW)).unwrap();
        assert_eq!(
            reservations.reserve("b").unwrap().unwrap().to_string(),
            "10.244.1.2"
        );
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_range() {
        let directory = tempfile::tempdir().unwrap();
        let twice = r#"{"range":"10.0.0.0/24","fresh":4,"freed":[],"owners":{"a":"10.0.0.2","b":"10.0.0.2"}}"#;
        for content in ["", "{}", "[1]", twice] {
            fs::write(directory.path().join(FILE), content).unwrap();
            let error = Reservations::open(directory.path()).unwrap_err();
            assert!(
                matches!(error, Error::Damaged { .. }),
                "{content:?} gave {error}"
            );
        }
    }

    #[test]
    fn without_a_range_there_is_no_address() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            Reservations::open(directory.path())
                .unwrap()
                .reserve("a")
                .unwrap(),
            None
        );
    }
}
