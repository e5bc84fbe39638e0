//! A revocation list as CAs publish it (RFC 5280, 5), read as far as one certificate needs it.
//!
//! webpki reads lists of the strict profile only: version 2, with a distribution point wherever
//! there is a scope. Private CAs also publish others, and every client that reads lists reads
//! those.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use thiserror::Error;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::chain::issuer::is_signature_of;
use crate::der::{self, Element};
use crate::timestamp::Timestamp;

/// A list in DER, which takes half the space of a parsed one: looking up a serial does not need all
/// of it parsed.
#[derive(Debug)]
pub(super) struct Document {
    der: Box<[u8]>,
    /// Whether a key, given as a SubjectPublicKeyInfo, has signed it. Many certificates may name
    /// one list, and all of its bytes are signed.
    signers: Mutex<HashMap<Vec<u8>, bool>>,
}

/// A list, taken apart.
pub(super) struct List<'a> {
    /// What is signed.
    tbs: &'a [u8],
    /// The signature's algorithm, as the contents of its OID.
    algorithm: &'a [u8],
    signature: &'a [u8],
    /// The Name of its issuer, as DER.
    pub(super) issuer: &'a [u8],
    pub(super) next_update: Option<Timestamp>,
    entries: &'a [u8],
    scope: Scope<'a>,
}

/// Which certificates a list is about (RFC 5280, 5.2.5).
#[derive(Default)]
struct Scope<'a> {
    /// The GeneralNames of its distribution point.
    points: Option<&'a [u8]>,
    /// Which kind of certificates, if it is one kind only.
    only: Option<Holders>,
    is_partial: bool,
    is_indirect: bool,
}

/// Whose certificates are on a list of one kind of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holders {
    Users,
    CertificationAuthorities,
    Attributes,
}

/// A certificate that is looked for.
pub(super) struct Wanted<'a> {
    pub(super) serial: &'a [u8],
    pub(super) is_ca: bool,
    /// The names of its distribution points, each as DER.
    pub(super) points: &'a [&'a [u8]],
}

/// An entry for a certificate that is revoked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) revoked_at: Option<Timestamp>,
    /// RFC 5280, 5.3.1.
    pub(super) reason: Option<u8>,
}

/// Why a list says nothing about a certificate.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum ListProblem {
    #[error("not a revocation list in DER or PEM")]
    NotAList,
    #[error("the list is not for this certificate")]
    NotForThis,
    #[error("the list is out of date")]
    OutOfDate,
    #[error("the list's signature is wrong")]
    WrongSignature,
    #[error("the issuer may not sign lists")]
    MayNotSign,
    #[error("a delta list, which says only what changed")]
    Delta,
    #[error("an indirect list, which another CA signs")]
    Indirect,
    #[error("the list is for some reasons of revocation only")]
    SomeReasons,
    #[error("the list has a critical extension that is unknown")]
    UnknownExtension,
    #[error("the certificate's issuer is not known")]
    NoIssuer,
}

impl Document {
    /// `der` may be anything; [`Document::list`] says whether it is a list.
    pub(super) fn new(der: impl Into<Box<[u8]>>) -> Self {
        Self {
            der: der.into(),
            signers: Mutex::default(),
        }
    }

    pub(super) fn list(&self) -> Result<List<'_>, ListProblem> {
        List::parse(&self.der)
    }

    /// Whether a key, given as a SubjectPublicKeyInfo, has signed the list.
    pub(super) fn is_signed_by(&self, key: &[u8]) -> bool {
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = signers.get(key) {
            return *known;
        }
        let is_signed = self
            .list()
            .is_ok_and(|list| is_signature_of(key, list.algorithm, list.tbs, list.signature));
        signers.insert(key.to_vec(), is_signed);
        is_signed
    }
}

