//! Revocation by CRL (RFC 5280, 5): good, revoked, or unknown, which never alerts.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url, redirect};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{
    ALL_VERIFICATION_ALGS, BorrowedCertRevocationList, CertRevocationList, EndEntityCert, Error, ExpirationPolicy,
    KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder, RevocationReason, UnknownStatusPolicy,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::chain::path::{candidates, parsed};
use crate::chain::roots::Roots;
use crate::endpoint::Host;
use crate::finding::Kind;
use crate::observation::Revocation;
use crate::resolve::Resolver;
use crate::timestamp::Timestamp;

/// The revocation lists of one run: each is fetched once, however many certificates name it. A list may have 10 MB, all
/// of them together 100 MB; what is beyond is unknown.
#[derive(Debug)]
pub struct Crls {
    timeout: Duration,
    resolver: Resolver,
    /// Whether lists on this very machine may be fetched, too.
    loopback: bool,
    clients: Mutex<HashMap<Private, Client>>,
    lists: Mutex<HashMap<(Url, Private), Fetched>>,
    held: AtomicUsize,
}

/// An organisation's own roots. Where a list is fetched by HTTPS, its server is judged as the endpoint is; so what one
/// endpoint could not have, another may.
type Private = Vec<CertificateDer<'static>>;

/// A list as it was signed: half the size of a parsed one, and to look one serial up it need not be parsed whole.
type List = Result<Arc<[u8]>, String>;

/// A list that somebody may be fetching.
type Fetched = Arc<OnceCell<List>>;

impl Crls {
    /// No lists yet; `timeout` is for fetching one. A check stops asking once it has taken that long.
    pub fn new(timeout: Duration, resolver: Resolver) -> Self {
        Self {
            timeout,
            resolver,
            loopback: false,
            clients: Mutex::default(),
            lists: Mutex::default(),
            held: AtomicUsize::new(0),
        }
    }

    /// What the leaf's issuer says of it now. Ask only for chains that lead to a trusted root: then it is a CA that
    /// chose the URLs, and not whoever runs the server.
    pub async fn check(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        roots: &Roots,
        now: Timestamp,
    ) -> (Revocation, Option<Kind>) {
        let Ok((_, parsed_leaf)) = X509Certificate::from_der(leaf) else {
            return (unknown("the leaf cannot be parsed"), None);
        };
        let validity = parsed_leaf.validity();
        let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        if to - from <= SHORT_LIVED.whole_seconds() {
            return (skipped("valid for 7 days or less"), None);
        }
        if !(from..=to).contains(&now.unix()) {
            return (skipped("not valid now"), None);
        }
        let mut state = skipped("the certificate names no revocation list that can be fetched");
        let began = Instant::now();
        let reach = self.reach(roots);
        let issuers = parsed(sent);
        let sent = candidates(&parsed_leaf, &issuers);
        for url in distribution_points(&parsed_leaf, reach) {
            match self
                .list(url, roots)
                .await
                .map(|der| judge(leaf, &parsed_leaf, &sent, roots, &der, now))
            {
                Ok(Ok(None)) => return (Revocation::Good, None),
                Ok(Ok(revoked)) => return (Revocation::Revoked, revoked),
                Ok(Err(error)) => state = unknown(why(&error)),
                Err(reason) => state = Revocation::Unknown { reason },
            }
            if began.elapsed() >= self.timeout {
                break;
            }
        }
        (state, None)
    }

    async fn list(&self, url: Url, roots: &Roots) -> List {
        let key = (url.clone(), roots.private().to_vec());
        let cell = {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            if lists.len() >= LISTS && !lists.contains_key(&key) {
                return Err(format!("more than {LISTS} revocation lists in one run"));
            }
            lists.entry(key).or_default().clone()
        };
        let fetched = cell.get_or_init(|| async {
            match timeout(self.timeout, self.fetch(url.clone(), roots)).await {
                Ok(list) => list,
                Err(_) => Err(format!("{url} took longer than {} s", self.timeout.as_secs_f32())),
            }
        });
        fetched.await.clone()
    }

