//! What each code is called in alerts, how it ends, and what to do about it.
//!
//! These three are exhaustive matches: a new code does not compile until people can read about it.

use std::borrow::Cow;

use crate::alert::incident::{Incident, Place};
use crate::alert::memory::KEY;
use crate::alert::sender::Sender;
use crate::bucket::store::INVENTORY;
use crate::finding::Code;
use crate::renewal::Renewal;

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
        Code::IncompleteChain => "an issuer is not sent",
        Code::InvalidChain => "the chain is not valid",
        Code::IssuerExpired => "an issuer has expired",
        Code::IssuerExpiresSoon => "an issuer expires soon",
        Code::IssuerNotYetValid => "an issuer is not yet valid",
        Code::SomeClientsRefuse => "some clients refuse it",
        Code::KeyUsage => "the key is not for signing",
        Code::WeakKey => "weak key",
        Code::WeakSignature => "weak signature",
        Code::Revoked => "revoked",
        Code::LegacyTls => "outdated TLS",
        Code::AddressesDisagree => "addresses serve different certificates",
        Code::DnsFailed => "the name cannot be looked up",
        Code::ConnectFailed => "no connection",
        Code::StarttlsFailed => "does not switch to TLS",
        Code::HandshakeFailed => "no TLS handshake",
        Code::TimedOut => "no answer in time",
        Code::RenewalFailed => "renewal failed",
        Code::NotRenewed => "no longer renewed",
        Code::NotPulled if incident.is_unseen() => "nobody has seen it served",
        Code::NotPulled => "an instance has not installed it",
        Code::InstallFailed => "an instance cannot install it",
        Code::WrongCertificate => "another certificate is served",
        Code::SilentInstance => "an instance does not report",
        Code::CertificateUnreadable => "it cannot be read",
        Code::ReceiptUnreadable => "an instance's report cannot be read",
        Code::RunFailed => "neverlapse watches nothing",
        Code::ManyUnreachable => match &incident.outage {
            Some(outage) => return outage.to_string().into(),
            None => "many endpoints cannot be reached together",
        },
        Code::NotReached => "endpoints were not reached in time",
        Code::InventoryProblem => "the inventory has mistakes",
        Code::MemoryLost => "the record of earlier alerts is lost",
        Code::Unknown(code) => return code.replace('_', " ").into(),
    };
    words.into()
}

/// How it ended.
pub(super) fn over(incident: &Incident) -> Cow<'static, str> {
    let words = match &incident.code {
        Code::DnsFailed | Code::ConnectFailed | Code::StarttlsFailed | Code::HandshakeFailed | Code::TimedOut => {
            "can be reached again"
        }
        Code::RenewalFailed => "it is renewed again",
        Code::NotRenewed => "it is in the inventory again",
        Code::NotPulled if incident.is_unseen() => "somebody has seen it served",
        Code::NotPulled | Code::InstallFailed => "installed now, or the instance is gone",
        Code::SilentInstance => "the instance reports again, or is gone",
        Code::ReceiptUnreadable => "the instance's report is one again, or gone",
        Code::WrongCertificate => "no address shows another one any more",
        Code::RunFailed => "neverlapse watches again",
        Code::ManyUnreachable => "no longer do many endpoints fail together",
        Code::NotReached => "every endpoint was reached in time",
        Code::InventoryProblem => "a mistake in the inventory is gone",
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
        | Code::WeakKey
        | Code::WeakSignature
        | Code::Revoked
        | Code::LegacyTls
        | Code::AddressesDisagree
        | Code::CertificateUnreadable
        | Code::Unknown(_) => return format!("over: {}", in_short(incident)).into(),
    };
    words.into()
}

