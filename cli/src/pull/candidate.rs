//! A downloaded version: verified before anything of it touches the disk.

use std::time::Duration;

use neverlapse::bucket::document;
use neverlapse::bucket::version::{CERT, CHAIN, Current, FILES, FULLCHAIN, FileHash, MANIFEST, Manifest, PRIVKEY};
use neverlapse::certificate::{Role, describe};
use neverlapse::endpoint::Host;
use neverlapse::text::sha256;
use neverlapse::timestamp::Timestamp;
use thiserror::Error;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::layout::Files;

/// What was fetched of a version.
pub(crate) struct Candidate<'a> {
    pub(crate) current: &'a Current,
    pub(crate) manifest: &'a [u8],
    /// All of [`FILES`].
    pub(crate) files: &'a Files,
}

/// What it must satisfy.
pub(crate) struct Expected<'a> {
    pub(crate) name: &'a str,
    /// What it must be valid for.
    pub(crate) identifiers: &'a [String],
    pub(crate) allow_staging: bool,
    pub(crate) now: Timestamp,
}

/// Why a version is not installed.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Refused {
    #[error("{file} is not what the client understands: {reason}")]
    Unreadable { file: &'static str, reason: String },
    #[error("{file} is not the one that was published ({expected} bytes with SHA-256 {sha256}, not {bytes} bytes)")]
    Damaged {
        file: &'static str,
        expected: u64,
        sha256: String,
        bytes: usize,
    },
    #[error("manifest.json is not the one that current.json vouches for")]
    OtherManifest,
    #[error("current.json and manifest.json disagree")]
    Disagree,
    #[error("it is about {found:?}, not {expected:?}")]
    OtherName { found: String, expected: String },
    #[error("fullchain.pem is not cert.pem and chain.pem")]
    Swapped,
    #[error("cert.pem is not the certificate that current.json describes: its {what} differs")]
    OtherCertificate { what: &'static str },
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    #[error("it is not valid for {missing}")]
    NotFor { missing: String },
    #[error("it is not valid before {0}")]
    NotYet(Timestamp),
    #[error("it expired on {0}")]
    Expired(Timestamp),
    #[error("chain.pem does not lead from the certificate to its issuer: {0}")]
    BrokenChain(String),
    #[error("it comes from a staging issuer that clients do not trust (allow_staging = true installs it)")]
    Staging,
}

/// Checks everything that can be known without asking anybody.
pub(crate) fn verify(candidate: &Candidate<'_>, expected: &Expected<'_>) -> Result<(), Refused> {
    let facts = &candidate.current.facts;
    if facts.name != expected.name {
        return Err(Refused::OtherName {
            found: facts.name.clone(),
            expected: expected.name.to_owned(),
        });
    }

    // What arrived is what was published.
    whole(candidate)?;
    let chain = chain(candidate)?;
    let Some((leaf, issuers)) = chain.split_first() else {
        return Err(unreadable(CERT, "it holds no certificate"));
    };
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| unreadable(CERT, error))?;
    described(candidate.current, leaf, &parsed, issuers)?;
    key_of(leaf, &candidate.files[PRIVKEY])?;

    // And that works for clients, here and now.
    valid_for(leaf, expected.identifiers)?;
    if expected.now < facts.not_before {
        return Err(Refused::NotYet(facts.not_before));
    }
    if expected.now > facts.not_after {
        return Err(Refused::Expired(facts.not_after));
    }
    linked(leaf, issuers, expected.now)?;

    let is_staging = facts.issuer.staging || parsed.issuer().to_string().contains("(STAGING)");
    if is_staging && !expected.allow_staging {
        return Err(Refused::Staging);
    }
    Ok(())
}

/// Checks that the files are those of the manifest, and the manifest is that of `current.json`.
fn whole(candidate: &Candidate<'_>) -> Result<(), Refused> {
    if sha256(candidate.manifest) != candidate.current.manifest_sha256 {
        return Err(Refused::OtherManifest);
    }

    let manifest: Manifest = document::read(candidate.manifest).map_err(|error| unreadable(MANIFEST, error))?;
    if manifest.facts != candidate.current.facts {
        return Err(Refused::Disagree);
    }

    for file in FILES {
        let expected = manifest
            .files
            .get(file)
            .ok_or_else(|| unreadable(MANIFEST, format!("{file} is not in it")))?;
        let content = candidate.files.get(file).map(Vec::as_slice).unwrap_or_default();
        if FileHash::of(content) != *expected {
            return Err(Refused::Damaged {
                file,
                expected: expected.bytes,
                sha256: expected.sha256.clone(),
                bytes: content.len(),
            });
        }
    }
    Ok(())
}

