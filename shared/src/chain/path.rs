//! The path from a leaf to a trusted root, or why there is none (RFC 5280, 6).

use std::time::Duration;

use tokio_rustls::rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, Error, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::KeyUsage as X509KeyUsage;
use x509_parser::prelude::FromDer;

use crate::certificate::{Role, time_of};
use crate::chain::roots::Roots;
use crate::finding::Kind;
use crate::timestamp::Timestamp;

/// The issuers above a leaf: those of the path to a trusted root, or as far up as the server sent
/// them by name where there is no such path.
pub(super) struct Path<'a> {
    issuers: Vec<&'a [u8]>,
    /// Why the path does not lead to a trusted root; none if it does.
    pub(super) problem: Option<Problem>,
}

/// Why there is no path to a trusted root.
pub(super) struct Problem {
    pub(super) kind: Kind,
    /// Whether the verifier does not know a signature's algorithm, or does not accept it.
    pub(super) unsupported_signature: bool,
}

impl<'a> Path<'a> {
    /// Looks for a path through `candidates`, all of which are among `parsed`.
    pub(super) fn to_trusted_root(
        leaf_der: &'a CertificateDer<'a>,
        leaf: &'a X509Certificate<'a>,
        candidates: &'a [CertificateDer<'a>],
        parsed: &'a [Sent<'a>],
        roots: &Roots,
        now: Timestamp,
    ) -> Self {
        if roots.pins(leaf_der) {
            return Self::trusted(Vec::new());
        }

        let search = PathSearch {
            leaf_der,
            leaf,
            candidates,
            parsed,
            now,
        };
        match search.find(roots.anchors()) {
            Ok(issuers) => Self::trusted(issuers),
            Err(no_path) => search.untrusted(&no_path, roots),
        }
    }

    fn trusted(issuers: Vec<&'a [u8]>) -> Self {
        Self { issuers, problem: None }
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.problem.is_none()
    }

    /// The role of a certificate that was sent besides the leaf.
    pub(super) fn role_of(&self, der: &CertificateDer<'_>) -> Role {
        if self.issuers.contains(&der.as_ref()) {
            Role::Path
        } else {
            Role::Extra
        }
    }
}

/// A certificate that was sent with the leaf: its DER, and what it says.
pub(crate) type Sent<'a> = (&'a CertificateDer<'a>, X509Certificate<'a>);

/// Parses what was sent besides the leaf. No client needs more than the first few dozen, and each
/// costs time.
pub(crate) fn parsed<'a>(sent: &'a [CertificateDer<'a>]) -> Vec<Sent<'a>> {
    sent.iter()
        .take(ISSUERS_JUDGED)
        .filter_map(|der| Some((der, X509Certificate::from_der(der).ok()?.1)))
        .collect()
}

/// The certificates that a path could go through, by name, from the leaf upwards.
///
/// A verifier tries certificates of one name in every order. Thirty that all name each other would
/// keep it busy for seconds, so there is a limit to each name and to all of them.
pub(crate) fn candidates<'a>(leaf: &'a X509Certificate<'a>, parsed: &'a [Sent<'a>]) -> Vec<CertificateDer<'a>> {
    let mut found = Vec::<CertificateDer<'a>>::new();
    let mut names = vec![leaf.issuer().as_raw()];
    let mut next = 0;

    // Each certificate that is found adds the name of its own issuer to those to look for.
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

/// Looks for paths from one leaf, through what was sent with it.
struct PathSearch<'a> {
    leaf_der: &'a CertificateDer<'a>,
    leaf: &'a X509Certificate<'a>,
    candidates: &'a [CertificateDer<'a>],
    parsed: &'a [Sent<'a>],
    now: Timestamp,
}

/// Why a search found no path.
enum NoPath {
    /// There is a path, but it uses a key for something that the key's certificate does not allow.
    Misused(String),
    /// The verifier's reason.
    Refused(Error),
}

