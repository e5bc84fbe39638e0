//! The path from a leaf to a trusted root, or why there is none (RFC 5280, 6).

use std::borrow::Cow;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, Error, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::KeyUsage as X509KeyUsage;

use crate::certificate::{Key, Role, Signature, time_of};
use crate::chain::constraints;
use crate::chain::issuer::{CANDIDATES, DEPTH, KeyMatch, NAMESAKES, Sent, has_signed, is_valid_at, validity};
use crate::chain::rewrite::{self, Rewritten};
use crate::chain::roots::Roots;
use crate::der;
use crate::distinguished_name::{is_same, text};
use crate::finding::Kind;
use crate::timestamp::Timestamp;

/// The way from a leaf to a trusted root, or as far up as there are issuers by name where there is
/// no such way.
pub(super) struct Path<'a> {
    /// From the leaf's issuer upwards, without the root.
    pub(super) issuers: Vec<&'a Sent<'a>>,
    /// The root, if its certificate is known: public roots have only a name and a key.
    pub(super) root: Option<&'a Sent<'a>>,
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
    /// Looks for a path through `candidates`, all of which are among `known`. `dated` are the
    /// parsed certificates of [`Roots::dated`].
    pub(super) fn to_trusted_root(
        leaf: (&'a CertificateDer<'a>, &'a X509Certificate<'a>),
        candidates: &'a [CertificateDer<'a>],
        known: &'a [Sent<'a>],
        dated: &'a [Sent<'a>],
        roots: &Roots,
        now: Timestamp,
    ) -> Self {
        let (leaf_der, leaf) = leaf;
        let search = PathSearch {
            leaf_der,
            leaf,
            candidates,
            known,
            now,
        };
        let is_pinned = roots.pins(leaf_der);
        if is_pinned && is_self_issued(leaf) {
            return Self::trusted(Found::default());
        }

        match search.find(roots, dated) {
            Ok(found) => Self::trusted(found),
            Err(_) if is_pinned => Self::trusted(Found::default()),
            Err(no_path) => search.untrusted(&no_path, roots),
        }
    }

    fn trusted(found: Found<'a>) -> Self {
        Self {
            issuers: found.issuers,
            root: found.root,
            problem: None,
        }
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.problem.is_none()
    }

    /// The issuers, and the root if its certificate is known.
    pub(super) fn above_leaf(&self) -> impl Iterator<Item = &'a Sent<'a>> {
        self.issuers.iter().copied().chain(self.root)
    }

    /// The role of a certificate that was sent besides the leaf.
    pub(super) fn role_of(&self, der: &CertificateDer<'_>) -> Role {
        if self.issuers.iter().any(|(issuer, _)| *issuer == der) {
            Role::Path
        } else {
            Role::Extra
        }
    }
}

/// Looks for paths from one leaf, through what was sent with it and what was given with its root.
struct PathSearch<'a> {
    leaf_der: &'a CertificateDer<'a>,
    leaf: &'a X509Certificate<'a>,
    candidates: &'a [CertificateDer<'a>],
    known: &'a [Sent<'a>],
    now: Timestamp,
}

/// A path that was found.
#[derive(Default)]
struct Found<'a> {
    issuers: Vec<&'a Sent<'a>>,
    root: Option<&'a Sent<'a>>,
}

/// Why a search found no path.
enum NoPath {
    /// There is a path, but it uses a key for something that the key's certificate does not allow.
    Misused(String),
    /// The verifier's reason.
    Refused(Error),
}

/// What the verifier is shown: the certificates as they are, or rewritten.
struct View<'v> {
    leaf: &'v CertificateDer<'v>,
    more_leaves: &'v [CertificateDer<'v>],
    candidates: &'v [CertificateDer<'v>],
    anchors: &'v [TrustAnchor<'v>],
    algorithms: Vec<&'v dyn SignatureVerificationAlgorithm>,
}

