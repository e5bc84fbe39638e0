//! What a server itself sends about the revocation of its leaf: an OCSP response (RFC 6960, 4.2.1).
//!
//! Its signature is not checked. The server has proved that it holds the leaf's key, and whoever
//! holds that key gains nothing by calling the certificate revoked.

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::list::{Entry, time};
use super::revoked;
use crate::der::{self, Element};
use crate::finding::{Finding, Kind, Severity};
use crate::timestamp::Timestamp;

/// What is wrong with the response for a leaf. That there is none is for [`crate::chain`] to judge.
///
/// GnuTLS and Chromium were asked by hand; what Firefox refuses is in its verifier's source.
pub fn finding(response: &[u8], leaf: &CertificateDer<'_>, now: Timestamp) -> Option<Finding> {
    if response.is_empty() {
        return None;
    }
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;

    let (clients, reason): (&[_], _) = match Staple::read(response, leaf.raw_serial()) {
        Some(Staple::Unanswered) => return None,
        Some(Staple::About(Answer::Revoked(entry), _)) => return revoked(&leaf, &entry, now).finding(now),
        Some(Staple::About(_, Some(next_update))) if now > next_update => (
            &["GnuTLS", "Firefox"],
            "the OCSP response that the server sends is out of date".to_owned(),
        ),
        Some(Staple::About(Answer::Good, _)) => return None,
        Some(Staple::About(Answer::Unknown, _)) => (
            &["Firefox"],
            "the OCSP response that the server sends says that its issuer does not know the leaf".to_owned(),
        ),
        Some(Staple::AboutOthers) => (
            &["GnuTLS", "Firefox"],
            "the OCSP response that the server sends is about another certificate".to_owned(),
        ),
        None => (
            &["GnuTLS", "Chrome", "Firefox"],
            "the OCSP response that the server sends cannot be read".to_owned(),
        ),
    };
    Some(Finding::new(Kind::refused_by(clients, reason), Severity::Warning, now))
}

/// What a response says of one certificate.
enum Staple {
    /// The responder had no answer.
    Unanswered,
    AboutOthers,
    /// With its nextUpdate.
    About(Answer, Option<Timestamp>),
}

enum Answer {
    Good,
    Revoked(Entry),
    Unknown,
}

impl Staple {
    /// Reads a response about the certificate of a serial; none if it is none.
    fn read(response: &[u8], serial: &[u8]) -> Option<Self> {
        let mut parts = der::elements(der::only(response)?.contents);
        if parts.next()?.contents != SUCCESSFUL {
            return Some(Self::Unanswered);
        }
        // The type of the response, and the response as octets.
        let bytes = der::only(parts.next()?.contents)?;
        let octets = der::elements(bytes.contents).nth(1)?;
        let signed = der::elements(der::only(octets.contents)?.contents).next()?;

        let answers = der::elements(signed.contents).find(|field| field.tag == SEQUENCE)?;
        let answer = der::elements(answers.contents).find_map(|single| about(single, serial));
        Some(answer.map_or(Self::AboutOthers, |(answer, next_update)| {
            Self::About(answer, next_update)
        }))
    }
}

/// A SingleResponse, if it is about the certificate of this serial.
fn about(single: Element<'_>, serial: &[u8]) -> Option<(Answer, Option<Timestamp>)> {
    let mut fields = der::elements(single.contents);
    let certificate = fields.next()?;
    if der::elements(certificate.contents).last()?.contents != serial {
        return None;
    }

    let status = fields.next()?;
    let answer = match status.tag {
        GOOD => Answer::Good,
        REVOKED => {
            let mut facts = der::elements(status.contents);
            Answer::Revoked(Entry {
                revoked_at: facts.next().and_then(time),
                reason: facts.next().and_then(|reason| reason.contents.last().copied()),
            })
        }
        _ => Answer::Unknown,
    };
    let next_update = fields.find(|field| field.tag == NEXT_UPDATE);
    let next_update = next_update.and_then(|time| der::only(time.contents)).and_then(time);
    Some((answer, next_update))
}

const SEQUENCE: u8 = 0x30;
const SUCCESSFUL: &[u8] = &[0];
const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
const NEXT_UPDATE: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SerialNumber};

    use super::*;
    use crate::der::encode;
    use crate::timestamp;

    const NOW: Timestamp = timestamp!(2026-11-26 12:00 UTC);
    const OURS: &[u8] = &[1, 2, 3];

    /// A response that is not signed, about one serial.
    fn response(serial: &[u8], status: &[u8], next_update: &str) -> Vec<u8> {
        let time = |text: &str| encode(0x18, text.as_bytes());
        let id = encode(
            SEQUENCE,
            &[
                encode(SEQUENCE, &[]),
                encode(4, b"name"),
                encode(4, b"key"),
                encode(2, serial),
            ]
            .concat(),
        );
        let next_update = encode(NEXT_UPDATE, &time(next_update));
        let single = encode(
            SEQUENCE,
            &[&id, status, &time("20261120120000Z"), &next_update].concat(),
        );
        let signed = [
            encode(0xa2, &encode(4, b"key")),
            time("20261120120000Z"),
            encode(SEQUENCE, &single),
        ]
        .concat();
        let basic = encode(SEQUENCE, &encode(SEQUENCE, &signed));
        let bytes = encode(SEQUENCE, &[encode(6, &[1]), encode(4, &basic)].concat());
        encode(SEQUENCE, &[encode(10, &[0]), encode(0xa0, &bytes)].concat())
    }

    /// The staple was only asked whether it was there: a leaf that it called revoked was fine.
    #[test]
    fn what_a_staple_says_counts() {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(OURS));
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let time = encode(0x18, b"20261119120000Z");
        let revoked = encode(REVOKED, &[time, encode(0xa0, &encode(10, &[1]))].concat());
        let (good, unknown) = (encode(GOOD, &[]), encode(0x82, &[]));
        let (later, earlier) = ("20261130120000Z", "20261125120000Z");

        for (what, response, expected) in [
            ("good", response(OURS, &good, later), None),
            (
                "revoked",
                response(OURS, &revoked, later),
                Some("serial 010203, was revoked by its issuer on 2026-11-19 12:00 UTC (key compromise)"),
            ),
            (
                "revoked, and out of date",
                response(OURS, &revoked, earlier),
                Some("was revoked by its issuer"),
            ),
            (
                "out of date",
                response(OURS, &good, earlier),
                Some("GnuTLS and Firefox refuse the chain, which other clients accept: the OCSP response"),
            ),
            (
                "unknown",
                response(OURS, &unknown, later),
                Some("does not know the leaf"),
            ),
            (
                "about another",
                response(&[7], &good, later),
                Some("about another certificate"),
            ),
            ("no answer", encode(SEQUENCE, &encode(10, &[3])), None),
            ("none", Vec::new(), None),
            ("not one", b"garbage".to_vec(), Some("cannot be read")),
        ] {
            let found = finding(&response, leaf.der(), NOW).map(|finding| finding.message);
            match (found, expected) {
                (None, None) => {}
                (Some(message), Some(words)) => assert!(message.contains(words), "{what}: {message}"),
                (found, _) => panic!("{what}: {found:?}"),
            }
        }

        let whole = response(OURS, &revoked, later);
        for length in 0..whole.len() {
            let _ = finding(&whole[..length], leaf.der(), NOW);
        }
    }
}
