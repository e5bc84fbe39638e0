//! What one address of an endpoint answered.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::finding::Finding;

/// What one address of an endpoint answered, and what is wrong there.
///
/// The probe makes one per address; a [`crate::report::EndpointReport`] collects those of an
/// endpoint. How much of it is there depends on how far the connection got: without a connection
/// there are only findings, and a handshake that failed late may still have the chain. The chain is
/// judged in any case, so an expired certificate is a leaf *and* a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Observation {
    /// The address and port that were connected to.
    pub address: SocketAddr,
    /// The handshake's parameters, if it got that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The end-entity certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<Certificate>,
    /// The other certificates that the server sent, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<Certificate>,
    /// What revocation lists say; none if the chain leads to no trusted root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// The other certificate of a server that has two: one with an ECDSA key, and one with an RSA
    /// key for clients that want that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Box<Other>>,
    /// What is wrong at this address. On a server with two certificates, a finding that only one of
    /// them has names that one.
    pub findings: Vec<Finding>,
    /// Milliseconds from the first packet to the last, all tries together.
    pub elapsed_ms: u64,
    /// How often it was tried.
    pub tries: u32,
}

/// What a server shows to clients that want another kind of key than the one it chose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Other {
    /// The end-entity certificate.
    pub leaf: Certificate,
    /// The other certificates that were sent with it, in the server's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<Certificate>,
    /// What revocation lists say; none if the chain leads to no trusted root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
}

impl Observation {
    /// The certificates that the address serves: one, or two with keys of different kinds.
    pub fn leaves(&self) -> impl Iterator<Item = &Certificate> {
        let other = self.other.as_ref().map(|other| &other.leaf);
        self.leaf.iter().chain(other)
    }

    /// The same, each with what its CRL says.
    pub fn leaves_and_revocation(&self) -> impl Iterator<Item = (&Certificate, Option<&Revocation>)> {
        let first = self.leaf.iter().map(|leaf| (leaf, self.revocation.as_ref()));
        let other = self.other.as_ref();
        first.chain(other.map(|other| (&other.leaf, other.revocation.as_ref())))
    }
}

/// The handshake's parameters, by their IANA names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tls {
    /// `TLSv1.3`, `TLSv1.2`, or an older one of a legacy handshake.
    pub version: String,
    /// `TLS_AES_128_GCM_SHA256` …
    pub cipher_suite: String,
    /// `X25519MLKEM768`, `X25519` …; none where the suite exchanges keys otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_exchange: Option<String>,
}

/// What revocation lists (RFC 5280, 5) say about a leaf, and whether its issuers could be checked
/// too.
///
/// Only `Revoked` is a finding; the facts of the revocation are in that
/// ([`crate::finding::Kind::Revoked`]). `Unknown` never alerts, because a CA's list server that is
/// down says nothing about the endpoint. Short-lived certificates, and those that are expired or
/// not yet valid, are `Skipped`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Revocation {
    /// A current, signed list does not have it.
    Good,
    /// A signed list has it.
    Revoked,
    /// No list could be fetched, or none that can be believed: its own, or that of an issuer.
    Unknown {
        /// In words.
        reason: String,
    },
    /// Not checked.
    Skipped {
        /// In words.
        reason: String,
    },
}

/// An address that was not probed, or whose result does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// The address.
    pub address: IpAddr,
    /// In words.
    pub reason: String,
    /// Whether this network carries no IPv6 to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_ipv6: bool,
}
