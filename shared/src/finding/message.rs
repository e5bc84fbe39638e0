//! Each kind of finding in a sentence.

use super::{InstanceBehind, Kind, LifetimeRule, Served, Span};
use crate::text::{instance_name, some_of};
use crate::timestamp::Timestamp;

impl Kind {
    /// Why a step of the probe failed, to go on with in another sentence.
    pub(crate) fn failure(&self) -> String {
        match self {
            Self::ConnectFailed { reason } | Self::HandshakeFailed { reason } => reason.clone(),
            Self::TimedOut { after_ms, .. } => format!("no answer within {:.1} s", *after_ms as f64 / 1000.0),
            other => other.message(None),
        }
    }

    /// The finding in a sentence. How far away a moment is, past or to come, is said as of `now`,
    /// if that is given.
    pub(super) fn message(&self, now: Option<Timestamp>) -> String {
        let ago = |then: Timestamp| now.map_or_else(String::new, |now| format!(" {} ago,", Span(now - then)));
        let within =
            |word: &str, then: Timestamp| now.map_or_else(String::new, |now| format!(" {word} {},", Span(then - now)));
        match self {
            Self::Expired { not_after } => format!("expired{} on {not_after}", ago(*not_after)),
            Self::ExpiresSoon { not_after, .. } => format!("expires{} on {not_after}", within("in", *not_after)),
            Self::NotYetValid { not_before } => {
                format!("is not valid{} until {not_before}", within("for another", *not_before))
            }
            Self::NameMismatch { expected, names } if names.is_empty() => {
                format!("is not for {expected}: it has no subject alternative names")
            }
            // The same text, but as a name: clients ask addresses for addresses only.
            Self::NameMismatch { expected, names } if names.contains(expected) => {
                format!("is not for {expected}: it has that as a DNS name, and clients want it as an address")
            }
            Self::NameMismatch { expected, names } => {
                format!("is not for {expected}, only for {}", some_of(names, NAMES_SHOWN))
            }
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
                format!("the issuer {subject} expired{} on {not_after}", ago(*not_after))
            }
            Self::IssuerExpiresSoon { subject, not_after } => {
                format!(
                    "the issuer {subject} expires{} on {not_after}",
                    within("in", *not_after)
                )
            }
            Self::IssuerNotYetValid { subject, not_before } => {
                format!(
                    "the issuer {subject} is not valid{} until {not_before}",
                    within("for another", *not_before)
                )
            }
            Self::SomeClientsRefuse { clients, reason } => {
                format!("{} the chain, which other clients accept: {reason}", refuse(clients))
            }
            Self::KeyUsage { clients, usage } => {
                format!(
                    "{} the leaf: the server signs with its key, but the key usage is {usage} only",
                    refuse(clients)
                )
            }
            Self::LongLifetime {
                days,
                most_days,
                rule: LifetimeRule::CaBrowserForum,
                since,
            } => format!(
                "its lifetime of {days} d is longer than the {most_days} d that the CA/Browser Forum allows since {}",
                since.utc().date()
            ),
            Self::LongLifetime {
                days,
                most_days,
                rule: LifetimeRule::Apple,
                ..
            } => format!(
                "its lifetime of {days} d is longer than the {most_days} d that Apple's systems accept, whatever its CA is"
            ),
            Self::WeakKey { subject, key, clients } if clients.is_empty() => {
                format!("the key of {subject} is too weak: {key}")
            }
            Self::WeakKey { subject, key, clients } => {
                format!(
                    "the key of {subject} is too weak: {key}, which {} today",
                    refuse(clients)
                )
            }
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
                format!("{subject}, serial {serial}, was revoked by its issuer on {revoked_at}{reason}")
            }
            Self::LegacyTls { version, cipher_suite } => legacy_tls(version, cipher_suite),
            Self::AddressesDisagree { certificates } => {
                format!(
                    "the addresses serve {} different certificates: {}",
                    certificates.len(),
                    each(certificates)
                )
            }
            Self::DnsFailed { name, reason, .. } => format!("{name} could not be looked up: {reason}"),
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
                let failed = match tries {
                    1 => format!("the renewal failed on {since}"),
                    tries => format!("the renewal has failed {tries} times since {since}"),
                };
                format!("{failed}: {problem} (next try: {next_try})")
            }
            Self::RenewalOverdue { since, .. } => {
                format!(
                    "the renewal has been due since {since}, but the renewer has reported neither success nor failure"
                )
            }
            Self::NotRenewed {
                name,
                not_after,
                inventory_missing,
            } => {
                let gone = if *inventory_missing {
                    "there is no inventory.toml any more".to_owned()
                } else {
                    format!("inventory.toml has no [[certificate]] named {name:?} any more")
                };
                format!("no longer renewed or watched: {gone}; valid until {not_after}")
            }
            Self::NotPulled {
                behind: None,
                version,
                not_after,
                ..
            } => format!(
                "no instance and no address has shown version {version}, valid until {not_after}, so it may not be served at all"
            ),
            Self::NotPulled {
                behind:
                    Some(InstanceBehind {
                        instance,
                        host,
                        installed,
                        ..
                    }),
                version,
                not_after,
                ..
            } => format!(
                "{} ({host}) has not installed version {version}, valid until {not_after}; it has {}",
                instance_name(instance),
                match installed {
                    Some(installed) => format!("version {installed}"),
                    None => "none".to_owned(),
                }
            ),
            Self::InstallFailed {
                instance,
                host,
                version,
                reason,
                since,
                ..
            } => format!(
                "{} ({host}) has failed to install version {version} since {since}: {reason}",
                instance_name(instance)
            ),
            Self::WrongCertificate {
                endpoint,
                address,
                expected,
                expected_not_after,
                found,
                found_not_after,
            } => format!(
                "{address} serves a different certificate for {endpoint} ({}, valid until {found_not_after}) than the current \
                 version ({}, valid until {expected_not_after})",
                short(found),
                short(expected)
            ),
            Self::SilentInstance {
                instance,
                host,
                last_seen,
                due,
            } => format!(
                "{} ({host}) has not reported since {last_seen}; its next report was due on {due}",
                instance_name(instance)
            ),
            Self::CertificateUnreadable { reason } => format!("its state is not known: {reason}"),
            Self::ReceiptUnreadable { instance, reason } => {
                format!("the receipt of {} cannot be read: {reason}", instance_name(instance))
            }
            Self::NotJudged { reason } => format!("nothing is known of it: {reason}"),
            Self::Unknown { code, .. } => code.as_str().replace('_', " "),
        }
    }
}

