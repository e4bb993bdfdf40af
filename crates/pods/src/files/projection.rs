//! Writes files that change all at once: a new directory, then one rename of the link that everything goes through.
//! Source: the kubelet's `AtomicWriter` (`pkg/volume/util/atomic_writer.go`), whose layout programs know:
//! `key -> ..data/key`, `..data -> ..<time>`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::FileContent;

/// The link that is renamed.
const DATA: &str = "..data";
const NEXT_DATA: &str = "..data_tmp";

/// The files could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}: {source}")]
pub struct ProjectionError {
    /// What was tried.
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    pub source: std::io::Error,
}

fn at<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> ProjectionError + 'a {
    move |source| ProjectionError {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Makes `directory` hold exactly `files`; whether anything changed. `stamp` names the new version and must differ
/// from that of the version before.
pub fn project(
    directory: &Path,
    files: &BTreeMap<String, FileContent>,
    stamp: &str,
) -> Result<bool, ProjectionError> {
    fs::create_dir_all(directory).map_err(at("create", directory))?;
    let data = directory.join(DATA);
    let old = fs::read_link(&data)
        .ok()
        .map(|target| directory.join(target));
    if let Some(old) = &old
        && same(old, files)
    {
        return Ok(false);
    }
    let version = directory.join(format!("..{stamp}"));
    fs::create_dir(&version).map_err(at("create", &version))?;
    for (path, file) in files {
        write(&version.join(path), file)?;
    }
    let next = directory.join(NEXT_DATA);
    let _ = fs::remove_file(&next);
    symlink(format!("..{stamp}"), &next).map_err(at("link", &next))?;
    fs::rename(&next, &data).map_err(at("rename", &next))?;
    link_names(directory, files)?;
    if let Some(old) = old.filter(|old| *old != version) {
        fs::remove_dir_all(&old).map_err(at("remove", &old))?;
    }
    Ok(true)
}

fn write(path: &Path, file: &FileContent) -> Result<(), ProjectionError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(at("create", parent))?;
    }
    let mut options = fs::OpenOptions::new();
    let mut handle = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(at("create", path))?;
    handle.write_all(&file.data).map_err(at("write", path))?;
    // Not through the mode of open, which the umask would cut.
    handle
        .set_permissions(fs::Permissions::from_mode(file.mode))
        .map_err(at("change the mode of", path))
}

/// Makes the links that users see, one for each first part of a path, and removes those of files that are gone.
fn link_names(
    directory: &Path,
    files: &BTreeMap<String, FileContent>,
) -> Result<(), ProjectionError> {
    let wanted: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for name in &wanted {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(at("link", &link))?;
        }
    }
    for entry in fs::read_dir(directory).map_err(at("read", directory))? {
        let entry = entry.map_err(at("read", directory))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(entry.path()).map_err(at("remove", &entry.path()))?;
        }
    }
    Ok(())
}

fn same(directory: &Path, files: &BTreeMap<String, FileContent>) -> bool {
    let mut there = BTreeSet::new();
    if collect(directory, directory, &mut there).is_err() || there.len() != files.len() {
        return false;
    }
    files.iter().all(|(path, file)| {
        let place = directory.join(path);
        let mode = fs::metadata(&place).map(|meta| meta.permissions().mode() & 0o777);
        there.contains(Path::new(path))
            && mode.is_ok_and(|mode| mode == file.mode)
            && fs::read(&place).is_ok_and(|data| data == file.data)
    })
}

fn collect(root: &Path, directory: &Path, found: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, found)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.insert(relative.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, FileContent> {
        let file = |data: &str| FileContent {
            data: data.as_bytes().to_vec(),
            mode: 0o640,
        };
        pairs
            .iter()
            .map(|(path, data)| ((*path).to_owned(), file(data)))
            .collect()
    }

    #[test]
    fn a_new_version_replaces_the_old_one_whole() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        assert!(project(root, &files(&[("a", "1"), ("sub/b", "2")]), "1").unwrap());
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(root.join("sub/b")).unwrap(), "2");
        assert_eq!(
            fs::metadata(root.join("a")).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(
            fs::read_link(root.join("a")).unwrap(),
            Path::new("..data/a")
        );

        assert!(project(root, &files(&[("a", "one"), ("c", "3")]), "2").unwrap());
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "one");
        let mut names: Vec<_> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["..2", "..data", "a", "c"]);
    }

    #[test]
    fn the_same_files_are_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        assert!(project(directory.path(), &files(&[("a", "1")]), "1").unwrap());
        assert!(!project(directory.path(), &files(&[("a", "1")]), "2").unwrap());
        assert_eq!(
            fs::read_link(directory.path().join("..data")).unwrap(),
            Path::new("..1")
        );
    }

    #[test]
    fn an_empty_volume_is_a_version_too() {
        let directory = tempfile::tempdir().unwrap();
        assert!(project(directory.path(), &BTreeMap::new(), "1").unwrap());
        assert!(directory.path().join("..data").is_dir());
    }
}
