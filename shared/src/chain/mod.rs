//! Judges a chain offline: expiry, name and path apart, because a verifier tells only the first thing that is wrong.

pub mod roots;

use std::cell::RefCell;

use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::KeyUsage as X509KeyUsage;
use x509_parser::prelude::FromDer;

use crate::certificate::{Certificate, Role, describe, time_of};
use crate::chain::roots::Roots;
use crate::finding::{Finding, Kind, Severity, Thresholds};
use crate::timestamp::Timestamp;

/// What a chain is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The name that the client asks for.
    pub name: &'a ServerName<'a>,
    /// What it trusts.
    pub roots: &'a Roots,
    /// When it alerts.
    pub thresholds: Thresholds,
    /// What time it is.
    pub now: Timestamp,
}

/// What a chain is.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The leaf, unless it cannot be parsed.
    pub leaf: Option<Certificate>,
    /// The rest of what was sent that can be parsed, in the server's order.
    pub issuers: Vec<Certificate>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Whether a path to a trusted root stands, expired or not.
    pub trusted: bool,
}

/// Judges what a server sent, leaf first.
pub fn judge(chain: &[CertificateDer<'_>], question: &Question<'_>) -> Verdict {
    let mut verdict = Verdict {
        leaf: None,
        issuers: Vec::new(),
        findings: Vec::new(),
        trusted: false,
    };
    let Some((leaf_der, sent)) = chain.split_first() else {
        return verdict;
    };
    let leaf = match X509Certificate::from_der(leaf_der) {
        Ok((_, leaf)) => leaf,
        Err(error) => {
            let reason = format!("the leaf is not a certificate that can be parsed ({error})");
            verdict
                .findings
                .push(critical(Kind::InvalidChain { reason }, question.now));
            return verdict;
        }
    };
    let leaf_facts = describe(&leaf, leaf_der, Role::Leaf);
    let parsed = parsed(sent);
    let candidates = candidates(&leaf, &parsed);

    verdict.findings.extend(validity(&leaf_facts, question));
    verdict.findings.extend(name(leaf_der, &leaf_facts, question));
    let path = path(leaf_der, &leaf, &candidates, &parsed, question);
    verdict.trusted = path.trusted;
    verdict.issuers = parsed
        .iter()
        .map(|(der, certificate)| {
            let role = if path.issuers.contains(&der.as_ref()) {
                Role::Path
            } else {
                Role::Extra
            };
            describe(certificate, der, role)
        })
        .collect();
    let needed: Vec<_> = verdict
        .issuers
        .iter()
        .filter(|issuer| issuer.role == Role::Path)
        .collect();
    verdict
        .findings
        .extend(issuers_validity(&leaf_facts, &needed, question));
    let weak = weaknesses(&leaf_facts, &needed, question.now);
    let broken_signature = weak
        .iter()
        .any(|finding| matches!(finding.kind, Kind::WeakSignature { .. }));
    verdict.findings.extend(weak);
    // The verifier refuses SHA-1 as "unsupported"; weak_signature has said it better.
    verdict
        .findings
        .extend(path.finding.filter(|_| !(path.unsupported && broken_signature)));
    verdict.leaf = Some(leaf_facts);
    verdict
}

/// What was sent, read; past some number nobody needs them, and each costs time.
pub(crate) fn parsed<'a>(sent: &'a [CertificateDer<'a>]) -> Vec<Sent<'a>> {
    let sent = sent.iter().take(ISSUERS_JUDGED);
    sent.filter_map(|der| Some((der, X509Certificate::from_der(der).ok()?.1)))
        .collect()
}

/// A certificate that was sent with the leaf.
pub(crate) type Sent<'a> = (&'a CertificateDer<'a>, X509Certificate<'a>);

/// Those that a path could go through, by name, from the leaf upwards. A verifier tries certificates of one name in every
/// order: thirty that all name each other would keep it busy for seconds.
pub(crate) fn candidates<'a>(leaf: &'a X509Certificate<'a>, parsed: &'a [Sent<'a>]) -> Vec<CertificateDer<'a>> {
    let mut found = Vec::<CertificateDer<'a>>::new();
    let mut names = vec![leaf.issuer().as_raw()];
    let mut next = 0;
    while let Some(&name) = names.get(next) {
        next += 1;
        let mut namesakes = 0;
        for (der, issuer) in parsed.iter().filter(|(_, issuer)| issuer.subject().as_raw() == name) {
            if namesakes == NAMESAKES || found.len() == CANDIDATES || found.iter().any(|known| known == *der) {
                continue;
            }
            namesakes += 1;
            found.push(CertificateDer::from(der.as_ref()));
            if !names.contains(&issuer.issuer().as_raw()) {
                names.push(issuer.issuer().as_raw());
            }
        }
    }
    found
}

fn validity(leaf: &Certificate, question: &Question<'_>) -> Option<Finding> {
    let now = question.now;
    let (not_before, not_after) = (leaf.not_before, leaf.not_after);
    // RFC 5280, 4.1.2.5: valid from notBefore through notAfter, inclusive.
    if now > not_after {
        return Some(critical(Kind::Expired { not_after }, now));
    }
    if now < not_before {
        return Some(critical(Kind::NotYetValid { not_before }, now));
    }
    let (severity, threshold) = question.thresholds.crossed(not_after - now, not_after - not_before)?;
    let kind = Kind::ExpiresSoon {
        not_after,
        threshold_seconds: threshold.whole_seconds(),
    };
    Some(Finding::new(kind, severity, now))
}

fn name(der: &CertificateDer<'_>, leaf: &Certificate, question: &Question<'_>) -> Option<Finding> {
    let valid = match EndEntityCert::try_from(der) {
        Ok(leaf) => leaf.verify_is_valid_for_subject_name(question.name).is_ok(),
        // The path says that the verifier cannot read it. Version 1 has no names to be valid for.
        Err(_) => !leaf.names.is_empty(),
    };
    let expected = question.name.to_str().into_owned();
    let names = leaf.names.clone();
    (!valid).then(|| critical(Kind::NameMismatch { expected, names }, question.now))
}

fn issuers_validity(leaf: &Certificate, path: &[&Certificate], question: &Question<'_>) -> Vec<Finding> {
    let now = question.now;
    let mut findings = Vec::new();
    for issuer in path {
        let (subject, not_after) = (issuer.subject.clone(), issuer.not_after);
        if now > not_after {
            // Once the leaf has expired, that is what is to be said; a new one comes with its issuers.
            if now <= leaf.not_after {
                findings.push(critical(Kind::IssuerExpired { subject, not_after }, now));
            }
        } else if not_after < leaf.not_after {
            let crossed = question
                .thresholds
                .crossed(not_after - now, not_after - issuer.not_before);
            let kind = Kind::IssuerExpiresSoon { subject, not_after };
            findings.extend(crossed.map(|(severity, _)| Finding::new(kind, severity, now)));
        }
    }
    findings
}

fn weaknesses(leaf: &Certificate, path: &[&Certificate], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for certificate in std::iter::once(leaf).chain(path.iter().copied()) {
        let subject = if certificate.subject.is_empty() {
            "the leaf"
        } else {
            &certificate.subject
        }
        .to_owned();
        if is_weak_key(&certificate.key) {
            let kind = Kind::WeakKey {
                subject: subject.clone(),
                key: certificate.key.clone(),
            };
            findings.push(Finding::new(kind, Severity::Warning, now));
        }
        let signature = certificate.signature.clone();
        // A self-signature proves nothing to anyone, so its algorithm does not matter.
        if certificate.subject != certificate.issuer && (signature.contains("sha1") || signature.contains("md5")) {
            findings.push(critical(Kind::WeakSignature { subject, signature }, now));
        }
    }
    findings
}

fn is_weak_key(key: &str) -> bool {
    let bits = |prefix: &str| key.strip_prefix(prefix).and_then(|bits| bits.parse::<u32>().ok());
    bits("rsa-").is_some_and(|bits| bits < 2048)
        || bits("ecdsa-p").is_some_and(|bits| bits < 256)
        || key.starts_with("dsa")
}

struct Path<'a> {
    trusted: bool,
    issuers: Vec<&'a [u8]>,
    finding: Option<Finding>,
    unsupported: bool,
}

fn path<'a>(
    leaf_der: &CertificateDer<'_>,
    leaf: &X509Certificate<'_>,
    sent: &'a [CertificateDer<'a>],
    parsed: &'a [Sent<'a>],
    question: &Question<'_>,
) -> Path<'a> {
    if question.roots.pins(leaf_der) {
        return Path {
            trusted: true,
            issuers: Vec::new(),
            finding: None,
            unsupported: false,
        };
    }
    let misused = RefCell::new(None);
    let found = first_path(
        leaf_der,
        leaf,
        sent,
        parsed,
        question.roots.anchors(),
        question.now,
        &misused,
    );
    let error = match found {
        Ok(issuers) => {
            return Path {
                trusted: true,
                issuers,
                finding: None,
                unsupported: false,
            };
        }
        Err(error) => error,
    };
    let walk = walk(leaf, parsed);
    // Without an issuer that was sent, nothing but a trusted root's signature can have been wrong.
    let whole = walk.last().is_none_or(|(top, _)| {
        let anchor = webpki::anchor_from_trusted_cert(top);
        anchor.is_ok_and(|top| {
            first_path(leaf_der, leaf, sent, parsed, &[top], question.now, &RefCell::default()).is_ok()
        })
    });
    let kind = match misused.into_inner() {
        Some(reason) => Kind::InvalidChain { reason },
        None => no_path(leaf, &walk, &error, whole, question),
    };
    let finding = critical(kind, question.now);
    let unsupported = is_unsupported_signature(&error);
    let issuers = walk.iter().map(|(der, _)| AsRef::<[u8]>::as_ref(*der)).collect();
    Path {
        trusted: false,
        issuers,
        finding: Some(finding),
        unsupported,
    }
}