/// Who refuses: `Go refuses`, `Go, OpenSSL and curl refuse`.
fn refuse(clients: &[String]) -> String {
    match clients {
        [first @ .., before, last] => {
            let first: String = first.iter().map(|client| format!("{client}, ")).collect();
            format!("{first}{before} and {last} refuse")
        }
        _ => format!("{} refuses", clients.concat()),
    }
}

/// What an old server offers, and which clients refuse it. It was offered everything from SSL 3.0
/// to TLS 1.3, and chose this; today's clients have other suites of TLS 1.2 in common with it or
/// not.
fn legacy_tls(version: &str, suite: &str) -> String {
    if version != "TLSv1.2" {
        return format!(
            "the server offers no version above {version} (with {suite}): browsers, OpenSSL and Go refuse that"
        );
    }

    let has_ecdhe = suite.starts_with("TLS_ECDHE_");
    if has_ecdhe && (suite.contains("_GCM_") || suite.contains("_CHACHA20_")) {
        return format!(
            "the server agrees on {suite} only by a curve that not all clients have, such as P-521 or X448: OpenSSL and \
             GnuTLS still connect, some browsers refuse"
        );
    }

    let is_broken = ["_3DES_", "_RC4_", "_DSS_"].iter().any(|part| suite.contains(part));
    let clients = if is_broken {
        "today's clients do not offer that one"
    } else if has_ecdhe {
        "browsers, OpenSSL and Go still connect; clients that want AEAD refuse"
    } else if suite.starts_with("TLS_RSA_") {
        "browsers and OpenSSL still connect; Go refuses RSA key exchange"
    } else if suite.starts_with("TLS_DHE_") {
        "OpenSSL still connects; browsers and Go do not offer DHE"
    } else {
        "few of today's clients offer that one"
    };
    format!(
        "the server offers no suite with both forward secrecy by ECDHE and AEAD, and chose {suite} of {version}: {clients}"
    )
}

/// The certificates of an endpoint whose addresses disagree, each with its addresses.
fn each(certificates: &[Served]) -> String {
    let mut all = Vec::new();
    for served in certificates {
        let addresses = some_of(&served.addresses, usize::MAX);
        all.push(format!(
            "at {addresses} one valid until {} ({})",
            served.not_after,
            short(&served.fingerprint)
        ));
    }
    all.join("; ")
}

/// A fingerprint by its name and its first digits, which tell the certificates of one place apart.
fn short(fingerprint: &str) -> String {
    match fingerprint.get(..FINGERPRINT_SHOWN) {
        Some(first) => format!("SHA-256 {first}…"),
        None => format!("SHA-256 {fingerprint}"),
    }
}

const NAMES_SHOWN: usize = 5;
const FINGERPRINT_SHOWN: usize = 12;
