//! Revocation by CRL (RFC 5280, 5): good, revoked, or unknown, which never alerts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Url, redirect};
use time::OffsetDateTime;
use tokio::sync::OnceCell;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, RevocationReason, UnknownStatusPolicy,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::finding::Kind;
use crate::report::Revocation;
use crate::roots::Roots;

/// The revocation lists of one run: each is fetched once, however many certificates name it.
#[derive(Debug)]
pub struct Crls {
    timeout: Duration,
    client: OnceCell<Client>,
    lists: Mutex<HashMap<Url, Arc<OnceCell<List>>>>,
}

type List = Result<Arc<CertRevocationList<'static>>, String>;

impl Crls {
    /// No lists yet; `timeout` is for fetching one.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            client: OnceCell::new(),
            lists: Mutex::default(),
        }
    }

    /// What the leaf's issuer says of it now. Ask only for chains that lead to a trusted root: then it is a CA that
    /// chose the URLs, and not whoever runs the server.
    pub async fn check(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        roots: &Roots,
        now: OffsetDateTime,
    ) -> (Revocation, Option<Kind>) {
        let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
            return (unknown("the leaf cannot be parsed"), None);
        };
        let validity = parsed.validity();
        let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        if to - from <= SHORT_LIVED.whole_seconds() {
            return (skipped("valid for 7 days or less"), None);
        }
        if !(from..=to).contains(&now.unix_timestamp()) {
            return (skipped("not valid now"), None);
        }
        let urls = distribution_points(&parsed);
        let mut state = skipped("the certificate names no revocation list");
        for url in urls {
            match self.list(url).await {
                Err(reason) => state = Revocation::Unknown { reason },
                Ok(list) => match judge(leaf, sent, roots, &list, now) {
                    Ok(()) => return (Revocation::Good, None),
                    Err(Error::CertRevoked) => return (Revocation::Revoked, Some(revoked(&parsed, &list, now))),
                    Err(error) => state = unknown(why(&error)),
                },
            }
        }
        (state, None)
    }

    async fn list(&self, url: Url) -> List {
        let cell = {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            if lists.len() >= LISTS && !lists.contains_key(&url) {
                return Err(format!("more than {LISTS} revocation lists in one run"));
            }
            lists.entry(url.clone()).or_default().clone()
        };
        let fetched = cell.get_or_init(|| async {
            match tokio::time::timeout(self.timeout, self.fetch(url.clone())).await {
                Ok(list) => list,
                Err(_) => Err(format!("{url} took longer than {} s", self.timeout.as_secs())),
            }
        });
        fetched.await.clone()
    }

    async fn fetch(&self, url: Url) -> List {
        let failed = |problem: String| format!("{url}: {problem}");
        let client = self
            .client
            .get_or_try_init(|| async { client() })
            .await
            .map_err(&failed)?;
        let mut response = client
            .get(url.clone())
            .send()
            .await
            .map_err(|error| failed(chain_of(&error)))?;
        if !response.status().is_success() {
            return Err(failed(format!("HTTP {}", response.status())));
        }
        let mut der = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(chain_of(&error)))? {
            if der.len() + chunk.len() > BYTES {
                return Err(failed(format!("larger than {BYTES} bytes")));
            }
            der.extend_from_slice(&chunk);
        }
        let list = OwnedCertRevocationList::from_der(&der).map_err(|error| failed(format!("not a CRL ({error:?})")))?;
        Ok(Arc::new(list.into()))
    }
}

/// Whether a list that is current, and signed by the leaf's issuer, has the leaf.
fn judge(
    leaf: &CertificateDer<'_>,
    sent: &[CertificateDer<'_>],
    roots: &Roots,
    list: &CertRevocationList<'_>,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let lists = [list];
    let revocation = RevocationOptionsBuilder::new(&lists)
        .map_err(|_| Error::UnknownRevocationStatus)?
        .with_depth(RevocationCheckDepth::EndEntity)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(ExpirationPolicy::Enforce)
        .build();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unix_timestamp().try_into().unwrap_or(0)));
    let (anchors, usage) = (roots.anchors(), KeyUsage::server_auth());
    let leaf = EndEntityCert::try_from(leaf)?;
    leaf.verify_for_usage(ALL_VERIFICATION_ALGS, anchors, sent, now, usage, Some(revocation), None)
        .map(drop)
}

fn revoked(leaf: &X509Certificate<'_>, list: &CertRevocationList<'_>, now: OffsetDateTime) -> Kind {
    let entry = list.find_serial(leaf.raw_serial()).ok().flatten();
    let revoked_at = entry.as_ref().and_then(|entry| {
        OffsetDateTime::from_unix_timestamp(i64::try_from(entry.revocation_date.as_secs()).ok()?).ok()
    });
    Kind::Revoked {
        subject: leaf.subject().to_string(),
        serial: leaf.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        revoked_at: revoked_at.unwrap_or(now),
        reason: entry
            .and_then(|entry| entry.reason_code)
            .map(|reason| words(reason).to_owned()),
    }
}

/// The http and https URLs where the leaf's list is.
fn distribution_points(leaf: &X509Certificate<'_>) -> Vec<Url> {
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
    urls.filter(|url| matches!(url.scheme(), "http" | "https") && !is_link_local(url))
        .take(POINTS)
        .collect()
}

