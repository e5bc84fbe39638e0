//! Judges a chain offline. Expiry, name and path are judged separately, because a verifier reports
//! only the first thing that is wrong.

mod builders;
mod clients;
mod constraints;
pub(crate) mod issuer;
mod lifetime;
mod name;
pub(crate) mod path;
mod policy;
mod rewrite;
pub mod roots;

use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use self::builders::Material;
use self::clients::differences;
use self::issuer::{Sent, candidates, parsed};
use self::path::{Path, is_self_issued, key_usage};
use crate::certificate::{Certificate, Key, Role, Signature, describe, time_of};
use crate::chain::roots::Roots;
use crate::distinguished_name::text;
use crate::finding::{Finding, Kind, Severity, Thresholds};
use crate::observation::Tls;
use crate::timestamp::Timestamp;

/// What a chain is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Criteria<'a> {
    /// The name that the client asks for.
    pub name: &'a ServerName<'a>,
    /// The roots that the client trusts.
    pub roots: &'a Roots,
    /// How close an expiry has to be for a finding.
    pub thresholds: Thresholds,
    /// The time as of which to judge.
    pub now: Timestamp,
    /// What the server does with the leaf's key.
    pub key_use: KeyUse,
    /// Whether the server sent an OCSP response with its certificate, if that is known.
    pub has_staple: Option<bool>,
}

/// What a server does with the leaf's key in a handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyUse {
    /// It signs, as in TLS 1.3 and all of today's suites of TLS 1.2.
    #[default]
    Signs,
    /// It decrypts, as in the key exchange of the RSA suites before TLS 1.3, or agrees on a key.
    Other,
}

impl KeyUse {
    /// By the parameters that a handshake agreed on.
    pub fn of(tls: &Tls) -> Self {
        let suite = tls.cipher_suite.as_str();
        if ["TLS_RSA_", "TLS_ECDH_", "TLS_DH_"]
            .iter()
            .any(|prefix| suite.starts_with(prefix))
        {
            Self::Other
        } else {
            Self::Signs
        }
    }
}

/// What a chain consists of, and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The leaf, unless it cannot be parsed.
    pub leaf: Option<Certificate>,
    /// The other certificates that can be parsed, in the server's order.
    pub issuers: Vec<Certificate>,
    /// The issuers that the path goes through, from the leaf's upwards, without the root. Some may
    /// not have been sent.
    pub path: Vec<CertificateDer<'static>>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Whether there is a path to a trusted root, expired or not.
    pub trusted: bool,
}

impl Verdict {
    fn without_leaf(findings: Vec<Finding>) -> Self {
        Self {
            leaf: None,
            issuers: Vec::new(),
            path: Vec::new(),
            findings,
            trusted: false,
        }
    }
}

