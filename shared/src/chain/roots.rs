//! The roots that a chain is judged against: Mozilla's, and an organisation's own.

use std::sync::{Arc, OnceLock};

use thiserror::Error;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, Der, TrustAnchor};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::rewrite;
use crate::der;
use crate::distinguished_name::{canonical, is_same};
use crate::pem;

/// A set of trust anchors (RFC 5280, 6.1.1): [`Roots::public`], and more by [`Roots::with_pem`].
///
/// Certificates from PEM files are private roots. They count like the public ones, and besides:
/// their dates count, as they do to OpenSSL, Go and GnuTLS; a leaf that is one of them is trusted
/// as it is; and revocation lists of their CAs may be in a private network. A file may also have
/// intermediates with their root: those are issuers, as if the server had sent them. An
/// intermediate without its root is trusted itself.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The public ones, then those of `dated`, in their order.
    anchors: Vec<TrustAnchor<'static>>,
    /// See [`Roots::rewritten`].
    rewritten: OnceLock<Arc<[TrustAnchor<'static>]>>,
    dated: Vec<CertificateDer<'static>>,
    issuers: Vec<CertificateDer<'static>>,
    /// All certificates of PEM files.
    private: Vec<CertificateDer<'static>>,
}

/// Why a PEM file is no set of roots.
#[derive(Debug, Error)]
pub enum Error {
    /// There are no certificates in it that could be read.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// A certificate in it cannot be read.
    #[error("certificate {number} in it cannot be read (expected X.509 in DER, as RFC 5280 has it)")]
    Certificate {
        /// Counted from 1.
        number: usize,
    },
}

impl Roots {
    /// The roots that browsers trust for servers, as Mozilla keeps them.
    pub fn public() -> Self {
        Self::of(webpki_roots::TLS_SERVER_ROOTS.to_vec())
    }

    /// These, as public roots.
    pub(crate) fn of(anchors: Vec<TrustAnchor<'static>>) -> Self {
        Self {
            anchors,
            rewritten: OnceLock::new(),
            dated: Vec::new(),
            issuers: Vec::new(),
            private: Vec::new(),
        }
    }

    /// These roots and those in a PEM file.
    pub fn with_pem(&self, file: &[u8]) -> Result<Self, Error> {
        let certificates = pem::certificates(file)?;
        if let Some(index) = certificates.iter().position(|der| anchor(der).is_none()) {
            return Err(Error::Certificate { number: index + 1 });
        }
        Ok(self.with(certificates))
    }

    /// These roots and an organisation's own. What cannot be read as a certificate is no root.
    pub fn with(&self, certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let mut roots = self.clone();
        let readable = certificates.into_iter().filter(|der| anchor(der).is_some());
        roots.private.extend(readable);

        // A later file may have the root of an earlier one's intermediate.
        roots.anchors.truncate(self.anchors.len() - self.dated.len());
        (roots.issuers, roots.dated) = issuers_and_roots(&roots.private);
        roots.anchors.extend(anchors(&roots.dated));
        roots.rewritten = OnceLock::new();
        roots
    }

    /// The configuration of a TLS client that trusts these roots, for our own HTTPS requests.
    pub fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        // A server of ours may leave out an intermediate that is in the file with its root.
        let roots = RootCertStore {
            roots: self.anchors.iter().cloned().chain(anchors(&self.issuers)).collect(),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(config)
    }

    /// All of them, for building a path.
    pub fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// All of them in the same order, rewritten for a verifier that compares names byte by byte.
    /// Made once, and not before a chain needs them: it takes longer than all else that judging a
    /// chain does.
    pub(crate) fn rewritten(&self) -> &[TrustAnchor<'static>] {
        self.rewritten
            .get_or_init(|| self.anchors.iter().map(rewrite::anchor).collect())
    }

    /// The roots that have dates: the last of [`Roots::anchors`], in the same order.
    pub fn dated(&self) -> &[CertificateDer<'static>] {
        &self.dated
    }

    /// The intermediates that came with their root.
    pub fn issuers(&self) -> &[CertificateDer<'static>] {
        &self.issuers
    }

    /// All certificates that came from PEM files.
    pub fn private(&self) -> &[CertificateDer<'static>] {
        &self.private
    }

