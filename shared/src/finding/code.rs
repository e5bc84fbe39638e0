//! A finding's name without its facts: what alerts remember, and what words are chosen by.

use std::cmp::Ordering;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of what is wrong: one for each [`Kind`](super::Kind) of finding, and those of the
/// alerts that are not about a finding.
///
/// It is a string in JSON, metrics and tables, and names never change: `state/alerts.json` outlives
/// a deployment. What depends on the code is an exhaustive match over it, so that a new finding
/// does not compile until it has a family, and words of its own in alerts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is documented at the kind of finding of the same name")]
pub enum Code {
    Expired,
    ExpiresSoon,
    NotYetValid,
    NameMismatch,
    SelfSigned,
    UntrustedRoot,
    IncompleteChain,
    InvalidChain,
    IssuerExpired,
    IssuerExpiresSoon,
    IssuerNotYetValid,
    SomeClientsRefuse,
    KeyUsage,
    LongLifetime,
    WeakKey,
    WeakSignature,
    Revoked,
    LegacyTls,
    AddressesDisagree,
    DnsFailed,
    ConnectFailed,
    StarttlsFailed,
    HandshakeFailed,
    TimedOut,
    RenewalFailed,
    RenewalOverdue,
    NotRenewed,
    NotPulled,
    InstallFailed,
    WrongCertificate,
    SilentInstance,
    CertificateUnreadable,
    ReceiptUnreadable,
    NotJudged,
    /// The run could not probe anything. Only in alerts.
    RunFailed,
    /// Many endpoints fail together: the likely cause is the probe's own network. Only in alerts.
    ManyUnreachable,
    /// The run's deadline left no time for some endpoints. Only in alerts.
    NotReached,
    /// An entry of the inventory cannot be used. Only in alerts.
    #[serde(rename = "mistake")]
    InventoryProblem,
    /// The record of earlier alerts cannot be read. Only in alerts.
    MemoryLost,
    /// What a later version wrote into the record of alerts.
    #[serde(untagged)]
    Unknown(String),
}

/// Codes that are one incident: what is about to happen and what has happened, and whatever keeps
/// an instance from having a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family<'a> {
    /// The certificate expires soon, or has expired.
    Expiry,
    /// An issuer of it does.
    IssuerExpiry,
    /// The endpoint cannot be reached: refused today and timed out tomorrow is the same trouble.
    Unreachable,
    /// An instance does not have what it should have.
    Instance,
    /// A family of one.
    Own(&'a str),
}

impl Code {
    /// Where people look up what it means and what to do.
    pub fn entry(&self) -> String {
        format!("`neverlapse explain {self}`, or docs/findings.md")
    }

