//! What each code is called in alerts, how it is resolved, and what to do about it.
//!
//! These three are exhaustive matches: a new code does not compile until people can read about it.

use std::borrow::Cow;

use crate::alert::incident::{Incident, Place};
use crate::alert::memory::KEY;
use crate::alert::sender::Sender;
use crate::bucket::store::INVENTORY;
use crate::finding::Code;
use crate::inventory::Source;
use crate::renewal::Renewal;
use crate::timestamp::Timestamp;

/// The message, with its subject where it leaves that out.
pub(super) fn sentence(incident: &Incident) -> Cow<'_, str> {
    use Code::{Expired, ExpiresSoon, NameMismatch, NotYetValid, SelfSigned, UntrustedRoot};
    match incident.code {
        Expired | ExpiresSoon | NotYetValid | NameMismatch | SelfSigned | UntrustedRoot => {
            format!("the certificate {}", incident.message).into()
        }
        _ => incident.message.as_str().into(),
    }
}

/// What is wrong, in words that fit into a subject.
pub(super) fn in_short(incident: &Incident) -> Cow<'static, str> {
    let words = match &incident.code {
        Code::Expired => "expired",
        Code::ExpiresSoon => "expires soon",
        Code::NotYetValid => "not yet valid",
        Code::NameMismatch => "wrong name",
        Code::SelfSigned => "self-signed",
        Code::UntrustedRoot => "not trusted",
        Code::IncompleteChain => "an issuer is missing",
        Code::InvalidChain => "invalid chain",
        Code::IssuerExpired => "an issuer has expired",
        Code::IssuerExpiresSoon => "an issuer expires soon",
        Code::IssuerNotYetValid => "an issuer is not yet valid",
        Code::SomeClientsRefuse => "some clients refuse it",
        Code::KeyUsage => "the key is not for signing",
        Code::LongLifetime => "long lifetime",
        Code::WeakKey => "weak key",
        Code::WeakSignature => "weak signature",
        Code::Revoked => "revoked",
        Code::LegacyTls => "outdated TLS",
        Code::AddressesDisagree => "addresses serve different certificates",
        Code::DnsFailed => "the name cannot be looked up",
        Code::ConnectFailed => "no connection",
        Code::StarttlsFailed => "STARTTLS failed",
        Code::HandshakeFailed => "no TLS handshake",
        Code::TimedOut => "no answer in time",
        Code::RenewalFailed => "renewal failed",
        Code::RenewalOverdue => "renewal overdue",
        Code::NotRenewed => "no longer renewed",
        Code::NotPulled if incident.is_unseen() => "not seen at any server",
        Code::NotPulled => "an instance has not installed it",
        Code::InstallFailed => "an instance cannot install it",
        Code::WrongCertificate => "a different certificate is served",
        Code::SilentInstance => "an instance does not report",
        Code::CertificateUnreadable => "its state cannot be read",
        Code::ReceiptUnreadable => "an instance's receipt cannot be read",
        Code::NotJudged => "neverlapse cannot judge it",
        Code::RunFailed => "neverlapse watches nothing",
        Code::ManyUnreachable => match &incident.outage {
            Some(outage) => return outage.to_string().into(),
            None => "many endpoints cannot be reached together",
        },
        Code::NotReached => "endpoints were not reached in time",
        Code::InventoryProblem => "the inventory has errors",
        Code::MemoryLost => "the record of earlier alerts is lost",
        Code::Unknown(code) => return code.replace('_', " ").into(),
    };
    words.into()
}