    /// Whether one of the roots has this subject, given as the DER of a Name.
    pub fn has_subject(&self, name: &[u8]) -> bool {
        self.of_subject(name).next().is_some()
    }

    /// The public roots with this subject, given as the DER of a Name.
    pub(crate) fn public_of_subject(&self, name: &[u8]) -> impl Iterator<Item = &TrustAnchor<'static>> {
        let public = self.anchors.len() - self.dated.len();
        self.of_subject(name)
            .filter(move |(index, _)| *index < public)
            .map(|(_, anchor)| anchor)
    }

    /// Those with this subject, given as the DER of a Name, each with its place among
    /// [`Roots::anchors`].
    pub(super) fn of_subject(&self, name: &[u8]) -> impl Iterator<Item = (usize, &TrustAnchor<'static>)> {
        // An anchor keeps only the contents of the SEQUENCE that a Name is.
        let wanted = der::only(name).map(|name| canonical(name.contents));
        let all = self.anchors.iter().zip(self.rewritten()).enumerate();
        all.filter(move |(_, (_, rewritten))| wanted.as_deref() == Some(&rewritten.subject))
            .map(|(index, (anchor, _))| (index, anchor))
    }

    /// Whether this very certificate is a private root: that is how a self-signed leaf is pinned.
    pub fn pins(&self, certificate: &CertificateDer<'_>) -> bool {
        self.private.iter().any(|root| root == certificate)
    }
}

/// The certificates of PEM files apart: issuers that lead to a root among them, and roots.
fn issuers_and_roots(
    private: &[CertificateDer<'static>],
) -> (Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>) {
    let parsed: Vec<_> = private
        .iter()
        .map(|der| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate))
        .collect();
    // An intermediate that was left out of a file is no way to its root.
    let mut leads_to_root: Vec<_> = parsed
        .iter()
        .map(|certificate| certificate.as_ref().is_some_and(is_self_issued))
        .collect();
    for _ in 0..LEVELS {
        for (index, certificate) in parsed.iter().enumerate() {
            let Some(certificate) = certificate else { continue };
            let issuer = certificate.issuer().as_raw();
            let mut above = parsed.iter().zip(&leads_to_root).filter(|(_, leads)| **leads);
            let has_issuer = above.any(|(above, _)| {
                above
                    .as_ref()
                    .is_some_and(|above| is_same(above.subject().as_raw(), issuer) && above.is_ca())
            });
            leads_to_root[index] |= has_issuer;
        }
    }

    let mut issuers = Vec::new();
    let mut roots = Vec::new();
    for ((der, certificate), leads) in private.iter().zip(&parsed).zip(leads_to_root) {
        let is_issuer = leads
            && certificate
                .as_ref()
                .is_some_and(|certificate| !is_self_issued(certificate));
        if is_issuer { &mut issuers } else { &mut roots }.push(der.clone());
    }
    (issuers, roots)
}

fn anchors(certificates: &[CertificateDer<'static>]) -> impl Iterator<Item = TrustAnchor<'static>> {
    certificates.iter().filter_map(anchor)
}

/// A certificate as a trust anchor: its name, its key and its name constraints. The verifier reads
/// only those whose extensions it likes; here, they are judged apart from it.
fn anchor(certificate: &CertificateDer<'_>) -> Option<TrustAnchor<'static>> {
    if let Ok(anchor) = webpki::anchor_from_trusted_cert(certificate) {
        return Some(anchor.to_owned());
    }
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let constraints = parsed
        .extensions()
        .iter()
        .find(|extension| matches!(extension.parsed_extension(), ParsedExtension::NameConstraints(_)));
    Some(TrustAnchor {
        subject: contents(parsed.subject().as_raw())?,
        subject_public_key_info: contents(parsed.public_key().raw)?,
        name_constraints: constraints.and_then(|constraints| contents(constraints.value)),
    })
}

fn contents(sequence: &[u8]) -> Option<Der<'static>> {
    Some(der::only(sequence)?.contents.to_vec().into())
}

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    is_same(certificate.subject().as_raw(), certificate.issuer().as_raw())
}

/// More intermediates in a row than any CA has.
const LEVELS: usize = 4;