/// What to do about it, in words that need no manual. What to do about a certificate that expires
/// although neverlapse renews it depends on how far the renewal is: that is `managed`.
pub(super) fn advice(incident: &Incident, managed: Option<String>, sender: &Sender) -> String {
    let place = match &incident.place {
        Place::Endpoint(name) | Place::Certificate(name) => name.as_str(),
        Place::Inventory | Place::Probe => "",
    };
    let words = match &incident.code {
        Code::Expired => {
            return managed.unwrap_or_else(|| {
                "renew it with its issuer now, install it at each of these addresses and reload the server".to_owned()
            });
        }
        Code::ExpiresSoon => {
            return managed.unwrap_or_else(|| {
                let by = incident
                    .not_after
                    .map_or_else(String::new, |end| format!("before {end}, "));
                format!("{by}renew it with its issuer, install it at each of these addresses and reload the server")
            });
        }
        Code::NotYetValid => "install a certificate that is valid today; if it should be, compare the clocks",
        Code::NameMismatch => {
            "install a certificate for this name. If the server has several, look which one it gives for this name (SNI); if the name is old, take it out of the inventory"
        }
        Code::SelfSigned | Code::UntrustedRoot => {
            "install a certificate of a CA that clients trust. If it is your own CA, put its root into the bucket and name it by `ca` in the inventory"
        }
        Code::IncompleteChain => {
            "let the server send its issuers too (fullchain.pem instead of cert.pem) and reload it"
        }
        Code::InvalidChain => "have the certificate issued anew, or correct the chain that the server sends",
        Code::IssuerExpired | Code::IssuerExpiresSoon => {
            "install the chain that the CA gives out today; renewing the certificate usually brings it"
        }
        Code::IssuerNotYetValid => {
            "compare the clock of the CA with the time; install a chain whose issuers are valid today"
        }
        Code::SomeClientsRefuse => {
            "if such clients come to this server, have the CA correct what the message names and the certificate issued anew"
        }
        Code::KeyUsage => "have it issued anew with the key usage digitalSignature",
        Code::WeakKey => "have it issued anew with an ECDSA P-256 key, or RSA of at least 2048 bits",
        Code::WeakSignature => "have it issued anew, signed with SHA-256 or better",
        Code::Revoked => "renew it with a new key now, and ask the issuer why it was revoked",
        Code::LegacyTls => "enable TLS 1.3 on the server, and TLS 1.2 with ECDHE and AES-GCM",
        Code::AddressesDisagree => {
            "install the newest of them at every address, and reload the servers that still have another"
        }
        Code::DnsFailed => "look at the name and its zone; if the name is old, take it out of the inventory",
        Code::ConnectFailed | Code::TimedOut => {
            "look whether the server runs and whether firewalls and routes let the probe through; if it is retired, take it out of the inventory"
        }
        Code::StarttlsFailed | Code::HandshakeFailed => {
            return format!(
                "look at the server's TLS configuration and its log; `neverlapse check {place}` shows the same from where you are"
            );
        }
        Code::RenewalFailed => {
            return format!(
                "correct what the message names; `neverlapse plan` shows what is due, `neverlapse renew {place} --force` tries at once"
            );
        }
        Code::NotRenewed => {
            return format!(
                "put it back into {}. If it is not wanted any more, remove {}, and this will not be said again",
                sender.object(INVENTORY),
                sender.object(&Renewal::key(place))
            );
        }
        Code::NotPulled if incident.is_unseen() => {
            "say in `served_at` where clients get it, or let instances look for themselves (`verify` in pull.toml)"
        }
        Code::NotPulled | Code::SilentInstance => {
            "run `neverlapse pull --now` on the instance and read what it says; look whether its timer still runs. Of an instance that is gone, the receipt goes two weeks later by itself, or at once by hand"
        }
        Code::InstallFailed => {
            "correct what the message names, and run `neverlapse pull --now` on the instance; the certificate before it is still served"
        }
        Code::WrongCertificate => {
            "look which file the server really reads, and run `neverlapse pull --now` on the instance"
        }
        Code::CertificateUnreadable => {
            "let the functions read what the message names: look at the bucket's policy, its key's, and whether the stack is up to date"
        }
        Code::ReceiptUnreadable => {
            "look who wrote it; remove it, and run `neverlapse pull` on the instance. A format of a later version wants this stack updated"
        }
        Code::RunFailed => "correct what the message names, then start a run: `sam remote invoke Probe`",
        Code::ManyUnreachable => {
            "look at the probe's own way out first (subnets, NAT gateway, security groups, name server), then at what these endpoints share. None of them is reported on its own while this lasts"
        }
        Code::NotReached => "if this repeats, look for endpoints that never answer: each takes its whole deadline",
        Code::InventoryProblem => {
            return format!(
                "correct it in {} (`neverlapse validate inventory.toml` shows every mistake). Until then this entry is not watched",
                sender.object(INVENTORY)
            );
        }
        Code::MemoryLost => {
            return format!(
                "look at {} and whether the function may read it; the bucket keeps earlier versions. Without it, alerts repeat",
                sender.object(KEY)
            );
        }
        Code::Unknown(_) => "see the full report",
    };
    words.to_owned()
}