/// Judges what a server sent, leaf first. An empty chain has no findings: the handshake has one.
pub fn judge(chain: &[CertificateDer<'_>], criteria: &Criteria<'_>) -> Verdict {
    let Some((leaf_der, sent)) = chain.split_first() else {
        return Verdict::without_leaf(Vec::new());
    };
    let leaf = match X509Certificate::from_der(leaf_der) {
        Ok((_, leaf)) => leaf,
        Err(_) => {
            let reason = "the leaf is not encoded as RFC 5280 wants it".to_owned();
            return Verdict::without_leaf(vec![critical(Kind::InvalidChain { reason }, criteria.now)]);
        }
    };
    let served = parsed(sent);
    let mut known = parsed(sent);
    known.extend(parsed(criteria.roots.issuers()));
    let dated = parsed(criteria.roots.dated());
    let candidates = candidates(&leaf, &known);

    let path = Path::to_trusted_root(
        (leaf_der, &leaf),
        &candidates,
        &known,
        &dated,
        criteria.roots,
        criteria.now,
    );
    let described = describe(&leaf, leaf_der, Role::Leaf);
    let issuers = served
        .iter()
        .map(|(der, certificate)| describe(certificate, der, path.role_of(der)))
        .collect();

    let mut findings = Vec::new();
    findings.extend(validity(&described, criteria));
    findings.extend(name::finding(leaf_der, &leaf, &described, criteria));
    let is_pinned = criteria.roots.pins(leaf_der);
    findings.extend(issuers_validity(&described, is_pinned, path.above_leaf(), criteria));
    let weaknesses = weaknesses(&leaf, &path, criteria.now);

    // The verifier refuses SHA-1 as "unsupported"; weak_signature explains it better.
    let is_explained = weaknesses
        .iter()
        .any(|finding| matches!(finding.kind, Kind::WeakSignature { .. }));
    findings.extend(weaknesses);
    findings.extend(unfit_key_usage(&leaf, criteria));
    let trusted = path.is_trusted();
    if trusted {
        let is_public = !is_pinned && path.root.is_none();
        let kind = lifetime::too_long(&leaf, is_public);
        findings.extend(kind.map(|kind| Finding::new(kind, Severity::Ok, criteria.now)));
    }
    if trusted && !is_pinned {
        let material = Material {
            leaf: &leaf,
            sent: &served,
            roots: criteria.roots,
            dated: &dated,
            path: &path,
            has_staple: criteria.has_staple,
            now: criteria.now.unix(),
        };
        let kinds = differences(&material);
        findings.extend(
            kinds
                .into_iter()
                .map(|kind| Finding::new(kind, Severity::Warning, criteria.now)),
        );
    }
    let issuers_in_path = path.issuers.iter().map(|(der, _)| (*der).clone().into_owned());
    let issuers_in_path = issuers_in_path.collect();
    if let Some(problem) = path.problem
        && !(problem.unsupported_signature && is_explained)
    {
        let severity = match problem.kind {
            Kind::SomeClientsRefuse { .. } => Severity::Warning,
            _ => Severity::Critical,
        };
        findings.push(Finding::new(problem.kind, severity, criteria.now));
    }

    Verdict {
        leaf: Some(described),
        issuers,
        path: issuers_in_path,
        findings,
        trusted,
    }
}

fn validity(leaf: &Certificate, criteria: &Criteria<'_>) -> Option<Finding> {
    let now = criteria.now;
    let not_before = leaf.not_before;
    let not_after = leaf.not_after;

    // RFC 5280, 4.1.2.5: valid from notBefore through notAfter, inclusive.
    if now > not_after {
        return Some(critical(Kind::Expired { not_after }, now));
    }
    if now < not_before {
        return Some(critical(Kind::NotYetValid { not_before }, now));
    }

    let (severity, threshold) = criteria.thresholds.crossed(not_after - now, not_after - not_before)?;
    let kind = Kind::ExpiresSoon {
        not_after,
        threshold_seconds: threshold.whole_seconds(),
    };
    Some(Finding::new(kind, severity, now))
}

/// What is wrong with the dates of the certificates above the leaf that the path needs.
fn issuers_validity<'a>(
    leaf: &Certificate,
    is_pinned: bool,
    above: impl Iterator<Item = &'a Sent<'a>>,
    criteria: &Criteria<'_>,
) -> Vec<Finding> {
    let now = criteria.now;
    let given = criteria.roots.issuers();
    let mut is_trusted_below = is_pinned;
    let mut findings = Vec::new();
    for (der, issuer) in above {
        let subject = text(issuer.subject());
        let not_before = time_of(issuer.validity().not_before);
        let not_after = time_of(issuer.validity().not_after);
        let kind = if now > not_after {
            Kind::IssuerExpired { subject, not_after }
        } else if now < not_before {
            Kind::IssuerNotYetValid { subject, not_before }
        } else {
            let crossed = criteria.thresholds.crossed(not_after - now, not_after - not_before);
            let soon = crossed.filter(|_| not_after < leaf.not_after);
            // Most clients need none that is above one that they trust.
            let severity = match soon {
                Some(_) if is_trusted_below => Some(Severity::Warning),
                soon => soon.map(|(severity, _)| severity),
            };
            is_trusted_below |= given.contains(der);
            let Some(severity) = severity else { continue };
            let kind = Kind::IssuerExpiresSoon { subject, not_after };
            findings.push(Finding::new(kind, severity, now));
            continue;
        };

        // Once the leaf has expired, that finding is enough; a new leaf comes with its issuers. And
        // as long as it has not begun, its issuers need not have begun either.
        let is_no_news = now > leaf.not_after || (now < leaf.not_before && not_before <= leaf.not_before);
        if is_no_news {
            continue;
        }
        findings.push(if is_trusted_below {
            let clients: &[_] = if is_pinned { &["OpenSSL", "curl"] } else { &["OpenSSL"] };
            let reason = Finding::new(kind, Severity::Critical, now).message;
            Finding::new(Kind::refused_by(clients, reason), Severity::Warning, now)
        } else {
            critical(kind, now)
        });
    }
    findings
}

