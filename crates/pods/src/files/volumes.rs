//! What is in each volume of a Pod, and where containers see it. Pure, except for following links in `subPath`.
//! Source: "Volumes" in the Kubernetes documentation; `pkg/volume/{configmap,secret,downwardapi,projected}`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec,
    SecretProjection, ServiceAccountTokenProjection, Volume,
};

use crate::env::{FieldError, PodFacts, SourceKind, SourceName, Sources, expand, field, resource};
use crate::runtime::Mount;
use crate::tokens::{self, Wish};

/// Mode of files where the Pod does not say.
const DEFAULT_MODE: u32 = 0o644;

/// The volume cannot be made or mounted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// A ConfigMap or Secret that does not exist.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key that does not exist.
    #[error("references non-existent {kind} key: {key}")]
    NoKey {
        /// `config` or `secret`
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A path that leads out of the volume.
    #[error("{path:?} must be a relative path without '..'")]
    Path {
        /// As given.
        path: String,
    },
    /// The downward API has no such thing.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A kind of volume that is not here.
    #[error(
        "this kind of volume is not supported by seaway (emptyDir, configMap, secret, downwardAPI, projected, hostPath are)"
    )]
    Unsupported,
    /// A projected source that is not here.
    #[error("projected {what} is not supported by seaway")]
    UnsupportedSource {
        /// The field.
        what: &'static str,
    },
    /// A container mounts a volume that the Pod does not have.
    #[error("volume {name:?} not found in the Pod")]
    Unknown {
        /// As given.
        name: String,
    },
    /// A `subPath` that cannot be used.
    #[error("subPath {path:?}: {problem}")]
    SubPath {
        /// As given.
        path: String,
        /// Why not.
        problem: String,
    },
}

/// A file to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

/// `type` of a `hostPath`: what has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPathType {
    /// Not checked.
    Any,
    /// Made when missing.
    DirectoryOrCreate,
    /// A directory.
    Directory,
    /// Made when missing.
    FileOrCreate,
    /// A file.
    File,
    /// A socket.
    Socket,
    /// A device.
    CharDevice,
    /// A device.
    BlockDevice,
}

/// What is in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeContent {
    /// A directory that lives as long as the Pod.
    Empty,
    /// Something of the node.
    HostPath {
        /// Where.
        path: PathBuf,
        /// What it has to be.
        kind: HostPathType,
    },
    /// Files that follow their source, by their path in the volume.
    Files(BTreeMap<String, FileContent>),
}

/// The ConfigMaps and Secrets in the Pod's volumes.
pub fn source_names(spec: &PodSpec) -> BTreeSet<SourceName> {
    let mut names = BTreeSet::new();
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            names.insert((SourceKind::ConfigMap, source.name.clone()));
        }
        if let Some(name) = volume
            .secret
            .as_ref()
            .and_then(|source| source.secret_name.clone())
        {
            names.insert((SourceKind::Secret, name));
        }
        for projection in volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten())
        {
            if let Some(source) = &projection.config_map {
                names.insert((SourceKind::ConfigMap, source.name.clone()));
            }
            if let Some(source) = &projection.secret {
                names.insert((SourceKind::Secret, source.name.clone()));
            }
        }
    }
    names
}

/// What is in `volume`.
pub fn volume_content(
    pod: &Pod,
    volume: &Volume,
    facts: &PodFacts,
    sources: &Sources,
) -> Result<VolumeContent, VolumeError> {
    if volume.empty_dir.is_some() {
        return Ok(VolumeContent::Empty);
    }
    if let Some(host) = &volume.host_path {
        let kind = match host.type_.as_deref().unwrap_or("") {
            "" => HostPathType::Any,
            "DirectoryOrCreate" => HostPathType::DirectoryOrCreate,
            "Directory" => HostPathType::Directory,
            "FileOrCreate" => HostPathType::FileOrCreate,
            "File" => HostPathType::File,
            "Socket" => HostPathType::Socket,
            "CharDevice" => HostPathType::CharDevice,
            "BlockDevice" => HostPathType::BlockDevice,
            _ => return Err(VolumeError::Unsupported),
        };
        return Ok(VolumeContent::HostPath {
            path: PathBuf::from(&host.path),
            kind,
        });
    }
    let mut files = BTreeMap::new();
    if let Some(source) = &volume.config_map {
        let projection = ConfigMapProjection {
            name: source.name.clone(),
            items: source.items.clone(),
            optional: source.optional,
        };
        add_config_map(&mut files, sources, &projection, mode(source.default_mode))?;
    } else if let Some(source) = &volume.secret {
        let projection = SecretProjection {
            name: source.secret_name.clone().unwrap_or_default(),
            items: source.items.clone(),
            optional: source.optional,
        };
        add_secret(&mut files, sources, &projection, mode(source.default_mode))?;
    } else if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        add_downward(&mut files, pod, facts, items, mode(source.default_mode))?;
    } else if let Some(source) = &volume.projected {
        let default = mode(source.default_mode);
        for projection in source.sources.iter().flatten() {
            if let Some(source) = &projection.config_map {
                add_config_map(&mut files, sources, source, default)?;
            } else if let Some(source) = &projection.secret {
                add_secret(&mut files, sources, source, default)?;
            } else if let Some(source) = &projection.downward_api {
                add_downward(
                    &mut files,
                    pod,
                    facts,
                    source.items.as_deref().unwrap_or_default(),
                    default,
                )?;
            } else if let Some(source) = &projection.service_account_token {
                add_token(&mut files, sources, source, default)?;
            } else {
                return Err(VolumeError::UnsupportedSource {
                    what: "source of an unknown kind",
                });
            }
        }
    } else {
        return Err(VolumeError::Unsupported);
    }
    Ok(VolumeContent::Files(files))
}

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(DEFAULT_MODE)
        & 0o777
}

