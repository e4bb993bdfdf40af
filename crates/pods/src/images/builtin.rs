//! Images that come with the binary.
//!
//! Both have the machine's own root file system, as a private overlay that each container writes for itself.
//! File systems that are mounted below that root are not part of it, so they are empty directories there.
//!
//! `seaway/whoami` has the binary in it as well and answers on every port that its container declares.

use sha2::{Digest, Sha256};

use super::{BuiltIn, ImageConfig, ImageError, ImageInfo, Rootfs};

impl BuiltIn {
    pub(super) const ALL: [BuiltIn; 2] = [BuiltIn::Host, BuiltIn::Whoami];

    /// Its full name, which is always there.
    pub(super) fn name(self) -> &'static str {
        match self {
            BuiltIn::Host => "docker.io/seaway/host:latest",
            BuiltIn::Whoami => "docker.io/seaway/whoami:latest",
        }
    }

    fn config(self) -> ImageConfig {
        let strings = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        match self {
            BuiltIn::Host => ImageConfig {
                cmd: strings(&["/bin/sh"]),
                ..ImageConfig::default()
            },
            BuiltIn::Whoami => ImageConfig {
                entrypoint: strings(&["/.seaway/seaway", "internal", "whoami"]),
                ..ImageConfig::default()
            },
        }
    }

    /// The image, with the digest of its configuration for its id as any other.
    pub(super) fn info(self) -> Result<ImageInfo, ImageError> {
        let config = self.config();
        let json = serde_json::to_vec(&(self, &config)).map_err(|error| ImageError::Format {
            what: self.name().to_owned(),
            problem: error.to_string(),
        })?;
        Ok(ImageInfo {
            id: format!("sha256:{}", hex::encode(Sha256::digest(json))),
            config,
            size: 0,
            rootfs: Rootfs::Host,
            built_in: Some(self),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_names_are_full_and_their_ids_differ() {
        for built_in in BuiltIn::ALL {
            assert_eq!(
                super::super::name::normalise(built_in.name()).unwrap(),
                built_in.name()
            );
        }
        let id = |built_in: BuiltIn| built_in.info().unwrap().id;
        assert!(super::super::name::is_id(&id(BuiltIn::Host)));
        assert_ne!(id(BuiltIn::Host), id(BuiltIn::Whoami));
    }
}
