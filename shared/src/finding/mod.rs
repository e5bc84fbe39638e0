//! What can be wrong with an endpoint: a closed list, each with the facts that prove it.

mod code;
mod message;
mod severity;
mod thresholds;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::code::{Code, Family};
pub use self::severity::Severity;
pub use self::thresholds::Thresholds;
use crate::isolation::Panicked;
use crate::timestamp::Timestamp;

/// One thing that is wrong, how much it matters, and the same in a sentence.
///
/// Probing, judging and comparing with the bucket make findings; reports carry them, and alerts are
/// made from them. The sentence is made once, with the finding: it says how far away a moment was
/// then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What is wrong, with its facts; serialized as `code` and the facts next to it.
    #[serde(flatten)]
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// The same in a sentence.
    pub message: String,
    /// The key of the certificate that it is about, where the server has two: `rsa-2048`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

impl Finding {
    /// A finding as of `now`, with its message made from its facts.
    pub fn new(kind: Kind, severity: Severity, now: Timestamp) -> Self {
        Self {
            message: kind.message(Some(now)),
            kind,
            severity,
            certificate: None,
        }
    }

    /// A finding about the way to the endpoint, not about its certificate: nothing could be judged.
    pub fn network(kind: Kind) -> Self {
        Self {
            message: kind.message(None),
            kind,
            severity: Severity::Unknown,
            certificate: None,
        }
    }

    /// The same, about that one of a server's certificates which has this key.
    pub fn about(self, key: &str) -> Self {
        Self {
            message: format!("{key} certificate: {}", self.message),
            certificate: Some(key.to_owned()),
            ..self
        }
    }

    /// Our own code failed at an endpoint or a certificate, and nothing is known of it.
    pub fn not_judged(panicked: &Panicked) -> Self {
        let reason = panicked.to_string();
        Self::network(Kind::NotJudged { reason })
    }

    /// Whether it is about the way to the endpoint and worth another try.
    pub fn is_network(&self) -> bool {
        self.kind.code().is_network()
    }
}

