//! Revocation by CRL (RFC 5280, 5): good, revoked, or unknown, which never alerts; and what a
//! server itself says of it.

mod fetch;
mod list;
mod reach;
pub mod staple;
mod words;

use std::time::Duration;

use data_encoding::HEXLOWER;
use futures::future::{join, join_all};
use reqwest::Url;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use self::fetch::Fetcher;
use self::list::{Document, Entry, ListProblem, Wanted};
use self::reach::Reach;
use crate::chain::issuer::{has_signed, parsed};
use crate::chain::path::key_usage;
use crate::chain::roots::Roots;
use crate::der;
use crate::distinguished_name::{is_same, text};
use crate::finding::{Finding, Kind, Severity};
use crate::observation::Revocation;
use crate::resolve::Resolver;
use crate::timestamp::Timestamp;

/// The revocation lists of one run: each is fetched once, however many certificates name it.
///
/// A list may have 10 MB, and all of them together 100 MB. A certificate whose list is beyond that
/// is [`Status::Unknown`].
#[derive(Debug)]
pub struct Crls {
    fetcher: Fetcher,
}

/// What lists say about a chain: its leaf, and the issuers that its path goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    leaf: Status,
    issuers: Vec<IssuerStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct IssuerStatus {
    subject: String,
    status: Status,
}

impl PathStatus {
    /// A finding for each certificate that is revoked.
    pub fn findings(&self, now: Timestamp) -> Vec<Finding> {
        let issuers = self.issuers.iter().map(|issuer| &issuer.status);
        let all = std::iter::once(&self.leaf).chain(issuers);
        all.filter_map(|status| status.finding(now)).collect()
    }

    /// The leaf's status. A leaf counts as good only if the status of every issuer is known too.
    pub fn revocation(self) -> Revocation {
        let unknown = self.issuers.iter().find_map(|issuer| match &issuer.status {
            Status::Unknown { reason } => Some(format!("the issuer {}: {reason}", issuer.subject)),
            Status::Good | Status::Revoked { .. } | Status::Skipped { .. } => None,
        });
        match (self.leaf, unknown) {
            (Status::Good, Some(reason)) => Revocation::Unknown { reason },
            (leaf, _) => leaf.into(),
        }
    }
}

/// Whether a certificate is revoked, with the facts that a finding needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// A current, signed list does not have it.
    Good,
    /// A signed list has it.
    Revoked {
        /// The certificate's subject.
        subject: String,
        /// Its serial in lower-case hex.
        serial: String,
        /// When it was revoked, or now if the list does not say.
        revoked_at: Timestamp,
        /// The CA's reason in words, if the list has one.
        reason: Option<String>,
    },
    /// No list could be fetched, or none that can be believed.
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

impl Status {
    fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into() }
    }

    fn skipped(reason: &str) -> Self {
        Self::Skipped {
            reason: reason.to_owned(),
        }
    }

    /// The finding of a revoked certificate; anything else is none.
    pub fn finding(&self, now: Timestamp) -> Option<Finding> {
        let Self::Revoked {
            subject,
            serial,
            revoked_at,
            reason,
        } = self
        else {
            return None;
        };
        let kind = Kind::Revoked {
            subject: subject.clone(),
            serial: serial.clone(),
            revoked_at: *revoked_at,
            reason: reason.clone(),
        };
        Some(Finding::new(kind, Severity::Critical, now))
    }
}

impl From<Status> for Revocation {
    fn from(status: Status) -> Self {
        match status {
            Status::Good => Self::Good,
            Status::Revoked { .. } => Self::Revoked,
            Status::Unknown { reason } => Self::Unknown { reason },
            Status::Skipped { reason } => Self::Skipped { reason },
        }
    }
}

impl Crls {
    /// No lists yet. `timeout` is for fetching one; a check tries no further list once it has taken
    /// that long.
    pub fn new(timeout: Duration, resolver: Resolver) -> Self {
        Self {
            fetcher: Fetcher::new(timeout, resolver),
        }
    }

