//! The image store: what `seaway image` manages and where containers get their root file systems.
//!
//! One store for all labs and agents of a machine, kept consistent by a file lock and atomic renames.

use std::path::{Path, PathBuf};

mod error;

pub use error::ImageError;

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
pub struct Images {}

impl Images {
    /// Opens the store in a directory (`<data>/images`), which is made when missing.
    pub fn open(_dir: &Path) -> Result<Self, ImageError> {
        todo!()
    }

    /// All images, by their first name.
    pub fn list(&self) -> Result<Vec<ImageEntry>, ImageError> {
        todo!()
    }

    /// Takes in an OCI layout (directory or tar) or a Docker archive, compressed or not, under its own names or
    /// under `name`. Blocks: from async code call it on a blocking thread.
    pub fn import(&self, _path: &Path, _name: Option<&str>) -> Result<Vec<ImageEntry>, ImageError> {
        todo!()
    }

    /// Gives an image another name.
    pub fn tag(&self, _source: &str, _target: &str) -> Result<ImageInfo, ImageError> {
        todo!()
    }

    /// Takes a name away, and the image with its last name. The built-in names stay.
    pub fn remove(&self, _name: &str) -> Result<(), ImageError> {
        todo!()
    }

    /// The image of a name or id (`sha256:…`) if it is here.
    pub fn resolve(&self, _name: &str) -> Result<Option<ImageInfo>, ImageError> {
        todo!()
    }

    /// The image of a Pod's container: from here, or pulled from its registry as the policy says.
    pub async fn ensure(&self, _image: &str, _policy: PullPolicy) -> Result<ImageInfo, ImageError> {
        todo!()
    }

    /// The directory that the store lies in, with whatever else is kept there.
    pub fn data_dir(&self) -> PathBuf {
        todo!()
    }
}
