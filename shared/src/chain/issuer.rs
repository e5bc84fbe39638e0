//! The certificates that may be above a leaf: what was sent with it, and which of them a path could
//! go through.

use std::cmp::Reverse;

use tokio_rustls::rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::{ALL_VERIFICATION_ALGS, RawPublicKeyEntity};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use crate::der;
use crate::distinguished_name::canonical_name;

/// A certificate that was sent with the leaf: its DER, and what it says.
pub(crate) type Sent<'a> = (&'a CertificateDer<'a>, X509Certificate<'a>);

/// Parses certificates that may be above a leaf. A handshake of 64 KiB has no room for many more
/// than the limit.
pub(crate) fn parsed<'a>(sent: &'a [CertificateDer<'a>]) -> Vec<Sent<'a>> {
    sent.iter()
        .take(ISSUERS_JUDGED)
        .filter_map(|der| Some((der, X509Certificate::from_der(der).ok()?.1)))
        .collect()
}

/// The certificates that a path could go through, by name, from the leaf upwards.
///
/// A verifier tries certificates of one name in every order. Thirty that all name each other would
/// keep it busy for seconds, so there is a limit to each name and to all of them. Those of one name
/// whose key is the one that is looked for come first.
pub(crate) fn candidates<'a>(leaf: &'a X509Certificate<'a>, known: &'a [Sent<'a>]) -> Vec<CertificateDer<'a>> {
    let mut found = Vec::<CertificateDer<'a>>::new();
    let mut wanted = vec![leaf];
    let mut names = Vec::<Vec<u8>>::new();
    let mut next = 0;
    let subjects: Vec<_> = known
        .iter()
        .map(|(_, issuer)| canonical_name(issuer.subject().as_raw()))
        .collect();

    // Each certificate that is found adds the name of its own issuer to those to look for.
    while let Some(&child) = wanted.get(next) {
        next += 1;
        let name = canonical_name(child.issuer().as_raw());
        if names.contains(&name) {
            continue;
        }
        let mut namesakes: Vec<_> = known
            .iter()
            .zip(&subjects)
            .filter(|((der, _), subject)| **subject == name && !found.iter().any(|known| known == *der))
            .map(|(issuer, _)| issuer)
            .collect();
        if namesakes.len() > NAMESAKES {
            namesakes.sort_by_cached_key(|(_, issuer)| {
                (
                    !has_signed(issuer.public_key().raw, child),
                    KeyMatch::of(child, issuer),
                    Reverse(validity(issuer).1),
                )
            });
        }
        for (der, issuer) in namesakes.into_iter().take(NAMESAKES) {
            if found.len() == CANDIDATES || found.iter().any(|known| known == *der) {
                continue;
            }
            found.push(CertificateDer::from(der.as_ref()));
            wanted.push(issuer);
        }
        names.push(name);
    }

    found
}

/// Whether a key, given as a SubjectPublicKeyInfo, has made the signature of a certificate.
pub(crate) fn has_signed(key: &[u8], certificate: &X509Certificate<'_>) -> bool {
    is_signature_of(
        key,
        certificate.signature_algorithm.algorithm.as_bytes(),
        certificate.tbs_certificate.as_ref(),
        &certificate.signature_value.data,
    )
}

/// Whether a key has made a signature. `algorithm` are the contents of the algorithm's OID.
pub(crate) fn is_signature_of(key: &[u8], algorithm: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = SubjectPublicKeyInfoDer::from(key);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
        return false;
    };
    algorithms(algorithm).any(|known| key.verify_signature(known, message, signature).is_ok())
}

/// The verifier's algorithms of an OID; none, if it does not verify such signatures. `oid` are its
/// contents.
pub(crate) fn algorithms(oid: &[u8]) -> impl Iterator<Item = &'static dyn SignatureVerificationAlgorithm> {
    ALL_VERIFICATION_ALGS.iter().copied().filter(move |known| {
        let id = known.signature_alg_id();
        der::elements(id.as_ref())
            .next()
            .is_some_and(|element| element.contents == oid)
    })
}

/// What key identifiers say about whether a certificate is that of an issuer, most likely first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyMatch {
    Same,
    NotSaid,
    Other,
}

impl KeyMatch {
    pub(super) fn of(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Self {
        match (authority_key(certificate), subject_key(issuer)) {
            (Some(wanted), Some(found)) if wanted == found => Self::Same,
            (Some(_), Some(_)) => Self::Other,
            _ => Self::NotSaid,
        }
    }
}

fn authority_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(identifier) => Some(identifier.key_identifier.as_ref()?.0),
            _ => None,
        })
}

fn subject_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
            _ => None,
        })
}

/// The first and the last second of a certificate's validity, as Unix times.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    (validity.not_before.timestamp(), validity.not_after.timestamp())
}

/// Whether a certificate is valid at a time, by its own dates.
pub(super) fn is_valid_at(certificate: &X509Certificate<'_>, time: i64) -> bool {
    let (from, to) = validity(certificate);
    (from..=to).contains(&time)
}

/// The issuers in a row that webpki and Firefox follow.
pub(super) const DEPTH: usize = 6;
pub(super) const CANDIDATES: usize = 12;
pub(super) const NAMESAKES: usize = 4;
const ISSUERS_JUDGED: usize = 200;
