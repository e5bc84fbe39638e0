//! Reasons of revocation in words.

/// Why a CA revoked a certificate, by its code (RFC 5280, 5.3.1).
pub(super) fn reason(code: u8) -> Option<&'static str> {
    Some(match code {
        0 => "unspecified",
        1 => "key compromise",
        2 => "CA compromise",
        3 => "affiliation changed",
        4 => "superseded",
        5 => "cessation of operation",
        6 => "certificate hold",
        8 => "removed from list",
        9 => "privilege withdrawn",
        10 => "attribute authority compromise",
        _ => return None,
    })
}
