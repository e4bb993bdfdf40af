//! The image store: what `seaway image` manages and where containers get their root file systems.
//!
//! One store for all labs and agents of a machine, kept consistent by a file lock and atomic renames.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

mod archive;
mod builtin;
mod config;
mod error;
mod name;
mod pull;
mod store;
mod unpack;

use store::{ImageRecord, Index, NameRecord, Store};

pub use error::ImageError;
pub(crate) use store::hold_layer;

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry every time. An image that is only here (built in, imported, tagged) is used as it is.
    Always,
    /// Ask the registry when the image is not here.
    IfNotPresent,
    /// Never ask.
    Never,
}

/// What an image says of how it is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageConfig {
    /// Program and leading arguments.
    pub entrypoint: Vec<String>,
    /// Arguments when the Pod gives none.
    pub cmd: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    /// Empty is `/`.
    pub working_dir: String,
    /// `80/tcp`
    pub exposed_ports: Vec<String>,
    /// `SIGTERM` or a number.
    pub stop_signal: Option<String>,
}

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Rootfs {
    /// The machine's own, as a private overlay.
    Host,
    /// Directories of unpacked layers, lowest first.
    Layers(Vec<PathBuf>),
}

/// Images that are part of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum BuiltIn {
    /// `seaway/host`
    Host,
    /// `seaway/whoami`
    Whoami,
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageInfo {
    /// `sha256:…` of its configuration: for `imageID` and [`crate::runtime::ContainerSpec::image_id`].
    pub id: String,
    /// How it is to be run.
    pub config: ImageConfig,
    /// Bytes of its unpacked layers; 0 for built-in ones.
    pub size: u64,
    /// Its files.
    pub rootfs: Rootfs,
    /// Whether, and which, it is one of ours.
    pub built_in: Option<BuiltIn>,
}

/// An image as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// Full names, as `docker.io/library/nginx:latest`.
    pub names: Vec<String>,
    /// The image.
    pub info: ImageInfo,
}

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    /// Pulls that go on at the same time.
    pulls: Semaphore,
}

/// Several, so that an image of a registry that does not answer is not in everybody's way; not many, since the one
/// network is shared.
const CONCURRENT_PULLS: usize = 3;

