//! Certificates rewritten for the verifier, so that it judges them as lenient clients do.
//!
//! webpki refuses critical extensions that other clients process or ignore, compares names byte by
//! byte, and knows name constraints of two types only. It is given certificates without those
//! extensions and with names in one form. Signatures are still verified over what was signed. What
//! is left out here is for [`super::constraints`], [`super::policy`] and [`super::clients`] to
//! judge.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::signature::{
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, RsaParameters,
    UnparsedPublicKey,
};
use tokio_rustls::rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor, alg_id,
};
use webpki::ALL_VERIFICATION_ALGS;
use x509_parser::certificate::X509Certificate;

use crate::der::{self, Element};
use crate::distinguished_name::{canonical, canonical_name};

/// A leaf and its possible issuers, rewritten. [`Roots::rewritten`] are the roots for them.
///
/// [`Roots::rewritten`]: super::roots::Roots::rewritten
pub(super) struct Rewritten {
    pub(super) leaf: CertificateDer<'static>,
    /// The leaf once more with each other part of its names, if they are more than the verifier
    /// reads.
    pub(super) more_leaves: Vec<CertificateDer<'static>>,
    /// In the order of the originals.
    pub(super) candidates: Vec<CertificateDer<'static>>,
    /// What verifies their signatures.
    pub(super) algorithms: Vec<OverOriginals>,
}

/// A signature algorithm that verifies a rewritten certificate by its original.
#[derive(Debug)]
pub(super) struct OverOriginals {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    originals: Arc<Originals>,
}

/// What was signed, by what it was rewritten to.
type Originals = HashMap<Vec<u8>, Vec<u8>>;

impl Rewritten {
    pub(super) fn new(leaf: &CertificateDer<'_>, candidates: &[CertificateDer<'_>]) -> Self {
        let mut originals = Originals::new();
        let mut leaves = parts(leaf, &mut originals);
        let candidates = candidates
            .iter()
            .map(|candidate| rewritten(candidate, Place::Above, &mut originals))
            .collect();

        let originals = Arc::new(originals);
        Self {
            more_leaves: leaves.split_off(1),
            leaf: leaves.swap_remove(0),
            candidates,
            algorithms: ALL_VERIFICATION_ALGS
                .iter()
                .map(|algorithm| OverOriginals {
                    algorithm: *algorithm,
                    originals: originals.clone(),
                })
                .collect(),
        }
    }
}

