//! The files of the image store.
//!
//! ```text
//! <data>/images/lock             held while anything below is changed
//! <data>/images/index.json       names → ids, ids → what the image is made of
//! <data>/images/blobs/sha256/    configurations as they came, under their digest
//! <data>/images/layers/          unpacked layers, under the first half of their diff id
//! <data>/images/tmp/             what is being written
//! ```
//! Labs and agents of a machine share it. They change it one after the other, under the lock; they read it without,
//! since a file is replaced by rename and a layer appears by rename when it is whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::error::file;
use super::name::is_hex_sha256;
use super::{ImageConfig, ImageError, unpack};

/// `index.json`
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Index {
    pub(super) names: BTreeMap<String, NameRecord>,
    pub(super) images: BTreeMap<String, ImageRecord>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct NameRecord {
    /// Id of the image.
    pub(super) id: String,
    /// It came from the registry that the name says, so that has the last word about it.
    pub(super) pulled: bool,
}

/// An image that is not built in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct ImageRecord {
    pub(super) config: ImageConfig,
    /// Diff ids, lowest first.
    pub(super) layers: Vec<String>,
    pub(super) size: u64,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) dir: PathBuf,
}

/// While it lives, nobody else changes the store.
#[derive(Debug)]
pub(super) struct Lock {
    _fd: OwnedFd,
}

/// A layer that is in the store and not removed while this lives.
#[derive(Debug)]
pub(super) struct Layer {
    /// Bytes of its files.
    pub(super) size: u64,
    _hold: OwnedFd,
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self, ImageError> {
        for sub in ["blobs/sha256", "layers", "tmp"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(file("create", &path))?;
        }
        let dir = dir.canonicalize().map_err(file("find", dir))?;
        // Layers hold programs with the set-user-id bit that a stranger put there.
        rustix::fs::chmod(&dir, Mode::from_raw_mode(0o700))
            .map_err(|errno| file("protect", &dir)(errno.into()))?;
        Ok(Self { dir })
    }

