//! What an X.509 certificate says of itself (RFC 5280), in the words that reports use.

use std::fmt;
use std::net::IpAddr;

use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::AlgorithmIdentifier;

use crate::distinguished_name::text;
use crate::text::{cut, sha256};
use crate::timestamp::Timestamp;

/// What an X.509 certificate says of itself (RFC 5280).
///
/// [`describe`] reads one from DER; reports and stored versions carry it. All of it is what the
/// certificate *says*: whether that is true, and whether anybody trusts it, is for [`crate::chain`]
/// to judge. Times are those of the certificate, inclusive at both ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
    /// Its issuer, in the same form.
    pub issuer: String,
    /// Lower-case hex, without separators, leading 00 kept.
    pub serial: String,
    /// SHA-256 of its DER, lower-case hex.
    pub fingerprint: String,
    /// First second of its validity.
    pub not_before: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
    /// DNS names and IP addresses of its SAN extension. A report has the first 250.
    pub names: Vec<String>,
    /// `ecdsa-p256`, `rsa-2048`, `ed25519` …
    pub key: String,
    /// `ecdsa-sha256`, `rsa-sha256` …
    pub signature: String,
    /// What the certificate is for the path that was judged.
    pub role: Role,
}

/// What a certificate is for the path that was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The end-entity certificate.
    Leaf,
    /// The best path goes through it.
    Path,
    /// Sent, but no path needs it.
    Extra,
}

/// Reads a certificate, given parsed and as DER.
pub fn describe(certificate: &X509Certificate<'_>, der: &[u8], role: Role) -> Certificate {
    Certificate {
        subject: text(certificate.subject()),
        issuer: text(certificate.issuer()),
        serial: cut(&HEXLOWER.encode(certificate.raw_serial()), LONGEST_VALUE),
        fingerprint: fingerprint(der),
        not_before: time_of(certificate.validity().not_before),
        not_after: time_of(certificate.validity().not_after),
        names: names(certificate),
        key: cut(&Key::of(certificate).to_string(), LONGEST_VALUE),
        signature: cut(&Signature::of(certificate).to_string(), LONGEST_VALUE),
        role,
    }
}

impl Certificate {
    /// As it is in a report: a server may have as many names as fit into its messages, at each of
    /// its addresses.
    pub(crate) fn abridged(mut self) -> Self {
        self.names.truncate(NAMES);
        for name in &mut self.names {
            *name = cut(name, LONGEST_NAME);
        }
        self
    }

    /// Its first names, for a finding that it is not for `expected`.
    pub(crate) fn some_names(&self, expected: &str) -> Vec<String> {
        let names = self.names.iter().enumerate();
        names
            .filter(|(index, name)| *index < NAMES_FOUND || *name == expected)
            .map(|(_, name)| cut(name, LONGEST_NAME))
            .take(NAMES_FOUND + 1)
            .collect()
    }
}

/// SHA-256 of a certificate's DER, in lower-case hex.
pub fn fingerprint(der: &[u8]) -> String {
    sha256(der)
}

/// A name as RFC 4514 writes it, in a few words: its organization and common name.
pub fn common_name(name: &str) -> String {
    let attributes = attributes(name);
    let value = |kind: &str| {
        attributes
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(kind))
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
    };
    match (value("O"), value("CN")) {
        (Some(organization), Some(name)) if !names_organization(&name, &organization) => {
            format!("{organization} {name}")
        }
        (_, Some(name)) => name,
        (Some(organization), None) => organization,
        (None, None) => name.to_owned(),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => Some(ip_address(bytes)?.to_string()),
            _ => None,
        })
        .collect()
}

/// RFC 5280, 4.2.1.6: four octets or sixteen, in network byte order.
fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Whether a common name begins with its organization's first word, as `DigiCert Global G2` does.
fn names_organization(name: &str, organization: &str) -> bool {
    organization
        .split(' ')
        .next()
        .is_some_and(|word| name.starts_with(word))
}