fn add_config_map(
    files: &mut BTreeMap<String, FileContent>,
    sources: &Sources,
    source: &ConfigMapProjection,
    mode: u32,
) -> Result<(), VolumeError> {
    let name = (SourceKind::ConfigMap, source.name.clone());
    add_keys(
        files,
        sources,
        name,
        ("configmap", "config"),
        source.items.as_deref(),
        source.optional,
        mode,
    )
}

fn add_secret(
    files: &mut BTreeMap<String, FileContent>,
    sources: &Sources,
    source: &SecretProjection,
    mode: u32,
) -> Result<(), VolumeError> {
    let name = (SourceKind::Secret, source.name.clone());
    add_keys(
        files,
        sources,
        name,
        ("secret", "secret"),
        source.items.as_deref(),
        source.optional,
        mode,
    )
}

fn add_token(
    files: &mut BTreeMap<String, FileContent>,
    sources: &Sources,
    source: &ServiceAccountTokenProjection,
    mode: u32,
) -> Result<(), VolumeError> {
    let name = Wish::of(source).source();
    let token = sources.get(&name).and_then(|data| data.get(tokens::KEY));
    let data = token.cloned().ok_or(VolumeError::NotFound {
        kind: "token",
        name: name.1,
    })?;
    files.insert(inside(&source.path)?, FileContent { data, mode });
    Ok(())
}

fn add_keys(
    files: &mut BTreeMap<String, FileContent>,
    sources: &Sources,
    name: SourceName,
    (kind, key_kind): (&'static str, &'static str),
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    default_mode: u32,
) -> Result<(), VolumeError> {
    let optional = optional == Some(true);
    let Some(data) = sources.get(&name) else {
        return if optional {
            Ok(())
        } else {
            Err(VolumeError::NotFound { kind, name: name.1 })
        };
    };
    let items = items.unwrap_or_default();
    if items.is_empty() {
        for (key, data) in data {
            files.insert(
                inside(key)?,
                FileContent {
                    data: data.clone(),
                    mode: default_mode,
                },
            );
        }
    }
    for item in items {
        let Some(data) = data.get(&item.key) else {
            if optional {
                continue;
            }
            return Err(VolumeError::NoKey {
                kind: key_kind,
                key: item.key.clone(),
            });
        };
        let mode = item.mode.map_or(default_mode, |own| mode(Some(own)));
        files.insert(
            inside(&item.path)?,
            FileContent {
                data: data.clone(),
                mode,
            },
        );
    }
    Ok(())
}

fn add_downward(
    files: &mut BTreeMap<String, FileContent>,
    pod: &Pod,
    facts: &PodFacts,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
) -> Result<(), VolumeError> {
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            field(pod, facts, &reference.field_path)?
        } else if let Some(reference) = &item.resource_field_ref {
            // In a volume the reference always names its container, which takes the place of this one.
            let any = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.containers.first())
                .cloned()
                .unwrap_or_default();
            resource(pod, &any, facts, reference)?
        } else {
            String::new()
        };
        let mode = item.mode.map_or(default_mode, |own| mode(Some(own)));
        files.insert(
            inside(&item.path)?,
            FileContent {
                data: text.into_bytes(),
                mode,
            },
        );
    }
    Ok(())
}

/// The path, if it stays in its volume and does not take a name that the projection itself uses.
fn inside(path: &str) -> Result<String, VolumeError> {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(VolumeError::Path {
            path: path.to_owned(),
        });
    }
    Ok(path.to_owned())
}

/// The mounts of a container. `places` has the directory (or host path) of each volume; `lookup` knows the
/// container's variables, for `subPathExpr`.
pub fn mounts<'a>(
    container: &Container,
    places: &BTreeMap<String, PathBuf>,
    lookup: impl Fn(&str) -> Option<&'a str>,
) -> Result<Vec<Mount>, VolumeError> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let place = places
            .get(&mount.name)
            .ok_or_else(|| VolumeError::Unknown {
                name: mount.name.clone(),
            })?;
        let expression = mount
            .sub_path_expr
            .as_deref()
            .filter(|text| !text.is_empty());
        let sub_path = match expression {
            Some(text) => Some(expand(text, &lookup)),
            None => mount.sub_path.clone().filter(|text| !text.is_empty()),
        };
        let source = match sub_path {
            None => place.clone(),
            Some(path) => sub_path_of(place, &path)?,
        };
        mounts.push(Mount {
            source,
            destination: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true),
        });
    }
    Ok(mounts)
}