    /// Waits until nobody else changes the store. Blocks.
    pub(super) fn lock(&self) -> Result<Lock, ImageError> {
        let path = self.dir.join("lock");
        let opened = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(file("open", &path))?;
        loop {
            match rustix::fs::flock(&opened, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Lock { _fd: opened.into() }),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(file("lock", &path)(errno.into())),
            }
        }
    }

    pub(super) fn index(&self) -> Result<Index, ImageError> {
        let path = self.dir.join("index.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| ImageError::Format {
                what: path.display().to_string(),
                problem: format!("not an index of this version of seaway: {error}"),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(file("read", &path)(error)),
        }
    }

    pub(super) fn write_index(&self, _lock: &Lock, index: &Index) -> Result<(), ImageError> {
        let json = serde_json::to_vec_pretty(index).map_err(|error| ImageError::Format {
            what: "index.json".to_owned(),
            problem: error.to_string(),
        })?;
        self.write(&self.dir.join("index.json"), &json)
    }

    /// Writes a file so that others see it whole or not at all, after a power cut too.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        let draft = self.temporary()?;
        let mut opened = fs::File::create(draft.path()).map_err(file("create", draft.path()))?;
        io::Write::write_all(&mut opened, bytes).map_err(file("write", draft.path()))?;
        opened.sync_all().map_err(file("write", draft.path()))?;
        fs::rename(draft.path(), path).map_err(file("write", path))
    }

    /// A path in the store's file system that nobody else uses; what is there is removed when the value is dropped.
    pub(super) fn temporary(&self) -> Result<Temporary, ImageError> {
        let name = format!("{}-{:016x}", std::process::id(), rand::random::<u64>());
        Ok(Temporary {
            path: self.dir.join("tmp").join(name),
        })
    }

    /// Keeps bytes under their digest.
    pub(super) fn add_blob(&self, _lock: &Lock, bytes: &[u8]) -> Result<String, ImageError> {
        let hex = hex::encode(Sha256::digest(bytes));
        self.write(&self.dir.join("blobs/sha256").join(&hex), bytes)?;
        Ok(format!("sha256:{hex}"))
    }

    /// Directory of an unpacked layer, there or not.
    pub(super) fn layer(&self, diff_id: &str) -> Result<PathBuf, ImageError> {
        match diff_id
            .strip_prefix("sha256:")
            .filter(|hex| is_hex_sha256(hex))
        {
            // Half of it, so that the options of an overlay with a hundred layers fit into one page.
            Some(hex) => Ok(self.dir.join("layers").join(&hex[..32])),
            None => Err(ImageError::Format {
                what: format!("layer {diff_id:?}"),
                problem: "its id is not a sha256 digest".to_owned(),
            }),
        }
    }

    /// Unpacks a layer unless it is here, and checks that it is the one that was promised. Blocks.
    pub(super) fn add_layer(&self, diff_id: &str, stream: impl Read) -> Result<Layer, ImageError> {
        let target = self.layer(diff_id)?;
        {
            let _lock = self.lock()?;
            if let Some(layer) = self.held(&target)? {
                return Ok(layer);
            }
        }
        let format = |problem: String| ImageError::Format {
            what: format!("layer {diff_id}"),
            problem,
        };
        let draft = self.temporary()?;
        fs::create_dir(draft.path()).map_err(file("create", draft.path()))?;
        let unpacked =
            unpack::unpack(stream, draft.path()).map_err(|error| format(error.to_string()))?;
        if unpacked.diff_id != diff_id {
            return Err(format(format!("its content is {}", unpacked.diff_id)));
        }
        let _lock = self.lock()?;
        self.write(
            &target.with_extension("size"),
            unpacked.size.to_string().as_bytes(),
        )?;
        match fs::rename(draft.path(), &target) {
            // Somebody else had the same idea.
            Err(error) if !target.is_dir() => return Err(file("create", &target)(error)),
            _ => {}
        }
        self.held(&target)?
            .ok_or_else(|| format("it vanished".to_owned()))
    }

    /// A layer that is here whole.
    fn held(&self, dir: &Path) -> Result<Option<Layer>, ImageError> {
        let Ok(text) = fs::read_to_string(dir.with_extension("size")) else {
            return Ok(None);
        };
        match (text.parse(), hold_layer(dir)) {
            (Ok(size), Ok(hold)) => Ok(Some(Layer { size, _hold: hold })),
            (Err(_), _) => Ok(None),
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            (_, Err(error)) => Err(file("hold", dir)(error)),
        }
    }

    /// Removes blobs and layers that no image of the index needs. A layer that a container uses stays for the next
    /// time.
    pub(super) fn collect_garbage(&self, _lock: &Lock, index: &Index) -> Result<(), ImageError> {
        let mut wanted: Vec<PathBuf> = Vec::new();
        for image in index.images.values() {
            for layer in &image.layers {
                wanted.push(self.layer(layer)?);
            }
        }
        let layers = self.dir.join("layers");
        for entry in fs::read_dir(&layers).map_err(file("list", &layers))? {
            let path = entry.map_err(file("list", &layers))?.path();
            if path.extension().is_some() || wanted.contains(&path) || is_in_use(&path)? {
                continue;
            }
            fs::remove_dir_all(&path).map_err(file("remove", &path))?;
            let size = path.with_extension("size");
            match fs::remove_file(&size) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file("remove", &size)(error));
                }
                _ => {}
            }
        }
        let blobs = self.dir.join("blobs/sha256");
        for entry in fs::read_dir(&blobs).map_err(file("list", &blobs))? {
            let entry = entry.map_err(file("list", &blobs))?;
            let id = format!("sha256:{}", entry.file_name().to_string_lossy());
            if !index.images.contains_key(&id) {
                fs::remove_file(entry.path()).map_err(file("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Says for as long as the value lives that a layer is in use. Its removal is put off, its content never changes.
pub(crate) fn hold_layer(dir: &Path) -> io::Result<OwnedFd> {
    let opened = fs::File::open(dir)?;
    rustix::fs::flock(&opened, FlockOperation::NonBlockingLockShared)?;
    Ok(opened.into())
}

fn is_in_use(layer: &Path) -> Result<bool, ImageError> {
    let opened = fs::File::open(layer).map_err(file("open", layer))?;
    match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(file("lock", layer)(errno.into())),
    }
}

/// A file or directory that is being written.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed or never made is the usual case.
        let _ = match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        };
    }
}