    async fn fetch(&self, url: Url, roots: &Roots) -> List {
        let failed = |problem: String| format!("{url}: {problem}");
        let mut response = self
            .client(roots)
            .map_err(&failed)?
            .get(url.clone())
            .send()
            .await
            .map_err(|error| failed(chain_of(&error)))?;
        if !response.status().is_success() {
            return Err(failed(format!("HTTP {}", response.status())));
        }
        let too_large = || failed(format!("larger than {BYTES} bytes"));
        if response.content_length().is_some_and(|length| length > BYTES as u64) {
            return Err(too_large());
        }
        let mut der = Vec::new();
        let mut share = Share {
            held: &self.held,
            bytes: 0,
        };
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(chain_of(&error)))? {
            if der.len() + chunk.len() > BYTES {
                return Err(too_large());
            }
            if !share.grow(chunk.len()) {
                return Err(failed(format!("all lists together are larger than {HELD} bytes")));
            }
            der.extend_from_slice(&chunk);
        }
        BorrowedCertRevocationList::from_der(&der).map_err(|error| failed(why(&error)))?;
        share.keep();
        Ok(der.into())
    }

    fn client(&self, roots: &Roots) -> Result<Client, String> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(roots.private()) {
            return Ok(client.clone());
        }
        let names = Names {
            resolver: self.resolver.clone(),
            reach: self.reach(roots),
        };
        let client = client(roots, names)?;
        clients.insert(roots.private().to_vec(), client.clone());
        Ok(client)
    }

    fn reach(&self, roots: &Roots) -> Reach {
        Reach {
            private: !roots.private().is_empty(),
            loopback: self.loopback,
        }
    }
}

/// Where lists may be fetched from, whatever certificate, name or redirect leads there. A CA's list is at no address where
/// a cloud hands out credentials, nor on this machine, where Lambda's runtime listens; and in a private network it is only
/// if the CA is an organisation's own.
#[derive(Clone, Copy, Debug)]
struct Reach {
    private: bool,
    loopback: bool,
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.allows_v4(address),
            IpAddr::V6(address) => match address.segments() {
                // NAT64 (RFC 6052) leads to what is embedded.
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                    self.allows_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
                }
                // AWS's link-local services, at unique local addresses.
                [0xfd00, 0xec2, ..] => false,
                _ if address.is_loopback() => self.loopback,
                _ if address.is_unique_local() => self.private,
                _ => !address.is_unspecified() && !address.is_unicast_link_local() && !address.is_multicast(),
            },
        }
    }

    fn allows_v4(self, address: Ipv4Addr) -> bool {
        match address.octets() {
            [127, ..] => self.loopback,
            // RFC 6598, shared address space.
            [100, 64..=127, ..] => self.private,
            [0, ..] | [169, 254, ..] | [224..=255, ..] => false,
            _ => self.private || !address.is_private(),
        }
    }

    /// Whether a URL may be asked; a name is looked at once more when its addresses are known.
    fn allows_url(self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        matches!(url.scheme(), "http" | "https")
            && host.parse().map_or(!host.is_empty(), |address| self.allows(address))
    }
}

/// Looks names up as the probe does, and leaves out what is out of reach.
struct Names {
    resolver: Resolver,
    reach: Reach,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, reach) = (self.resolver.clone(), self.reach);
        Box::pin(async move {
            let host: Host = name.as_str().parse()?;
            let addresses = resolver.addresses(&host).await?;
            let within: Vec<_> = addresses.iter().filter(|address| reach.allows(**address)).collect();
            if within.is_empty() {
                return Err(format!("{host} is at {}, where no list is fetched from", addresses[0]).into());
            }
            let within: Vec<_> = within.into_iter().map(|address| SocketAddr::new(*address, 0)).collect();
            Ok(Box::new(within.into_iter()) as Addrs)
        })
    }
}

/// What one list has of the bytes that all of them may hold; given back on drop, unless it is kept.
struct Share<'a> {
    held: &'a AtomicUsize,
    bytes: usize,
}

impl Share<'_> {
    fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= HELD
    }

    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a list says of the leaf, if it is current and signed by the leaf's issuer: nothing, or that it is revoked.
fn judge(
    leaf: &CertificateDer<'_>,
    parsed: &X509Certificate<'_>,
    sent: &[CertificateDer<'_>],
    roots: &Roots,
    list: &[u8],
    now: Timestamp,
) -> Result<Option<Kind>, Error> {
    let list = CertRevocationList::from(BorrowedCertRevocationList::from_der(list)?);
    let lists = [&list];
    let revocation = RevocationOptionsBuilder::new(&lists)
        .map_err(|_| Error::UnknownRevocationStatus)?
        .with_depth(RevocationCheckDepth::EndEntity)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(ExpirationPolicy::Enforce)
        .build();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now.unix().try_into().unwrap_or(0)));
    let (anchors, usage) = (roots.anchors(), KeyUsage::server_auth());
    match EndEntityCert::try_from(leaf)?.verify_for_usage(
        ALL_VERIFICATION_ALGS,
        anchors,
        sent,
        at,
        usage,
        Some(revocation),
        None,
    ) {
        Ok(_) => Ok(None),
        Err(Error::CertRevoked) => Ok(Some(revoked(parsed, &list, now))),
        Err(error) => Err(error),
    }
}