impl<'a> List<'a> {
    /// Reads a list in DER.
    fn parse(list: &'a [u8]) -> Result<Self, ListProblem> {
        let whole = der::only(list)
            .filter(|list| list.tag == SEQUENCE)
            .ok_or(ListProblem::NotAList)?;
        let [tbs, algorithm, signature] = exactly(whole.contents).ok_or(ListProblem::NotAList)?;
        // A signature has no unused bits.
        let Some((0, bits)) = signature.contents.split_first() else {
            return Err(ListProblem::NotAList);
        };
        if signature.tag != BIT_STRING {
            return Err(ListProblem::NotAList);
        }
        let fields: Vec<_> = der::elements(tbs.contents).collect();
        if fields.iter().map(|field| field.der.len()).sum::<usize>() != tbs.contents.len() {
            return Err(ListProblem::NotAList);
        }

        let mut fields = fields.into_iter().peekable();
        fields.next_if(|field| field.tag == INTEGER);
        let signed_algorithm = fields.next().ok_or(ListProblem::NotAList)?;
        let issuer = fields.next().ok_or(ListProblem::NotAList)?;
        if signed_algorithm.der != algorithm.der || issuer.tag != SEQUENCE {
            return Err(ListProblem::NotAList);
        }
        fields.next().and_then(time).ok_or(ListProblem::NotAList)?;
        let next_update = fields.next_if(|field| time(*field).is_some()).and_then(time);
        let entries = fields.next_if(|field| field.tag == SEQUENCE);
        let extensions = fields.next_if(|field| field.tag == EXTENSIONS);
        if fields.next().is_some() {
            return Err(ListProblem::NotAList);
        }

        Ok(Self {
            tbs: tbs.der,
            algorithm: der::elements(algorithm.contents)
                .next()
                .ok_or(ListProblem::NotAList)?
                .contents,
            signature: bits,
            issuer: issuer.der,
            next_update,
            entries: entries.map_or(&[], |entries| entries.contents),
            scope: extensions.map_or_else(|| Ok(Scope::default()), scope)?,
        })
    }

    /// The entry of a certificate of this list's issuer, if it is revoked.
    pub(super) fn entry(&self, wanted: &Wanted<'_>, now: Timestamp) -> Result<Option<Entry>, ListProblem> {
        if self.scope.is_indirect {
            return Err(ListProblem::Indirect);
        }
        if !self.scope.has(wanted) {
            return Err(ListProblem::NotForThis);
        }

        // What has once been on a signed list is proof, however old the list is, and whatever it
        // leaves out.
        let entry = der::elements(self.entries).find_map(|entry| revoked(entry, wanted.serial));
        if entry.is_some() {
            return Ok(entry);
        }
        if self.next_update.is_some_and(|next_update| now >= next_update) {
            return Err(ListProblem::OutOfDate);
        }
        if self.scope.is_partial {
            return Err(ListProblem::SomeReasons);
        }
        Ok(None)
    }
}

impl Scope<'_> {
    /// Whether a list with this scope is about a certificate.
    fn has(&self, wanted: &Wanted<'_>) -> bool {
        let is_of_kind = match self.only {
            None => true,
            Some(Holders::Users) => !wanted.is_ca,
            Some(Holders::CertificationAuthorities) => wanted.is_ca,
            Some(Holders::Attributes) => false,
        };
        let is_at_point = self
            .points
            .is_none_or(|names| der::elements(names).any(|name| wanted.points.contains(&name.der)));
        is_of_kind && is_at_point
    }
}

/// The names of a certificate's distribution points, as DER. `extension` is the value of the
/// extension (RFC 5280, 4.2.1.13).
pub(super) fn point_names(extension: &[u8]) -> Vec<&[u8]> {
    der::elements(extension)
        .flat_map(|points| der::elements(points.contents))
        .flat_map(|point| der::elements(point.contents))
        .filter(|part| part.tag == POINT)
        .flat_map(|point| der::elements(point.contents))
        .filter(|name| name.tag == FULL_NAME)
        .flat_map(|names| der::elements(names.contents))
        .map(|name| name.der)
        .collect()
}

