//! Takes in images from files: OCI layouts (a directory or a tar) and what `docker save` writes, compressed or not.
//!
//! A tar is first unpacked into the store's `tmp`, so that its parts can be read in any order; it is unpacked with
//! the same suspicion as a layer and read through [`Root`] as well. Everything that has a digest is checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::error::file;
use super::store::{Layer, Store, Temporary};
use super::{ImageError, config, name, unpack};
use crate::rooted::Root;

/// Manifests and configurations are small; a larger one is a mistake or an attack.
const MAX_JSON: u64 = 16 << 20;
/// An index may point to an index; not for ever.
const MAX_DEPTH: usize = 4;

/// An image whose layers are in the store.
#[derive(Debug)]
pub(super) struct Imported {
    /// The configuration as it came.
    pub(super) config: Vec<u8>,
    /// Kept until the index knows the image.
    pub(super) layers: Vec<Layer>,
    /// Full names that the archive gives it.
    pub(super) names: Vec<String>,
}

/// Reads the images of a directory or file, and puts their layers into the store. Blocks.
pub(super) fn read(store: &Store, path: &Path) -> Result<Vec<Imported>, ImageError> {
    let metadata = path.metadata().map_err(file("open", path))?;
    let mut unpacked: Option<Temporary> = None;
    let dir = if metadata.is_dir() {
        path.to_owned()
    } else {
        let temporary = store.temporary()?;
        std::fs::create_dir(temporary.path()).map_err(file("create", temporary.path()))?;
        let opened = File::open(path).map_err(file("open", path))?;
        unpack::unpack(io::BufReader::new(opened), temporary.path())
            .map_err(|error| format(&path.display().to_string(), error))?;
        unpacked.insert(temporary).path().to_owned()
    };
    let layout = Layout {
        shown: path.display().to_string(),
        root: Root::open(&dir).map_err(file("open", &dir))?,
    };
    // A newer `docker save` writes both forms; its own says the names more plainly.
    if layout.has("manifest.json") {
        layout.docker(store)
    } else if layout.has("index.json") {
        layout.oci(store)
    } else {
        let problem = "neither an OCI layout (index.json) nor a Docker archive (manifest.json)";
        Err(format(&layout.shown, problem))
    }
}

fn format(what: &str, problem: impl ToString) -> ImageError {
    ImageError::Format {
        what: what.to_owned(),
        problem: problem.to_string(),
    }
}

struct Layout {
    shown: String,
    root: Root,
}

/// One image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

/// Content by its digest (OCI image-spec, descriptor.md).
#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<Platform>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct OciIndex {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct OciManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Descriptor {
    fn is_index(&self) -> bool {
        self.media_type.ends_with("image.index.v1+json")
            || self.media_type.ends_with("manifest.list.v2+json")
    }

    fn fits_here(&self) -> bool {
        self.platform.as_ref().is_none_or(|platform| {
            platform.os == "linux" && platform.architecture == config::architecture()
        })
    }

    /// Names as containerd and Docker write them, then as skopeo and podman do, where it is more than a tag.
    fn names(&self) -> Vec<String> {
        let annotation = |key: &str| self.annotations.as_ref().and_then(|all| all.get(key));
        annotation("io.containerd.image.name")
            .or_else(|| {
                annotation("org.opencontainers.image.ref.name")
                    .filter(|name| name.contains(['/', ':']))
            })
            .and_then(|name| name::normalise(name).ok())
            .into_iter()
            .collect()
    }
}