    /// Its name in JSON, metrics and tables.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Expired => "expired",
            Self::ExpiresSoon => "expires_soon",
            Self::NotYetValid => "not_yet_valid",
            Self::NameMismatch => "name_mismatch",
            Self::SelfSigned => "self_signed",
            Self::UntrustedRoot => "untrusted_root",
            Self::IncompleteChain => "incomplete_chain",
            Self::InvalidChain => "invalid_chain",
            Self::IssuerExpired => "issuer_expired",
            Self::IssuerExpiresSoon => "issuer_expires_soon",
            Self::IssuerNotYetValid => "issuer_not_yet_valid",
            Self::SomeClientsRefuse => "some_clients_refuse",
            Self::KeyUsage => "key_usage",
            Self::LongLifetime => "long_lifetime",
            Self::WeakKey => "weak_key",
            Self::WeakSignature => "weak_signature",
            Self::Revoked => "revoked",
            Self::LegacyTls => "legacy_tls",
            Self::AddressesDisagree => "addresses_disagree",
            Self::DnsFailed => "dns_failed",
            Self::ConnectFailed => "connect_failed",
            Self::StarttlsFailed => "starttls_failed",
            Self::HandshakeFailed => "handshake_failed",
            Self::TimedOut => "timed_out",
            Self::RenewalFailed => "renewal_failed",
            Self::RenewalOverdue => "renewal_overdue",
            Self::NotRenewed => "not_renewed",
            Self::NotPulled => "not_pulled",
            Self::InstallFailed => "install_failed",
            Self::WrongCertificate => "wrong_certificate",
            Self::SilentInstance => "silent_instance",
            Self::CertificateUnreadable => "certificate_unreadable",
            Self::ReceiptUnreadable => "receipt_unreadable",
            Self::NotJudged => "not_judged",
            Self::RunFailed => "run_failed",
            Self::ManyUnreachable => "many_unreachable",
            Self::NotReached => "not_reached",
            Self::InventoryProblem => "mistake",
            Self::MemoryLost => "memory_lost",
            Self::Unknown(code) => code,
        }
    }

    /// The codes that it is one incident with.
    pub fn family(&self) -> Family<'_> {
        match self {
            Self::Expired | Self::ExpiresSoon => Family::Expiry,
            Self::IssuerExpired | Self::IssuerExpiresSoon => Family::IssuerExpiry,
            Self::DnsFailed | Self::ConnectFailed | Self::StarttlsFailed | Self::HandshakeFailed | Self::TimedOut => {
                Family::Unreachable
            }
            Self::NotPulled | Self::InstallFailed | Self::SilentInstance | Self::ReceiptUnreadable => Family::Instance,
            Self::NotYetValid
            | Self::NameMismatch
            | Self::SelfSigned
            | Self::UntrustedRoot
            | Self::IncompleteChain
            | Self::InvalidChain
            | Self::IssuerNotYetValid
            | Self::SomeClientsRefuse
            | Self::KeyUsage
            | Self::LongLifetime
            | Self::WeakKey
            | Self::WeakSignature
            | Self::Revoked
            | Self::LegacyTls
            | Self::AddressesDisagree
            | Self::RenewalFailed
            | Self::RenewalOverdue
            | Self::NotRenewed
            | Self::WrongCertificate
            | Self::CertificateUnreadable
            | Self::NotJudged
            | Self::RunFailed
            | Self::ManyUnreachable
            | Self::NotReached
            | Self::InventoryProblem
            | Self::MemoryLost
            | Self::Unknown(_) => Family::Own(self.as_str()),
        }
    }

    /// Whether it is about the way to the endpoint, and not about its certificate: nothing could be
    /// judged.
    pub fn is_network(&self) -> bool {
        self.family() == Family::Unreachable
    }

    /// Whether it is about the certificate's end, past or near.
    pub fn is_about_expiry(&self) -> bool {
        self.family() == Family::Expiry
    }

    /// Whether what its family warns of has happened, rather than being still to come.
    pub fn has_happened(&self) -> bool {
        match self.family() {
            Family::Expiry => *self == Self::Expired,
            Family::IssuerExpiry => *self == Self::IssuerExpired,
            Family::Unreachable | Family::Instance | Family::Own(_) => false,
        }
    }
}

impl Family<'_> {
    /// Its name in the ids of incidents.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Expiry => "expiry",
            Self::IssuerExpiry => "issuer_expiry",
            Self::Unreachable => "unreachable",
            Self::Instance => "instance",
            Self::Own(code) => code,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By name, as metrics are sorted.
impl Ord for Code {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_string_whoever_wrote_it() {
        for (code, name) in [
            (Code::Expired, "expired"),
            (Code::LegacyTls, "legacy_tls"),
            (Code::InventoryProblem, "mistake"),
            (Code::MemoryLost, "memory_lost"),
            (Code::Unknown("of_a_later_version".to_owned()), "of_a_later_version"),
        ] {
            assert_eq!(code.as_str(), name);
            assert_eq!(serde_json::to_value(&code).unwrap(), name);
            assert_eq!(serde_json::from_value::<Code>(name.into()).unwrap(), code);
        }
    }

    #[test]
    fn what_has_happened_is_the_same_incident_as_what_was_to_come() {
        for (before, after) in [
            (Code::ExpiresSoon, Code::Expired),
            (Code::IssuerExpiresSoon, Code::IssuerExpired),
        ] {
            assert_eq!(before.family(), after.family());
            assert!(!before.has_happened() && after.has_happened());
        }
    }
}