fn weaknesses(leaf: &X509Certificate<'_>, path: &Path<'_>, now: Timestamp) -> Vec<Finding> {
    let above = path.above_leaf().map(|(_, issuer)| issuer);
    let mut findings = Vec::new();
    for certificate in std::iter::once(leaf).chain(above) {
        let subject = match text(certificate.subject()) {
            subject if subject.is_empty() => "the leaf".to_owned(),
            subject => subject,
        };

        let key = Key::of(certificate);
        if key.is_weak() {
            let kind = Kind::WeakKey {
                subject: subject.clone(),
                key: key.to_string(),
                clients: key.refused_by().iter().map(|client| (*client).to_owned()).collect(),
            };
            findings.push(Finding::new(kind, Severity::Warning, now));
        }

        // A self-signature proves nothing to anyone, so its algorithm does not matter.
        let signature = Signature::of(certificate);
        if !is_self_issued(certificate) && signature.is_broken() {
            let signature = signature.to_string();
            findings.push(critical(Kind::WeakSignature { subject, signature }, now));
        }
    }
    findings
}

/// A leaf whose key may not do what the server does with it (RFC 8446, 4.4.2.2).
///
/// OpenSSL and curl want it to be of some use for TLS, whatever that is, and Go does not look at
/// it.
fn unfit_key_usage(leaf: &X509Certificate<'_>, criteria: &Criteria<'_>) -> Option<Finding> {
    let usage = key_usage(leaf)?;
    let is_for_other_use = usage.key_encipherment() || usage.key_agreement();
    let clients: &[&str] = match criteria.key_use {
        _ if usage.digital_signature() => return None,
        KeyUse::Other if is_for_other_use => return None,
        _ if is_for_other_use => &["Chrome", "Firefox", "GnuTLS"],
        _ => &["OpenSSL", "curl", "Chrome", "Firefox", "GnuTLS"],
    };
    let kind = Kind::KeyUsage {
        clients: clients.iter().map(|client| (*client).to_owned()).collect(),
        usage: usage.to_string().to_lowercase(),
    };
    Some(Finding::new(kind, Severity::Warning, criteria.now))
}