fn revoked(leaf: &X509Certificate<'_>, list: &CertRevocationList<'_>, now: Timestamp) -> Kind {
    let entry = list.find_serial(leaf.raw_serial()).ok().flatten();
    let revoked_at = entry
        .as_ref()
        .and_then(|entry| Some(Timestamp::from_unix(entry.revocation_date.as_secs().try_into().ok()?)));
    Kind::Revoked {
        subject: leaf.subject().to_string(),
        serial: HEXLOWER.encode(leaf.raw_serial()),
        revoked_at: revoked_at.unwrap_or(now),
        reason: entry
            .and_then(|entry| entry.reason_code)
            .map(|reason| words(reason).to_owned()),
    }
}

/// The URLs where the leaf's list is, as far as they may be asked.
fn distribution_points(leaf: &X509Certificate<'_>, reach: Reach) -> Vec<Url> {
    let points = leaf
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::CRLDistributionPoints(points) => Some(&points.points),
            _ => None,
        });
    let names = points.flatten().filter_map(|point| match &point.distribution_point {
        Some(DistributionPointName::FullName(names)) => Some(names),
        _ => None,
    });
    let urls = names.flatten().filter_map(|name| match name {
        GeneralName::URI(uri) => Url::parse(uri).ok(),
        _ => None,
    });
    urls.filter(|url| reach.allows_url(url)).take(POINTS).collect()
}

fn client(roots: &Roots, names: Names) -> Result<Client, String> {
    let tls = roots.client_config().map_err(|error| error.to_string())?;
    let reach = names.reach;
    let redirects = redirect::Policy::custom(move |attempt| match attempt.previous().len() {
        0..=REDIRECTS if reach.allows_url(attempt.url()) => attempt.follow(),
        _ => attempt.stop(),
    });
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(names))
        .redirect(redirects)
        .no_proxy()
        .user_agent(concat!("neverlapse/", env!("CARGO_PKG_VERSION")))
        .build();
    client.map_err(|error| chain_of(&error))
}

/// The innermost reason is the one that says something.
fn chain_of(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn why(error: &Error) -> String {
    match error {
        Error::UnknownRevocationStatus => "the list is not for this certificate".to_owned(),
        Error::CrlExpired { .. } => "the list is out of date".to_owned(),
        Error::InvalidCrlSignatureForPublicKey => "the list's signature is wrong".to_owned(),
        Error::IssuerNotCrlSigner => "the issuer may not sign lists".to_owned(),
        Error::UnsupportedDeltaCrl => "a delta list, which says only what changed".to_owned(),
        Error::UnsupportedIndirectCrl => "an indirect list, which another CA signs".to_owned(),
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => "not a revocation list in DER".to_owned(),
        other => format!("the list cannot be used ({other:?})"),
    }
}

fn words(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Unspecified => "unspecified",
        RevocationReason::KeyCompromise => "key compromise",
        RevocationReason::CaCompromise => "CA compromise",
        RevocationReason::AffiliationChanged => "affiliation changed",
        RevocationReason::Superseded => "superseded",
        RevocationReason::CessationOfOperation => "cessation of operation",
        RevocationReason::CertificateHold => "certificate hold",
        RevocationReason::RemoveFromCrl => "removed from list",
        RevocationReason::PrivilegeWithdrawn => "privilege withdrawn",
        RevocationReason::AaCompromise => "attribute authority compromise",
    }
}

fn skipped(reason: &str) -> Revocation {
    Revocation::Skipped {
        reason: reason.to_owned(),
    }
}

fn unknown(reason: impl Into<String>) -> Revocation {
    Revocation::Unknown { reason: reason.into() }
}

const SHORT_LIVED: time::Duration = time::Duration::days(7);
/// The largest lists of public CAs are about this size; sharded ones are below 1 MB.
const BYTES: usize = 10_000_000;
const HELD: usize = 100_000_000;
const LISTS: usize = 4_096;
const POINTS: usize = 4;
const REDIRECTS: usize = 2;

