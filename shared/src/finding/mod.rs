//! What can be wrong with an endpoint: a closed list, each with the facts that prove it.

mod thresholds;

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use self::thresholds::Thresholds;
use crate::text::instance_name;
use crate::timestamp::Timestamp;

/// One thing that is wrong, how much it matters, and what to tell a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What is wrong, with its facts; serialized as `code` and the facts beside it.
    #[serde(flatten)]
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// The same in a sentence.
    pub message: String,
}

impl Finding {
    /// A finding as of `now`, with its message made from its facts.
    pub fn new(kind: Kind, severity: Severity, now: Timestamp) -> Self {
        let message = kind.message(now);
        Self {
            kind,
            severity,
            message,
        }
    }

    /// A finding about the way to the endpoint, not about its certificate: nothing could be judged.
    pub fn network(kind: Kind) -> Self {
        Self::new(kind, Severity::Unknown, Timestamp::UNIX_EPOCH)
    }

    /// Whether it is about the way to the endpoint and worth another try.
    pub fn is_network(&self) -> bool {
        self.severity == Severity::Unknown
    }
}

/// How much a finding matters, mildest first; also the state of an endpoint, which is its worst finding's.
///
/// `Unknown` means that nobody could look. It ranks above a warning, because behind it may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing wrong.
    Ok,
    /// Someone should act within days.
    Warning,
    /// Could not look.
    Unknown,
    /// Clients fail, or soon will.
    Critical,
}

impl Severity {
    /// The exit code of monitoring plugins: 0 ok, 1 warning, 2 critical, 3 unknown.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        })
    }
}

/// The closed list of findings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
#[allow(missing_docs)] // the fields are the facts and say what they are by name
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
        /// One of that name is trusted, but has another key: a private CA was made anew, or is imitated.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        key_differs: bool,
    },
    /// An issuer is missing from what the server sent.
    IncompleteChain { missing: String },
    /// A path stands but breaks a rule.
    InvalidChain { reason: String },
    /// An issuer that every path needs has expired.
    IssuerExpired { subject: String, not_after: Timestamp },
    /// An issuer of the path expires before the leaf, and soon.
    IssuerExpiresSoon { subject: String, not_after: Timestamp },
    /// A key in the path that is too weak.
    WeakKey { subject: String, key: String },
    /// A signature in the path by an algorithm that is broken.
    WeakSignature { subject: String, signature: String },
    /// The issuer's CRL lists the certificate.
    Revoked {
        subject: String,
        serial: String,
        revoked_at: Timestamp,
        reason: Option<String>,
    },
    /// The server speaks nothing that today's clients accept.
    LegacyTls { version: String, cipher_suite: String },
    /// The addresses of one name serve different certificates.
    AddressesDisagree { certificates: Vec<Served> },
    /// The name has no address, or no name server would say.
    DnsFailed { name: String, reason: String },
    /// No TCP connection.
    ConnectFailed { reason: String },
    /// The protocol's upgrade to TLS was refused or garbled.
    StarttlsFailed { protocol: String, reason: String },
    /// TCP stands, TLS does not.
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
    /// An instance has not taken the current version in time; or nobody has, as far as anybody can see.
    NotPulled {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        version: String,
        fingerprint: String,
        not_after: Timestamp,
        /// What it has instead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        installed: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        installed_fingerprint: Option<String>,
    },
    /// It was renewed, and is not in the inventory any more.
    NotRenewed {
        name: String,
        not_after: Timestamp,
        /// Whether it is its entry that is gone, or the whole inventory.
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
    /// An address serves something else than the current version.
    WrongCertificate {
        endpoint: String,
        address: SocketAddr,
        expected: String,
        expected_not_after: Timestamp,
        found: String,
        found_not_after: Timestamp,
    },
    /// An instance has not reported for longer than it said it would.
    SilentInstance {
        instance: String,
        host: String,
        last_seen: Timestamp,
        due: Timestamp,
    },
    /// What the bucket has about a managed certificate cannot be read, so that nobody knows how far it is.
    CertificateUnreadable { reason: String },
    /// What an instance reports makes no sense.
    ReceiptUnreadable { instance: String, reason: String },
}