/// Whether a path that stands may be taken.
type PathCheck<'c> = &'c dyn Fn(&VerifiedPath<'_>) -> Result<(), Error>;

/// Which roots count at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dates {
    Matter,
    AreIgnored,
}

impl<'a> PathSearch<'a> {
    /// The first path to one of the roots. `dated` are the parsed certificates of [`Roots::dated`].
    ///
    /// The path has to stand now if the leaf is valid now, and otherwise at some time inside the
    /// leaf's validity, so that an expiry (of leaf, issuer or root) does not look like a wrong
    /// path.
    fn find(&self, roots: &Roots, dated: &'a [Sent<'a>]) -> Result<Found<'a>, NoPath> {
        let as_sent = View {
            leaf: self.leaf_der,
            more_leaves: &[],
            candidates: self.candidates,
            anchors: roots.anchors(),
            algorithms: ALL_VERIFICATION_ALGS.to_vec(),
        };
        let nearest = self.nearest_time();
        if let Ok(found) = self.find_at(nearest, Dates::Matter, &as_sent, dated) {
            return Ok(found);
        }

        let rewritten = Rewritten::new(self.leaf_der, self.candidates);
        let lenient = View {
            leaf: &rewritten.leaf,
            more_leaves: &rewritten.more_leaves,
            candidates: &rewritten.candidates,
            anchors: roots.rewritten(),
            algorithms: rewritten.algorithms.iter().map(|algorithm| algorithm as _).collect(),
        };
        if let Ok(found) = self.find_at(nearest, Dates::Matter, &lenient, dated) {
            return Ok(found);
        }
        if let Ok(found) = self.find_at(nearest, Dates::AreIgnored, &as_sent, dated) {
            return Ok(found);
        }
        let refused = match self.find_at(nearest, Dates::AreIgnored, &lenient, dated) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };

        if let Some(found) = self.find_deep(roots, dated) {
            return Ok(found);
        }

        let mut times = vec![nearest];
        if matches!(refused, Error::CertExpired { .. } | Error::CertNotValidYet { .. }) {
            let others = self.beginnings();
            for time in &others {
                if let Ok(found) = self.find_at(*time, Dates::AreIgnored, &lenient, dated) {
                    return Ok(found);
                }
            }
            times.extend(others);
        }

        // A misused key is a better reason than whatever kept the verifier from the other paths.
        match times.into_iter().find_map(|time| self.misuse_at(time, &lenient, dated)) {
            Some(reason) => Err(NoPath::Misused(reason)),
            None => Err(NoPath::Refused(refused)),
        }
    }

    /// A path through more issuers than webpki follows, as OpenSSL and Go follow it: straight up by
    /// name. Constraints on DNS names in it are left to webpki, which refuses it.
    fn find_deep(&self, roots: &Roots, dated: &'a [Sent<'a>]) -> Option<Found<'a>> {
        let mut issuers = self.walk();
        issuers.retain(|(_, issuer)| !is_self_issued(issuer));
        if issuers.len() <= DEPTH {
            return None;
        }
        let mut child = self.leaf;
        for (height, (_, issuer)) in issuers.iter().enumerate() {
            let basic = issuer.basic_constraints().ok().flatten()?.value;
            let most = basic.path_len_constraint.map_or(Ok(usize::MAX), usize::try_from).ok()?;
            let usage = issuer.extended_key_usage().ok().flatten();
            let is_for_servers = usage.is_none_or(|usage| usage.value.server_auth || usage.value.any);
            let is_constrained = issuer.name_constraints().ok()?.is_some();
            let is_right = basic.ca && height <= most && is_for_servers && !is_constrained;
            if !is_right || !has_signed(issuer.public_key().raw, child) {
                return None;
            }
            child = issuer;
        }

        let mut namesakes = roots.of_subject(child.issuer().as_raw());
        let (index, _) = namesakes.find(|(_, anchor)| {
            anchor.name_constraints.is_none()
                && has_signed(&der::encode(SEQUENCE, &anchor.subject_public_key_info), child)
        })?;
        let undated = roots.anchors().len().saturating_sub(dated.len());
        let root = index.checked_sub(undated).and_then(|index| dated.get(index));
        let found = Found { issuers, root };
        self.misuse(&found).is_none().then_some(found)
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
            .known
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

    /// A path that stands at one time.
    fn find_at(&self, time: i64, dates: Dates, view: &View<'_>, dated: &'a [Sent<'a>]) -> Result<Found<'a>, Error> {
        let anchors = view.anchors_at(time, dates, dated);
        let leaf = EndEntityCert::try_from(view.leaf)?;

        // webpki does not check key usage; browsers and OpenSSL do.
        let is_allowed = |path: &VerifiedPath<'_>| match self.misuse(&self.found(path, view, dated)) {
            None => Ok(()),
            Some(_) => Err(Error::UnknownIssuer),
        };
        let path = view.verify(&leaf, &anchors, time, Some(&is_allowed))?;
        let found = self.found(&path, view, dated);

        // All names have to be within the constraints of the issuers.
        for more in view.more_leaves {
            let leaf = EndEntityCert::try_from(more)?;
            view.verify(&leaf, &anchors, time, Some(&is_allowed))?;
        }
        Ok(found)
    }

    /// How the path that would stand at one time, whatever its keys are for, misuses one of them.
    fn misuse_at(&self, time: i64, view: &View<'_>, dated: &'a [Sent<'a>]) -> Option<String> {
        let leaf = EndEntityCert::try_from(view.leaf).ok()?;
        let path = view.verify(&leaf, view.anchors, time, None);
        self.misuse(&self.found(&path.ok()?, view, dated))
    }

    /// The certificates of a path that the verifier found.
    fn found(&self, path: &VerifiedPath<'_>, view: &View<'_>, dated: &'a [Sent<'a>]) -> Found<'a> {
        let issuers = path.intermediate_certificates().filter_map(|issuer| {
            let der = issuer.der();
            let index = view.candidates.iter().position(|candidate| *candidate == der)?;
            let original = self.candidates.get(index)?;
            self.known.iter().find(|(der, _)| *der == original)
        });

        // Of several certificates for one name and key, the verifier may have chosen any.
        let anchor = path.anchor();
        let undated = view.anchors.len().saturating_sub(dated.len());
        let same = |other: &TrustAnchor<'_>| {
            other.subject == anchor.subject && other.subject_public_key_info == anchor.subject_public_key_info
        };
        let is_public = view.anchors.iter().take(undated).any(same);
        let namesakes = view
            .anchors
            .iter()
            .skip(undated)
            .zip(dated)
            .filter(|(other, _)| same(other));
        let roots: Vec<_> = namesakes.map(|(_, root)| root).filter(|_| !is_public).collect();
        let valid = roots.iter().find(|(_, root)| is_valid_at(root, self.nearest_time()));
        Found {
            issuers: issuers.collect(),
            root: valid.or(roots.first()).copied(),
        }
    }

    /// What a path uses a key for although the certificate does not allow it: by its key usage (RFC
    /// 5280, 4.2.1.3), or by what webpki does not look at in names and roots.
    fn misuse(&self, found: &Found<'_>) -> Option<String> {
        let above: Vec<_> = found.issuers.iter().copied().chain(found.root).collect();
        let not_for_signing = above
            .iter()
            .find(|(_, issuer)| key_usage(issuer).is_some_and(|usage| !usage.key_cert_sign()));
        if let Some((_, issuer)) = not_for_signing {
            return Some(format!(
                "the issuer {} may not sign certificates (key usage)",
                text(issuer.subject())
            ));
        }
        if let Some(violation) = constraints::violation(self.leaf, &above) {
            return Some(violation.to_string());
        }

        let certificates = std::iter::once(self.leaf).chain(above.iter().map(|(_, issuer)| issuer));
        for certificate in certificates {
            if rewrite::has_unknown_critical_extension(certificate) {
                return Some("a critical extension is unknown".to_owned());
            }
            if rewrite::has_known_extension_twice(certificate) {
                return Some("a certificate in it has an extension twice".to_owned());
            }
        }

        let (_, root) = found.root?;
        let between = found
            .issuers
            .iter()
            .filter(|(_, issuer)| !is_self_issued(issuer))
            .count();
        let basic = root.basic_constraints().ok().flatten();
        if basic.as_ref().is_some_and(|basic| !basic.value.ca) {
            return Some("an issuer is not a CA (basic constraints)".to_owned());
        }
        if let Some(most) = basic.and_then(|basic| basic.value.path_len_constraint)
            && usize::try_from(most).is_ok_and(|most| between > most)
        {
            return Some("more issuers than one of them allows (path length)".to_owned());
        }
        None
    }

    /// What there is instead of a path to a trusted root, and the reason.
    fn untrusted(&self, no_path: &NoPath, roots: &Roots) -> Path<'a> {
        let walk = self.walk();
        let problem = match no_path {
            NoPath::Misused(reason) => Problem {
                kind: Kind::InvalidChain { reason: reason.clone() },
                unsupported_signature: false,
            },
            NoPath::Refused(error) => {
                let unsupported_signature = is_unsupported_signature(error);
                let kind = match self.refusal(error, &walk, roots) {
                    Kind::InvalidChain { .. } if unsupported_signature => self.unverifiable(&walk),
                    kind => kind,
                };
                Problem {
                    kind,
                    unsupported_signature,
                }
            }
        };
        Path {
            issuers: walk,
            root: None,
            problem: Some(problem),
        }
    }

    /// From the leaf upwards by name, through what is known.
    fn walk(&self) -> Vec<&'a Sent<'a>> {
        let mut walked: Vec<&'a Sent<'a>> = Vec::new();
        let mut child = self.leaf;
        while !is_self_issued(child) {
            // A namesake with the right key leads to the better explanation.
            let next = self
                .known
                .iter()
                .filter(|(der, candidate)| {
                    is_same(candidate.subject().as_raw(), child.issuer().as_raw())
                        && !walked.iter().any(|(seen, _)| seen == der)
                })
                .min_by_key(|(_, candidate)| KeyMatch::of(child, candidate));
            let Some(next) = next else { break };
            child = &next.1;
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
                subject: text(self.leaf.subject()),
            };
        }

        // The chain is right up to a root that shares its name with a trusted one: the root was
        // recreated, and clients still have the old one.
        if is_wrong_key && self.is_whole(walk) {
            let mut path = std::iter::once(self.leaf).chain(walk.iter().map(|(_, issuer)| issuer));
            if let Some(last) = path.find(|certificate| roots.has_subject(certificate.issuer().as_raw())) {
                return Kind::UntrustedRoot {
                    root: text(last.issuer()),
                    key_differs: true,
                };
            }
        }

        if !matches!(error, Error::UnknownIssuer) {
            return Kind::InvalidChain {
                reason: reason(error, walk, self.now),
            };
        }
        if self.is_cut_short() {
            return Kind::InvalidChain {
                reason: format!(
                    "more ways through its issuers than are tried ({CANDIDATES} issuers, {NAMESAKES} of one name)"
                ),
            };
        }
        match walk.last() {
            None => Kind::IncompleteChain {
                missing: text(self.leaf.issuer()),
            },
            // The root itself need not be sent, so one intermediate that nobody vouches for means
            // an unknown root.
            Some((_, top)) => Kind::UntrustedRoot {
                root: text(top.issuer()),
                key_differs: false,
            },
        }
    }

    /// Who refuses a signature with the verifier, which has no algorithm for it. OpenSSL has all of
    /// them.
    fn unverifiable(&self, walk: &[&Sent<'_>]) -> Kind {
        let mut child = self.leaf;
        let mut issuers = walk.iter().map(|(_, issuer)| issuer).peekable();
        while let Some(issuer) = issuers.next_if(|issuer| has_signed(issuer.public_key().raw, child)) {
            child = issuer;
        }

        let signature = Signature::of(child);
        let key = issuers.peek().map(|issuer| Key::of(issuer));
        let by = key
            .as_ref()
            .map_or_else(String::new, |key| format!(" by a key of the kind {key}"));
        let clients = signature.refused_by(key.as_ref());
        let subject = text(child.subject());
        Kind::refused_by(
            clients,
            format!(
                "{subject} is signed with {signature}{by}, in a form that they do not verify, and this probe neither"
            ),
        )
    }

    /// Whether an issuer was left out of the search that has signed a certificate in it.
    fn is_cut_short(&self) -> bool {
        let (tried, left_out): (Vec<_>, Vec<_>) =
            self.known.iter().partition(|(der, _)| self.candidates.contains(*der));
        left_out.iter().take(ISSUERS_COMPARED).any(|(_, issuer)| {
            let children = tried.iter().map(|(_, child)| child).chain([self.leaf]);
            children
                .filter(|child| is_same(issuer.subject().as_raw(), child.issuer().as_raw()))
                .any(|child| has_signed(issuer.public_key().raw, child))
        })
    }

    /// Whether the chain would stand if the topmost certificate that was sent were trusted. Without
    /// any issuer, only a trusted root's signature can have been wrong.
    fn is_whole(&self, walk: &[&Sent<'_>]) -> bool {
        let Some((top, _)) = walk.last() else { return true };
        webpki::anchor_from_trusted_cert(top)
            .is_ok_and(|anchor| self.find(&Roots::of(vec![anchor.to_owned()]), &[]).is_ok())
    }
}

impl<'v> View<'v> {
    /// What the verifier says of a leaf of a server. It asks `is_allowed` about each path that it
    /// would take.
    fn verify<'p>(
        &'p self,
        leaf: &'p EndEntityCert<'p>,
        anchors: &'p [TrustAnchor<'p>],
        time: i64,
        is_allowed: Option<PathCheck<'_>>,
    ) -> Result<VerifiedPath<'p>, Error> {
        leaf.verify_for_usage(
            &self.algorithms,
            anchors,
            self.candidates,
            unix_time(time),
            KeyUsage::server_auth(),
            None,
            is_allowed,
        )
    }

    /// The anchors that count at a time.
    fn anchors_at(&self, time: i64, dates: Dates, dated: &[Sent<'_>]) -> Cow<'v, [TrustAnchor<'v>]> {
        if dates == Dates::AreIgnored || dated.iter().all(|(_, root)| is_valid_at(root, time)) {
            return Cow::Borrowed(self.anchors);
        }

        let undated = self.anchors.len().saturating_sub(dated.len());
        let (public, private) = self.anchors.split_at(undated);
        let valid = (private.iter().zip(dated)).filter(|(_, (_, root))| is_valid_at(root, time));
        public.iter().chain(valid.map(|(anchor, _)| anchor)).cloned().collect()
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
                text(issuer.subject()),
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
        (Error::BadDerTime, _) => "a date in it is not encoded as RFC 5280 wants it",
        (Error::InvalidCertValidity, _) => "a certificate in it ends before it begins",
        (Error::InvalidSerialNumber, _) => "a serial number in it is not one that RFC 5280 allows",
        (Error::ExtensionValueInvalid | Error::MalformedExtensions, _) => {
            "an extension in it is not encoded as RFC 5280 wants it"
        }
        _ => "a certificate in it is not encoded as RFC 5280 wants it",
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

pub(super) fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    is_same(certificate.subject().as_raw(), certificate.issuer().as_raw())
}

pub(crate) fn key_usage(certificate: &X509Certificate<'_>) -> Option<X509KeyUsage> {
    Some(*certificate.key_usage().ok()??.value)
}

fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

const SEQUENCE: u8 = 0x30;
const ISSUERS_COMPARED: usize = 40;