#[cfg(test)]
mod tests {
    use crate::timestamp;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
        CrlIssuingDistributionPoint, CrlScope, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
        SerialNumber,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use time::OffsetDateTime;

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
        Crls {
            loopback: true,
            ..strict(Duration::from_secs(20))
        }
    }

    fn strict(timeout: Duration) -> Crls {
        let nobody = "127.0.0.1:1".parse().unwrap();
        Crls::new(timeout, Resolver::new(Some(nobody), timeout).unwrap())
    }

    fn trusting(issuer: &Authority) -> Roots {
        Roots::public().with_pem(issuer.pem().as_bytes()).unwrap()
    }

    async fn check(issuer: &Authority, urls: &[&str], days: i32) -> (Revocation, Option<Kind>) {
        let leaf = leaf(issuer, urls, days);
        crls().check(&leaf, &[], &trusting(issuer), NOW).await
    }

    /// Why it is unknown when the leaf's list is answered like this.
    async fn why_unknown(issuer: &Authority, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
        let (listener, url) = listen().await;
        serve(listener, answer);
        match check(issuer, &[&url], 90).await {
            (Revocation::Unknown { reason }, None) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn good_or_revoked() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let good = list(&ours, &[&[7]]);
        serve(listener, move |_| ok(&good));
        assert_eq!(check(&ours, &[&url], 90).await, (Revocation::Good, None));

        let (listener, url) = listen().await;
        let bad = list(&ours, &[&[7], SERIAL]);
        serve(listener, move |_| ok(&bad));
        let (state, finding) = check(&ours, &[&url], 90).await;
        assert_eq!(state, Revocation::Revoked);
        let expected = Kind::Revoked {
            subject: "CN=rcgen self signed cert".to_owned(),
            serial: "008a42".to_owned(),
            revoked_at: NOW - time::Duration::HOUR,
            reason: Some("key compromise".to_owned()),
        };
        assert_eq!(finding, Some(expected));
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
            let (state, _) = crls().check(&leaf(&between, &[&url], 90), &sent, &roots, NOW).await;
            match expected {
                Some(expected) => assert_eq!(state, expected),
                None => assert!(matches!(state, Revocation::Unknown { .. }), "{state:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_believed_says_nothing() {
        let ours = authority("Ours");
        let late = CertificateRevocationListParams {
            next_update: NOW.into(),
            ..params(&[SERIAL])
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
        let (state, _) = crls().check(&leaf, &sent, &trusting(&root), NOW).await;
        assert_eq!(state, unknown("the issuer may not sign lists"));
    }

    #[tokio::test]
    async fn a_list_of_the_leafs_part_counts() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list_of_part(&ours, &url);
        serve(listener, move |_| ok(&body));
        assert_eq!(check(&ours, &[&url], 90).await.0, Revocation::Revoked);
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
        assert!(matches!(
            check(&ours, &[&url], 90).await,
            (Revocation::Unknown { .. }, None)
        ));
    }

    /// A private CA's list by HTTPS was refused, because its server was judged by public roots only.
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
        let (state, _) = crls.check(&leaf, &[], &trusting(&ours), NOW).await;
        let is_told = matches!(&state, Revocation::Unknown { reason } if reason.contains("invalid peer certificate"));
        assert!(is_told, "{state:?}");
        let both = trusting(&ours).with_pem(web.pem().as_bytes()).unwrap();
        assert_eq!(crls.check(&leaf, &[], &both, NOW).await.0, Revocation::Good);
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        let ours = authority("Ours");
        let (silent, url) = listen().await;
        let crls = Crls {
            loopback: true,
            ..strict(Duration::from_millis(100))
        };
        let (leaf, roots) = (leaf(&ours, &[&url, &format!("{url}2")], 90), trusting(&ours));
        for _ in 0..2 {
            let (state, _) = crls.check(&leaf, &[], &roots, NOW).await;
            assert!(matches!(&state, Revocation::Unknown { reason } if reason.contains("took longer than 0.1 s")));
        }
        drop(silent);
        assert_eq!(crls.held.load(Ordering::Relaxed), 0);
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
        assert_eq!(check(&ours, &[&format!("{base}2")], 90).await.0, Revocation::Good);
        let (state, _) = check(&ours, &[&format!("{base}3")], 90).await;
        assert!(matches!(state, Revocation::Unknown { reason } if reason.contains("HTTP 302")));
    }

    /// The Runtime API of a Lambda listens on loopback: who may choose a URL there takes events away from the function.
    #[tokio::test]
    async fn no_list_leads_to_this_machine_or_to_a_clouds_credentials() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list(&ours, &[SERIAL]);
        let asked = serve(listener, move |_| ok(&body));
        let crls = strict(Duration::from_secs(5));
        let (state, _) = crls.check(&leaf(&ours, &[&url], 90), &[], &trusting(&ours), NOW).await;
        assert!(matches!(state, Revocation::Skipped { .. }), "{state:?}");
        let by_name = leaf(&ours, &[&url.replace("127.0.0.1", "localhost")], 90);
        let (state, _) = crls.check(&by_name, &[], &trusting(&ours), NOW).await;
        let refused = |reason: &str| reason.contains("localhost is at 127.0.0.1, where no list is fetched from");
        assert!(
            matches!(&state, Revocation::Unknown { reason } if refused(reason)),
            "{state:?}"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 0);

        for target in ["http://169.254.169.254/latest/", "http://[fd00:ec2::254]/"] {
            let (listener, url) = listen().await;
            let moved = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
            serve(listener, move |_| moved.clone().into_bytes());
            let (state, _) = check(&ours, &[&url], 90).await;
            let stopped = matches!(&state, Revocation::Unknown { reason } if reason.contains("HTTP 302"));
            assert!(stopped, "{target}: {state:?}");
        }
    }

    #[test]
    fn private_addresses_are_for_private_cas() {
        for (address, public, private) in [
            ("192.0.2.7", true, true),
            ("2001:db8::7", true, true),
            ("10.1.2.3", false, true),
            ("172.16.0.1", false, true),
            ("192.168.0.1", false, true),
            ("100.64.0.1", false, true),
            ("fd12:3456::1", false, true),
            ("::ffff:10.1.2.3", false, true),
            ("64:ff9b::a01:203", false, true),
            ("64:ff9b::c000:207", true, true),
            ("127.0.0.1", false, false),
            ("::1", false, false),
            ("::ffff:127.0.0.1", false, false),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("fe80::1", false, false),
            ("fd00:ec2::254", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("ff02::1", false, false),
        ] {
            let loopback = false;
            let allows = |private| Reach { private, loopback }.allows(address.parse().unwrap());
            assert_eq!((allows(false), allows(true)), (public, private), "{address}");
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
        assert_eq!(
            check(&ours, &[&format!("{url}.gone"), &url], 90).await.0,
            Revocation::Revoked
        );
    }

    #[tokio::test]
    async fn what_is_not_asked_about() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list(&ours, &[SERIAL]);
        let asked = serve(listener, move |_| ok(&body));
        let is_skipped = |state: Revocation| assert!(matches!(state, Revocation::Skipped { .. }), "{state:?}");
        is_skipped(check(&ours, &[&url], 7).await.0);
        is_skipped(check(&ours, &[], 90).await.0);
        let expired = leaf(&ours, &[&url], 90);
        is_skipped(crls().check(&expired, &[], &trusting(&ours), NOW + 90 * DAY).await.0);
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
            is_skipped(check(&ours, &[url], 90).await.0);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        let (state, _) = crls().check(&garbage, &[], &Roots::public(), NOW).await;
        assert!(matches!(state, Revocation::Unknown { .. }));
    }

    #[tokio::test]
    async fn one_list_is_fetched_once_a_run() {
        let ours = authority("Ours");
        let (listener, url) = listen().await;
        let body = list(&ours, &[&[7]]);
        let asked = serve(listener, move |_| ok(&body));
        let (crls, leaf, roots) = (crls(), leaf(&ours, &[&url], 90), trusting(&ours));
        let checks = (0..20).map(|_| crls.check(&leaf, &[], &roots, NOW));
        let states = futures::future::join_all(checks).await;
        assert!(states.iter().all(|(state, _)| *state == Revocation::Good));
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
        crls.held.store(HELD - length + 1, Ordering::Relaxed);
        let (state, _) = crls.check(&leaf, &[], &roots, NOW).await;
        assert!(matches!(state, Revocation::Unknown { reason } if reason.contains("together")));
        assert_eq!(
            crls.held.load(Ordering::Relaxed),
            HELD - length + 1,
            "what was not kept is given back"
        );
        crls.lists.lock().unwrap().clear();
        crls.held.store(HELD - length, Ordering::Relaxed);
        assert_eq!(crls.check(&leaf, &[], &roots, NOW).await.0, Revocation::Good);
        assert_eq!(crls.held.load(Ordering::Relaxed), HELD);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let ours = authority("Ours");
        let (leaf, roots) = (leaf(&ours, &[], 90), trusting(&ours));
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        let list = list(&ours, &[&[7], SERIAL]);
        let judge = |list: &[u8]| judge(&leaf, &parsed, &[], &roots, list, NOW);
        assert!(judge(&list).unwrap().is_some());
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