impl SignatureVerificationAlgorithm for OverOriginals {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let original = self.originals.get(message).map_or(message, Vec::as_slice);
        (self.algorithm.verify_signature(key, original, signature))
            .or_else(|error| verify_by_short_key(self.algorithm, key, original, signature).ok_or(error))
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

/// Verifies a signature by an RSA key of 1,024 bits or more: webpki wants 2,048. Clients differ
/// about such keys, and the chain has a finding about each.
fn verify_by_short_key(
    algorithm: &dyn SignatureVerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Option<()> {
    let parameters: &'static RsaParameters = match algorithm.signature_alg_id() {
        id if id == alg_id::RSA_PKCS1_SHA256 => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        id if id == alg_id::RSA_PKCS1_SHA512 => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        _ => return None,
    };
    UnparsedPublicKey::new(parameters, key).verify(message, signature).ok()
}

/// A leaf alone, rewritten: once for each part of its names.
pub(super) fn leaf(leaf: &CertificateDer<'_>) -> Vec<CertificateDer<'static>> {
    parts(leaf, &mut Originals::new())
}

/// Where a certificate stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is the leaf, with one part of its names.
    Leaf { part: usize },
    /// It is an issuer.
    Above,
}

/// A leaf, rewritten. webpki reads certificates of at most 64 KiB, and others read longer ones:
/// what makes them long is names.
fn parts(leaf: &CertificateDer<'_>, originals: &mut Originals) -> Vec<CertificateDer<'static>> {
    (0..=leaf.len() / PART)
        .map(|part| rewritten(leaf, Place::Leaf { part }, originals))
        .collect()
}

/// A certificate, rewritten; as it is if it is not DER.
fn rewritten(certificate: &[u8], place: Place, originals: &mut Originals) -> CertificateDer<'static> {
    let Some((tbs, rest)) = signed_part(certificate) else {
        return CertificateDer::from(certificate.to_vec());
    };
    let new = signed_part_rewritten(tbs, place);
    let whole = der::encode(SEQUENCE, &[&new, rest].concat());
    originals.insert(new, tbs.der.to_vec());
    CertificateDer::from(whole)
}

/// The part of a certificate that is signed (RFC 5280, 4.1.1), and what follows it.
fn signed_part(certificate: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let whole = der::only(certificate)?;
    let tbs = der::elements(whole.contents).next()?;
    Some((tbs, whole.contents.get(tbs.der.len()..)?))
}

fn signed_part_rewritten(tbs: Element<'_>, place: Place) -> Vec<u8> {
    let mut new = Vec::new();
    // A leaf of version 1 is as good as one of version 3 without extensions; an issuer is not.
    let has_version = der::elements(tbs.contents)
        .next()
        .is_some_and(|field| field.tag == VERSION);
    if place != Place::Above && !has_version {
        new.extend(der::encode(VERSION, &[2, 1, 2]));
    }

    let mut sequences = 0;
    for field in der::elements(tbs.contents) {
        if field.tag == SEQUENCE {
            sequences += 1;
        }
        match (field.tag, sequences) {
            // The signature's algorithm comes first, the validity between the names, then the key.
            (SEQUENCE, 2 | 4) => new.extend(canonical_name(field.der)),
            (SEQUENCE, 3) => new.extend(validity(field)),
            (EXTENSIONS, _) => new.extend(extensions(field, place)),
            _ => new.extend_from_slice(field.der),
        }
    }

    der::encode(tbs.tag, &new)
}

/// webpki counts from 1970; a certificate that began before is as good as one that began then.
fn validity(validity: Element<'_>) -> Vec<u8> {
    let mut times = der::elements(validity.contents);
    let (Some(from), Some(to)) = (times.next(), times.next()) else {
        return validity.der.to_vec();
    };
    let is_before_1970 = match from.tag {
        UTC_TIME => (&b"50"[..]..&b"70"[..]).contains(&from.contents.get(..2).unwrap_or_default()),
        _ => from.contents < &b"1970"[..],
    };
    if is_before_1970 {
        let epoch = der::encode(UTC_TIME, b"700101000000Z");
        der::encode(SEQUENCE, &[&epoch, to.der].concat())
    } else {
        validity.der.to_vec()
    }
}

fn extensions(field: Element<'_>, place: Place) -> Vec<u8> {
    let Some(list) = der::only(field.contents) else {
        return field.der.to_vec();
    };
    let kept = der::elements(list.contents).filter_map(|extension| self::extension(extension, place));
    let kept = kept.collect::<Vec<_>>().concat();
    if kept.is_empty() {
        return Vec::new();
    }
    der::encode(field.tag, &der::encode(list.tag, &kept))
}

/// An extension as the verifier shall see it, if at all.
fn extension(extension: Element<'_>, place: Place) -> Option<Vec<u8>> {
    let parts: Vec<_> = der::elements(extension.contents).collect();
    let (Some(id), Some(value)) = (parts.first(), parts.last()) else {
        return Some(extension.der.to_vec());
    };

    match id.contents {
        id if PROCESSED_ELSEWHERE.contains(&id) => None,
        BASIC_CONSTRAINTS if place != Place::Above => None,
        ALTERNATIVE_NAMES => match place {
            Place::Leaf { part } => Some(der::encode(extension.tag, &with_part(&parts, value, part)?)),
            Place::Above => Some(extension.der.to_vec()),
        },
        EXTENDED_KEY_USAGE if allows_any_use(value.contents) => None,
        NAME_CONSTRAINTS => {
            let constraints = der::only(value.contents)?;
            let value = der::encode(
                value.tag,
                &der::encode(SEQUENCE, &known_subtrees(constraints.contents)?),
            );
            Some(der::encode(extension.tag, &[before(&parts), value].concat()))
        }
        _ => Some(extension.der.to_vec()),
    }
}

/// Whether a certificate has a critical extension that no client processes or ignores.
pub(super) fn has_unknown_critical_extension(certificate: &X509Certificate<'_>) -> bool {
    let mut critical = certificate.extensions().iter().filter(|extension| extension.critical);
    critical.any(|extension| {
        let id = extension.oid.as_bytes();
        !PROCESSED_BY_ALL.contains(&id) && !PROCESSED_ELSEWHERE.contains(&id)
    })
}

/// Whether a certificate has an extension twice that every client reads.
pub(super) fn has_known_extension_twice(certificate: &X509Certificate<'_>) -> bool {
    let all: Vec<_> = certificate
        .extensions()
        .iter()
        .map(|extension| extension.oid.as_bytes())
        .collect();
    let mut known = PROCESSED_BY_ALL.iter().chain([&SUBJECT_KEY]);
    known.any(|id| all.iter().filter(|one| one == &id).count() > 1)
}

/// What stands before the value of an extension.
fn before(parts: &[Element<'_>]) -> Vec<u8> {
    let before = parts.split_last().map_or(&[][..], |(_, before)| before);
    before.iter().flat_map(|part| part.der).copied().collect()
}

/// The contents of the extension of alternative names with one part of the names.
fn with_part(parts: &[Element<'_>], value: &Element<'_>, part: usize) -> Option<Vec<u8>> {
    let names = der::only(value.contents)?;
    let mut length = 0;
    let kept: Vec<u8> = der::elements(names.contents)
        .filter(|name| {
            length += name.der.len();
            (length - name.der.len()) / PART == part
        })
        .flat_map(|name| name.der)
        .copied()
        .collect();
    let value = der::encode(value.tag, &der::encode(names.tag, &kept));
    (part == 0 || !kept.is_empty()).then(|| [before(parts), value].concat())
}

/// Whether an extended key usage names anyExtendedKeyUsage (RFC 5280, 4.2.1.12).
fn allows_any_use(value: &[u8]) -> bool {
    der::only(value).is_some_and(|uses| der::elements(uses.contents).any(|one| one.contents == ANY_USE))
}

/// The subtrees of name constraints without those that [`super::constraints`] judges; none if
/// nothing is left. Subtrees of forms that nobody judges stay, and make the verifier refuse the
/// names of that form.
fn known_subtrees(constraints: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    for subtrees in der::elements(constraints) {
        // Where every DNS name is permitted, the verifier would still want it to be one.
        let are_all_permitted = subtrees.tag == PERMITTED
            && der::elements(subtrees.contents).any(|subtree| subtree.contents == [DNS_NAME, 0]);
        let known: Vec<u8> = der::elements(subtrees.contents)
            .filter(|subtree| subtree.contents.first().is_none_or(|form| !JUDGED_FORMS.contains(form)))
            .filter(|subtree| !are_all_permitted || subtree.contents.first() != Some(&DNS_NAME))
            .flat_map(|subtree| subtree.der)
            .copied()
            .collect();
        if !known.is_empty() {
            kept.extend(der::encode(subtrees.tag, &known));
        }
    }
    (!kept.is_empty()).then_some(kept)
}

/// A root, rewritten.
pub(super) fn anchor(anchor: &TrustAnchor<'_>) -> TrustAnchor<'static> {
    let constraints = anchor.name_constraints.as_ref();
    TrustAnchor {
        subject: canonical(&anchor.subject).into(),
        subject_public_key_info: anchor.subject_public_key_info.as_ref().to_vec().into(),
        name_constraints: constraints.and_then(|constraints| known_subtrees(constraints).map(Into::into)),
    }
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// Half of what the verifier reads.
const PART: usize = 32_768;
const SUBJECT_KEY: &[u8] = &[0x55, 0x1d, 14];
const DNS_NAME: u8 = 0x82;
const PERMITTED: u8 = 0xa0;
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const ANY_USE: &[u8] = &[0x55, 0x1d, 37, 0];
/// rfc822Name, directoryName, uniformResourceIdentifier (RFC 5280, 4.2.1.6).
const JUDGED_FORMS: [u8; 3] = [0x81, 0xa4, 0x86];
/// Key usage, names, basic constraints, name constraints, distribution points, extended key usage.
const PROCESSED_BY_ALL: [&[u8]; 6] = [
    &[0x55, 0x1d, 15],
    ALTERNATIVE_NAMES,
    BASIC_CONSTRAINTS,
    NAME_CONSTRAINTS,
    &[0x55, 0x1d, 31],
    EXTENDED_KEY_USAGE,
];
/// Extensions that at least one of the usual clients processes or ignores although they are
/// critical; [`super::clients`] says which do not.
const PROCESSED_ELSEWHERE: [&[u8]; 11] = [
    // Issuer alternative name.
    &[0x55, 0x1d, 18],
    // Subject and authority key identifier.
    SUBJECT_KEY,
    &[0x55, 0x1d, 35],
    // Certificate policies, policy mappings, policy constraints, inhibitAnyPolicy.
    &[0x55, 0x1d, 32],
    &[0x55, 0x1d, 33],
    &[0x55, 0x1d, 36],
    &[0x55, 0x1d, 54],
    // Authority information access, TLS feature, OCSP no check.
    &[0x2b, 6, 1, 5, 5, 7, 1, 1],
    &[0x2b, 6, 1, 5, 5, 7, 1, 24],
    &[0x2b, 6, 1, 5, 5, 7, 48, 1, 5],
    // Netscape's certificate type.
    &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 1, 1],
];