/// How it was resolved.
pub(super) fn resolution(incident: &Incident) -> Cow<'static, str> {
    let words = match &incident.code {
        Code::DnsFailed | Code::ConnectFailed | Code::StarttlsFailed | Code::HandshakeFailed | Code::TimedOut => {
            "can be reached again"
        }
        Code::RenewalFailed => "renewed again",
        Code::RenewalOverdue => "renewed, or no longer due",
        Code::NotRenewed => "in the inventory again",
        Code::NotPulled if incident.is_unseen() => "seen at a server",
        Code::NotPulled | Code::InstallFailed => "installed, or the instance is gone",
        Code::SilentInstance => "the instance reports again, or is gone",
        Code::ReceiptUnreadable => "the instance's receipt can be read again, or is gone",
        Code::WrongCertificate => "no address serves a different certificate any more",
        Code::RunFailed => "neverlapse watches again",
        Code::ManyUnreachable => "endpoints no longer fail together",
        Code::NotReached => "every endpoint was reached in time",
        Code::InventoryProblem => "an error in the inventory is corrected",
        Code::MemoryLost => "the record of earlier alerts can be read again",
        Code::Expired
        | Code::ExpiresSoon
        | Code::NotYetValid
        | Code::NameMismatch
        | Code::SelfSigned
        | Code::UntrustedRoot
        | Code::IncompleteChain
        | Code::InvalidChain
        | Code::IssuerExpired
        | Code::IssuerExpiresSoon
        | Code::IssuerNotYetValid
        | Code::SomeClientsRefuse
        | Code::KeyUsage
        | Code::LongLifetime
        | Code::WeakKey
        | Code::WeakSignature
        | Code::Revoked
        | Code::LegacyTls
        | Code::AddressesDisagree
        | Code::CertificateUnreadable
        | Code::NotJudged
        | Code::Unknown(_) => "no longer found",
    };
    words.into()
}

/// The managed certificate that a place should serve.
pub(super) struct Managed<'a> {
    pub(super) name: &'a str,
    /// What to do when it expires although neverlapse renews it: that depends on how far the
    /// renewal is.
    pub(super) step: String,
    /// Until when every issuer of it asked to wait.
    pub(super) wait_until: Option<Timestamp>,
}