    /// Checks a leaf and the issuers that its path goes through. `sent` is everything that came
    /// with the leaf.
    ///
    /// Call it only for paths that lead to a trusted root: then CAs chose the URLs, and not the
    /// person who runs the server.
    pub async fn check_path(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        sent: &[CertificateDer<'_>],
        roots: &Roots,
        now: Timestamp,
    ) -> PathStatus {
        let issuers = issuers.iter().map(async |issuer| IssuerStatus {
            subject: X509Certificate::from_der(issuer)
                .map_or_else(|_| String::new(), |(_, issuer)| text(issuer.subject())),
            status: self.check(issuer, sent, roots, now).await,
        });
        let (leaf, issuers) = join(self.check(leaf, sent, roots, now), join_all(issuers)).await;
        PathStatus { leaf, issuers }
    }

    /// Checks a certificate against the lists that it names, until one of them answers.
    async fn check(
        &self,
        certificate: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        roots: &Roots,
        now: Timestamp,
    ) -> Status {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Status::unknown("the certificate cannot be parsed");
        };
        let validity = parsed.validity();
        let from = validity.not_before.timestamp();
        let to = validity.not_after.timestamp();

        // CAs need not put short-lived certificates on a list (CA/Browser Forum BR, 4.9.7), nor
        // expired ones.
        if to - from <= SHORT_LIVED.whole_seconds() {
            return Status::skipped("valid for 7 days or less");
        }
        if !(from..=to).contains(&now.unix()) {
            return Status::skipped("not valid now");
        }

        let began = Instant::now();
        let mut status = Status::skipped("the certificate names no revocation list that can be fetched");
        for url in distribution_points(&parsed, self.fetcher.reach(roots)) {
            status = match self.fetcher.list(url, roots).await {
                Ok(list) => judge_by(&list, certificate, sent, roots, now),
                Err(reason) => Status::Unknown { reason },
            };
            if matches!(status, Status::Good | Status::Revoked { .. }) || began.elapsed() >= self.fetcher.timeout {
                break;
            }
        }
        status
    }
}

/// The status of a certificate by one list, which counts only if the certificate's issuer has
/// signed it. `sent` are the certificates that came with the leaf.
pub fn judge(
    list: &[u8],
    certificate: &CertificateDer<'_>,
    sent: &[CertificateDer<'_>],
    roots: &Roots,
    now: Timestamp,
) -> Status {
    judge_by(&Document::new(list), certificate, sent, roots, now)
}

fn judge_by(
    list: &Document,
    certificate: &CertificateDer<'_>,
    sent: &[CertificateDer<'_>],
    roots: &Roots,
    now: Timestamp,
) -> Status {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Status::unknown("the certificate cannot be parsed");
    };
    let check = Check {
        certificate: &certificate,
        keys: &issuer_keys(&certificate, sent, roots),
        now,
    };
    check
        .judge(list)
        .unwrap_or_else(|problem| Status::unknown(problem.to_string()))
}

/// A key that has signed the certificate.
struct IssuerKey {
    /// A SubjectPublicKeyInfo.
    der: Vec<u8>,
    /// Whether its key usage allows it to sign lists.
    may_sign_lists: bool,
}

/// The keys that have signed a certificate, from all certificates that may have them.
fn issuer_keys(child: &X509Certificate<'_>, sent: &[CertificateDer<'_>], roots: &Roots) -> Vec<IssuerKey> {
    let mut keys = Vec::new();
    for certificates in [sent, roots.issuers(), roots.dated()] {
        let known = parsed(certificates);
        let issuers = known
            .iter()
            .map(|(_, issuer)| issuer)
            .filter(|issuer| is_same(issuer.subject().as_raw(), child.issuer().as_raw()))
            .filter(|issuer| has_signed(issuer.public_key().raw, child));
        keys.extend(issuers.map(|issuer| IssuerKey {
            der: issuer.public_key().raw.to_vec(),
            may_sign_lists: key_usage(issuer).is_none_or(|usage| usage.crl_sign()),
        }));
    }

    // A public root has no key usage that is known.
    if keys.is_empty() {
        keys.extend(
            roots
                .public_of_subject(child.issuer().as_raw())
                .map(|anchor| der::encode(0x30, &anchor.subject_public_key_info))
                .filter(|key| has_signed(key, child))
                .map(|der| IssuerKey {
                    der,
                    may_sign_lists: true,
                }),
        );
    }
    keys
}

/// A certificate to look for on lists, and what the lists' signatures are verified with.
struct Check<'a> {
    certificate: &'a X509Certificate<'a>,
    keys: &'a [IssuerKey],
    now: Timestamp,
}