/// A path below a volume, made when missing. A container may have put links there: they may not lead out.
fn sub_path_of(place: &Path, path: &str) -> Result<PathBuf, VolumeError> {
    inside(path)?;
    let problem = |error: std::io::Error| VolumeError::SubPath {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let root = place.canonicalize().map_err(problem)?;
    let mut current = root.clone();
    for part in Path::new(path).components() {
        let next = current.join(part);
        if std::fs::symlink_metadata(&next).is_err() {
            std::fs::create_dir(&next).map_err(problem)?;
        }
        current = next.canonicalize().map_err(problem)?;
        if !current.starts_with(&root) {
            return Err(VolumeError::SubPath {
                path: path.to_owned(),
                problem: "leads out of the volume".to_owned(),
            });
        }
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn content(volume: Value) -> Result<VolumeContent, VolumeError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main"}], "volumes": []},
        }))
        .unwrap();
        let mut volume = volume;
        volume["name"] = json!("v");
        let facts = PodFacts {
            pod_ip: "10.244.0.5".parse().unwrap(),
            host_ip: "10.87.0.2".parse().unwrap(),
            node_name: "node-1".into(),
            node_cpu: crate::quantity::Amount::ONE,
            node_memory: crate::quantity::Amount::ONE,
        };
        let data = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
                .collect()
        };
        let sources = Sources::from([
            (
                (SourceKind::ConfigMap, "cm".into()),
                data(&[("a", "1"), ("b", "2")]),
            ),
            ((SourceKind::Secret, "s".into()), data(&[("key", "secret")])),
            (
                (SourceKind::Token, "3607 ".into()),
                data(&[("token", "jwt")]),
            ),
        ]);
        volume_content(
            &pod,
            &serde_json::from_value(volume).unwrap(),
            &facts,
            &sources,
        )
    }

    fn files(volume: Value) -> Vec<String> {
        let VolumeContent::Files(files) = content(volume).unwrap() else {
            panic!("not files")
        };
        let line = |(path, file): (&String, &FileContent)| {
            format!(
                "{path} {:o} {}",
                file.mode,
                String::from_utf8_lossy(&file.data)
            )
        };
        files.iter().map(line).collect()
    }

    #[test]
    fn keys_become_files() {
        assert_eq!(
            files(json!({"configMap": {"name": "cm"}})),
            ["a 644 1", "b 644 2"]
        );
        assert_eq!(
            files(json!({"secret": {"secretName": "s", "defaultMode": 0o400}})),
            ["key 400 secret"]
        );
        assert_eq!(
            files(
                json!({"configMap": {"name": "cm", "items": [{"key": "b", "path": "etc/x", "mode": 0o600}]}})
            ),
            ["etc/x 600 2"]
        );
    }

    #[test]
    fn projected_volumes_put_sources_together() {
        let volume = json!({"projected": {"sources": [
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "a"}]}},
            {"secret": {"name": "s"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"secret": {"name": "none", "optional": true}},
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        ]}});
        assert_eq!(
            files(volume),
            [
                "a 644 1",
                "key 644 secret",
                "labels 644 app=\"web\"",
                "token 644 jwt"
            ]
        );
    }

    #[test]
    fn what_is_missing_or_leads_out_is_an_error() {
        for (volume, message) in [
            (
                json!({"configMap": {"name": "none"}}),
                "configmap \"none\" not found",
            ),
            (
                json!({"secret": {"secretName": "none"}}),
                "secret \"none\" not found",
            ),
            (
                json!({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}),
                "references non-existent config key: z",
            ),
            (
                json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../../etc/passwd"}]}}),
                "\"../../etc/passwd\" must be a relative path without '..'",
            ),
            (
                json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "..data"}]}}),
                "\"..data\" must be a relative path without '..'",
            ),
            (
                json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "other"}}]}}),
                "token \"3600 other\" not found",
            ),
        ] {
            assert_eq!(content(volume).unwrap_err().to_string(), message);
        }
        assert_eq!(
            content(json!({"nfs": {"server": "x", "path": "/"}})),
            Err(VolumeError::Unsupported)
        );
    }

    #[test]
    fn sub_paths_are_made_and_links_do_not_lead_out() {
        let volume = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), volume.path().join("escape")).unwrap();
        let places = BTreeMap::from([("v".to_owned(), volume.path().to_owned())]);
        let mount = |sub_path: &str| {
            let container: Container = serde_json::from_value(json!({
                "name": "main", "volumeMounts": [{"name": "v", "mountPath": "/data", "subPathExpr": sub_path}],
            }))
            .unwrap();
            mounts(&container, &places, |name| {
                (name == "POD").then_some("web-0")
            })
        };
        let made = mount("logs/$(POD)").unwrap();
        assert_eq!(
            made[0].source,
            volume.path().canonicalize().unwrap().join("logs/web-0")
        );
        assert!(made[0].source.is_dir());
        assert!(mount("escape/x").is_err());
        assert!(mount("../x").is_err());
    }
}