/// The list of findings, each with the facts that prove it: closed in one version, and open to a
/// later one.
///
/// In JSON, `code` is the tag (see [`Code`]), and the facts stand next to it. Names and facts are
/// part of the report's schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the facts and say what they are by name")]
pub enum Kind {
    /// The leaf's notAfter has passed.
    Expired { not_after: Timestamp },
    /// Less time is left than the threshold.
    ExpiresSoon {
        not_after: Timestamp,
        threshold_seconds: i64,
    },
    /// The leaf's notBefore is still to come.
    NotYetValid { not_before: Timestamp },
    /// No name in the leaf matches the name that a client asks for.
    NameMismatch { expected: String, names: Vec<String> },
    /// The leaf is its own issuer.
    SelfSigned { subject: String },
    /// The path ends in a root that is not trusted.
    UntrustedRoot {
        root: String,
        /// One of that name is trusted, but has another key: a private CA was recreated, or is
        /// imitated.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        key_differs: bool,
    },
    /// An issuer is missing from what the server sent.
    IncompleteChain { missing: String },
    /// There is a path, but it breaks a rule.
    InvalidChain { reason: String },
    /// An issuer that every path needs has expired.
    IssuerExpired { subject: String, not_after: Timestamp },
    /// An issuer of the path expires before the leaf, and soon.
    IssuerExpiresSoon { subject: String, not_after: Timestamp },
    /// The notBefore of an issuer that every path needs is still to come.
    IssuerNotYetValid { subject: String, not_before: Timestamp },
    /// Some clients refuse a chain that others accept.
    SomeClientsRefuse { clients: Vec<String>, reason: String },
    /// The key usage of the leaf does not allow what the server does with its key; some clients
    /// look at it.
    KeyUsage { clients: Vec<String>, usage: String },
    /// The leaf lives longer than a rule of its day of issue allows. For information: not all
    /// clients follow these rules, and the CA issued it nevertheless.
    LongLifetime {
        days: i64,
        most_days: i64,
        rule: LifetimeRule,
        since: Timestamp,
    },
    /// A key in the path that is too weak, and who refuses it today.
    WeakKey {
        subject: String,
        key: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        clients: Vec<String>,
    },
    /// A signature in the path by an algorithm that is broken.
    WeakSignature { subject: String, signature: String },
    /// The issuer's CRL lists the certificate.
    Revoked {
        subject: String,
        serial: String,
        revoked_at: Timestamp,
        reason: Option<String>,
    },
    /// The server offers no TLS that all of today's clients accept.
    LegacyTls { version: String, cipher_suite: String },
    /// The addresses of one name serve different certificates.
    AddressesDisagree { certificates: Vec<Served> },
    /// The name has no address, or no name server answered.
    DnsFailed {
        name: String,
        reason: String,
        /// A name server answered, and the answer was that there is no such name or no address.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_answer: bool,
    },
    /// No TCP connection.
    ConnectFailed { reason: String },
    /// The protocol's upgrade to TLS was refused or garbled.
    StarttlsFailed { protocol: String, reason: String },
    /// The TCP connection stands, but the TLS handshake failed.
    HandshakeFailed { reason: String },
    /// The named phase took longer than its deadline.
    TimedOut { phase: Phase, after_ms: u64 },
    /// The renewer could not get a new certificate.
    RenewalFailed {
        name: String,
        problem: String,
        tries: u32,
        since: Timestamp,
        next_try: Timestamp,
    },
    /// A renewal is overdue, and no failure of it is recorded: the renewer may not run at all.
    RenewalOverdue { name: String, since: Timestamp },
    /// An instance has not installed the current version in time. Without an instance: nothing
    /// shows that any client gets it.
    NotPulled {
        /// In JSON, its members stand among these.
        #[serde(flatten)]
        behind: Option<InstanceBehind>,
        version: String,
        fingerprint: String,
        not_after: Timestamp,
    },
    /// A certificate that was renewed is no longer in the inventory.
    NotRenewed {
        name: String,
        not_after: Timestamp,
        /// Whether the whole inventory is gone, or only its entry.
        inventory_missing: bool,
    },
    /// An instance tried to install the current version and could not.
    InstallFailed {
        instance: String,
        host: String,
        version: String,
        fingerprint: String,
        not_after: Timestamp,
        reason: String,
        since: Timestamp,
    },
    /// An address serves another certificate than the current version.
    WrongCertificate {
        endpoint: String,
        address: SocketAddr,
        expected: String,
        expected_not_after: Timestamp,
        found: String,
        found_not_after: Timestamp,
    },
    /// An instance has not reported by the time that it announced.
    SilentInstance {
        instance: String,
        host: String,
        last_seen: Timestamp,
        due: Timestamp,
    },
    /// A document about a managed certificate cannot be read.
    CertificateUnreadable { reason: String },
    /// An instance's receipt cannot be read.
    ReceiptUnreadable { instance: String, reason: String },
    /// Our own code failed at it: see [`isolation`](crate::isolation).
    NotJudged { reason: String },
    /// What a later version finds. Its severity and its message can be read nevertheless.
    #[serde(untagged)]
    Unknown {
        code: Code,
        #[serde(flatten)]
        facts: BTreeMap<String, Value>,
    },
}

/// Who limits the lifetime of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LifetimeRule {
    /// For certificates under public roots.
    CaBrowserForum,
    /// For what Apple's systems accept, private roots included.
    Apple,
}

/// An instance that has not installed the current version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceBehind {
    /// Its name in the key of its receipt.
    pub instance: String,
    /// Its host name.
    #[serde(default)]
    pub host: String,
    /// The version that it has instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<String>,
    /// The SHA-256 of that version's leaf, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_fingerprint: Option<String>,
}

/// Which addresses of an endpoint serve which certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Served {
    /// SHA-256 of the leaf's DER, lower-case hex.
    pub fingerprint: String,
    /// When that leaf expires.
    pub not_after: Timestamp,
    /// The addresses that serve it.
    pub addresses: Vec<SocketAddr>,
}

/// The steps to an endpoint that have a deadline each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Looking the name up.
    Dns,
    /// The TCP handshake.
    Connect,
    /// The protocol's upgrade to TLS.
    Starttls,
    /// The TLS handshake.
    Handshake,
    /// All of them together.
    Endpoint,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "DNS look-up",
            Self::Connect => "TCP connection",
            Self::Starttls => "STARTTLS",
            Self::Handshake => "TLS handshake",
            Self::Endpoint => "probe as a whole",
        })
    }
}

impl Kind {
    /// What these clients refuse, and others accept.
    pub(crate) fn refused_by(clients: &[&str], reason: String) -> Self {
        Self::SomeClientsRefuse {
            clients: clients.iter().map(|client| (*client).to_owned()).collect(),
            reason,
        }
    }