impl Layout {
    fn has(&self, path: &str) -> bool {
        self.root
            .metadata(Path::new(path))
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    fn open(&self, path: &Path) -> Result<File, ImageError> {
        let shown = || format!("{}: {}", self.shown, path.display());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = self
            .root
            .open_file(path, flags, Mode::empty())
            .map_err(|error| format(&shown(), error))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| format(&shown(), errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(format(&shown(), "not a file"));
        }
        Ok(fd.into())
    }

    fn small(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let length = self
            .open(path)?
            .take(MAX_JSON + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| format(&self.shown, error))?;
        if length as u64 > MAX_JSON {
            return Err(format(
                &self.shown,
                format!("{} is too large", path.display()),
            ));
        }
        Ok(bytes)
    }

    fn json<T: DeserializeOwned>(&self, path: &str, bytes: &[u8]) -> Result<T, ImageError> {
        serde_json::from_slice(bytes)
            .map_err(|error| format(&self.shown, format!("{path}: {error}")))
    }

    fn docker(&self, store: &Store) -> Result<Vec<Imported>, ImageError> {
        let bytes = self.small(Path::new("manifest.json"))?;
        let images: Vec<DockerImage> = self.json("manifest.json", &bytes)?;
        let mut imported = Vec::new();
        for image in images {
            let config_bytes = self.small(&image.config)?;
            let parsed = config::parse(&config_bytes)?;
            self.expect_layers(parsed.diff_ids.len(), image.layers.len())?;
            let mut layers = Vec::new();
            for (diff_id, path) in parsed.diff_ids.iter().zip(&image.layers) {
                layers.push(store.add_layer(diff_id, io::BufReader::new(self.open(path)?))?);
            }
            let names = image
                .repo_tags
                .unwrap_or_default()
                .iter()
                .map(|name| name::normalise(name))
                .collect::<Result<_, _>>()?;
            imported.push(Imported {
                config: config_bytes,
                layers,
                names,
            });
        }
        Ok(imported)
    }

    fn oci(&self, store: &Store) -> Result<Vec<Imported>, ImageError> {
        let bytes = self.small(Path::new("index.json"))?;
        let index: OciIndex = self.json("index.json", &bytes)?;
        let mut imported = Vec::new();
        for descriptor in &index.manifests {
            imported.push(self.oci_image(store, descriptor)?);
        }
        Ok(imported)
    }

    fn oci_image(&self, store: &Store, named: &Descriptor) -> Result<Imported, ImageError> {
        let mut descriptor = named.clone();
        for _ in 0..MAX_DEPTH {
            let bytes = self.blob(&descriptor.digest)?;
            if descriptor.is_index() {
                let index: OciIndex = self.json(&descriptor.digest, &bytes)?;
                descriptor = index
                    .manifests
                    .into_iter()
                    .find(Descriptor::fits_here)
                    .ok_or_else(|| {
                        let machine = config::architecture();
                        format(&self.shown, format!("it has no image for linux/{machine}"))
                    })?;
                continue;
            }
            let manifest: OciManifest = self.json(&descriptor.digest, &bytes)?;
            let config_bytes = self.blob(&manifest.config.digest)?;
            let parsed = config::parse(&config_bytes)?;
            self.expect_layers(parsed.diff_ids.len(), manifest.layers.len())?;
            let mut layers = Vec::new();
            for (diff_id, layer) in parsed.diff_ids.iter().zip(&manifest.layers) {
                let opened = self.open(&blob_path(&layer.digest)?)?;
                // Its content is checked against the diff id, which the configuration's digest vouches for.
                layers.push(store.add_layer(diff_id, io::BufReader::new(opened))?);
            }
            return Ok(Imported {
                config: config_bytes,
                layers,
                names: named.names(),
            });
        }
        Err(format(
            &self.shown,
            "an index points to an index too many times",
        ))
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let bytes = self.small(&blob_path(digest)?)?;
        let actual = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if actual == digest {
            Ok(bytes)
        } else {
            Err(format(
                &self.shown,
                format!("blob {digest} has the content of {actual}"),
            ))
        }
    }

    fn expect_layers(&self, expected: usize, found: usize) -> Result<(), ImageError> {
        if expected == found {
            return Ok(());
        }
        let problem = format!("the configuration has {expected} layers, the manifest {found}");
        Err(format(&self.shown, problem))
    }
}

fn blob_path(digest: &str) -> Result<PathBuf, ImageError> {
    match digest
        .strip_prefix("sha256:")
        .filter(|hex| name::is_hex_sha256(hex))
    {
        Some(hex) => Ok(Path::new("blobs/sha256").join(hex)),
        None => Err(format(&format!("blob {digest:?}"), "not a sha256 digest")),
    }
}