/// Which addresses of an endpoint serve which certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// SHA-256 of the leaf's DER, lower-case hex.
    pub fingerprint: String,
    /// When that leaf ends.
    pub not_after: Timestamp,
    /// Who serves it.
    pub addresses: Vec<SocketAddr>,
}

/// The steps to an endpoint that have a deadline each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The finding's name in JSON, metrics and tables.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "expired",
            Self::ExpiresSoon { .. } => "expires_soon",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::NameMismatch { .. } => "name_mismatch",
            Self::SelfSigned { .. } => "self_signed",
            Self::UntrustedRoot { .. } => "untrusted_root",
            Self::IncompleteChain { .. } => "incomplete_chain",
            Self::InvalidChain { .. } => "invalid_chain",
            Self::IssuerExpired { .. } => "issuer_expired",
            Self::IssuerExpiresSoon { .. } => "issuer_expires_soon",
            Self::WeakKey { .. } => "weak_key",
            Self::WeakSignature { .. } => "weak_signature",
            Self::Revoked { .. } => "revoked",
            Self::LegacyTls { .. } => "legacy_tls",
            Self::AddressesDisagree { .. } => "addresses_disagree",
            Self::DnsFailed { .. } => "dns_failed",
            Self::ConnectFailed { .. } => "connect_failed",
            Self::StarttlsFailed { .. } => "starttls_failed",
            Self::HandshakeFailed { .. } => "handshake_failed",
            Self::TimedOut { .. } => "timed_out",
            Self::RenewalFailed { .. } => "renewal_failed",
            Self::NotRenewed { .. } => "not_renewed",
            Self::NotPulled { .. } => "not_pulled",
            Self::InstallFailed { .. } => "install_failed",
            Self::WrongCertificate { .. } => "wrong_certificate",
            Self::SilentInstance { .. } => "silent_instance",
            Self::CertificateUnreadable { .. } => "certificate_unreadable",
            Self::ReceiptUnreadable { .. } => "receipt_unreadable",
        }
    }

    fn message(&self, now: Timestamp) -> String {
        match self {
            Self::Expired { not_after } => {
                format!("expired {} ago, on {}", Span(now - *not_after), *not_after)
            }
            Self::ExpiresSoon { not_after, .. } => {
                format!("expires in {}, on {}", Span(*not_after - now), *not_after)
            }
            Self::NotYetValid { not_before } => {
                format!(
                    "is not valid for another {}, until {}",
                    Span(*not_before - now),
                    *not_before
                )
            }
            Self::NameMismatch { expected, names } if names.is_empty() => {
                format!("is not for {expected}: it has no subject alternative names")
            }
            Self::NameMismatch { expected, names } => format!("is not for {expected}, only for {}", some_of(names)),
            Self::SelfSigned { subject } => format!("is self-signed ({subject}): no client trusts it"),
            Self::UntrustedRoot {
                root,
                key_differs: false,
            } => format!("leads to a root that is not trusted: {root}"),
            Self::UntrustedRoot {
                root,
                key_differs: true,
            } => format!("leads to a root that is not trusted: {root}; the root trusted by that name has another key"),
            Self::IncompleteChain { missing } => {
                format!("the server does not send the issuer {missing}: many clients cannot build a path")
            }
            Self::InvalidChain { reason } => format!("the chain breaks a rule: {reason}"),
            Self::IssuerExpired { subject, not_after } => {
                format!(
                    "the issuer {subject} expired {} ago, on {}",
                    Span(now - *not_after),
                    *not_after
                )
            }
            Self::IssuerExpiresSoon { subject, not_after } => {
                format!(
                    "the issuer {subject} expires in {}, on {}",
                    Span(*not_after - now),
                    *not_after
                )
            }
            Self::WeakKey { subject, key } => format!("the key of {subject} is too weak: {key}"),
            Self::WeakSignature { subject, signature } => {
                format!("{subject} is signed with {signature}, which is broken")
            }
            Self::Revoked {
                subject,
                serial,
                revoked_at,
                reason,
            } => {
                let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                format!(
                    "{subject}, serial {serial}, was revoked by its issuer on {}{reason}",
                    *revoked_at
                )
            }
            Self::LegacyTls { version, cipher_suite } => {
                format!("the server offers only {version} with {cipher_suite}: today's clients refuse that")
            }
            Self::AddressesDisagree { certificates } => {
                format!(
                    "the addresses serve {} different certificates: {}",
                    certificates.len(),
                    each(certificates)
                )
            }
            Self::DnsFailed { name, reason } => format!("{name} could not be looked up: {reason}"),
            Self::ConnectFailed { reason } => format!("no TCP connection: {reason}"),
            Self::StarttlsFailed { protocol, reason } => format!("{protocol} did not switch to TLS: {reason}"),
            Self::HandshakeFailed { reason } => format!("the TLS handshake failed: {reason}"),
            Self::TimedOut { phase, after_ms } => {
                format!("the {phase} took longer than {:.1} s", *after_ms as f64 / 1000.0)
            }
            Self::RenewalFailed {
                problem,
                tries,
                since,
                next_try,
                ..
            } => {
                format!(
                    "the renewal has failed {tries} times since {}: {problem} (next try {})",
                    *since, *next_try
                )
            }
            Self::NotRenewed {
                name,
                not_after,
                inventory_missing,
            } => {
                let gone = match inventory_missing {
                    true => "there is no inventory.toml any more".to_owned(),
                    false => format!("inventory.toml has no [[certificate]] named {name:?} any more"),
                };
                format!("no longer renewed or watched: {gone}; valid until {}", *not_after)
            }
            Self::NotPulled {
                instance,
                host,
                version,
                not_after,
                installed,
                ..
            } => {
                let (version, installed) = (
                    format!("version {version}, until {}", *not_after),
                    installed.as_deref().unwrap_or("nothing"),
                );
                match (instance, host) {
                    (None, _) => format!(
                        "nobody has seen it: no instance shows that clients get {version}, and no address is looked at"
                    ),
                    (Some(instance), host) => format!(
                        "{} ({}) has not installed {version}; it has {installed}",
                        instance_name(instance),
                        host.as_deref().unwrap_or("no host name")
                    ),
                }
            }
            Self::InstallFailed {
                instance,
                host,
                version,
                reason,
                since,
                ..
            } => {
                format!(
                    "{} ({host}) could not install version {version} since {}: {reason}",
                    instance_name(instance),
                    *since
                )
            }
            Self::WrongCertificate {
                endpoint,
                address,
                expected,
                expected_not_after,
                found,
                found_not_after,
            } => {
                format!(
                    "{address} serves another certificate for {endpoint} (fingerprint {found}, until {}) than the current one \
                     (fingerprint {expected}, until {})",
                    *found_not_after, *expected_not_after
                )
            }
            Self::SilentInstance {
                instance,
                host,
                last_seen,
                due,
            } => {
                format!(
                    "{} ({host}) has not reported since {}, although it was due on {}",
                    instance_name(instance),
                    *last_seen,
                    *due
                )
            }
            Self::CertificateUnreadable { reason } => format!("nobody can say how far it is: {reason}"),
            Self::ReceiptUnreadable { instance, reason } => {
                format!(
                    "what {} reports cannot be understood: {reason}",
                    instance_name(instance)
                )
            }
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

fn some_of(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMES_SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn each(certificates: &[Served]) -> String {
    let one = |served: &Served| {
        let addresses = served
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        format!(
            "{} until {} on {addresses}",
            served.fingerprint.get(..12).unwrap_or(""),
            served.not_after
        )
    };
    certificates.iter().map(one).collect::<Vec<_>>().join("; ")
}

const NAMES_SHOWN: usize = 5;

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
            "threshold_seconds": 1_209_600, "message": "expires in 7 d, on 2026-12-01T00:00:00Z",
        });
        assert_eq!(serde_json::to_value(&finding).unwrap(), json);
        assert_eq!(serde_json::from_value::<Finding>(json).unwrap(), finding);
        assert_eq!(finding.kind.code(), "expires_soon");
    }
}