impl Check<'_> {
    fn judge(&self, document: &Document) -> Result<Status, ListProblem> {
        let list = document.list()?;
        if !is_same(list.issuer, self.certificate.issuer().as_raw()) {
            return Err(ListProblem::NotForThis);
        }
        if self.keys.is_empty() {
            return Err(ListProblem::NoIssuer);
        }
        let mut signers = self.keys.iter().filter(|key| key.may_sign_lists).peekable();
        if signers.peek().is_none() {
            return Err(ListProblem::MayNotSign);
        }
        if !signers.any(|key| document.is_signed_by(&key.der)) {
            return Err(ListProblem::WrongSignature);
        }

        let wanted = Wanted {
            serial: self.certificate.raw_serial(),
            is_ca: self.certificate.is_ca(),
            points: &self.points(),
        };
        let entry = list.entry(&wanted, self.now)?;
        Ok(entry.map_or(Status::Good, |entry| revoked(self.certificate, &entry, self.now)))
    }

    /// The names of the certificate's distribution points.
    fn points(&self) -> Vec<&[u8]> {
        self.certificate
            .extensions()
            .iter()
            .filter(|extension| matches!(extension.parsed_extension(), ParsedExtension::CRLDistributionPoints(_)))
            .flat_map(|extension| list::point_names(extension.value))
            .collect()
    }
}

/// A certificate by its entry on a list (RFC 5280, 5.3).
fn revoked(certificate: &X509Certificate<'_>, entry: &Entry, now: Timestamp) -> Status {
    Status::Revoked {
        subject: text(certificate.subject()),
        serial: HEXLOWER.encode(certificate.raw_serial()),
        revoked_at: entry.revoked_at.unwrap_or(now),
        reason: entry.reason.and_then(words::reason).map(str::to_owned),
    }
}

/// The URLs of a certificate's lists (RFC 5280, 4.2.1.13), as far as they may be requested.
fn distribution_points(certificate: &X509Certificate<'_>, reach: Reach) -> Vec<Url> {
    certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::CRLDistributionPoints(points) => Some(&points.points),
            _ => None,
        })
        .flatten()
        .filter_map(|point| match &point.distribution_point {
            Some(DistributionPointName::FullName(names)) => Some(names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Url::parse(uri).ok(),
            _ => None,
        })
        .filter(|url| reach.allows_url(url))
        .take(POINTS)
        .collect()
}

