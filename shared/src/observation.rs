//! What one address of an endpoint answered.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::finding::Finding;

/// What one address answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Where.
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
    /// What the leaf's CRL says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// What is wrong at this address.
    pub findings: Vec<Finding>,
    /// From the first packet to the last, all tries together, in milliseconds.
    pub elapsed_ms: u64,
    /// How often it was tried.
    pub tries: u32,
}

/// The handshake's parameters, by their IANA names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Tls {
    pub version: String,
    pub cipher_suite: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_exchange: Option<String>,
}

/// What revocation lists say of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Revocation {
    /// A current, signed list does not have it.
    Good,
    /// A current, signed list has it.
    Revoked,
    /// No list could be had, or none that can be believed; never alerts.
    Unknown {
        /// Why.
        reason: String,
    },
    /// Not looked at.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// An address that was left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// Which one.
    pub address: IpAddr,
    /// Why, in words.
    pub reason: String,
}