/// The issuers of the first path that stands: now if the leaf is valid now, otherwise at some time inside its validity,
/// so that expiry (of leaf or issuer) is not mistaken for a wrong path. A path that only misuses a key is noted in `misused`.
fn first_path<'a>(
    leaf_der: &CertificateDer<'_>,
    leaf: &X509Certificate<'_>,
    sent: &'a [CertificateDer<'a>],
    parsed: &[Sent<'_>],
    anchors: &[TrustAnchor<'_>],
    now: Timestamp,
    misused: &RefCell<Option<String>>,
) -> Result<Vec<&'a [u8]>, webpki::Error> {
    let end_entity = EndEntityCert::try_from(leaf_der)?;
    let (from, to) = (
        leaf.validity().not_before.timestamp(),
        leaf.validity().not_after.timestamp(),
    );
    let now = now.unix();
    // webpki leaves key usage alone; browsers and OpenSSL do not.
    let check = |path: &VerifiedPath<'_>| {
        let issuers: Vec<_> = path.intermediate_certificates().map(|issuer| issuer.der()).collect();
        let Some(reason) = misuse(leaf, &issuers) else {
            return Ok(());
        };
        misused.borrow_mut().get_or_insert(reason);
        Err(webpki::Error::UnknownIssuer)
    };
    let at = |time: i64| {
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(time.try_into().unwrap_or(0)));
        let usage = KeyUsage::server_auth();
        let path =
            end_entity.verify_for_usage(ALL_VERIFICATION_ALGS, anchors, sent, time, usage, None, Some(&check))?;
        let issuers: Vec<_> = path.intermediate_certificates().map(|issuer| issuer.der()).collect();
        Ok(sent
            .iter()
            .map(|der| der.as_ref())
            .filter(|der| issuers.iter().any(|issuer| issuer.as_ref() == *der))
            .collect())
    };
    let first = at(if from <= to { now.clamp(from, to) } else { now });
    let Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) = first else {
        return first;
    };
    // All of a path is valid together from the moment when the last of it begins, if ever.
    let mut begins: Vec<_> = parsed
        .iter()
        .filter(|(der, _)| sent.iter().any(|candidate| candidate == *der))
        .map(|(_, issuer)| issuer.validity().not_before.timestamp())
        .chain([from])
        .filter(|time| (from..=to).contains(time))
        .collect();
    begins.sort_unstable();
    begins.dedup();
    begins
        .into_iter()
        .rev()
        .find_map(|time| at(time).ok())
        .map_or(first, Ok)
}