/// The attributes of a name, with their escapes undone.
fn attributes(name: &str) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut escaped = false;
    for c in name.chars() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            ',' | '+' if !escaped => parts.push(std::mem::take(&mut part)),
            _ => part.push(c),
        }
        escaped = false;
    }
    parts.push(part);

    parts
        .into_iter()
        .filter_map(|part| {
            let (key, value) = part.split_once('=')?;
            Some((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// A certificate's public key: prints as `ecdsa-p256`, `rsa-2048`, `ed25519`, or the algorithm's
/// OID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Rsa {
        bits: usize,
    },
    /// RSA for signatures by PSS alone (RFC 4055, 1.2).
    RsaPss,
    Ecdsa(Curve),
    Dsa,
    Ed25519,
    Ed448,
    /// By its OID.
    Other(String),
}

/// A curve of ECDSA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P192,
    P224,
    P256,
    P384,
    P521,
    /// By its OID, if it is named.
    Other(Option<String>),
}

impl Key {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let info = certificate.public_key();
        if info.algorithm.algorithm.to_id_string() == PSS {
            return Self::RsaPss;
        }
        match info.parsed() {
            Ok(PublicKey::RSA(rsa)) => Self::Rsa {
                bits: bits(rsa.modulus),
            },
            Ok(PublicKey::EC(_)) => Self::Ecdsa(Curve::of(&info.algorithm)),
            Ok(PublicKey::DSA(_)) => Self::Dsa,
            _ => match info.algorithm.algorithm.to_id_string().as_str() {
                "1.3.101.112" => Self::Ed25519,
                "1.3.101.113" => Self::Ed448,
                other => Self::Other(other.to_owned()),
            },
        }
    }

    /// Whether clients at today's default levels refuse it, or will.
    pub(crate) fn is_weak(&self) -> bool {
        match self {
            Self::Rsa { bits } => *bits < 2_048,
            Self::Ecdsa(curve) => matches!(curve, Curve::P192 | Curve::P224),
            Self::Dsa => true,
            Self::RsaPss | Self::Ed25519 | Self::Ed448 | Self::Other(_) => false,
        }
    }

    /// Who refuses it already, if it is weak. OpenSSL takes almost 2,048 bits for 2,048.
    pub(crate) fn refused_by(&self) -> &'static [&'static str] {
        match self {
            Self::Rsa { bits: ..2_000 } => &["OpenSSL at security level 2", "rustls"],
            Self::Rsa { bits: ..2_048 } => &["rustls"],
            Self::Ecdsa(Curve::P192 | Curve::P224) | Self::Dsa => &["Chrome", "Firefox", "rustls"],
            _ => &[],
        }
    }
}

/// The length of a number.
fn bits(number: &[u8]) -> usize {
    let zeros: usize = number.iter().take_while(|byte| **byte == 0).count();
    let significant = number.get(zeros..).unwrap_or_default();
    let first = significant.first().map_or(0, |first| first.leading_zeros() as usize);
    significant.len() * 8 - first
}

impl Curve {
    fn of(algorithm: &AlgorithmIdentifier<'_>) -> Self {
        let named = algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let oid = named.map(|oid| oid.to_id_string());
        match oid.as_deref() {
            Some("1.2.840.10045.3.1.1") => Self::P192,
            Some("1.3.132.0.33") => Self::P224,
            Some("1.2.840.10045.3.1.7") => Self::P256,
            Some("1.3.132.0.34") => Self::P384,
            Some("1.3.132.0.35") => Self::P521,
            _ => Self::Other(oid),
        }
    }

    /// Whether all of today's clients have it.
    pub(crate) fn is_usual(&self) -> bool {
        matches!(self, Self::P256 | Self::P384)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "rsa-{bits}"),
            Self::RsaPss => f.write_str("rsa-pss"),
            Self::Ecdsa(Curve::P192) => f.write_str("ecdsa-p192"),
            Self::Ecdsa(Curve::P224) => f.write_str("ecdsa-p224"),
            Self::Ecdsa(Curve::P256) => f.write_str("ecdsa-p256"),
            Self::Ecdsa(Curve::P384) => f.write_str("ecdsa-p384"),
            Self::Ecdsa(Curve::P521) => f.write_str("ecdsa-p521"),
            Self::Ecdsa(Curve::Other(Some(oid))) => write!(f, "ecdsa-{oid}"),
            Self::Ecdsa(Curve::Other(None)) => f.write_str("ecdsa"),
            Self::Dsa => f.write_str("dsa"),
            Self::Ed25519 => f.write_str("ed25519"),
            Self::Ed448 => f.write_str("ed448"),
            Self::Other(oid) => f.write_str(oid),
        }
    }
}

/// The algorithm of a certificate's signature: prints as `ecdsa-sha256`, `rsa-sha256`, or its OID.
pub(crate) struct Signature {
    oid: String,
}

