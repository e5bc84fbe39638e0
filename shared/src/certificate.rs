//! What an X.509 certificate says of itself (RFC 5280), in the words that reports use.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use crate::distinguished_name::text;
use crate::text::sha256;
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
    /// Its issuer, likewise.
    pub issuer: String,
    /// Lower-case hex, without separators, leading 00 kept.
    pub serial: String,
    /// SHA-256 of its DER, lower-case hex.
    pub fingerprint: String,
    /// First second of its validity.
    pub not_before: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
    /// DNS names and IP addresses of its SAN extension.
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
        serial: HEXLOWER.encode(certificate.raw_serial()),
        fingerprint: fingerprint(der),
        not_before: time_of(certificate.validity().not_before),
        not_after: time_of(certificate.validity().not_after),
        names: names(certificate),
        key: key(certificate),
        signature: signature(certificate),
        role,
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

/// Its public key: `ecdsa-p256`, `rsa-2048`, `ed25519`, or the algorithm's OID.
pub(crate) fn key(certificate: &X509Certificate<'_>) -> String {
    let info = certificate.public_key();
    let curve = info
        .algorithm
        .parameters
        .as_ref()
        .and_then(|any| any.as_oid().ok())
        .map(|oid| oid.to_id_string());

    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) => format!("rsa-{}", rsa.key_size()),
        Ok(PublicKey::EC(_)) => match curve.as_deref() {
            Some("1.2.840.10045.3.1.7") => "ecdsa-p256".to_owned(),
            Some("1.3.132.0.34") => "ecdsa-p384".to_owned(),
            Some("1.3.132.0.35") => "ecdsa-p521".to_owned(),
            Some("1.2.840.10045.3.1.1") => "ecdsa-p192".to_owned(),
            Some("1.3.132.0.33") => "ecdsa-p224".to_owned(),
            Some(other) => format!("ecdsa-{other}"),
            None => "ecdsa".to_owned(),
        },
        Ok(PublicKey::DSA(_)) => "dsa".to_owned(),
        _ => match info.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "ed25519".to_owned(),
            "1.3.101.113" => "ed448".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// The algorithm of its signature, or that algorithm's OID.
pub(crate) fn signature(certificate: &X509Certificate<'_>) -> String {
    let oid = certificate.signature_algorithm.algorithm.to_id_string();
    match SIGNATURES.iter().find(|(known, _)| *known == oid) {
        Some((_, name)) => (*name).to_owned(),
        None => oid,
    }
}

pub(crate) fn time_of(time: ASN1Time) -> Timestamp {
    Timestamp::from_unix(time.timestamp())
}

const SIGNATURES: [(&str, &str); 12] = [
    ("1.2.840.113549.1.1.4", "rsa-md5"),
    ("1.2.840.113549.1.1.5", "rsa-sha1"),
    ("1.2.840.113549.1.1.11", "rsa-sha256"),
    ("1.2.840.113549.1.1.12", "rsa-sha384"),
    ("1.2.840.113549.1.1.13", "rsa-sha512"),
    ("1.2.840.113549.1.1.10", "rsa-pss"),
    ("1.2.840.10040.4.3", "dsa-sha1"),
    ("1.2.840.10045.4.1", "ecdsa-sha1"),
    ("1.2.840.10045.4.3.2", "ecdsa-sha256"),
    ("1.2.840.10045.4.3.3", "ecdsa-sha384"),
    ("1.2.840.10045.4.3.4", "ecdsa-sha512"),
    ("1.3.101.112", "ed25519"),
];