impl<'a> PathSearch<'a> {
    /// The issuers of the first path to one of `anchors`.
    ///
    /// The path has to stand now if the leaf is valid now, and otherwise at some time inside the
    /// leaf's validity, so that an expiry (of leaf or issuer) does not look like a wrong path.
    fn find(&self, anchors: &[TrustAnchor<'_>]) -> Result<Vec<&'a [u8]>, NoPath> {
        let leaf = EndEntityCert::try_from(self.leaf_der).map_err(NoPath::Refused)?;
        let mut times = vec![self.nearest_time()];
        let refused = match self.find_at(times[0], &leaf, anchors) {
            Ok(issuers) => return Ok(issuers),
            Err(error) => error,
        };

        if matches!(refused, Error::CertExpired { .. } | Error::CertNotValidYet { .. }) {
            let others = self.beginnings();
            for time in &others {
                if let Ok(issuers) = self.find_at(*time, &leaf, anchors) {
                    return Ok(issuers);
                }
            }
            times.extend(others);
        }

        // A misused key is a better reason than whatever kept the verifier from the other paths.
        match times.into_iter().find_map(|time| self.misuse_at(time, &leaf, anchors)) {
            Some(reason) => Err(NoPath::Misused(reason)),
            None => Err(NoPath::Refused(refused)),
        }
    }

    /// Now, or the nearest time at which the leaf is valid.
    fn nearest_time(&self) -> i64 {
        let (from, to) = validity(self.leaf);
        let now = self.now.unix();
        if from <= to { now.clamp(from, to) } else { now }
    }

    /// When the leaf and each issuer become valid, as far as the leaf is valid then, latest first.
    /// All of a path is valid together from the moment when the last of it begins, if ever.
    fn beginnings(&self) -> Vec<i64> {
        let (from, to) = validity(self.leaf);
        let mut times: Vec<_> = self
            .parsed
            .iter()
            .filter(|(der, _)| self.candidates.contains(*der))
            .map(|(_, issuer)| validity(issuer).0)
            .chain([from])
            .filter(|time| (from..=to).contains(time))
            .collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        times.dedup();
        times
    }

    /// The issuers of a path that stands at one time, in the order in which they were sent.
    fn find_at(
        &self,
        time: i64,
        leaf: &EndEntityCert<'_>,
        anchors: &[TrustAnchor<'_>],
    ) -> Result<Vec<&'a [u8]>, Error> {
        // webpki does not check key usage; browsers and OpenSSL do.
        let is_allowed = |path: &VerifiedPath<'_>| match self.misuse(path) {
            None => Ok(()),
            Some(_) => Err(Error::UnknownIssuer),
        };
        let path = leaf.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            anchors,
            self.candidates,
            unix_time(time),
            KeyUsage::server_auth(),
            None,
            Some(&is_allowed),
        )?;

        let issuers: Vec<_> = path.intermediate_certificates().map(|issuer| issuer.der()).collect();
        Ok(self
            .candidates
            .iter()
            .filter(|der| issuers.contains(*der))
            .map(|der| der.as_ref())
            .collect())
    }