/// What the key of a path's certificate is used for although its key usage (RFC 5280, 4.2.1.3) does not allow it.
fn misuse(leaf: &X509Certificate<'_>, issuers: &[CertificateDer<'_>]) -> Option<String> {
    let usage = |certificate: &X509Certificate<'_>| Some(*certificate.key_usage().ok()??.value);
    let for_tls = |usage: X509KeyUsage| usage.digital_signature() || usage.key_encipherment() || usage.key_agreement();
    if usage(leaf).is_some_and(|usage| !for_tls(usage)) {
        return Some("the leaf's key is not for TLS (key usage)".to_owned());
    }
    issuers.iter().find_map(|der| {
        let (_, issuer) = X509Certificate::from_der(der).ok()?;
        let forbidden = usage(&issuer).is_some_and(|usage| !usage.key_cert_sign());
        forbidden.then(|| format!("the issuer {} may not sign certificates (key usage)", issuer.subject()))
    })
}

/// From the leaf upwards by name, through what was sent.
fn walk<'a>(
    leaf: &X509Certificate<'_>,
    parsed: &'a [Sent<'a>],
) -> Vec<(&'a CertificateDer<'a>, &'a X509Certificate<'a>)> {
    let mut walked: Vec<(&'a CertificateDer<'a>, &'a X509Certificate<'a>)> = Vec::new();
    let mut issuer = leaf.issuer().as_raw();
    let mut at_a_root = issuer == leaf.subject().as_raw();
    while !at_a_root {
        let next = parsed.iter().find(|(der, candidate)| {
            candidate.subject().as_raw() == issuer && !walked.iter().any(|(seen, _)| seen == der)
        });
        let Some((der, certificate)) = next else { break };
        issuer = certificate.issuer().as_raw();
        at_a_root = issuer == certificate.subject().as_raw();
        walked.push((der, certificate));
    }
    walked
}