fn critical(kind: Kind, now: Timestamp) -> Finding {
    Finding::new(kind, Severity::Critical, now)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::timestamp;

    const ISSUED: Timestamp = timestamp!(2026-10-01 00:00 UTC);
    const DAY: Duration = Duration::DAY;

    struct Authority {
        root: CertifiedIssuer<'static, KeyPair>,
        intermediate: CertifiedIssuer<'static, KeyPair>,
    }

    impl Authority {
        fn new(intermediate_ends: Timestamp) -> Self {
            let root = CertifiedIssuer::self_signed(ca("Root", ISSUED + 3650 * DAY), key()).unwrap();
            let intermediate = CertifiedIssuer::signed_by(ca("Intermediate", intermediate_ends), key(), &root).unwrap();
            Self { root, intermediate }
        }

        fn roots(&self) -> Roots {
            Roots::public().with_pem(self.root.pem().as_bytes()).unwrap()
        }

        fn leaf(&self, days: i32) -> CertificateDer<'static> {
            let leaf = leaf(ISSUED + days * DAY).signed_by(&key(), &self.intermediate);
            leaf.unwrap().der().clone()
        }

        fn intermediate(&self) -> CertificateDer<'static> {
            self.intermediate.der().clone()
        }
    }

    fn key() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    fn ca(name: &str, not_after: Timestamp) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = OffsetDateTime::from(ISSUED) - 900 * DAY;
        params.not_after = not_after.into();
        params
    }

    fn leaf(not_after: Timestamp) -> CertificateParams {
        let mut params = CertificateParams::new(["shop.example".to_owned(), "*.shop.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "shop.example");
        params.not_before = ISSUED.into();
        params.not_after = not_after.into();
        params
    }

    fn verdict(chain: &[CertificateDer<'_>], name: &str, roots: &Roots, now: Timestamp) -> Verdict {
        let name = ServerName::try_from(name).unwrap();
        judge(
            chain,
            &Criteria {
                name: &name,
                roots,
                thresholds: Thresholds::default(),
                now,
                key_use: KeyUse::Signs,
                has_staple: None,
            },
        )
    }

    fn codes(verdict: &Verdict) -> Vec<(&str, Severity)> {
        verdict
            .findings
            .iter()
            .map(|finding| (finding.kind.code().as_str(), finding.severity))
            .collect()
    }

    /// OpenSSL takes the first trusted certificate of the issuer's name, whoever has signed the
    /// leaf.
    #[test]
    fn of_two_private_roots_of_one_name_a_client_takes_the_wrong_one() {
        let root = || CertifiedIssuer::self_signed(ca("Root", ISSUED + 3650 * DAY), key()).unwrap();
        let (ours, namesake) = (root(), root());
        let chain = [leaf(ISSUED + 90 * DAY).signed_by(&key(), &ours).unwrap().der().clone()];
        for (first, second, expected) in [(&ours, &namesake, false), (&namesake, &ours, true)] {
            let file = format!("{}{}", first.pem(), second.pem());
            let roots = Roots::public().with_pem(file.as_bytes()).unwrap();
            let verdict = verdict(&chain, "shop.example", &roots, ISSUED + DAY);
            let mut findings = verdict.findings.iter();
            let is_noticed = findings
                .any(|finding| finding.message.contains("take a wrong one") && finding.message.contains("OpenSSL"));
            assert_eq!(is_noticed, expected, "{:?}", verdict.findings);
        }
    }

    #[test]
    fn time_is_signed_seconds() {
        use Severity::{Critical, Warning};
        let authority = Authority::new(ISSUED + 3000 * DAY);
        let (second, hour) = (Duration::SECOND, Duration::HOUR);
        let (soon, gone) = ("expires_soon", "expired");
        for (days, left, expected) in [
            (90, 14 * DAY, None),
            (90, 14 * DAY - second, Some((soon, Warning))),
            (90, 3 * DAY, Some((soon, Warning))),
            (90, 3 * DAY - second, Some((soon, Critical))),
            (90, 24 * hour - 60 * second, Some((soon, Critical))),
            (90, second, Some((soon, Critical))),
            (90, Duration::ZERO, Some((soon, Critical))),
            (90, -second, Some((gone, Critical))),
            (90, -400 * DAY, Some((gone, Critical))),
            (90, 91 * DAY, Some(("not_yet_valid", Critical))),
            // A healthy six-day certificate is quiet until a third of it is left.
            (6, 3 * DAY, None),
            (6, 2 * DAY - second, Some((soon, Warning))),
            (6, 14 * hour, Some((soon, Critical))),
            // A 47-day one alerts below 14 days like any other.
            (47, 14 * DAY, None),
            (47, 14 * DAY - second, Some((soon, Warning))),
            (47, 3 * DAY - second, Some((soon, Critical))),
        ] {
            let chain = [authority.leaf(days), authority.intermediate()];
            let verdict = verdict(&chain, "shop.example", &authority.roots(), ISSUED + days * DAY - left);
            assert_eq!(codes(&verdict), Vec::from_iter(expected), "{days} days, {left} left");
            assert!(verdict.trusted, "expiry is no fault of the path");
        }
    }

    #[test]
    fn names_match_as_clients_match_them() {
        let authority = Authority::new(ISSUED + 3000 * DAY);
        let chain = [authority.leaf(90), authority.intermediate()];
        for (name, matches) in [
            ("shop.example", true),
            ("a.shop.example", true),
            ("a.b.shop.example", false),
            ("10.0.0.1", false),
        ] {
            let verdict = verdict(&chain, name, &authority.roots(), ISSUED + DAY);
            assert_eq!(verdict.findings.is_empty(), matches, "{name}");
        }
    }

    #[test]
    fn expired_and_wrong_name_and_unknown_issuer_are_three_findings() {
        let authority = Authority::new(ISSUED + 3000 * DAY);
        let chain = [authority.leaf(90), authority.intermediate()];
        let verdict = verdict(&chain, "other.example", &Roots::public(), ISSUED + 91 * DAY);
        let codes: Vec<_> = codes(&verdict).into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, ["expired", "name_mismatch", "untrusted_root"]);
        assert!(!verdict.trusted);
        assert_eq!(
            verdict.findings[1].message,
            "is not for other.example, only for shop.example, *.shop.example"
        );
    }

    #[test]
    fn what_is_wrong_with_a_path() {
        let authority = Authority::new(ISSUED + 3000 * DAY);
        let (roots, public) = (authority.roots(), Roots::public());
        let (good, intermediate) = (authority.leaf(90), authority.intermediate());
        let own = leaf(ISSUED + 90 * DAY).self_signed(&key()).unwrap().der().clone();
        let mut own_ca = leaf(ISSUED + 90 * DAY);
        own_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own_ca = own_ca.self_signed(&key()).unwrap();
        let pinned = public.with_pem(own_ca.pem().as_bytes()).unwrap();
        let own_ca = own_ca.der().clone();
        let mut client = leaf(ISSUED + 90 * DAY);
        client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let client = client.signed_by(&key(), &authority.intermediate).unwrap().der().clone();
        let root = authority.root.der().clone();
        for (what, chain, roots, expected) in [
            (
                "as it should be",
                vec![good.clone(), intermediate.clone()],
                &roots,
                vec![],
            ),
            (
                "with the root",
                vec![good.clone(), intermediate.clone(), root.clone()],
                &roots,
                vec![],
            ),
            (
                "in the wrong order",
                vec![good.clone(), root.clone(), intermediate.clone()],
                &roots,
                vec![],
            ),
            (
                "without the intermediate",
                vec![good.clone()],
                &roots,
                vec!["incomplete_chain"],
            ),
            (
                "to an unknown root",
                vec![good.clone(), intermediate.clone()],
                &public,
                vec!["untrusted_root"],
            ),
            (
                "with the unknown root",
                vec![good, intermediate.clone(), root],
                &public,
                vec!["untrusted_root"],
            ),
            ("self-signed", vec![own], &public, vec!["self_signed"]),
            ("self-signed CA", vec![own_ca.clone()], &public, vec!["self_signed"]),
            ("pinned", vec![own_ca], &pinned, vec![]),
            (
                "not for servers",
                vec![client, intermediate],
                &roots,
                vec!["invalid_chain"],
            ),
            (
                "garbage",
                vec![CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])],
                &roots,
                vec!["invalid_chain"],
            ),
            ("nothing", vec![], &roots, vec![]),
        ] {
            let verdict = verdict(&chain, "shop.example", roots, ISSUED + DAY);
            let codes: Vec<_> = codes(&verdict).into_iter().map(|(code, _)| code).collect();
            assert_eq!(codes, expected, "{what}: {:?}", verdict.findings);
        }
    }

    #[test]
    fn a_recreated_root_of_the_same_name_is_another_root() {
        let (new, old) = (Authority::new(ISSUED + 3000 * DAY), Authority::new(ISSUED + 3000 * DAY));
        let (good, intermediate, root) = (new.leaf(90), new.intermediate(), new.root.der().clone());
        let direct = leaf(ISSUED + 90 * DAY).signed_by(&key(), &new.root).unwrap();
        let direct = direct.der().clone();
        let trusting = |pem: String| Roots::public().with_pem(pem.as_bytes()).unwrap();
        let other_type = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let other_type = ca("Root", ISSUED + 3650 * DAY).self_signed(&other_type).unwrap().pem();
        let pinned = leaf(ISSUED + 90 * DAY).self_signed(&key()).unwrap();
        let pinned_anew = leaf(ISSUED + 90 * DAY).self_signed(&key()).unwrap();
        let mut broken = good.to_vec();
        *broken.last_mut().unwrap() ^= 1;
        let root_differs =
            "leads to a root that is not trusted: CN=Root; the root trusted by that name has another key";
        let wrong = "the chain breaks a rule: a signature in it is wrong";
        for (what, chain, roots, expected) in [
            (
                "usual",
                vec![good.clone(), intermediate.clone()],
                old.roots(),
                root_differs,
            ),
            (
                "with the root",
                vec![good.clone(), intermediate.clone(), root.clone()],
                old.roots(),
                root_differs,
            ),
            ("no intermediate", vec![direct], old.roots(), root_differs),
            (
                "a key of another type",
                vec![good.clone(), intermediate.clone()],
                trusting(other_type),
                root_differs,
            ),
            (
                "a trusted intermediate",
                vec![good, intermediate.clone()],
                trusting(old.intermediate.pem()),
                "leads to a root that is not trusted: CN=Intermediate; the root trusted by that name has another key",
            ),
            (
                "a pinned leaf",
                vec![pinned_anew.der().clone()],
                trusting(pinned.pem()),
                "is self-signed (CN=shop.example): no client trusts it",
            ),
            (
                "the right root, and a broken signature",
                vec![broken.clone().into(), intermediate.clone()],
                new.roots(),
                wrong,
            ),
            (
                "another root, and a broken signature",
                vec![broken.into(), intermediate],
                old.roots(),
                wrong,
            ),
        ] {
            let verdict = verdict(&chain, "shop.example", &roots, ISSUED + DAY);
            let messages: Vec<_> = verdict.findings.iter().map(|finding| &finding.message).collect();
            assert_eq!(messages, [expected], "{what}");
            assert!(!verdict.trusted, "{what}");
        }
    }

    #[test]
    fn an_expired_extra_certificate_is_no_alarm() {
        let authority = Authority::new(ISSUED + 3000 * DAY);
        let stray = ca("Stray", ISSUED - 1 * DAY).self_signed(&key()).unwrap().der().clone();
        let chain = [authority.leaf(90), authority.intermediate(), stray];
        let verdict = verdict(&chain, "shop.example", &authority.roots(), ISSUED + DAY);
        assert_eq!(verdict.findings, []);
        let roles: Vec<_> = verdict.issuers.iter().map(|issuer| issuer.role).collect();
        assert_eq!(roles, [Role::Path, Role::Extra]);
    }

    /// Thirty issuers of one name: a search for a path in every order would not end.
    #[test]
    fn a_maze_of_issuers_costs_no_time() {
        let authority = Authority::new(ISSUED + 3000 * DAY);
        let maze = |not_after: Timestamp| -> Vec<_> {
            let mut like = ca("Intermediate", not_after);
            like.key_usages = Vec::new();
            (0..30)
                .map(|_| {
                    let lost = CertifiedIssuer::self_signed(like.clone(), key()).unwrap();
                    lost.der().clone()
                })
                .collect()
        };
        let mut leads_nowhere = vec![authority.leaf(90)];
        leads_nowhere.extend(maze(ISSUED + 3000 * DAY));
        let mut expired = vec![authority.leaf(90)];
        expired.extend(maze(ISSUED - DAY));
        let mut behind = vec![authority.leaf(90), authority.intermediate()];
        behind.extend(maze(ISSUED + 3000 * DAY));

        for (chain, expected) in [
            (leads_nowhere, &["untrusted_root"][..]),
            (expired, &["issuer_expired", "invalid_chain"]),
            (behind, &[]),
        ] {
            let verdict = verdict(&chain, "shop.example", &authority.roots(), ISSUED + DAY);
            let codes: Vec<_> = codes(&verdict).into_iter().map(|(code, _)| code).collect();
            assert_eq!(codes, expected);
        }
    }

    #[test]
    fn an_issuer_can_expire_before_the_leaf() {
        let authority = Authority::new(ISSUED + 30 * DAY);
        let chain = [authority.leaf(90), authority.intermediate()];
        for (now, expected) in [
            (ISSUED + DAY, vec![]),
            (ISSUED + 20 * DAY, vec![("issuer_expires_soon", Severity::Warning)]),
            (ISSUED + 31 * DAY, vec![("issuer_expired", Severity::Critical)]),
            (ISSUED + 91 * DAY, vec![("expired", Severity::Critical)]),
        ] {
            let verdict = verdict(&chain, "shop.example", &authority.roots(), now);
            assert_eq!(codes(&verdict), expected, "{now}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let authority = Authority::new(ISSUED + 3000 * DAY);
        let (leaf, intermediate) = (authority.leaf(90), authority.intermediate());
        let roots = authority.roots();
        for at in 0..leaf.len() {
            let mut broken = leaf.to_vec();
            broken[at] ^= 0xff;
            verdict(
                &[CertificateDer::from(broken), intermediate.clone()],
                "shop.example",
                &roots,
                ISSUED + DAY,
            );
            verdict(
                &[CertificateDer::from(leaf[..at].to_vec())],
                "shop.example",
                &roots,
                ISSUED + DAY,
            );
        }
    }

    #[test]
    fn the_suite_says_what_the_key_is_used_for() {
        for (cipher_suite, expected) in [
            ("TLS_AES_128_GCM_SHA256", KeyUse::Signs),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", KeyUse::Signs),
            ("TLS_DHE_RSA_WITH_AES_128_CBC_SHA", KeyUse::Signs),
            ("TLS_RSA_WITH_AES_128_GCM_SHA256", KeyUse::Other),
            ("TLS_ECDH_ECDSA_WITH_AES_128_CBC_SHA", KeyUse::Other),
        ] {
            let tls = Tls {
                version: "TLSv1.2".to_owned(),
                cipher_suite: cipher_suite.to_owned(),
                key_exchange: None,
            };
            assert_eq!(KeyUse::of(&tls), expected, "{cipher_suite}");
        }
    }
}
