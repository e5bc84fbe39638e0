//! The roots that a chain is judged against: Mozilla's, and an organisation's own.

use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, TrustAnchor};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use x509_parser::asn1_rs::{Any, FromDer};

/// A set of trust anchors (RFC 5280, 6.1.1): [`Roots::public`], and more by [`Roots::with_pem`].
///
/// Certificates from PEM files are private roots. They count like the public ones, and besides: a leaf
/// that is one of them is trusted as it is, and revocation lists of their CAs may be in a private network.
#[derive(Clone, Debug)]
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    private: Vec<CertificateDer<'static>>,
}

/// Why a PEM file is no set of roots.
#[derive(Debug, Error)]
pub enum Error {
    /// It is not PEM (RFC 7468).
    #[error("not a PEM file: {0}")]
    Pem(String),
    /// It is PEM without a certificate.
    #[error("no certificate in it (expected PEM with -----BEGIN CERTIFICATE-----)")]
    Empty,
    /// A certificate in it is none that the verifier understands.
    #[error("certificate {number} in it cannot be a root: {reason}")]
    Certificate {
        /// Counted from 1.
        number: usize,
        /// The verifier's reason.
        reason: webpki::Error,
    },
}

impl Roots {
    /// The roots that browsers trust for servers, as Mozilla keeps them.
    pub fn public() -> Self {
        Self {
            anchors: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            private: Vec::new(),
        }
    }

    /// These roots and those in a PEM file.
    pub fn with_pem(&self, pem: &[u8]) -> Result<Self, Error> {
        let mut roots = self.clone();
        for (index, der) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let der = der.map_err(|error| Error::Pem(error.to_string()))?;
            let anchor = webpki::anchor_from_trusted_cert(&der)
                .map_err(|reason| Error::Certificate {
                    number: index + 1,
                    reason,
                })?
                .to_owned();
            roots.anchors.push(anchor);
            roots.private.push(der);
        }

        if roots.private.len() == self.private.len() {
            Err(Error::Empty)
        } else {
            Ok(roots)
        }
    }

    /// The configuration of a TLS client that trusts these roots, for our own HTTPS requests.
    pub fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let roots = RootCertStore {
            roots: self.anchors.clone(),
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

    /// Those that came from PEM files.
    pub fn private(&self) -> &[CertificateDer<'static>] {
        &self.private
    }

    /// Whether one of the roots has this subject, given as the DER of a Name.
    pub fn has_subject(&self, name: &[u8]) -> bool {
        // An anchor keeps only the contents of the SEQUENCE that a Name is.
        let Ok((_, sequence)) = Any::from_der(name) else {
            return false;
        };
        self.anchors
            .iter()
            .any(|anchor| anchor.subject.as_ref() == sequence.data)
    }

    /// Whether this very certificate is a private root: that is how a self-signed leaf is pinned.
    pub fn pins(&self, certificate: &CertificateDer<'_>) -> bool {
        self.private.iter().any(|root| root == certificate)
    }
}