/// Why no path stands; `whole` says whether one does as far as the server sends it, trusted or not.
fn no_path(
    leaf: &X509Certificate<'_>,
    walk: &[(&CertificateDer<'_>, &X509Certificate<'_>)],
    error: &webpki::Error,
    whole: bool,
    question: &Question<'_>,
) -> Kind {
    use webpki::Error as E;
    let self_signed = leaf.subject().as_raw() == leaf.issuer().as_raw();
    let wrong_key = is_wrong_key(error);
    let untrusted = matches!(error, E::UnknownIssuer | E::CaUsedAsEndEntity);
    if self_signed && (untrusted || wrong_key || is_unsupported(error)) {
        return Kind::SelfSigned {
            subject: leaf.subject().to_string(),
        };
    }
    if wrong_key && whole {
        let mut path = std::iter::once(leaf).chain(walk.iter().map(|(_, issuer)| *issuer));
        if let Some(last) = path.find(|certificate| question.roots.has_subject(certificate.issuer().as_raw())) {
            let root = last.issuer().to_string();
            return Kind::UntrustedRoot {
                root,
                key_differs: true,
            };
        }
    }
    if !matches!(error, E::UnknownIssuer) {
        return Kind::InvalidChain {
            reason: reason(error, walk, question.now),
        };
    }
    let top = walk.last().map_or(leaf, |(_, certificate)| certificate);
    let missing = top.issuer().to_string();
    if walk.is_empty() {
        Kind::IncompleteChain { missing }
    } else {
        // The root itself need not be sent, so one intermediate that nobody vouches for means an unknown root.
        Kind::UntrustedRoot {
            root: missing,
            key_differs: false,
        }
    }
}

fn reason(error: &webpki::Error, walk: &[(&CertificateDer<'_>, &X509Certificate<'_>)], now: Timestamp) -> String {
    use webpki::Error as E;
    let outside = walk.iter().find(|(_, issuer)| {
        let now = now.unix();
        !(issuer.validity().not_before.timestamp()..=issuer.validity().not_after.timestamp()).contains(&now)
    });
    match (error, outside) {
        (E::CertExpired { .. } | E::CertNotValidYet { .. }, Some((_, issuer))) => format!(
            "the issuer {} was valid at no time that the leaf was (from {} to {})",
            issuer.subject(),
            time_of(issuer.validity().not_before),
            time_of(issuer.validity().not_after),
        ),
        (E::NameConstraintViolation, _) => "an issuer may not issue for this name (name constraints)".to_owned(),
        (E::PathLenConstraintViolated, _) => "more issuers than one of them allows (path length)".to_owned(),
        (E::RequiredEkuNotFoundContext(_), _) => {
            "a certificate in it is not for servers (extended key usage)".to_owned()
        }
        (E::CaUsedAsEndEntity, _) => "the leaf is a CA certificate".to_owned(),
        (E::EndEntityUsedAsCa, _) => "an issuer is not a CA (basic constraints)".to_owned(),
        (E::InvalidSignatureForPublicKey, _) => "a signature in it is wrong".to_owned(),
        (E::UnsupportedCertVersion, _) => "a certificate in it is not X.509 version 3".to_owned(),
        (E::UnsupportedCriticalExtension, _) => "a critical extension is unknown".to_owned(),
        (E::SignatureAlgorithmMismatch, _) => "a certificate in it names two signature algorithms".to_owned(),
        (E::MaximumPathDepthExceeded, _) => "more issuers in a row than clients follow".to_owned(),
        (E::MaximumNameConstraintComparisonsExceeded, _) => {
            "more names and name constraints than clients compare".to_owned()
        }
        (E::MaximumPathBuildCallsExceeded | E::MaximumSignatureChecksExceeded, _) => {
            "more ways through its issuers than clients try".to_owned()
        }
        (E::MalformedNameConstraint | E::InvalidNetworkMaskConstraint | E::UnsupportedNameType, _) => {
            "name constraints that cannot be understood".to_owned()
        }
        (error, _) if is_unsupported_signature(error) => {
            "a signature in it is of a kind that clients do not accept".to_owned()
        }
        (error, _) => format!("a certificate in it is not encoded as RFC 5280 wants it ({error:?})"),
    }
}

