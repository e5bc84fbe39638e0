//! Revocation lists in words: why one cannot be used, and why a certificate is on one.

use webpki::{Error, RevocationReason};

/// Why a list cannot be used.
pub(super) fn problem(error: &Error) -> String {
    let words = match error {
        Error::UnknownRevocationStatus => "the list is not for this certificate",
        Error::CrlExpired { .. } => "the list is out of date",
        Error::InvalidCrlSignatureForPublicKey => "the list's signature is wrong",
        Error::IssuerNotCrlSigner => "the issuer may not sign lists",
        Error::UnsupportedDeltaCrl => "a delta list, which says only what changed",
        Error::UnsupportedIndirectCrl => "an indirect list, which another CA signs",
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => "not a revocation list in DER",
        other => return format!("the list cannot be used ({other:?})"),
    };
    words.to_owned()
}

/// Why a CA revoked a certificate (RFC 5280, 5.3.1).
pub(super) fn reason(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Unspecified => "unspecified",
        RevocationReason::KeyCompromise => "key compromise",
        RevocationReason::CaCompromise => "CA compromise",
        RevocationReason::AffiliationChanged => "affiliation changed",
        RevocationReason::Superseded => "superseded",
        RevocationReason::CessationOfOperation => "cessation of operation",
        RevocationReason::CertificateHold => "certificate hold",
        RevocationReason::RemoveFromCrl => "removed from list",
        RevocationReason::PrivilegeWithdrawn => "privilege withdrawn",
        RevocationReason::AaCompromise => "attribute authority compromise",
    }
}