/// Leaf and issuers, the same in all three files.
fn chain(candidate: &Candidate<'_>) -> Result<Vec<CertificateDer<'static>>, Refused> {
    let mut separate = certificates(candidate, CERT)?;
    let chain = certificates(candidate, CHAIN)?;
    let fullchain = certificates(candidate, FULLCHAIN)?;

    if separate.len() != 1 {
        return Err(unreadable(
            CERT,
            format!("it holds {} certificates (expected 1)", separate.len()),
        ));
    }
    separate.extend(chain);
    if separate == fullchain {
        Ok(fullchain)
    } else {
        Err(Refused::Swapped)
    }
}

fn certificates(candidate: &Candidate<'_>, file: &'static str) -> Result<Vec<CertificateDer<'static>>, Refused> {
    CertificateDer::pem_slice_iter(&candidate.files[file])
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(file, error))
}

/// Checks that the leaf is the one that `current.json` describes.
fn described(
    current: &Current,
    der: &CertificateDer<'_>,
    leaf: &X509Certificate<'_>,
    issuers: &[CertificateDer<'_>],
) -> Result<(), Refused> {
    let facts = &current.facts;
    let found = describe(leaf, der, Role::Leaf);

    // A CA may add names; none that was ordered may be missing.
    let names: Vec<_> = found.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let has_all_names = facts.identifiers.iter().all(|identifier| names.contains(identifier));
    // Leading zeros of a serial mean nothing.
    let has_serial = found.serial.trim_start_matches('0') == facts.serial.trim_start_matches('0');
    // A version ends with the first certificate on its path, which may be an issuer.
    let is_its_end = facts.not_after == found.not_after
        || facts.not_after < found.not_after && issuers.iter().any(|issuer| ends_at(issuer, facts.not_after));

    for (what, is_same) in [
        ("fingerprint", found.fingerprint == facts.fingerprint),
        ("serial", has_serial),
        ("not_before", found.not_before == facts.not_before),
        ("not_after", is_its_end),
        ("identifiers", has_all_names),
    ] {
        if !is_same {
            return Err(Refused::OtherCertificate { what });
        }
    }
    Ok(())
}

fn ends_at(der: &CertificateDer<'_>, not_after: Timestamp) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, certificate)| describe(&certificate, der, Role::Path).not_after == not_after)
}

/// Checks that a private key belongs to the leaf.
pub(crate) fn key_of(leaf: &CertificateDer<'static>, pem: &[u8]) -> Result<(), Refused> {
    let key = PrivateKeyDer::from_pem_slice(pem)
        .ok()
        .and_then(|key| any_supported_type(&key).ok())
        // The parser's own words could quote the key.
        .ok_or_else(|| unreadable(PRIVKEY, "it holds no private key that the client knows"))?;

    CertifiedKey::new(vec![leaf.clone()], key)
        .keys_match()
        .map_err(|_| Refused::OtherKey)
}

/// Checks that the leaf covers every name that is wanted of it here.
fn valid_for(leaf: &CertificateDer<'_>, identifiers: &[String]) -> Result<(), Refused> {
    let end_entity = EndEntityCert::try_from(leaf).map_err(|error| unreadable(CERT, error))?;

    for identifier in identifiers {
        // A wildcard is checked by a name that only it matches.
        let host = identifier.replacen('*', "neverlapse-any-name", 1).parse::<Host>();
        let name = host.ok().and_then(|host| host.server_name());
        let is_covered = name.is_some_and(|name| end_entity.verify_is_valid_for_subject_name(&name).is_ok());
        if !is_covered {
            let missing = identifier.clone();
            return Err(Refused::NotFor { missing });
        }
    }
    Ok(())
}

/// Checks every signature up to the last issuer in the chain. Whether clients trust that one is not
/// for this host to decide.
fn linked(leaf: &CertificateDer<'_>, issuers: &[CertificateDer<'_>], now: Timestamp) -> Result<(), Refused> {
    let Some(last) = issuers.last() else {
        return Ok(());
    };

    let anchor = anchor_from_trusted_cert(last).map_err(broken)?;
    let end_entity = EndEntityCert::try_from(leaf).map_err(broken)?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.unix().try_into().unwrap_or(0)));
    let usage = KeyUsage::server_auth();
    end_entity
        .verify_for_usage(ALL_VERIFICATION_ALGS, &[anchor], issuers, time, usage, None, None)
        .map(drop)
        .map_err(broken)
}

fn broken(error: webpki::Error) -> Refused {
    Refused::BrokenChain(error.to_string())
}

fn unreadable(file: &'static str, reason: impl ToString) -> Refused {
    Refused::Unreadable {
        file,
        reason: reason.to_string(),
    }
}