/// What to do about it, in words that need no manual.
pub(super) fn advice(incident: &Incident, managed: Option<Managed<'_>>, source: Source, sender: &Sender) -> String {
    let place = match &incident.place {
        Place::Endpoint(name) | Place::Certificate(name) => name.as_str(),
        Place::Inventory | Place::Probe => "",
    };
    let words = match (&incident.code, managed) {
        (Code::Expired | Code::ExpiresSoon, Some(managed)) => return managed.step,
        (Code::Expired, None) => {
            "renew it with its issuer now, install it at each of these addresses, and reload the server"
        }
        (Code::ExpiresSoon, None) => {
            let by = incident
                .not_after
                .map_or_else(String::new, |end| format!(" before {end}"));
            return format!(
                "renew it with its issuer{by}, install it at each of these addresses, and reload the server"
            );
        }
        // Whoever copied files by hand here would work against `neverlapse pull`.
        (Code::AddressesDisagree, Some(Managed { name, .. })) => {
            return format!(
                "do not copy files by hand: neverlapse installs certificate {name} there. `neverlapse status {name}` \
                 shows which server does not serve it; run `neverlapse pull --now` on that server"
            );
        }
        (Code::NotYetValid, _) => {
            "install a certificate that is valid today. If this one should be valid, check the clocks of the CA and of the probe"
        }
        (Code::NameMismatch, _) => {
            "install a certificate for this name. If the server has several, check which one it serves for this name (SNI). If the name is no longer used, remove it from the inventory"
        }
        (Code::SelfSigned | Code::UntrustedRoot, _) => {
            "install a certificate of a CA that clients trust. If the CA is your own, put its root certificate into the bucket under ca/ and name it as `ca` in the inventory"
        }
        (Code::IncompleteChain, _) => {
            "configure the server to send the issuers too (fullchain.pem instead of cert.pem), and reload it"
        }
        (Code::InvalidChain, _) => "have the certificate reissued, or correct the chain that the server sends",
        (Code::IssuerExpired | Code::IssuerExpiresSoon, _) => {
            "install the chain that the CA supplies today; renewing the certificate usually brings it"
        }
        (Code::IssuerNotYetValid, _) => {
            "install a chain whose issuers are valid today, and check the clocks of the CA and of the probe"
        }
        (Code::SomeClientsRefuse, _) => {
            "if such clients use this server, have the certificate reissued without the fault described above"
        }
        (Code::KeyUsage, _) => "have it reissued with the key usage digitalSignature",
        (Code::LongLifetime, _) => "have the next one issued for less time; until then, nothing",
        (Code::WeakKey, _) => "have it reissued with an ECDSA P-256 key, or an RSA key of at least 2048 bits",
        (Code::WeakSignature, _) => "have it reissued with a signature by SHA-256 or better",
        (Code::Revoked, _) => "renew it with a new key now, and ask the issuer why it was revoked",
        (Code::LegacyTls, _) => "enable TLS 1.3 on the server, and TLS 1.2 with ECDHE and AES-GCM",
        (Code::AddressesDisagree, None) => {
            "install the newest certificate at every address, and reload the servers that still serve an old one"
        }
        (Code::DnsFailed, _) => {
            "check the name and its DNS zone. If the name is no longer used, remove it from the inventory"
        }
        (Code::ConnectFailed | Code::TimedOut, _) => {
            "check that the server runs, and that firewalls and routes let the probe through. If the server is retired, remove it from the inventory"
        }
        (Code::StarttlsFailed | Code::HandshakeFailed, _) => {
            return format!(
                "check the server's TLS configuration and its log; `neverlapse check {place}` shows the same from where you are"
            );
        }
        (
            Code::RenewalFailed,
            Some(Managed {
                wait_until: Some(until),
                ..
            }),
        ) => {
            return format!("wait until {until}: the CA takes no order before, and neverlapse tries again then");
        }
        (Code::RenewalFailed, _) => {
            return format!("fix the cause named above; `neverlapse renew {place} --force` then tries at once");
        }
        (Code::RenewalOverdue, _) => {
            return format!(
                "find out why the renewer does not work: `neverlapse doctor` checks its queue, its function and its rights. Then \
                 `neverlapse renew {place}` asks it again"
            );
        }
        (Code::NotRenewed, _) => {
            return format!(
                "put it back into {}. If it is no longer wanted, remove {} to end this alert",
                sender.object(INVENTORY),
                sender.object(&Renewal::key(place))
            );
        }
        (Code::NotPulled, _) if incident.is_unseen() => {
            "name in `served_at` where clients get it, or let instances check it themselves (`verify` in pull.toml)"
        }
        (Code::NotJudged, _) => {
            "this is an error in neverlapse: update the stack, and if that does not help, report it with the function's log of this run. Until then, check this place by other means"
        }
        (Code::NotPulled | Code::SilentInstance, _) => {
            return format!(
                "on the instance, run `neverlapse pull --now`, and check that its timer runs (`systemctl list-timers neverlapse-pull.timer`). \
                 If the instance is gone, its receipt is removed after 14 days; to remove it now, delete it under {}",
                sender.object("receipts/")
            );
        }
        (Code::InstallFailed, _) => {
            "fix the cause named above, and run `neverlapse pull --now` on the instance. If the server no longer reads the \
             files of neverlapse, point its configuration at them again, or remove the certificate from pull.toml"
        }
        (Code::WrongCertificate, _) => {
            "check which files the server reads (its configuration should name those under live/), and run `neverlapse pull --now` on it"
        }
        (Code::CertificateUnreadable, _) => {
            "allow the functions to read the object named above: check the policies of the bucket and of its key, and that the stack is up to date"
        }
        (Code::ReceiptUnreadable, _) => {
            "find out what wrote it, remove it, and run `neverlapse pull` on the instance. If it has the format of a later version, update this stack"
        }
        (Code::RunFailed, _) => {
            let Sender { stack, region, .. } = sender;
            return format!(
                "fix the cause named above, then start a run: `AWS_REGION={region} neverlapse run --stack {stack}`, or \
                 `sam remote invoke Probe --stack-name {stack} --region {region} --event '{{}}'`"
            );
        }
        (Code::ManyUnreachable, _) => {
            "check the network between the probe and these endpoints first (subnets, NAT gateway, security groups, name server), then what these endpoints have in common"
        }
        (Code::NotReached, _) => {
            "if this repeats, find the endpoints that never answer: each of them uses up its whole deadline"
        }
        (Code::InventoryProblem, _) => {
            return match source {
                Source::Domains => {
                    "correct the stack's parameter Domains (`make deploy`). Until then, such an entry is not watched"
                        .to_owned()
                }
                Source::File => format!(
                    "correct it in {} (`neverlapse validate` shows every error). Until then, such an entry is not watched",
                    sender.object(INVENTORY)
                ),
            };
        }
        (Code::MemoryLost, _) => {
            return format!(
                "check {} and whether the function may read it; the bucket keeps earlier versions. Without it, alerts are repeated",
                sender.object(KEY)
            );
        }
        (Code::Unknown(_), _) => "see the full report",
    };
    words.to_owned()
}