/// An entry, if it is the one of a serial and says that the certificate is revoked.
fn revoked(entry: Element<'_>, serial: &[u8]) -> Option<Entry> {
    let mut fields = der::elements(entry.contents);
    if fields.next()?.contents != serial {
        return None;
    }
    let revoked_at = fields.next().and_then(time);
    let mut reason = None;
    for (id, _, value) in fields.flat_map(extensions) {
        match id {
            REASON => reason = der::only(value).and_then(|reason| reason.contents.last().copied()),
            // The certificate is another CA's.
            CERTIFICATE_ISSUER => return None,
            _ => {}
        }
    }
    (reason != Some(REMOVE_FROM_CRL)).then_some(Entry { revoked_at, reason })
}

fn scope(field: Element<'_>) -> Result<Scope<'_>, ListProblem> {
    let list = der::only(field.contents).ok_or(ListProblem::NotAList)?;
    let mut scope = Scope::default();

    for (id, is_critical, value) in extensions(list) {
        match id {
            DELTA => return Err(ListProblem::Delta),
            ISSUING_POINT => {
                let parts = der::only(value).ok_or(ListProblem::NotAList)?;
                for part in der::elements(parts.contents) {
                    let is_true = part.contents.first().is_some_and(|flag| *flag != 0);
                    match part.tag {
                        POINT => {
                            let names = der::only(part.contents).filter(|names| names.tag == FULL_NAME);
                            scope.points = Some(names.map_or(&[][..], |names| names.contents));
                        }
                        0x81 if is_true => scope.only = Some(Holders::Users),
                        0x82 if is_true => scope.only = Some(Holders::CertificationAuthorities),
                        0x85 if is_true => scope.only = Some(Holders::Attributes),
                        0x81 | 0x82 | 0x85 => {}
                        0x83 => scope.is_partial = true,
                        0x84 => scope.is_indirect = is_true,
                        _ => return Err(ListProblem::NotAList),
                    }
                }
            }
            // Its number, the issuer's key and other names: they do not change what it says.
            NUMBER | AUTHORITY_KEY | ISSUER_NAMES | FRESHEST => {}
            _ if is_critical => return Err(ListProblem::UnknownExtension),
            _ => {}
        }
    }
    Ok(scope)
}

/// Each extension of a list of them: its OID, whether it is critical, its value.
fn extensions<'a>(list: Element<'a>) -> impl Iterator<Item = (&'a [u8], bool, &'a [u8])> {
    der::elements(list.contents).filter_map(|extension| {
        let parts: Vec<_> = der::elements(extension.contents).collect();
        let is_critical = parts
            .get(1)
            .is_some_and(|part| part.tag == BOOLEAN && part.contents != [0]);
        Some((parts.first()?.contents, is_critical, parts.last()?.contents))
    })
}

pub(super) fn time(field: Element<'_>) -> Option<Timestamp> {
    if !matches!(field.tag, UTC_TIME | GENERALIZED_TIME) {
        return None;
    }
    let (_, time) = ASN1Time::from_der(field.der).ok()?;
    Some(Timestamp::from_unix(time.timestamp()))
}

fn exactly<const N: usize>(contents: &[u8]) -> Option<[Element<'_>; N]> {
    let elements: Vec<_> = der::elements(contents).collect();
    let length: usize = elements.iter().map(|element| element.der.len()).sum();
    if length != contents.len() {
        return None;
    }
    elements.try_into().ok()
}

const BOOLEAN: u8 = 1;
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const EXTENSIONS: u8 = 0xa0;
const POINT: u8 = 0xa0;
const FULL_NAME: u8 = 0xa0;
const ISSUER_NAMES: &[u8] = &[0x55, 0x1d, 18];
const NUMBER: &[u8] = &[0x55, 0x1d, 20];
const REASON: &[u8] = &[0x55, 0x1d, 21];
const DELTA: &[u8] = &[0x55, 0x1d, 27];
const ISSUING_POINT: &[u8] = &[0x55, 0x1d, 28];
const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 29];
const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 35];
const FRESHEST: &[u8] = &[0x55, 0x1d, 46];
const REMOVE_FROM_CRL: u8 = 8;
