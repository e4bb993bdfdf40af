//! Making keys and certificates, and deciding whether one that exists still serves.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::Credential;

/// What can go wrong with credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read the credential {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write the credential {path}: {source}: is there space, and may this user write there?", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path} is not a usable certificate or key: {reason}: remove the directory to get new ones", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate for {name}: {source}")]
    Issue {
        /// Its common name.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
}

/// A name under which a server is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectName {
    /// A DNS name.
    Dns(String),
    /// An IP address.
    Address(IpAddr),
}

impl FromStr for SubjectName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text
            .parse()
            .map_or_else(|_| Self::Dns(text.to_owned()), Self::Address))
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Client,
    Server,
    Both,
}

/// Whom a certificate is for.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) name: &'a str,
    pub(super) group: Option<&'a str>,
    pub(super) names: &'a [SubjectName],
    pub(super) usage: Usage,
}

/// The authority: its certificate and key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    key_identifier: Vec<u8>,
}

impl Authority {
    /// The one that is there, or a new one if there is none.
    pub(super) fn ensure(at: &Credential) -> Result<Self, Error> {
        if !at.certificate.exists() && !at.key.exists() {
            let key = generate("kubernetes")?;
            let mut params = params("kubernetes", None)?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![
                KeyUsagePurpose::KeyCertSign,
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::CrlSign,
            ];
            let certificate = params.self_signed(&key).map_err(|source| Error::Issue {
                name: "kubernetes".to_owned(),
                source,
            })?;
            write(&at.key, &key.serialize_pem(), 0o600)?;
            write(&at.certificate, &certificate.pem(), 0o644)?;
        }
        let damaged = |path: &Path, reason: String| Error::Damaged {
            path: path.to_owned(),
            reason,
        };
        let pem = read(&at.certificate)?;
        let key_identifier = with_certificate(&at.certificate, &pem, |certificate| {
            key_identifier(certificate, false)
        })?
        .ok_or_else(|| damaged(&at.certificate, "it has no key identifier".to_owned()))?;
        let key =
            KeyPair::from_pem(&read(&at.key)?).map_err(|e| damaged(&at.key, e.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .map_err(|e| damaged(&at.certificate, e.to_string()))?;
        Ok(Self {
            issuer,
            key_identifier,
        })
    }

    /// Issues a certificate unless the one that is there serves.
    pub(super) fn ensure_issued(
        &self,
        at: &Credential,
        subject: &Subject<'_>,
    ) -> Result<(), Error> {
        if at.certificate.exists() && at.key.exists() && self.serves(&at.certificate, subject)? {
            return Ok(());
        }
        let key = generate(subject.name)?;
        let failed = |source| Error::Issue {
            name: subject.name.to_owned(),
            source,
        };
        let mut params = params(subject.name, subject.group)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match subject.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ],
        };
        for name in subject.names {
            params.subject_alt_names.push(match name {
                SubjectName::Dns(name) => {
                    SanType::DnsName(name.clone().try_into().map_err(failed)?)
                }
                SubjectName::Address(address) => SanType::IpAddress(*address),
            });
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        write(&at.key, &key.serialize_pem(), 0o600)?;
        write(&at.certificate, &certificate.pem(), 0o644)
    }

    /// Whether the certificate is from this authority and has the names of the subject.
    fn serves(&self, path: &Path, subject: &Subject<'_>) -> Result<bool, Error> {
        let pem = read(path)?;
        with_certificate(path, &pem, |certificate| {
            let name = certificate
                .subject()
                .iter_common_name()
                .next()
                .and_then(|n| n.as_str().ok());
            let names: BTreeSet<SubjectName> = match certificate.subject_alternative_name() {
                Ok(Some(san)) => san
                    .value
                    .general_names
                    .iter()
                    .filter_map(subject_name)
                    .collect(),
                Ok(None) => BTreeSet::new(),
                Err(_) => return false,
            };
            key_identifier(certificate, true).is_some_and(|id| id == self.key_identifier)
                && name == Some(subject.name)
                && names == subject.names.iter().cloned().collect()
        })
    }
}

/// Makes a key, unless there is one.
pub(super) fn ensure_key(at: &Path, name: &str) -> Result<(), Error> {
    if at.exists() {
        return Ok(());
    }
    write(at, &generate(name)?.serialize_pem(), 0o600)
}

fn with_certificate<T>(
    path: &Path,
    pem: &str,
    look: impl FnOnce(&X509Certificate<'_>) -> T,
) -> Result<T, Error> {
    let damaged = |reason: String| Error::Damaged {
        path: path.to_owned(),
        reason,
    };
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| damaged(e.to_string()))?;
    let certificate = pem.parse_x509().map_err(|e| damaged(e.to_string()))?;
    Ok(look(&certificate))
}

/// The identifier of the key that signed a certificate (`authority`), or of its own key.
fn key_identifier(certificate: &X509Certificate<'_>, authority: bool) -> Option<Vec<u8>> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) if authority => {
                id.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            ParsedExtension::SubjectKeyIdentifier(id) if !authority => Some(id.0.to_vec()),
            _ => None,
        })
}

fn subject_name(name: &GeneralName<'_>) -> Option<SubjectName> {
    match name {
        GeneralName::DNSName(name) => Some(SubjectName::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|b| SubjectName::Address(b.into())),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|b| SubjectName::Address(b.into())),
            _ => None,
        },
        _ => None,
    }
}

fn params(name: &str, group: Option<&str>) -> Result<CertificateParams, Error> {
    let mut distinguished = DistinguishedName::new();
    if let Some(group) = group {
        distinguished.push(DnType::OrganizationName, group);
    }
    distinguished.push(DnType::CommonName, name);
    let mut params = CertificateParams::new(Vec::new()).map_err(|source| Error::Issue {
        name: name.to_owned(),
        source,
    })?;
    params.distinguished_name = distinguished;
    // A lab's authority is trusted by nothing else and goes with its lab, so its certificates need not expire; and a
    // machine whose clock is off can run one.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    Ok(params)
}

fn generate(name: &str) -> Result<KeyPair, Error> {
    KeyPair::generate().map_err(|source| Error::Issue {
        name: name.to_owned(),
        source,
    })
}

pub(super) fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
}

/// Writes beside and renames, so that a crash leaves the old file or the new one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}