/// Whether a signature was made by another key than the one it was checked with. A key of another type has another error.
fn is_wrong_key(error: &webpki::Error) -> bool {
    let name = format!("{error:?}");
    matches!(error, webpki::Error::InvalidSignatureForPublicKey)
        || name.starts_with("UnsupportedSignatureAlgorithmForPublicKey")
}

fn is_unsupported(error: &webpki::Error) -> bool {
    matches!(error, webpki::Error::UnsupportedCertVersion) || is_unsupported_signature(error)
}

fn is_unsupported_signature(error: &webpki::Error) -> bool {
    let name = format!("{error:?}");
    name.starts_with("UnsupportedSignatureAlgorithm")
}

fn critical(kind: Kind, now: Timestamp) -> Finding {
    Finding::new(kind, Severity::Critical, now)
}

const ISSUERS_JUDGED: usize = 32;
const CANDIDATES: usize = 12;
const NAMESAKES: usize = 4;
#[cfg(test)]
mod tests {
    use crate::timestamp;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

    use super::*;
    use time::{Duration, OffsetDateTime};

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

    fn look(chain: &[CertificateDer<'_>], name: &str, roots: &Roots, now: Timestamp) -> Verdict {
        let name = ServerName::try_from(name).unwrap();
        judge(
            chain,
            &Question {
                name: &name,
                roots,
                thresholds: Thresholds::default(),
                now,
            },
        )
    }

    fn codes(verdict: &Verdict) -> Vec<(&'static str, Severity)> {
        verdict
            .findings
            .iter()
            .map(|finding| (finding.kind.code(), finding.severity))
            .collect()
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
            let verdict = look(&chain, "shop.example", &authority.roots(), ISSUED + days * DAY - left);
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
            let verdict = look(&chain, name, &authority.roots(), ISSUED + DAY);
            assert_eq!(verdict.findings.is_empty(), matches, "{name}");
        }
    }

    #[test]
    fn expired_and_wrong_name_and_unknown_issuer_are_three_findings() {
        let authority = Authority::new(ISSUED + 3000 * DAY);
        let chain = [authority.leaf(90), authority.intermediate()];
        let verdict = look(&chain, "other.example", &Roots::public(), ISSUED + 91 * DAY);
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
            let verdict = look(&chain, "shop.example", roots, ISSUED + DAY);
            let codes: Vec<_> = codes(&verdict).into_iter().map(|(code, _)| code).collect();
            assert_eq!(codes, expected, "{what}: {:?}", verdict.findings);
        }
    }

    #[test]
    fn a_root_made_anew_by_the_same_name_is_another_root() {
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
            let verdict = look(&chain, "shop.example", &roots, ISSUED + DAY);
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
        let verdict = look(&chain, "shop.example", &authority.roots(), ISSUED + DAY);
        assert_eq!(verdict.findings, []);
        let roles: Vec<_> = verdict.issuers.iter().map(|issuer| issuer.role).collect();
        assert_eq!(roles, [Role::Path, Role::Extra]);
    }

    /// Thirty issuers of one name, and a path through them is looked for in every order.
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
        let began = std::time::Instant::now();
        for (chain, expected) in [
            (leads_nowhere, &["untrusted_root"][..]),
            (expired, &["issuer_expired", "invalid_chain"]),
            (behind, &[]),
        ] {
            let verdict = look(&chain, "shop.example", &authority.roots(), ISSUED + DAY);
            let codes: Vec<_> = codes(&verdict).into_iter().map(|(code, _)| code).collect();
            assert_eq!(codes, expected);
        }
        assert!(
            began.elapsed() < std::time::Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
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
            let verdict = look(&chain, "shop.example", &authority.roots(), now);
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
            look(
                &[CertificateDer::from(broken), intermediate.clone()],
                "shop.example",
                &roots,
                ISSUED + DAY,
            );
            look(
                &[CertificateDer::from(leaf[..at].to_vec())],
                "shop.example",
                &roots,
                ISSUED + DAY,
            );
        }
    }

    #[test]
    fn weak_keys() {
        for (key, weak) in [
            ("rsa-1024", true),
            ("rsa-2048", false),
            ("ecdsa-p192", true),
            ("ecdsa-p256", false),
            ("dsa", true),
            ("ed25519", false),
        ] {
            assert_eq!(is_weak_key(key), weak, "{key}");
        }
    }
}