impl Signature {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        Self {
            oid: certificate.signature_algorithm.algorithm.to_id_string(),
        }
    }

    /// Whether it is by MD5 or SHA-1, with which signatures were forged.
    pub(crate) fn is_broken(&self) -> bool {
        BROKEN_SIGNATURES.iter().any(|(oid, _)| *oid == self.oid)
    }

    /// Who refuses it, made by a key of this kind, if webpki does. The clients were asked by hand.
    pub(crate) fn refused_by(&self, key: Option<&Key>) -> &'static [&'static str] {
        match key {
            Some(Key::Ecdsa(Curve::P224)) => &["Chrome", "Firefox", "rustls"],
            Some(Key::Ecdsa(Curve::Other(_))) => &["Go", "GnuTLS", "Chrome", "Firefox", "rustls"],
            _ if self.oid == PSS => &["Go", "GnuTLS", "Chrome", "Firefox", "rustls"],
            _ => &["Go", "Chrome", "Firefox", "rustls"],
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known = BROKEN_SIGNATURES.iter().chain(&SIGNATURES);
        let name = known.find(|(oid, _)| *oid == self.oid);
        f.write_str(name.map_or(self.oid.as_str(), |(_, name)| name))
    }
}

pub(crate) fn time_of(time: ASN1Time) -> Timestamp {
    Timestamp::from_unix(time.timestamp())
}

const BROKEN_SIGNATURES: [(&str, &str); 5] = [
    ("1.2.840.113549.1.1.4", "rsa-md5"),
    ("1.2.840.113549.1.1.5", "rsa-sha1"),
    ("1.3.14.3.2.29", "rsa-sha1"),
    ("1.2.840.10040.4.3", "dsa-sha1"),
    ("1.2.840.10045.4.1", "ecdsa-sha1"),
];
const PSS: &str = "1.2.840.113549.1.1.10";
const SIGNATURES: [(&str, &str); 11] = [
    ("1.2.840.113549.1.1.11", "rsa-sha256"),
    ("1.2.840.113549.1.1.12", "rsa-sha384"),
    ("1.2.840.113549.1.1.13", "rsa-sha512"),
    (PSS, "rsa-pss"),
    ("1.2.840.113549.1.1.14", "rsa-sha224"),
    ("1.2.840.10045.4.3.1", "ecdsa-sha224"),
    ("1.2.840.10045.4.3.2", "ecdsa-sha256"),
    ("1.2.840.10045.4.3.3", "ecdsa-sha384"),
    ("1.2.840.10045.4.3.4", "ecdsa-sha512"),
    ("1.3.101.112", "ed25519"),
    ("1.3.101.113", "ed448"),
];

/// Names of a certificate in a report. Let's Encrypt issues for up to 100.
const NAMES: usize = 250;
/// And in a finding that they are the wrong ones.
const NAMES_FOUND: usize = 100;
/// A DNS name has at most 253 characters.
const LONGEST_NAME: usize = 253;
/// Of a serial number, which has up to 40 digits (RFC 5280, 4.1.2.2), and of an algorithm.
const LONGEST_VALUE: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_keys() {
        for (key, name, weak) in [
            (Key::Rsa { bits: 1_024 }, "rsa-1024", true),
            (Key::Rsa { bits: 2_048 }, "rsa-2048", false),
            (Key::Ecdsa(Curve::P192), "ecdsa-p192", true),
            (Key::Ecdsa(Curve::P256), "ecdsa-p256", false),
            (Key::Dsa, "dsa", true),
            (Key::Ed25519, "ed25519", false),
        ] {
            assert_eq!((key.to_string().as_str(), key.is_weak()), (name, weak));
        }
    }

    /// A thousand addresses with names as long as a handshake allows are no more than a report
    /// holds.
    #[test]
    fn a_report_has_the_first_names_only() {
        let names: Vec<_> = (0..5_000).map(|number| format!("n{number}.example")).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let long = "\u{1}x".repeat(30_000);
        params.distinguished_name.push(rcgen::DnType::CommonName, long);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(made.der()).unwrap();

        let whole = describe(&parsed, made.der(), Role::Leaf);
        assert_eq!(whole.names.len(), 5_000);
        let found = whole.some_names("n4999.example");
        assert_eq!(
            (found.len(), found[0].as_str(), found[100].as_str()),
            (101, "n0.example", "n4999.example")
        );
        assert_eq!(whole.some_names("other.example").len(), 100);
        let abridged = whole.abridged();
        assert_eq!(abridged.names.len(), 250);
        assert_eq!(abridged.subject.chars().count(), 1_001);
    }

    /// A key of 2,047 bits was said to have 2,040.
    #[test]
    fn the_length_of_a_key_is_counted_in_bits() {
        for (modulus, expected) in [
            (&[0, 0x7f, 0xff][..], 15),
            (&[0x80, 0], 16),
            (&[1, 0], 9),
            (&[0], 0),
            (&[], 0),
        ] {
            assert_eq!(bits(modulus), expected, "{modulus:?}");
        }
    }
}
