//! What is known of a lab that runs: a file below `/run`, for `status`, `down` and the clean-up after a crash.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::spec::LabSpec;

/// A lab that runs, or ran and was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// What it is made of.
    pub spec: LabSpec,
    /// Its data directory.
    pub data: PathBuf,
    /// Seconds since 1970.
    pub started_at: i64,
    /// All nodes were ready once.
    pub ready: bool,
}

/// Reads a JSON file; `None` when there is none.
///
/// # Errors
/// [`Error::File`] when it cannot be read, [`Error::Damaged`] when it is not what it should be.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| Error::Damaged {
            path: path.to_owned(),
            source,
        })
}

/// Writes a JSON file whole: a reader sees the old or the new, never half.
///
/// # Errors
/// [`Error::File`] when it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|source| Error::Damaged {
        path: path.to_owned(),
        source,
    })?;
    write_whole(path, &bytes)
}

/// As [`write_json`], for any content; readable by the owner only.
///
/// # Errors
/// [`Error::File`] when it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let new = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .map_err(Error::file("create", &new))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(Error::file("write", &new))?;
    std::fs::rename(&new, path).map_err(Error::file("write", path))
}