impl Images {
    /// Opens the store in a directory (`<data>/images`), which is made when missing.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let store = Store::open(dir)?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                pulls: Semaphore::new(CONCURRENT_PULLS),
            }),
        })
    }

    /// All images, by their first name.
    pub fn list(&self) -> Result<Vec<ImageEntry>, ImageError> {
        let index = self.inner.store.index()?;
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for built_in in BuiltIn::ALL {
            names
                .entry(built_in.info()?.id)
                .or_default()
                .push(built_in.name().to_owned());
        }
        for (name, record) in &index.names {
            names
                .entry(record.id.clone())
                .or_default()
                .push(name.clone());
        }
        let mut entries = Vec::new();
        for (id, names) in names {
            if let Some(info) = self.info(&index, &id)? {
                entries.push(ImageEntry { names, info });
            }
        }
        entries.sort_by(|a, b| a.names.cmp(&b.names));
        Ok(entries)
    }

    /// Takes in an OCI layout (directory or tar) or a Docker archive, compressed or not, under its own names or
    /// under `name`. Blocks: from async code call it on a blocking thread.
    pub fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<ImageEntry>, ImageError> {
        let wanted = name.map(name::normalise).transpose()?;
        let imported = archive::read(&self.inner.store, path)?;
        let format = |problem: &str| ImageError::Format {
            what: path.display().to_string(),
            problem: problem.to_owned(),
        };
        if imported.is_empty() {
            return Err(format("it holds no image"));
        }
        if wanted.is_some() && imported.len() > 1 {
            return Err(format(
                "it holds several images, which cannot all have the one name given",
            ));
        }
        let mut entries = Vec::new();
        for image in imported {
            let names = wanted.clone().map_or(image.names, |name| vec![name]);
            if names.is_empty() {
                return Err(format("it does not say the image's name; give one"));
            }
            let info = self.add(&image.config, &image.layers, &names, false)?;
            entries.push(ImageEntry { names, info });
        }
        Ok(entries)
    }

    /// Gives an image another name, which it takes from the image that had it.
    pub fn tag(&self, source: &str, target: &str) -> Result<ImageInfo, ImageError> {
        let target_name = changeable(target, "replaced")?;
        let lock = self.inner.store.lock()?;
        let mut index = self.inner.store.index()?;
        let info = self
            .find(&index, source)?
            .ok_or_else(|| ImageError::NotFound {
                name: source.to_owned(),
            })?;
        index.names.insert(
            target_name,
            NameRecord {
                id: info.id.clone(),
                pulled: false,
            },
        );
        self.prune(&lock, &mut index)?;
        Ok(info)
    }

    /// Takes a name away, or with an id all its names; the image goes with its last name. The built-in names stay.
    pub fn remove(&self, name: &str) -> Result<(), ImageError> {
        let lock = self.inner.store.lock()?;
        let mut index = self.inner.store.index()?;
        let before = index.names.len();
        if name::is_id(name) {
            index.names.retain(|_, record| record.id != name);
        } else {
            index.names.remove(&changeable(name, "removed")?);
        }
        if index.names.len() == before {
            return Err(ImageError::NotFound {
                name: name.to_owned(),
            });
        }
        self.prune(&lock, &mut index)
    }

    /// The image of a name or id (`sha256:…`) if it is here.
    pub fn resolve(&self, name: &str) -> Result<Option<ImageInfo>, ImageError> {
        self.find(&self.inner.store.index()?, name)
    }

    /// The image of a Pod's container: from here, or pulled from its registry as the policy says.
    pub async fn ensure(&self, image: &str, policy: PullPolicy) -> Result<ImageInfo, ImageError> {
        let reference = name::parse(image)?;
        let full = reference.whole();
        let index = self.inner.store.index()?;
        let pulled = index.names.get(&full).is_some_and(|record| record.pulled);
        let here = self.find(&index, image)?;
        match (here, policy) {
            // A name that was given here is not the registry's, whatever the policy.
            (Some(info), PullPolicy::Always) if !pulled => return Ok(info),
            (Some(info), PullPolicy::IfNotPresent | PullPolicy::Never) => return Ok(info),
            (None, PullPolicy::Never) => {
                return Err(ImageError::NeverPull {
                    name: image.to_owned(),
                });
            }
            (_, PullPolicy::Always) | (None, PullPolicy::IfNotPresent) => {}
        }
        let Ok(_permit) = self.inner.pulls.acquire().await else {
            return Err(ImageError::Interrupted);
        };
        // Another Pod may have been waiting for the same.
        if policy == PullPolicy::IfNotPresent
            && let Some(info) = self.resolve(image)?
        {
            return Ok(info);
        }
        let pulled = pull::pull(self, image, &reference).await?;
        let images = self.clone();
        blocking(move || images.add(&pulled.config, &pulled.layers, &[full], true)).await
    }

    /// The directory that the store lies in, with whatever else is kept there.
    pub fn data_dir(&self) -> PathBuf {
        let dir = &self.inner.store.dir;
        match dir.parent() {
            Some(parent) if parent != Path::new("/") => parent.to_owned(),
            _ => dir.clone(),
        }
    }

    /// Enters an image whose layers are in the store.
    fn add(
        &self,
        config_json: &[u8],
        layers: &[store::Layer],
        names: &[String],
        pulled: bool,
    ) -> Result<ImageInfo, ImageError> {
        let parsed = config::parse(config_json)?;
        for name in names {
            changeable(name, "replaced")?;
        }
        let lock = self.inner.store.lock()?;
        let mut index = self.inner.store.index()?;
        let id = self.inner.store.add_blob(&lock, config_json)?;
        let size = layers.iter().map(|layer| layer.size).sum();
        index.images.insert(
            id.clone(),
            ImageRecord {
                config: parsed.config,
                layers: parsed.diff_ids,
                size,
            },
        );
        for name in names {
            index.names.insert(
                name.clone(),
                NameRecord {
                    id: id.clone(),
                    pulled,
                },
            );
        }
        self.prune(&lock, &mut index)?;
        self.info(&index, &id)?
            .ok_or(ImageError::NotFound { name: id })
    }

    /// Writes the index without images that have no name, and then removes what only they needed.
    fn prune(&self, lock: &store::Lock, index: &mut Index) -> Result<(), ImageError> {
        let Index { names, images } = index;
        images.retain(|id, _| names.values().any(|record| record.id == *id));
        self.inner.store.write_index(lock, index)?;
        self.inner.store.collect_garbage(lock, index)
    }

    fn find(&self, index: &Index, name: &str) -> Result<Option<ImageInfo>, ImageError> {
        if name::is_id(name) {
            return self.info(index, name);
        }
        let full = name::normalise(name)?;
        for built_in in BuiltIn::ALL {
            if full == built_in.name() {
                return built_in.info().map(Some);
            }
        }
        match index.names.get(&full) {
            Some(record) => self.info(index, &record.id),
            None => Ok(None),
        }
    }

    fn info(&self, index: &Index, id: &str) -> Result<Option<ImageInfo>, ImageError> {
        for built_in in BuiltIn::ALL {
            let info = built_in.info()?;
            if info.id == id {
                return Ok(Some(info));
            }
        }
        let Some(record) = index.images.get(id) else {
            return Ok(None);
        };
        let layers = record
            .layers
            .iter()
            .map(|id| self.inner.store.layer(id))
            .collect::<Result<_, _>>()?;
        Ok(Some(ImageInfo {
            id: id.to_owned(),
            config: record.config.clone(),
            size: record.size,
            rootfs: Rootfs::Layers(layers),
            built_in: None,
        }))
    }
}

/// The full form of a name that is not built in.
fn changeable(name: &str, operation: &'static str) -> Result<String, ImageError> {
    let full = name::normalise(name)?;
    if BuiltIn::ALL.iter().any(|built_in| built_in.name() == full) {
        return Err(ImageError::BuiltIn {
            name: name.to_owned(),
            operation,
        });
    }
    Ok(full)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ImageError::Interrupted)?
}

#[cfg(test)]
mod tests;