    /// How the path that would stand at one time, whatever its keys are for, misuses one of them.
    fn misuse_at(&self, time: i64, leaf: &EndEntityCert<'_>, anchors: &[TrustAnchor<'_>]) -> Option<String> {
        let path = leaf.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            anchors,
            self.candidates,
            unix_time(time),
            KeyUsage::server_auth(),
            None,
            None,
        );
        self.misuse(&path.ok()?)
    }

    /// What a key on the path is used for although its key usage (RFC 5280, 4.2.1.3) does not allow
    /// it.
    fn misuse(&self, path: &VerifiedPath<'_>) -> Option<String> {
        if key_usage(self.leaf).is_some_and(|usage| !is_for_tls(usage)) {
            return Some("the leaf's key is not for TLS (key usage)".to_owned());
        }
        path.intermediate_certificates().find_map(|issuer| {
            let der = issuer.der();
            let (_, issuer) = X509Certificate::from_der(&der).ok()?;
            let is_forbidden = key_usage(&issuer).is_some_and(|usage| !usage.key_cert_sign());
            is_forbidden.then(|| format!("the issuer {} may not sign certificates (key usage)", issuer.subject()))
        })
    }

    /// What there is instead of a path to a trusted root, and the reason.
    fn untrusted(&self, no_path: &NoPath, roots: &Roots) -> Path<'a> {
        let walk = self.walk();
        let problem = match no_path {
            NoPath::Misused(reason) => Problem {
                kind: Kind::InvalidChain { reason: reason.clone() },
                unsupported_signature: false,
            },
            NoPath::Refused(error) => Problem {
                kind: self.refusal(error, &walk, roots),
                unsupported_signature: is_unsupported_signature(error),
            },
        };
        Path {
            issuers: walk.iter().map(|(der, _)| der.as_ref()).collect(),
            problem: Some(problem),
        }
    }

    /// From the leaf upwards by name, through what was sent.
    fn walk(&self) -> Vec<&'a Sent<'a>> {
        let mut walked: Vec<&'a Sent<'a>> = Vec::new();
        let mut issuer = self.leaf.issuer().as_raw();
        let mut at_a_root = is_self_issued(self.leaf);
        while !at_a_root {
            let next = self.parsed.iter().find(|(der, candidate)| {
                candidate.subject().as_raw() == issuer && !walked.iter().any(|(seen, _)| seen == der)
            });
            let Some(next) = next else { break };
            issuer = next.1.issuer().as_raw();
            at_a_root = is_self_issued(&next.1);
            walked.push(next);
        }
        walked
    }

    /// What the verifier's error means for a leaf with these issuers above it.
    fn refusal(&self, error: &Error, walk: &[&Sent<'_>], roots: &Roots) -> Kind {
        let is_wrong_key = is_wrong_key(error);
        let is_untrusted = matches!(error, Error::UnknownIssuer | Error::CaUsedAsEndEntity);

        // No client gets as far as the details of a certificate that nobody else signed.
        if is_self_issued(self.leaf) && (is_untrusted || is_wrong_key || is_unsupported(error)) {
            return Kind::SelfSigned {
                subject: self.leaf.subject().to_string(),
            };
        }

        // The chain is right up to a root that shares its name with a trusted one: the root was
        // recreated, and clients still have the old one.
        if is_wrong_key && self.is_whole(walk) {
            let mut path = std::iter::once(self.leaf).chain(walk.iter().map(|(_, issuer)| issuer));
            if let Some(last) = path.find(|certificate| roots.has_subject(certificate.issuer().as_raw())) {
                return Kind::UntrustedRoot {
                    root: last.issuer().to_string(),
                    key_differs: true,
                };
            }
        }

        if !matches!(error, Error::UnknownIssuer) {
            return Kind::InvalidChain {
                reason: reason(error, walk, self.now),
            };
        }
        match walk.last() {
            None => Kind::IncompleteChain {
                missing: self.leaf.issuer().to_string(),
            },
            // The root itself need not be sent, so one intermediate that nobody vouches for means
            // an unknown root.
            Some((_, top)) => Kind::UntrustedRoot {
                root: top.issuer().to_string(),
                key_differs: false,
            },
        }
    }

    /// Whether the chain would stand if the topmost certificate that was sent were trusted. Without
    /// any issuer, only a trusted root's signature can have been wrong.
    fn is_whole(&self, walk: &[&Sent<'_>]) -> bool {
        let Some((top, _)) = walk.last() else { return true };
        webpki::anchor_from_trusted_cert(top).is_ok_and(|anchor| self.find(&[anchor]).is_ok())
    }
}

/// The verifier's error in words.
fn reason(error: &Error, walk: &[&Sent<'_>], now: Timestamp) -> String {
    let outside = walk.iter().find(|(_, issuer)| {
        let (from, to) = validity(issuer);
        !(from..=to).contains(&now.unix())
    });

    let words = match (error, outside) {
        (Error::CertExpired { .. } | Error::CertNotValidYet { .. }, Some((_, issuer))) => {
            return format!(
                "the issuer {} was valid at no time that the leaf was (from {} to {})",
                issuer.subject(),
                time_of(issuer.validity().not_before),
                time_of(issuer.validity().not_after),
            );
        }
        (Error::NameConstraintViolation, _) => "an issuer may not issue for this name (name constraints)",
        (Error::PathLenConstraintViolated, _) => "more issuers than one of them allows (path length)",
        (Error::RequiredEkuNotFoundContext(_), _) => "a certificate in it is not for servers (extended key usage)",
        (Error::CaUsedAsEndEntity, _) => "the leaf is a CA certificate",
        (Error::EndEntityUsedAsCa, _) => "an issuer is not a CA (basic constraints)",
        (Error::InvalidSignatureForPublicKey, _) => "a signature in it is wrong",
        (Error::UnsupportedCertVersion, _) => "a certificate in it is not X.509 version 3",
        (Error::UnsupportedCriticalExtension, _) => "a critical extension is unknown",
        (Error::SignatureAlgorithmMismatch, _) => "a certificate in it names two signature algorithms",
        (Error::MaximumPathDepthExceeded, _) => "more issuers in a row than clients follow",
        (Error::MaximumNameConstraintComparisonsExceeded, _) => "more names and name constraints than clients compare",
        (Error::MaximumPathBuildCallsExceeded | Error::MaximumSignatureChecksExceeded, _) => {
            "more ways through its issuers than clients try"
        }
        (Error::MalformedNameConstraint | Error::InvalidNetworkMaskConstraint | Error::UnsupportedNameType, _) => {
            "name constraints that cannot be understood"
        }
        (error, _) if is_unsupported_signature(error) => "a signature in it is of a kind that clients do not accept",
        (error, _) => return format!("a certificate in it is not encoded as RFC 5280 wants it ({error:?})"),
    };
    words.to_owned()
}

/// Whether a signature was made by another key than the one it was checked with. A key of another
/// type has an error of its own.
fn is_wrong_key(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidSignatureForPublicKey | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
    )
}

fn is_unsupported(error: &Error) -> bool {
    matches!(error, Error::UnsupportedCertVersion) || is_unsupported_signature(error)
}

fn is_unsupported_signature(error: &Error) -> bool {
    matches!(
        error,
        Error::UnsupportedSignatureAlgorithmContext(_) | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
    )
}

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

fn key_usage(certificate: &X509Certificate<'_>) -> Option<X509KeyUsage> {
    Some(*certificate.key_usage().ok()??.value)
}

fn is_for_tls(usage: X509KeyUsage) -> bool {
    usage.digital_signature() || usage.key_encipherment() || usage.key_agreement()
}

/// The first and the last second of a certificate's validity, as Unix times.
fn validity(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    (validity.not_before.timestamp(), validity.not_after.timestamp())
}

fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

const ISSUERS_JUDGED: usize = 32;
const CANDIDATES: usize = 12;
const NAMESAKES: usize = 4;