    /// The finding's name, without its facts.
    pub fn code(&self) -> &Code {
        match self {
            Self::Expired { .. } => &Code::Expired,
            Self::ExpiresSoon { .. } => &Code::ExpiresSoon,
            Self::NotYetValid { .. } => &Code::NotYetValid,
            Self::NameMismatch { .. } => &Code::NameMismatch,
            Self::SelfSigned { .. } => &Code::SelfSigned,
            Self::UntrustedRoot { .. } => &Code::UntrustedRoot,
            Self::IncompleteChain { .. } => &Code::IncompleteChain,
            Self::InvalidChain { .. } => &Code::InvalidChain,
            Self::IssuerExpired { .. } => &Code::IssuerExpired,
            Self::IssuerExpiresSoon { .. } => &Code::IssuerExpiresSoon,
            Self::IssuerNotYetValid { .. } => &Code::IssuerNotYetValid,
            Self::SomeClientsRefuse { .. } => &Code::SomeClientsRefuse,
            Self::KeyUsage { .. } => &Code::KeyUsage,
            Self::LongLifetime { .. } => &Code::LongLifetime,
            Self::WeakKey { .. } => &Code::WeakKey,
            Self::WeakSignature { .. } => &Code::WeakSignature,
            Self::Revoked { .. } => &Code::Revoked,
            Self::LegacyTls { .. } => &Code::LegacyTls,
            Self::AddressesDisagree { .. } => &Code::AddressesDisagree,
            Self::DnsFailed { .. } => &Code::DnsFailed,
            Self::ConnectFailed { .. } => &Code::ConnectFailed,
            Self::StarttlsFailed { .. } => &Code::StarttlsFailed,
            Self::HandshakeFailed { .. } => &Code::HandshakeFailed,
            Self::TimedOut { .. } => &Code::TimedOut,
            Self::RenewalFailed { .. } => &Code::RenewalFailed,
            Self::RenewalOverdue { .. } => &Code::RenewalOverdue,
            Self::NotRenewed { .. } => &Code::NotRenewed,
            Self::NotPulled { .. } => &Code::NotPulled,
            Self::InstallFailed { .. } => &Code::InstallFailed,
            Self::WrongCertificate { .. } => &Code::WrongCertificate,
            Self::SilentInstance { .. } => &Code::SilentInstance,
            Self::CertificateUnreadable { .. } => &Code::CertificateUnreadable,
            Self::ReceiptUnreadable { .. } => &Code::ReceiptUnreadable,
            Self::NotJudged { .. } => &Code::NotJudged,
            Self::Unknown { code, .. } => code,
        }
    }
}

/// A length of time the way a person says it: `9 d 4 h`, `23 h 59 min`, `42 s`.
pub struct Span(pub time::Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.whole_seconds();
        let sign = if seconds < 0 { "-" } else { "" };
        let seconds = seconds.unsigned_abs();
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
        match (days, hours, minutes) {
            (100.., ..) | (1.., 0, _) => write!(f, "{sign}{days} d"),
            (1.., ..) => write!(f, "{sign}{days} d {hours} h"),
            (0, 1.., 0) => write!(f, "{sign}{hours} h"),
            (0, 1.., _) => write!(f, "{sign}{hours} h {minutes} min"),
            (0, 0, 1..) => write!(f, "{sign}{minutes} min"),
            (0, 0, 0) => write!(f, "{sign}{seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp;

    #[test]
    fn spans_read_like_a_person_says_them() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_600, "1 h"),
            (86_399, "23 h 59 min"),
            (86_400, "1 d"),
            (9 * 86_400 + 4 * 3_600, "9 d 4 h"),
            (200 * 86_400 + 4 * 3_600, "200 d"),
            (-61, "-1 min"),
        ] {
            assert_eq!(Span(time::Duration::seconds(seconds)).to_string(), expected);
        }
    }

    #[test]
    fn a_finding_is_flat_in_json() {
        let not_after = timestamp!(2026-12-01 00:00 UTC);
        let kind = Kind::ExpiresSoon {
            not_after,
            threshold_seconds: 1_209_600,
        };
        let finding = Finding::new(kind, Severity::Warning, timestamp!(2026-11-24 00:00 UTC));
        let json = serde_json::json!({
            "code": "expires_soon", "severity": "warning", "not_after": "2026-12-01T00:00:00Z",
            "threshold_seconds": 1_209_600, "message": "expires in 7 d, on 2026-12-01 00:00 UTC",
        });
        assert_eq!(serde_json::to_value(&finding).unwrap(), json);
        assert_eq!(serde_json::from_value::<Finding>(json).unwrap(), finding);
        assert_eq!(*finding.kind.code(), Code::ExpiresSoon);
    }
}