/// A CA's list is never there, but a cloud's credentials are.
fn is_link_local(url: &Url) -> bool {
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_link_local())
        }
        Err(_) => false,
    }
}

fn client() -> Result<Client, String> {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let redirects = redirect::Policy::custom(|attempt| match attempt.previous().len() {
        0..=REDIRECTS if !is_link_local(attempt.url()) => attempt.follow(),
        _ => attempt.stop(),
    });
    let client = Client::builder()
        .use_preconfigured_tls(tls)
        .redirect(redirects)
        .no_proxy()
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
const LISTS: usize = 256;
const POINTS: usize = 4;
const REDIRECTS: usize = 2;

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
        DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    };
    use time::macros::datetime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 00:00 UTC);
    const DAY: time::Duration = time::Duration::DAY;

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(issuer: &CertifiedIssuer<'_, KeyPair>, url: &str, days: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (NOW - DAY, NOW - DAY + days * DAY);
        params.serial_number = Some(SerialNumber::from(42));
        params.crl_distribution_points = vec![CrlDistributionPoint {
            uris: vec![url.to_owned()],
        }];
        params
            .signed_by(&KeyPair::generate().unwrap(), issuer)
            .unwrap()
            .der()
            .clone()
    }

    fn list(issuer: &CertifiedIssuer<'_, KeyPair>, serials: &[u64], next_update: OffsetDateTime) -> Vec<u8> {
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: NOW - time::Duration::HOUR,
            reason_code: Some(rcgen::RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: NOW - 2 * DAY,
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(issuer).unwrap().der().to_vec()
    }

    /// Serves one body to everyone, and counts who asked.
    async fn serve(status: &'static str, body: Vec<u8>) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/list.crl", listener.local_addr().unwrap());
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let _ = stream.read(&mut [0; 1_024]).await;
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            }
        });
        (url, asked)
    }

    async fn check(issuer: &CertifiedIssuer<'_, KeyPair>, url: &str, days: i32) -> (Revocation, Option<Kind>) {
        let roots = Roots::public().with_pem(issuer.pem().as_bytes()).unwrap();
        Crls::new(Duration::from_secs(5))
            .check(&leaf(issuer, url, days), &[], &roots, NOW)
            .await
    }

    #[tokio::test]
    async fn good_revoked_or_unknown() {
        let (ours, other) = (authority("Ours"), authority("Other"));
        let later = NOW + DAY;
        for (what, status, body, words) in [
            ("not on it", "200 OK", list(&ours, &[7], later), Ok(())),
            (
                "someone else's",
                "200 OK",
                list(&other, &[42], later),
                Err("not for this certificate"),
            ),
            (
                "out of date",
                "200 OK",
                list(&ours, &[42], NOW - DAY),
                Err("out of date"),
            ),
            ("garbage", "200 OK", b"<html>".to_vec(), Err("not a CRL")),
            ("gone", "404 Not Found", Vec::new(), Err("HTTP 404")),
            ("too large", "200 OK", vec![0; BYTES + 1], Err("larger than")),
        ] {
            let (url, _) = serve(status, body).await;
            match (check(&ours, &url, 90).await, words) {
                ((Revocation::Good, None), Ok(())) => {}
                ((Revocation::Unknown { reason }, None), Err(words)) => {
                    assert!(reason.contains(words), "{what}: {reason}")
                }
                (other, _) => panic!("{what}: {other:?}"),
            }
        }
        let (url, _) = serve("200 OK", list(&ours, &[7, 42], later)).await;
        let (state, finding) = check(&ours, &url, 90).await;
        assert_eq!(state, Revocation::Revoked);
        let revoked_at = NOW - time::Duration::HOUR;
        let reason = Some("key compromise".to_owned());
        let Some(Kind::Revoked {
            serial,
            revoked_at: at,
            reason: why,
            ..
        }) = finding
        else {
            panic!("{finding:?}")
        };
        assert_eq!((serial.as_str(), at, why), ("2a", revoked_at, reason));
    }

    #[tokio::test]
    async fn short_lived_certificates_are_not_asked_about() {
        let ours = authority("Ours");
        let (url, asked) = serve("200 OK", list(&ours, &[42], NOW + DAY)).await;
        assert!(matches!(
            check(&ours, &url, 7).await,
            (Revocation::Skipped { .. }, None)
        ));
        assert!(matches!(
            check(&ours, "http://169.254.169.254/x", 90).await,
            (Revocation::Skipped { .. }, None)
        ));
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn one_list_is_fetched_once_a_run() {
        let ours = authority("Ours");
        let (url, asked) = serve("200 OK", list(&ours, &[7], NOW + DAY)).await;
        let roots = Roots::public().with_pem(ours.pem().as_bytes()).unwrap();
        let (crls, leaf) = (Crls::new(Duration::from_secs(5)), leaf(&ours, &url, 90));
        let checks = (0..20).map(|_| crls.check(&leaf, &[], &roots, NOW));
        let states = futures::future::join_all(checks).await;
        assert!(states.iter().all(|(state, _)| *state == Revocation::Good));
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}
