//! Who is who in a lab: one authority of its own, and a key and a certificate for the API server, for everybody who
//! talks to it, and for every node. All of it is made on the first start and kept; a certificate is made anew when the
//! names or addresses that it has to carry have changed.
//!
//! Source of the names: Kubernetes documentation, "PKI certificates and requirements".

mod issue;
mod kubeconfig;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use issue::{Error, SubjectName};
pub use kubeconfig::kubeconfig;

use issue::{Authority, Subject, Usage};

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key, readable by its owner only.
    pub key: PathBuf,
}

impl Credential {
    /// Reads both: certificate, key.
    ///
    /// # Errors
    /// [`Error::Read`] if one of the files cannot be read.
    pub fn read(&self) -> Result<(String, String), Error> {
        Ok((issue::read(&self.certificate)?, issue::read(&self.key)?))
    }

    fn at(directory: &Path, name: &str) -> Self {
        Self {
            certificate: directory.join(format!("{name}.crt")),
            key: directory.join(format!("{name}.key")),
        }
    }
}

/// All credentials of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pki {
    /// The authority's certificate (PEM file).
    pub authority: PathBuf,
    /// The API server's own.
    pub server: Credential,
    /// `kubernetes-admin` of `system:masters`.
    pub admin: Credential,
    /// `system:kube-controller-manager`.
    pub controllers: Credential,
    /// What the API server shows to nodes: `kube-apiserver-kubelet-client` of `system:masters`.
    pub kubelet_client: Credential,
    /// The key that signs the tokens of ServiceAccounts (PEM file).
    pub account_key: PathBuf,
    directory: PathBuf,
}

impl Pki {
    /// Makes what is missing in `directory`, and makes anew what does not carry the names that it has to: those under
    /// which clients reach the API server, and name and address of each node.
    ///
    /// # Errors
    /// [`Error`] if a file cannot be read or written, or is not what its name says.
    pub fn ensure(
        directory: &Path,
        server_names: &[SubjectName],
        nodes: &[(String, IpAddr)],
    ) -> Result<Self, Error> {
        issue::make_directory(directory)?;
        let pki = Self::at(directory);
        let authority = Authority::ensure(&Credential::at(directory, "ca"))?;
        issue::ensure_key(&pki.account_key, "service accounts")?;
        authority.ensure_issued(
            &pki.server,
            &Subject {
                name: "kube-apiserver",
                group: None,
                names: server_names,
                usage: Usage::Server,
            },
        )?;
        for (credential, name, group) in [
            (&pki.admin, "kubernetes-admin", Some("system:masters")),
            (&pki.controllers, "system:kube-controller-manager", None),
            (
                &pki.kubelet_client,
                "kube-apiserver-kubelet-client",
                Some("system:masters"),
            ),
        ] {
            authority.ensure_issued(
                credential,
                &Subject {
                    name,
                    group,
                    names: &[],
                    usage: Usage::Client,
                },
            )?;
        }
        for (node, address) in nodes {
            let names = [
                SubjectName::Dns(node.clone()),
                SubjectName::Address(*address),
            ];
            let name = format!("system:node:{node}");
            let subject = Subject {
                name: &name,
                group: Some("system:nodes"),
                names: &names,
                usage: Usage::Both,
            };
            authority.ensure_issued(&pki.node(node), &subject)?;
        }
        Ok(pki)
    }

    /// Where a node's credential is: `system:node:<name>` of `system:nodes`, for both sides of a connection.
    pub fn node(&self, name: &str) -> Credential {
        Credential::at(&self.directory, &format!("node-{name}"))
    }

    /// The authority's certificate as PEM.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn authority_pem(&self) -> Result<String, Error> {
        issue::read(&self.authority)
    }

    /// The key that signs the tokens of ServiceAccounts, as PEM.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn account_key_pem(&self) -> Result<String, Error> {
        issue::read(&self.account_key)
    }

    /// The paths in a directory that [`Pki::ensure`] has filled.
    pub fn at(directory: &Path) -> Self {
        Self {
            authority: directory.join("ca.crt"),
            server: Credential::at(directory, "apiserver"),
            admin: Credential::at(directory, "admin"),
            controllers: Credential::at(directory, "controllers"),
            kubelet_client: Credential::at(directory, "apiserver-kubelet-client"),
            account_key: directory.join("sa.key"),
            directory: directory.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(of: &[&str]) -> Vec<SubjectName> {
        of.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn credentials_are_kept_until_their_names_change() {
        let directory = tempfile::tempdir().unwrap();
        let nodes = [("node-1".to_owned(), "10.87.0.2".parse().unwrap())];
        let first = Pki::ensure(
            directory.path(),
            &names(&["127.0.0.1", "localhost"]),
            &nodes,
        )
        .unwrap();
        let read = |pki: &Pki| {
            (
                pki.authority_pem().unwrap(),
                pki.server.read().unwrap(),
                pki.node("node-1").read().unwrap(),
            )
        };
        let before = read(&first);

        let again = Pki::ensure(
            directory.path(),
            &names(&["localhost", "127.0.0.1"]),
            &nodes,
        )
        .unwrap();
        assert_eq!(read(&again), before, "the order of names does not matter");

        let other = Pki::ensure(
            directory.path(),
            &names(&["127.0.0.1", "localhost", "10.96.0.1"]),
            &nodes,
        )
        .unwrap();
        let after = read(&other);
        assert_eq!(after.0, before.0, "the authority stays");
        assert_ne!(after.1, before.1, "the server has a name more");
        assert_eq!(after.2, before.2, "the node has the same names");
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::ensure(directory.path(), &[], &[]).unwrap();
        for key in [
            &pki.server.key,
            &pki.admin.key,
            &directory.path().join("ca.key"),
        ] {
            assert_eq!(
                std::fs::metadata(key).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                key.display()
            );
        }
    }

    #[test]
    fn a_damaged_authority_is_an_error_not_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        Pki::ensure(directory.path(), &[], &[]).unwrap();
        std::fs::write(directory.path().join("ca.crt"), "not a certificate").unwrap();
        let error = Pki::ensure(directory.path(), &[], &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("ca.crt"), "{error}");
    }
}
