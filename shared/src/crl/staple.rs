//! What a server itself sends about the revocation of its leaf: an OCSP response (RFC 6960, 4.2.1).
//!
//! Its signature is checked if the path says who issued the leaf, which it does unless that is the
//! root itself. Otherwise the response is believed: the server has proved that it holds the leaf's
//! key, and whoever holds that key gains nothing by calling the certificate revoked.

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::list::{Entry, time};
use super::revoked;
use crate::chain::issuer::{algorithms, has_signed, is_signature_of};
use crate::der::{self, Element};
use crate::finding::{Finding, Kind, Severity};
use crate::timestamp::Timestamp;

/// What is wrong with the response for a leaf of an issuer. That there is none is for
/// [`crate::chain`] to judge.
///
/// GnuTLS and Chromium were asked by hand; what Firefox refuses is in its verifier's source.
pub fn finding(
    response: &[u8],
    leaf: &CertificateDer<'_>,
    issuer: Option<&CertificateDer<'_>>,
    now: Timestamp,
) -> Option<Finding> {
    if response.is_empty() {
        return None;
    }
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let issuer = issuer.and_then(|issuer| Some(X509Certificate::from_der(issuer).ok()?.1));

    let (clients, reason): (&[_], _) = match Staple::read(response, leaf.raw_serial(), issuer.as_ref()) {
        Some(Staple::Unanswered) => return None,
        Some(Staple::ByOthers) => (
            &["GnuTLS", "Firefox"],
            "the OCSP response that the server sends is signed neither by the issuer nor by a responder that it named"
                .to_owned(),
        ),
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
    /// Neither the issuer nor one of its responders has signed it.
    ByOthers,
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
    fn read(response: &[u8], serial: &[u8], issuer: Option<&X509Certificate<'_>>) -> Option<Self> {
        let mut parts = der::elements(der::only(response)?.contents);
        if parts.next()?.contents != SUCCESSFUL {
            return Some(Self::Unanswered);
        }
        // The type of the response, and the response as octets.
        let bytes = der::only(parts.next()?.contents)?;
        let octets = der::elements(bytes.contents).nth(1)?;
        let basic = der::only(octets.contents)?;
        let signed = der::elements(basic.contents).next()?;

        let answers = der::elements(signed.contents).find(|field| field.tag == SEQUENCE)?;
        let answer = der::elements(answers.contents).find_map(|single| about(single, serial));
        if answer.is_some() && issuer.is_some_and(|issuer| is_by_others(basic, issuer) == Some(true)) {
            return Some(Self::ByOthers);
        }
        Some(answer.map_or(Self::AboutOthers, |(answer, next_update)| {
            Self::About(answer, next_update)
        }))
    }
}

/// Whether a BasicOCSPResponse is signed neither by the issuer nor by a responder that has a
/// certificate of the issuer for that (RFC 6960, 4.2.2.2); none if the signature cannot be
/// verified.
fn is_by_others(basic: Element<'_>, issuer: &X509Certificate<'_>) -> Option<bool> {
    let mut fields = der::elements(basic.contents);
    let signed = fields.next()?;
    let algorithm = der::elements(fields.next()?.contents).next()?.contents;
    // A bit string begins with the number of bits that are not used.
    let signature = fields.next()?.contents.get(1..)?;
    algorithms(algorithm).next()?;

    let is_by = |key: &[u8]| is_signature_of(key, algorithm, signed.der, signature);
    let sent = fields.next().and_then(|certificates| der::only(certificates.contents));
    let mut sent = der::elements(sent.map_or(&[], |certificates| certificates.contents));
    let is_by_responder = sent.any(|responder| {
        X509Certificate::from_der(responder.der).is_ok_and(|(_, responder)| {
            let usage = responder.extended_key_usage().ok().flatten();
            usage.is_some_and(|usage| usage.value.ocsp_signing)
                && has_signed(issuer.public_key().raw, &responder)
                && is_by(responder.public_key().raw)
        })
    });
    Some(!is_by_responder && !is_by(issuer.public_key().raw))
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
    use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair, SerialNumber, SigningKey};

    use super::*;
    use crate::der::encode;
    use crate::timestamp;

    const NOW: Timestamp = timestamp!(2026-11-26 12:00 UTC);
    const OURS: &[u8] = &[1, 2, 3];

    /// A response that is not signed, about one serial.
    fn response(serial: &[u8], status: &[u8], next_update: &str) -> Vec<u8> {
        wrapped(&said(serial, status, next_update))
    }

    /// What a response says, to be signed.
    fn said(serial: &[u8], status: &[u8], next_update: &str) -> Vec<u8> {
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
        encode(SEQUENCE, &signed)
    }

    fn wrapped(fields: &[u8]) -> Vec<u8> {
        let basic = encode(SEQUENCE, fields);
        let bytes = encode(SEQUENCE, &[encode(6, &[1]), encode(4, &basic)].concat());
        encode(SEQUENCE, &[encode(10, &[0]), encode(0xa0, &bytes)].concat())
    }

    /// A response that a key has signed, with the certificate of a responder.
    fn signed(said: &[u8], key: &KeyPair, responder: Option<&[u8]>) -> Vec<u8> {
        let mut fields = said.to_vec();
        fields.extend(encode(SEQUENCE, &encode(6, ECDSA_WITH_SHA256)));
        fields.extend(encode(3, &[&[0], &key.sign(said).unwrap()[..]].concat()));
        fields.extend(responder.map_or(Vec::new(), |responder| encode(0xa0, &encode(SEQUENCE, responder))));
        wrapped(&fields)
    }

    /// The contents of the OID 1.2.840.10045.4.3.2.
    const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

    /// Whoever had signed it, a response was believed.
    #[test]
    fn a_staple_that_anybody_signed_was_the_issuers_word() {
        let key = || KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(CertificateParams::default(), key()).unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(OURS));
        let leaf_key = key();
        let leaf = params.signed_by(&leaf_key, &issuer).unwrap();
        let of_use = |usage| {
            let mut params = CertificateParams::default();
            params.extended_key_usages = vec![usage];
            let key = key();
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let (responder, responder_key) = of_use(ExtendedKeyUsagePurpose::OcspSigning);
        let (server, server_key) = of_use(ExtendedKeyUsagePurpose::ServerAuth);

        let revoked = encode(REVOKED, &encode(0x18, b"20261119120000Z"));
        for (status, right) in [(encode(GOOD, &[]), ""), (revoked, "was revoked by its issuer")] {
            let said = said(OURS, &status, "20261130120000Z");
            let wrong = "signed neither by the issuer nor by a responder that it named";
            for (key, responder, expected) in [
                (issuer.key(), None, right),
                (&responder_key, Some(responder.der()), right),
                (&responder_key, None, wrong),
                (&server_key, Some(server.der()), wrong),
                (&leaf_key, Some(leaf.der()), wrong),
                (&key(), Some(responder.der()), wrong),
            ] {
                let response = signed(&said, key, responder.map(|der| &der[..]));
                let found = finding(&response, leaf.der(), Some(issuer.der()), NOW);
                let message = found.map_or(String::new(), |finding| finding.message);
                assert_eq!(message.is_empty(), expected.is_empty(), "{message}");
                assert!(message.contains(expected), "{message}");
            }
        }
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
            let found = finding(&response, leaf.der(), None, NOW).map(|finding| finding.message);
            match (found, expected) {
                (None, None) => {}
                (Some(message), Some(words)) => assert!(message.contains(words), "{what}: {message}"),
                (found, _) => panic!("{what}: {found:?}"),
            }
        }

        let whole = response(OURS, &revoked, later);
        for length in 0..whole.len() {
            let _ = finding(&whole[..length], leaf.der(), None, NOW);
        }
    }
}