const SHORT_LIVED: time::Duration = time::Duration::days(7);
const POINTS: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
        CrlIssuingDistributionPoint, CrlScope, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
        SerialNumber,
    };
    use time::OffsetDateTime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::fetch::HELD;
    use super::*;
    use crate::timestamp;

    const NOW: Timestamp = timestamp!(2026-11-24 00:00 UTC);
    const DAY: time::Duration = time::Duration::DAY;
    const LATER: Timestamp = timestamp!(2026-11-25 00:00 UTC);
    /// With its first bit set, so that DER needs a 00 before it.
    const SERIAL: &[u8] = &[0x8a, 0x42];

    type Authority = CertifiedIssuer<'static, KeyPair>;

    const USAGES: [KeyUsagePurpose; 2] = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

    fn authority(name: &str) -> Authority {
        CertifiedIssuer::self_signed(ca(name, &USAGES), KeyPair::generate().unwrap()).unwrap()
    }

    fn ca(name: &str, usages: &[KeyUsagePurpose]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = usages.to_vec();
        params
    }

    fn leaf(issuer: &Authority, urls: &[&str], days: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = ((NOW - DAY).into(), (NOW - DAY + days * DAY).into());
        params.serial_number = Some(SerialNumber::from_slice(SERIAL));
        let point = |url: &&str| CrlDistributionPoint {
            uris: vec![(*url).to_owned()],
        };
        params.crl_distribution_points = urls.iter().map(point).collect();
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), issuer);
        leaf.unwrap().der().clone()
    }

    fn params(serials: &[&[u8]]) -> CertificateRevocationListParams {
        let entry = |serial: &&[u8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: (NOW - time::Duration::HOUR).into(),
            reason_code: Some(rcgen::RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: OffsetDateTime::from(NOW) - 2 * DAY,
            next_update: LATER.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
    }

    fn list(issuer: &Authority, serials: &[&[u8]]) -> Vec<u8> {
        params(serials).signed_by(issuer).unwrap().der().to_vec()
    }

    fn list_of_part(issuer: &Authority, url: &str) -> Vec<u8> {
        let mut params = params(&[SERIAL]);
        params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec![url.to_owned()],
            },
            scope: Some(CrlScope::UserCertsOnly),
        });
        params.signed_by(issuer).unwrap().der().to_vec()
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    /// Listens on loopback; [`serve`] answers.
    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/list.crl", listener.local_addr().unwrap());
        (listener, url)
    }

    /// Answers everyone by their path, and counts them.
    fn serve(listener: TcpListener, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Arc<AtomicUsize> {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let mut request = vec![0; 1_024];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let answer = answer(request.split(' ').nth(1).unwrap_or_default());
                let _ = stream.write_all(&answer).await;
            }
        });
        asked
    }

    fn crls() -> Crls {
        lenient(Duration::from_secs(20))
    }

    /// Lists on this machine may be fetched, too.
    fn lenient(timeout: Duration) -> Crls {
        let mut crls = strict(timeout);
        crls.fetcher.loopback = true;
        crls
    }

    fn strict(timeout: Duration) -> Crls {
        let no_server = "127.0.0.1:1".parse().unwrap();
        Crls::new(timeout, Resolver::new(Some(no_server), timeout).unwrap())
    }

    fn trusting(issuer: &Authority) -> Roots {
        Roots::public().with_pem(issuer.pem().as_bytes()).unwrap()
    }

    async fn check(issuer: &Authority, urls: &[&str], days: i32) -> Status {
        let leaf = leaf(issuer, urls, days);
        crls().check(&leaf, &[], &trusting(issuer), NOW).await
    }

    /// Why it is unknown when the leaf's list is answered like this.
    async fn why_unknown(issuer: &Authority, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
        let (listener, url) = listen().await;
        serve(listener, answer);
        match check(issuer, &[&url], 90).await {
            Status::Unknown { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn good_or_revoked() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let good = list(&ours, &[&[7]]);
        serve(listener, move |_| ok(&good));
        assert_eq!(check(&ours, &[&url], 90).await, Status::Good);

        let (listener, url) = listen().await;
        let bad = list(&ours, &[&[7], SERIAL]);
        serve(listener, move |_| ok(&bad));
        let status = check(&ours, &[&url], 90).await;
        let expected = Status::Revoked {
            subject: "CN=rcgen self signed cert".to_owned(),
            serial: "008a42".to_owned(),
            revoked_at: NOW - time::Duration::HOUR,
            reason: Some("key compromise".to_owned()),
        };
        assert_eq!(status, expected);
        assert!(matches!(status.finding(NOW).unwrap().kind, Kind::Revoked { .. }));
        assert_eq!(Revocation::from(status), Revocation::Revoked);
    }

    #[tokio::test]
    async fn an_intermediates_list_counts_for_its_leaves() {
        let root = authority("Root");
        let key = KeyPair::generate().unwrap();
        let between = CertifiedIssuer::signed_by(ca("Intermediate", &USAGES), key, &root).unwrap();
        let (roots, sent) = (trusting(&root), [between.der().clone()]);
        for (body, expected) in [
            (list(&between, &[SERIAL]), Some(Revocation::Revoked)),
            (list(&between, &[]), Some(Revocation::Good)),
            // The same serial on another CA's list is another certificate.
            (list(&root, &[SERIAL]), None),
        ] {
            let (listener, url) = listen().await;
            serve(listener, move |_| ok(&body));
            let status = crls().check(&leaf(&between, &[&url], 90), &sent, &roots, NOW).await;
            match expected {
                Some(expected) => assert_eq!(Revocation::from(status), expected),
                None => assert!(matches!(status, Status::Unknown { .. }), "{status:?}"),
            }
        }
    }

    /// A leaf was `good` although the CA above it had been withdrawn.
    #[tokio::test]
    async fn an_issuer_that_is_revoked_is_a_finding() {
        let root = authority("Root");
        let (roots_listener, roots_url) = listen().await;
        let mut params = ca("Intermediate", &USAGES);
        params.serial_number = Some(SerialNumber::from_slice(&[9]));
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![roots_url] }];
        (params.not_before, params.not_after) = ((NOW - DAY).into(), (NOW + 900_i32 * DAY).into());
        let between = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
        let (listener, url) = listen().await;
        let of_leaf = list(&between, &[]);
        serve(listener, move |_| ok(&of_leaf));

        let of_root = Arc::new(Mutex::new(Vec::new()));
        let answer = of_root.clone();
        serve(roots_listener, move |_| answer.lock().unwrap().clone());
        let (leaf, path) = (leaf(&between, &[&url], 90), [between.der().clone()]);
        let only = |kind: u8| (28, true, [0x30, 3, kind, 1, 0xff]);
        let (for_users, for_cas) = (only(0x81), only(0x82));
        for (what, body, subjects, revocation) in [
            (
                "listed",
                ok(&list(&root, &[&[9]])),
                &["CN=Intermediate"][..],
                Some(Revocation::Good),
            ),
            ("not listed", ok(&list(&root, &[&[7]])), &[], Some(Revocation::Good)),
            (
                "listed among CAs",
                ok(&by_hand(&root, &[&[9]], None, &[(for_cas.0, for_cas.1, &for_cas.2)])),
                &["CN=Intermediate"],
                Some(Revocation::Good),
            ),
            (
                "listed among users",
                ok(&by_hand(
                    &root,
                    &[&[9]],
                    None,
                    &[(for_users.0, for_users.1, &for_users.2)],
                )),
                &[],
                None,
            ),
            (
                "no list",
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                &[],
                None,
            ),
        ] {
            *of_root.lock().unwrap() = body;
            let status = crls().check_path(&leaf, &path, &path, &trusting(&root), NOW).await;
            let found = status.findings(NOW);
            let revoked: Vec<_> = found
                .iter()
                .filter_map(|finding| match &finding.kind {
                    Kind::Revoked { subject, .. } => Some(subject.as_str()),
                    _ => None,
                })
                .collect();
            assert_eq!(revoked, subjects, "{what}");
            match (status.revocation(), revocation) {
                (Revocation::Unknown { reason }, None) => {
                    assert!(reason.starts_with("the issuer CN=Intermediate: "), "{what}: {reason}");
                }
                (said, expected) => assert_eq!(Some(said), expected, "{what}"),
            }
        }
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_believed_says_nothing() {
        let ours = authority("Ours");
        let late = CertificateRevocationListParams {
            next_update: NOW.into(),
            ..params(&[&[7]])
        };
        let mut delta = list(&ours, &[SERIAL]);
        let number = delta.windows(3).position(|oid| oid == [0x55, 0x1d, 20]).unwrap();
        delta[number + 2] = 27;
        let mut forged = list(&ours, &[SERIAL]);
        *forged.last_mut().unwrap() ^= 1;
        for (body, words) in [
            (
                list(&authority("Other"), &[SERIAL]),
                "the list is not for this certificate",
            ),
            (list(&authority("Ours"), &[SERIAL]), "the list's signature is wrong"),
            (forged, "the list's signature is wrong"),
            (late.signed_by(&ours).unwrap().der().to_vec(), "the list is out of date"),
            (
                list_of_part(&ours, "http://elsewhere.example/2.crl"),
                "the list is not for this certificate",
            ),
            (delta, "a delta list"),
            (b"<html>".to_vec(), "not a revocation list"),
            (Vec::new(), "not a revocation list"),
            ([list(&ours, &[SERIAL]), vec![0]].concat(), "not a revocation list"),
        ] {
            let reason = why_unknown(&ours, move |_| ok(&body)).await;
            assert!(reason.contains(words), "{reason} (expected {words})");
        }
    }

    /// Each of these was `unknown`, which nobody sees, although the leaf was on the list.
    #[tokio::test]
    async fn lists_as_cas_publish_them_are_read() {
        let ours = authority("Ours");
        let stale = CertificateRevocationListParams {
            next_update: (NOW - DAY).into(),
            ..params(&[SERIAL])
        };
        let pem = params(&[SERIAL]).signed_by(&ours).unwrap().pem().unwrap();
        for (what, body) in [
            ("PEM", pem.clone().into_bytes()),
            ("PEM behind words", format!("issuer=Ours\n{pem}").into_bytes()),
            ("stale", stale.signed_by(&ours).unwrap().der().to_vec()),
            ("version 1", by_hand(&ours, &[SERIAL], None, &[])),
            // step-ca: onlyContainsUserCerts, and no distribution point.
            (
                "for users",
                by_hand(&ours, &[SERIAL], None, &[(28, true, &[0x30, 3, 0x81, 1, 0xff])]),
            ),
            (
                "some reasons",
                by_hand(&ours, &[SERIAL], None, &[(28, true, &[0x30, 4, 0x83, 2, 6, 0x40])]),
            ),
            (
                "on hold",
                by_hand(&ours, &[SERIAL], Some(6), &[(20, false, &[2, 1, 1])]),
            ),
        ] {
            let (listener, url) = listen().await;
            serve(listener, move |_| ok(&body));
            let status = check(&ours, &[&url], 90).await;
            assert!(matches!(status, Status::Revoked { .. }), "{what}: {status:?}");
        }

        for (what, body, expected) in [
            ("removed", by_hand(&ours, &[SERIAL], Some(8), &[]), None),
            ("version 1, another", by_hand(&ours, &[&[7]], None, &[]), None),
            (
                "no entry",
                by_hand(&ours, &[], None, &[(28, true, &[0x30, 3, 0x81, 1, 0xff])]),
                None,
            ),
            (
                "for CAs",
                by_hand(&ours, &[SERIAL], None, &[(28, true, &[0x30, 3, 0x82, 1, 0xff])]),
                Some("the list is not for this certificate"),
            ),
            (
                "some reasons, no entry",
                by_hand(&ours, &[], None, &[(28, true, &[0x30, 4, 0x83, 2, 6, 0x40])]),
                Some("the list is for some reasons of revocation only"),
            ),
            (
                "something critical",
                by_hand(&ours, &[SERIAL], None, &[(99, true, &[5, 0])]),
                Some("the list has a critical extension that is unknown"),
            ),
        ] {
            let (listener, url) = listen().await;
            serve(listener, move |_| ok(&body));
            match (check(&ours, &[&url], 90).await, expected) {
                (Status::Good, None) => {}
                (Status::Unknown { reason }, Some(expected)) => assert!(reason.contains(expected), "{what}: {reason}"),
                (status, _) => panic!("{what}: {status:?}"),
            }
        }
    }

    /// A list that rcgen does not make: version 1 without extensions.
    fn by_hand(issuer: &Authority, serials: &[&[u8]], reason: Option<u8>, extensions: &[(u8, bool, &[u8])]) -> Vec<u8> {
        use rcgen::SigningKey;
        let extension = |(number, critical, value): &(u8, bool, &[u8])| {
            let mut parts = der::encode(6, &[0x55, 0x1d, *number]);
            if *critical {
                parts.extend(der::encode(1, &[0xff]));
            }
            parts.extend(der::encode(4, value));
            der::encode(0x30, &parts)
        };
        let time = |days: i8| {
            let day = 24 + days;
            der::encode(0x17, format!("2611{day:02}000000Z").as_bytes())
        };
        let entries = serials.iter().flat_map(|serial| {
            let serial = if serial[0] & 0x80 == 0 {
                serial.to_vec()
            } else {
                [&[0], *serial].concat()
            };
            let reason = reason.map(|reason| der::encode(0x30, &extension(&(21, false, &[10, 1, reason]))));
            let fields = [der::encode(2, &serial), time(-1), reason.unwrap_or_default()].concat();
            der::encode(0x30, &fields)
        });
        let entries: Vec<u8> = entries.collect();
        let algorithm = der::encode(0x30, &der::encode(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]));
        let (_, own) = X509Certificate::from_der(issuer.der()).unwrap();
        let mut fields = [&algorithm[..], own.subject().as_raw(), &time(-2), &time(1)].concat();
        if !extensions.is_empty() {
            fields = [der::encode(2, &[1]), fields].concat();
        }
        if !entries.is_empty() {
            fields.extend(der::encode(0x30, &entries));
        }
        if !extensions.is_empty() {
            let extensions: Vec<u8> = extensions.iter().flat_map(extension).collect();
            fields.extend(der::encode(0xa0, &der::encode(0x30, &extensions)));
        }
        let tbs = der::encode(0x30, &fields);
        let signature = [vec![0], issuer.key().sign(&tbs).unwrap()].concat();
        der::encode(0x30, &[tbs, algorithm, der::encode(3, &signature)].concat())
    }

    #[tokio::test]
    async fn an_issuer_that_may_not_sign_lists_says_nothing() {
        let root = authority("Root");
        let key = KeyPair::generate().unwrap();
        let same_key = KeyPair::try_from(key.serialize_der()).unwrap();
        let may = CertifiedIssuer::self_signed(ca("Intermediate", &USAGES), same_key).unwrap();
        let may_not = CertifiedIssuer::signed_by(ca("Intermediate", &USAGES[..1]), key, &root).unwrap();
        let (listener, url) = listen().await;
        let body = list(&may, &[SERIAL]);
        serve(listener, move |_| ok(&body));
        let (leaf, sent) = (leaf(&may_not, &[&url], 90), [may_not.der().clone()]);
        let status = crls().check(&leaf, &sent, &trusting(&root), NOW).await;
        assert_eq!(status, Status::unknown("the issuer may not sign lists"));
    }

    #[tokio::test]
    async fn a_list_of_the_leafs_part_counts() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list_of_part(&ours, &url);
        serve(listener, move |_| ok(&body));
        let status = check(&ours, &[&url], 90).await;
        assert!(matches!(status, Status::Revoked { .. }), "{status:?}");
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_had_is_unknown() {
        let ours = authority("Ours");
        let endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let endless = [
            endless,
            [&b"10000\r\n"[..], &[0; 0x10000], b"\r\n"].concat().repeat(160),
        ]
        .concat();
        for (answer, words) in [
            (
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                "HTTP 404 Not Found",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 10000001\r\n\r\n".to_vec(),
                "larger than 10000000 bytes",
            ),
            (endless, "larger than 10000000 bytes"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_vec(),
                "list.crl: ",
            ),
            (b"220 mail.example ESMTP\r\n".to_vec(), "list.crl: "),
            (Vec::new(), "list.crl: "),
            (
                b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/x\r\nContent-Length: 0\r\n\r\n".to_vec(),
                "HTTP 302 Found",
            ),
        ] {
            let reason = why_unknown(&ours, move |_| answer.clone()).await;
            assert!(reason.contains(words), "{reason} (expected {words})");
        }
        let (listener, url) = listen().await;
        drop(listener);
        assert!(matches!(check(&ours, &[&url], 90).await, Status::Unknown { .. }));
    }

    /// A private CA's list by HTTPS was refused, because its server was judged by public roots
    /// only.
    #[tokio::test]
    async fn https_is_judged_by_the_endpoints_own_roots() {
        use tokio_rustls::rustls::ServerConfig;
        let (ours, web) = (authority("Ours"), authority("Web"));
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let server = server.signed_by(&key, &web).unwrap().der().clone();
        let config =
            ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![server], key.serialize_der().try_into().unwrap())
                .unwrap();
        let (listener, url) = listen().await;
        let (acceptor, body) = (tokio_rustls::TlsAcceptor::from(Arc::new(config)), ok(&list(&ours, &[])));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0; 1_024]).await;
                    let _ = stream.write_all(&body).await;
                }
            }
        });
        let (crls, leaf) = (crls(), leaf(&ours, &[&url.replace("http:", "https:")], 90));
        let status = crls.check(&leaf, &[], &trusting(&ours), NOW).await;
        let is_explained = matches!(&status, Status::Unknown { reason } if reason.contains("invalid peer certificate"));
        assert!(is_explained, "{status:?}");
        let both = trusting(&ours).with_pem(web.pem().as_bytes()).unwrap();
        assert_eq!(crls.check(&leaf, &[], &both, NOW).await, Status::Good);
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        let ours = authority("Ours");
        let (silent, url) = listen().await;
        let crls = lenient(Duration::from_millis(100));
        let (leaf, roots) = (leaf(&ours, &[&url, &format!("{url}2")], 90), trusting(&ours));
        for _ in 0..2 {
            let status = crls.check(&leaf, &[], &roots, NOW).await;
            assert!(matches!(&status, Status::Unknown { reason } if reason.contains("took longer than 0.1 s")));
        }
        drop(silent);
        assert_eq!(crls.fetcher.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn two_redirects_are_followed_and_no_third() {
        let ours = authority("Ours");
        let body = list(&ours, &[]);
        let (listener, url) = listen().await;
        serve(listener, move |path| match path.trim_start_matches('/').parse::<u8>() {
            Ok(0) => ok(&body),
            Ok(left) => format!(
                "HTTP/1.1 302 Found\r\nLocation: /{}\r\nContent-Length: 0\r\n\r\n",
                left - 1
            )
            .into_bytes(),
            Err(_) => Vec::new(),
        });
        let base = url.strip_suffix("list.crl").unwrap();
        assert_eq!(check(&ours, &[&format!("{base}2")], 90).await, Status::Good);
        let status = check(&ours, &[&format!("{base}3")], 90).await;
        assert!(matches!(status, Status::Unknown { reason } if reason.contains("HTTP 302")));
    }

    /// The Runtime API of a Lambda listens on loopback: who may choose a URL there takes events
    /// away from the function.
    #[tokio::test]
    async fn no_list_leads_to_this_machine_or_to_a_clouds_credentials() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list(&ours, &[SERIAL]);
        let asked = serve(listener, move |_| ok(&body));
        let crls = strict(Duration::from_secs(5));
        let status = crls.check(&leaf(&ours, &[&url], 90), &[], &trusting(&ours), NOW).await;
        assert!(matches!(status, Status::Skipped { .. }), "{status:?}");
        let by_name = leaf(&ours, &[&url.replace("127.0.0.1", "localhost")], 90);
        let status = crls.check(&by_name, &[], &trusting(&ours), NOW).await;
        let refused = |reason: &str| reason.contains("localhost is at 127.0.0.1, where no list is fetched from");
        assert!(
            matches!(&status, Status::Unknown { reason } if refused(reason)),
            "{status:?}"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 0);

        for target in ["http://169.254.169.254/latest/", "http://[fd00:ec2::254]/"] {
            let (listener, url) = listen().await;
            let moved = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
            serve(listener, move |_| moved.clone().into_bytes());
            let status = check(&ours, &[&url], 90).await;
            let stopped = matches!(&status, Status::Unknown { reason } if reason.contains("HTTP 302"));
            assert!(stopped, "{target}: {status:?}");
        }
    }

    #[tokio::test]
    async fn a_second_distribution_point_helps_when_the_first_is_gone() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list(&ours, &[SERIAL]);
        serve(listener, move |path| match path {
            "/list.crl" => ok(&body),
            _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        });
        let status = check(&ours, &[&format!("{url}.gone"), &url], 90).await;
        assert!(matches!(status, Status::Revoked { .. }), "{status:?}");
    }

    #[tokio::test]
    async fn what_is_not_asked_about() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list(&ours, &[SERIAL]);
        let asked = serve(listener, move |_| ok(&body));
        let is_skipped = |status: Status| assert!(matches!(status, Status::Skipped { .. }), "{status:?}");
        is_skipped(check(&ours, &[&url], 7).await);
        is_skipped(check(&ours, &[], 90).await);
        let expired = leaf(&ours, &[&url], 90);
        is_skipped(crls().check(&expired, &[], &trusting(&ours), NOW + 90 * DAY).await);
        for url in [
            "http://169.254.169.254/latest",
            "http://2852039166/latest",
            "http://[fe80::1]/x",
            "http://[::ffff:169.254.169.254]/x",
            "http://[fd00:ec2::254]/x",
            "ldap://ca.example/cn=ca",
            "file:///etc/passwd",
            "not a URL",
        ] {
            is_skipped(check(&ours, &[url], 90).await);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        let status = crls().check(&garbage, &[], &Roots::public(), NOW).await;
        assert!(matches!(status, Status::Unknown { .. }));
    }

    #[tokio::test]
    async fn one_list_is_fetched_once_per_run() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list(&ours, &[&[7]]);
        let asked = serve(listener, move |_| ok(&body));
        let (crls, leaf, roots) = (crls(), leaf(&ours, &[&url], 90), trusting(&ours));
        let checks = (0..20).map(|_| crls.check(&leaf, &[], &roots, NOW));
        let states = futures::future::join_all(checks).await;
        assert!(states.iter().all(|status| *status == Status::Good));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn all_lists_together_have_a_bound() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list(&ours, &[&[7]]);
        let length = body.len();
        serve(listener, move |_| ok(&body));
        let (crls, leaf, roots) = (crls(), leaf(&ours, &[&url], 90), trusting(&ours));
        crls.fetcher.held.store(HELD - length + 1, Ordering::Relaxed);
        let status = crls.check(&leaf, &[], &roots, NOW).await;
        assert!(matches!(status, Status::Unknown { reason } if reason.contains("together")));
        assert_eq!(
            crls.fetcher.held.load(Ordering::Relaxed),
            HELD - length + 1,
            "what was not kept is given back"
        );
        crls.fetcher.lists.lock().unwrap().clear();
        crls.fetcher.held.store(HELD - length, Ordering::Relaxed);
        assert_eq!(crls.check(&leaf, &[], &roots, NOW).await, Status::Good);
        assert_eq!(crls.fetcher.held.load(Ordering::Relaxed), HELD);
    }

    /// A list keeps who has signed it, for the next certificate that names it.
    #[test]
    fn what_is_kept_about_one_key_is_not_said_of_another() {
        let (ours, namesake) = (authority("Ours"), authority("Ours"));
        let document = Document::new(list(&ours, &[&[7]]));
        let status = |issuer: &Authority| judge_by(&document, &leaf(issuer, &[], 90), &[], &trusting(issuer), NOW);
        for _ in 0..2 {
            assert_eq!(status(&ours), Status::Good);
            assert_eq!(status(&namesake), Status::unknown("the list's signature is wrong"));
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let ours = authority("Ours");
        let (leaf, roots) = (leaf(&ours, &[], 90), trusting(&ours));
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        let list = list(&ours, &[&[7], SERIAL]);
        let check = Check {
            certificate: &parsed,
            keys: &issuer_keys(&parsed, &[], &roots),
            now: NOW,
        };
        let judge = |list: &[u8]| check.judge(&Document::new(list));
        assert!(matches!(judge(&list), Ok(Status::Revoked { .. })));
        for at in 0..list.len() {
            assert!(judge(&list[..at]).is_err());
            for flip in [0x01, 0x80, 0xff] {
                let mut broken = list.clone();
                broken[at] ^= flip;
                assert!(judge(&broken).is_err(), "byte {at} is signed");
            }
        }
    }
}
