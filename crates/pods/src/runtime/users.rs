//! Which user a container runs as: names looked up in the image's own `/etc/passwd` and `/etc/group`.

use std::io;
use std::path::Path;

use crate::rooted::Root;

/// Numbers for the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) additional_gids: Vec<u32>,
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted<'a> {
    /// The image's `user[:group]`; empty is root.
    pub(super) image: &'a str,
    /// `runAsUser`
    pub(super) user: Option<u32>,
    /// `runAsGroup`
    pub(super) group: Option<u32>,
    /// `fsGroup`, `supplementalGroups`
    pub(super) supplemental: &'a [u32],
}

/// The text is what containerd says.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("cannot read {path} of the image: {source}")]
    Read {
        path: &'static str,
        source: io::Error,
    },
}

/// Passwords of thousands of users fit; an endless file does not.
const MAX_FILE: u64 = 1 << 20;

/// Resolves against the files of a root file system; files that are not there have no entries.
pub(super) fn resolve(root: &Root, wanted: &Wanted<'_>) -> Result<Identity, UserError> {
    let passwd = read(root, "/etc/passwd")?;
    let group = read(root, "/etc/group")?;
    resolve_in(&passwd, &group, wanted)
}

fn read(root: &Root, path: &'static str) -> Result<String, UserError> {
    match root.read_to_string(Path::new(path), MAX_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|source| UserError::Read { path, source }),
    }
}

fn resolve_in(passwd: &str, group: &str, wanted: &Wanted<'_>) -> Result<Identity, UserError> {
    let (image_user, image_group) = match wanted.image.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted.image, None),
    };
    let entries = || passwd.lines().filter_map(PasswdEntry::parse);
    let entry = match wanted.user {
        Some(uid) => entries().find(|entry| entry.uid == uid),
        None if image_user.is_empty() => entries().find(|entry| entry.uid == 0),
        // A name that is a number is looked up as a name first.
        None => entries()
            .find(|entry| entry.name == image_user)
            .or_else(|| {
                let uid: u32 = image_user.parse().ok()?;
                entries().find(|entry| entry.uid == uid)
            }),
    };
    let uid = match (&entry, wanted.user) {
        (_, Some(uid)) => uid,
        (Some(entry), None) => entry.uid,
        (None, None) if image_user.is_empty() => 0,
        (None, None) => image_user
            .parse()
            .map_err(|_| UserError::NoUser(image_user.to_owned()))?,
    };
    let gid = match (wanted.group, image_group) {
        (Some(gid), _) => gid,
        // The image's group belongs to the image's user.
        (None, Some(name)) if wanted.user.is_none() => group
            .lines()
            .filter_map(GroupEntry::parse)
            .find(|entry| entry.name == name)
            .map(|entry| entry.gid)
            .or_else(|| name.parse().ok())
            .ok_or_else(|| UserError::NoGroup(name.to_owned()))?,
        _ => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut additional_gids: Vec<u32> = wanted.supplemental.to_vec();
    if let Some(entry) = &entry {
        additional_gids.extend(
            group
                .lines()
                .filter_map(GroupEntry::parse)
                .filter(|group| group.members.split(',').any(|member| member == entry.name))
                .map(|group| group.gid),
        );
    }
    additional_gids.sort_unstable();
    additional_gids.dedup();
    Ok(Identity {
        uid,
        gid,
        additional_gids,
    })
}

/// `name:password:uid:gid:…` (passwd(5))
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name, uid, gid })
    }
}

/// `name:password:gid:member,…` (group(5))
struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Self {
            name,
            gid,
            members: fields.next().unwrap_or(""),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n\nnode:x:1000:1001::/home/node:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nnode:x:1001:\naudio:x:29:pulse,node\nweb:x:33:\n";

    fn identity(wanted: &Wanted<'_>) -> Result<(u32, u32, Vec<u32>), String> {
        resolve_in(PASSWD, GROUP, wanted)
            .map(|it| (it.uid, it.gid, it.additional_gids))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        let image = |image| {
            identity(&Wanted {
                image,
                ..Wanted::default()
            })
        };
        assert_eq!(image(""), Ok((0, 0, vec![])));
        assert_eq!(image("node"), Ok((1000, 1001, vec![29])));
        assert_eq!(image("1000"), Ok((1000, 1001, vec![29])));
        assert_eq!(image("node:web"), Ok((1000, 33, vec![29])));
        assert_eq!(image("4711"), Ok((4711, 0, vec![])));
        assert_eq!(image("4711:4712"), Ok((4711, 4712, vec![])));
        assert!(
            image("nobody")
                .unwrap_err()
                .contains("unable to find user nobody")
        );
        assert!(
            image("node:nogroup")
                .unwrap_err()
                .contains("unable to find group nogroup")
        );
    }

    #[test]
    fn the_pod_overrides_the_image() {
        let pod = |user, group| Wanted {
            image: "node:web",
            user,
            group,
            supplemental: &[7, 7, 5],
        };
        assert_eq!(
            identity(&pod(Some(1000), None)),
            Ok((1000, 1001, vec![5, 7, 29]))
        );
        assert_eq!(identity(&pod(Some(5000), None)), Ok((5000, 0, vec![5, 7])));
        assert_eq!(
            identity(&pod(Some(5000), Some(6000))),
            Ok((5000, 6000, vec![5, 7]))
        );
        assert_eq!(
            identity(&pod(None, Some(6000))),
            Ok((1000, 6000, vec![5, 7, 29]))
        );
    }

    #[test]
    fn an_image_without_these_files_has_root() {
        let found = resolve_in("", "", &Wanted::default()).unwrap();
        assert_eq!(found, Identity::default());
    }
}
