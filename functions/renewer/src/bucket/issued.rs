//! What the CA issued, checked before anybody serves it.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use neverlapse::bucket::version::{CERT, CHAIN, FULLCHAIN, Facts, IssuedBy, PRIVKEY};
use neverlapse::certificate::{Certificate, Role, describe, fingerprint};
use neverlapse::chain::roots::Roots;
use neverlapse::inventory::Issuer;
use neverlapse::pem;
use neverlapse::timestamp::Timestamp;
use time::Duration;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::attempt::Attempt;
use crate::error::Error;
use crate::key::PrivateKey;

/// A version that can be published: what is known of it, and its files by name.
pub(crate) struct Issued {
    pub(crate) facts: Facts,
    pub(crate) files: BTreeMap<&'static str, Vec<u8>>,
    /// In words, that an issuer in the chain expires before the leaf.
    pub(crate) early_end: Option<String>,
}

/// What a chain has to be, so that it can be served as an attempt's version.
pub(crate) struct Expected<'a> {
    /// The certificate's name in the inventory.
    pub(crate) name: &'a str,
    pub(crate) attempt: &'a Attempt,
    pub(crate) issuer: &'a Issuer,
    /// The roots that clients of this issuer trust.
    pub(crate) roots: &'a Roots,
}

/// What a chain is good for; what matters most comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Worth {
    /// It can be served: see [`Expected::check`].
    pub(crate) is_fit: bool,
    /// It ends at the root that the inventory prefers, if it prefers one.
    pub(crate) is_preferred: bool,
    /// No issuer in it expires before the leaf.
    pub(crate) lasts: bool,
}

impl Worth {
    /// Nothing better can be had.
    pub(crate) const ALL: Self = Self {
        is_fit: true,
        is_preferred: true,
        lasts: true,
    };
}

impl Expected<'_> {
    /// Checks a chain as the CA sent it: the key is ours, the names are all there, the dates make
    /// sense, and a path leads to a root that clients trust.
    pub(crate) fn check(&self, pem: &str, now: Timestamp) -> Result<Issued, Error> {
        // Our own key is read first: if that fails, the CA is not to blame.
        let public_key = self.attempt.key.public()?;

        self.issued(pem, &public_key, now).map_err(|problem| Error::Unfit {
            problem: format!("it issued a certificate that cannot be served: {problem}"),
            until: now + UNFIT,
        })
    }

    /// What a chain is good for. One that is dated a little ahead is as good as it will be then.
    pub(crate) fn worth(&self, pem: &str, now: Timestamp) -> Worth {
        let now = self.valid_from(pem, now).unwrap_or(now);
        let issued = self
            .attempt
            .key
            .public()
            .ok()
            .and_then(|key| self.issued(pem, &key, now).ok());
        let preferred = self.issuer.preferred_chain.as_deref();
        Worth {
            is_fit: issued.is_some(),
            is_preferred: preferred.is_none_or(|root| self.leads_to(pem, root)),
            lasts: issued.is_some_and(|issued| issued.early_end.is_none()),
        }
    }

    /// Whether a chain ends at the root of this name: its common name, as `openssl x509 -issuer`
    /// shows it.
    fn leads_to(&self, pem: &str, root: &str) -> bool {
        let chain = self.attempt.key.public().ok().and_then(|key| tidied(pem, &key).ok());
        let top = chain.as_ref().and_then(|chain| chain.last());
        let Some(Ok((_, top))) = top.map(|der| X509Certificate::from_der(der)) else {
            return false;
        };
        let mut names = top.issuer().iter_common_name();
        names.any(|name| name.as_str().is_ok_and(|name| name.eq_ignore_ascii_case(root)))
    }

    /// From when on the certificate can be served, if that is a few minutes ahead: some CAs' clocks
    /// are.
    pub(crate) fn valid_from(&self, pem: &str, now: Timestamp) -> Option<Timestamp> {
        let chain = tidied(pem, &self.attempt.key.public().ok()?).ok()?;
        let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
        let not_before = describe(&leaf, chain.first()?, Role::Leaf).not_before;
        (not_before > now + SKEW && not_before <= now + AHEAD).then_some(not_before - SKEW)
    }

    fn issued(&self, pem: &str, public_key: &[u8], now: Timestamp) -> Result<Issued, String> {
        let chain = tidied(pem, public_key)?;
        let [leaf_der, issuers @ ..] = chain.as_slice() else {
            return Err("there is none in the answer".to_owned());
        };
        let (_, leaf) = X509Certificate::from_der(leaf_der).map_err(|error| error.to_string())?;
        let mut description = describe(&leaf, leaf_der, Role::Leaf);

        self.check_names(&description.names)?;
        if description.not_before > now + SKEW || description.not_after <= now {
            return Err(format!(
                "it is valid from {} to {}",
                description.not_before, description.not_after
            ));
        }
        // A staging CA's root is trusted by nobody, unless the inventory names it.
        let path = if self.issuer.staging && self.issuer.ca.is_none() {
            issuers.to_vec()
        } else {
            check_path(leaf_der, issuers, self.roots, now)
                .map_err(|error| {
                    format!(
                        "no path to a trusted root: {error}. A root that this release does not know yet can be trusted by `ca` in \
                         [issuer.{}]",
                        self.issuer.name
                    )
                })?
        };

        // Clients refuse the whole chain once the first of it has expired.
        let first_end = path.iter().filter_map(|issuer| {
            let (_, certificate) = X509Certificate::from_der(issuer).ok()?;
            let issuer = describe(&certificate, issuer, Role::Path);
            Some((issuer.not_after, issuer.subject))
        });
        let early_end = first_end
            .min()
            .filter(|(end, _)| *end < description.not_after)
            .map(|(end, subject)| {
                let text = format!(
                    "its issuer {subject:?} expires on {end}, before the certificate does ({})",
                    description.not_after
                );
                description.not_after = end;
                text
            });

        let blocks: Vec<_> = chain.iter().map(|der| pem_block(der)).collect();
        Ok(Issued {
            facts: self.facts(fingerprint(leaf_der), description),
            files: BTreeMap::from([
                (CERT, blocks[..1].concat().into_bytes()),
                (CHAIN, blocks[1..].concat().into_bytes()),
                (FULLCHAIN, blocks.concat().into_bytes()),
                (PRIVKEY, self.attempt.key.pem().as_bytes().to_vec()),
            ]),
            early_end,
        })
    }

    fn facts(&self, fingerprint: String, description: Certificate) -> Facts {
        let attempt = self.attempt;
        Facts {
            name: self.name.to_owned(),
            version: attempt.version.clone(),
            fingerprint,
            serial: description.serial,
            not_before: description.not_before,
            not_after: description.not_after,
            identifiers: attempt.identifiers.clone(),
            key: attempt.key_type,
            issuer: IssuedBy {
                name: attempt.issuer.clone(),
                directory: attempt.directory.clone(),
                account: attempt.account.clone(),
                profile: attempt.profile.clone(),
                staging: self.issuer.staging,
            },
        }
    }

    fn check_names(&self, names: &[String]) -> Result<(), String> {
        let names: BTreeSet<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let ordered = self.attempt.identifiers.iter();
        let missing: Vec<_> = ordered.filter(|name| !names.contains(*name)).cloned().collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("it is not for {}", missing.join(", ")))
        }
    }
}

/// The issuers on the path from the leaf to a trusted root, without the root.
fn check_path(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'static>],
    roots: &Roots,
    now: Timestamp,
) -> Result<Vec<CertificateDer<'static>>, webpki::Error> {
    // A certificate that begins this second must not fail because our clock is a little behind the
    // CA's.
    let seconds = (now + SKEW).unix().try_into().unwrap_or_default();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));

    let leaf = webpki::EndEntityCert::try_from(leaf)?;
    let path = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        roots.anchors(),
        issuers,
        time,
        webpki::KeyUsage::server_auth(),
        None,
        None,
    )?;
    Ok(path
        .intermediate_certificates()
        .map(|issuer| issuer.der().into_owned())
        .collect())
}

/// Whether these are certificates, and none of them is for this key.
pub(crate) fn is_for_another_key(pem: &str, key: &PrivateKey) -> bool {
    let (Ok(sent), Ok(public_key)) = (sent(pem), key.public()) else {
        return false;
    };
    sent.iter().all(|der| {
        X509Certificate::from_der(der).is_ok_and(|(_, certificate)| certificate.public_key().raw != public_key)
    })
}

/// The certificates in an answer. There is room for thousands in it, so no more are looked at than
/// any chain has.
fn sent(pem: &str) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let mut sent = pem::certificates(pem.as_bytes())?;
    sent.truncate(MOST_SENT);
    Ok(sent)
}

/// What servers have to send (RFC 8446, 4.4.2): the leaf, which has our key, and then each its
/// issuer. The root, doubles and certificates that do not belong there are left out.
fn tidied(pem: &str, public_key: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let sent = sent(pem).map_err(|error| error.to_string())?;

    let mut parsed = Vec::new();
    for der in &sent {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        parsed.push((der, certificate));
    }
    let leaf = parsed
        .iter()
        .find(|(_, certificate)| certificate.public_key().raw == public_key)
        .ok_or("it has another key than ours")?;

    let mut chain = vec![leaf.0.clone()];
    let mut last = &leaf.1;
    while chain.len() <= MOST_ISSUERS
        && let Some((der, issuer)) = parsed.iter().find(|(der, issuer)| {
            let is_root = issuer.subject() == issuer.issuer();
            issuer.subject() == last.issuer() && !is_root && !chain.contains(der) && may_have_signed(issuer, last)
        })
    {
        chain.push((*der).clone());
        last = issuer;
    }
    Ok(chain)
}

/// Whether the key identifiers (RFC 5280, 4.2.1.1) agree: two issuers of one name have other keys.
fn may_have_signed(issuer: &X509Certificate<'_>, subject: &X509Certificate<'_>) -> bool {
    let theirs = issuer
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
    let wanted = subject
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        });
    theirs.is_none() || wanted.is_none() || theirs == wanted
}

/// RFC 7468, 5.
fn pem_block(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut block = format!("{BEGIN}\n");
    for line in base64.as_bytes().chunks(64) {
        block.push_str(&String::from_utf8_lossy(line));
        block.push('\n');
    }
    block + END + "\n"
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const SKEW: Duration = Duration::minutes(5);
/// How far ahead a certificate may begin that is waited for.
const AHEAD: Duration = Duration::minutes(15);
const UNFIT: Duration = Duration::days(2);
const MOST_SENT: usize = 100;
/// Verifiers follow half as many at most. Certificates that name each other in turn would otherwise
/// be followed through all that were sent.
const MOST_ISSUERS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::inventory::{Inventory, KeyType};
    use neverlapse::timestamp;
    use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair};

    const NOW: Timestamp = timestamp!(2026-11-24 12:00 UTC);

    struct Ca(CertifiedIssuer<'static, KeyPair>);

    impl Ca {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        /// What it issues for a request with these names, valid around now.
        fn issue(&self, key: &PrivateKey, names: &[String], (from, to): (Timestamp, Timestamp)) -> String {
            let request = key.request(names).unwrap();
            let mut request = CertificateSigningRequestParams::from_der(&request.as_slice().into()).unwrap();
            request.params.not_before = from.into();
            request.params.not_after = to.into();
            let leaf = request.signed_by(&self.0).unwrap().pem();
            format!("some words before\n{leaf}\n{}", self.0.pem())
        }

        fn roots(&self) -> Roots {
            Roots::public().with_pem(self.0.pem().as_bytes()).unwrap()
        }
    }

    fn attempt(identifiers: &[&str]) -> Attempt {
        Attempt {
            version: "20261124T120000Z-00000000".into(),
            issuer: "ca".into(),
            directory: "https://ca.example/directory".into(),
            account: "https://ca.example/account/1".into(),
            identifiers: identifiers.iter().map(|name| (*name).to_owned()).collect(),
            key_type: KeyType::EcdsaP256,
            profile: None,
            key: PrivateKey::generate(KeyType::EcdsaP256).unwrap(),
            order: None,
            txt: Vec::new(),
            began_at: None,
            resumed: 0,
            given_up: false,
        }
    }

    fn issuer(staging: bool) -> Issuer {
        let name = if staging { "letsencrypt-staging" } else { "letsencrypt" };
        Inventory::parse("").issuers.remove(name).unwrap()
    }

    fn check(pem: &str, attempt: &Attempt, issuer: &Issuer, roots: &Roots) -> Result<Issued, Error> {
        let expected = Expected {
            name: "example.com",
            attempt,
            issuer,
            roots,
        };
        expected.check(pem, NOW)
    }

    #[test]
    fn what_cannot_be_served_is_not_published() {
        let ca = Ca::new();
        let stranger = Ca::new();
        let wanted = attempt(&["example.com", "*.example.com"]);
        let valid = (NOW - Duration::HOUR, NOW + Duration::days(90));
        let fine = ca.issue(&wanted.key, &wanted.identifiers, valid);
        let roots = ca.roots();
        let other_key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let past = (NOW - Duration::days(2), NOW - Duration::DAY);
        let future = (NOW + Duration::DAY, NOW + Duration::days(2));
        for (pem, expected) in [
            (fine.clone(), None),
            (
                String::new(),
                Some("no certificate in it (expected PEM with -----BEGIN CERTIFICATE-----)"),
            ),
            (
                ca.issue(&other_key, &wanted.identifiers, valid),
                Some("it has another key than ours"),
            ),
            (
                ca.issue(&wanted.key, &wanted.identifiers[..1], valid),
                Some("it is not for *.example.com"),
            ),
            (
                ca.issue(&wanted.key, &wanted.identifiers, past),
                Some("it is valid from"),
            ),
            (
                ca.issue(&wanted.key, &wanted.identifiers, future),
                Some("it is valid from"),
            ),
            (
                stranger.issue(&wanted.key, &wanted.identifiers, valid),
                Some("no path to a trusted root"),
            ),
        ] {
            match (check(&pem, &wanted, &issuer(false), &roots), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
                (issued, expected) => panic!("{expected:?}: {:?}", issued.err()),
            }
        }
        // A staging CA's root is nobody's; all else still has to be right.
        let staging = stranger.issue(&wanted.key, &wanted.identifiers, valid);
        assert!(check(&staging, &wanted, &issuer(true), &roots).is_ok());
    }

    /// The root was published too, and certificates in another order or of strangers.
    #[test]
    fn a_chain_is_tidied_and_its_first_end_counts() {
        let root = Ca::new();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "intermediate");
        params.not_before = (NOW - Duration::days(300)).into();
        params.not_after = (NOW + Duration::days(5)).into();
        let intermediate = Ca(CertifiedIssuer::signed_by(params, key, &root.0).unwrap());
        let stranger = Ca::new().0.pem();

        let wanted = attempt(&["example.com"]);
        let valid = (NOW - Duration::HOUR, NOW + Duration::days(90));
        let sent = intermediate.issue(&wanted.key, &wanted.identifiers, valid);
        let (_, sent) = sent.split_once('\n').unwrap();
        let (leaf, issuer) = sent.split_at(sent.find(END).unwrap() + END.len());
        let (leaf, issuer, root_pem) = (leaf.trim(), issuer.trim(), root.0.pem());
        let root_pem = root_pem.trim();
        let expected = [leaf, issuer].map(|pem| pem.replace('\r', "")).join("\n") + "\n";

        for pem in [
            format!("{leaf}\n{issuer}\n"),
            format!("{leaf}{issuer}"),
            format!("{leaf}\n{issuer}\n{root_pem}\n"),
            format!("{root_pem}\n{issuer}\n{leaf}\n"),
            format!("{leaf}\n{root_pem}\n{stranger}\n{issuer}\n{issuer}\n"),
        ] {
            let issued = check(&pem, &wanted, &issuer_of_ca(), &root.roots()).unwrap();
            let fullchain = String::from_utf8(issued.files[FULLCHAIN].clone()).unwrap();
            assert_eq!(fullchain, expected, "{pem}");
            assert_eq!(issued.facts.not_after, NOW + Duration::days(5));
            assert!(issued.early_end.unwrap().contains("intermediate"));
        }
    }

    /// A megabyte of certificates that name each other in turn took minutes, and all other requests
    /// waited for that.
    #[test]
    fn a_chain_that_does_not_end_is_followed_for_some_issuers_only() {
        let mut issuers = vec![Ca::new()];
        for name in ["a", "b"].repeat(20) {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let above = &issuers[issuers.len() - 1].0;
            let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), above).unwrap();
            issuers.push(Ca(issuer));
        }

        let wanted = attempt(&["example.com"]);
        let valid = (NOW - Duration::HOUR, NOW + Duration::days(90));
        let leaf = issuers[40].issue(&wanted.key, &wanted.identifiers, valid);
        // The first of them leads to the root, and so to an end.
        let others: String = issuers[2..40].iter().map(|issuer| issuer.0.pem()).collect();
        let chain = tidied(&format!("{leaf}{others}"), &wanted.key.public().unwrap()).unwrap();
        assert_eq!(chain.len(), 1 + MOST_ISSUERS);

        let many = issuers[0].0.pem().repeat(MOST_SENT + 1);
        assert_eq!(sent(&many).unwrap().len(), MOST_SENT);
    }

    #[test]
    fn a_certificate_of_the_near_future_is_waited_for() {
        let ca = Ca::new();
        let wanted = attempt(&["example.com"]);
        for (minutes, expected) in [(4, None), (10, Some(5)), (15, Some(10)), (16, None)] {
            let valid = (NOW + Duration::minutes(minutes), NOW + Duration::days(90));
            let pem = ca.issue(&wanted.key, &wanted.identifiers, valid);
            let issuer = issuer(false);
            let roots = ca.roots();
            let check = Expected {
                name: "example.com",
                attempt: &wanted,
                issuer: &issuer,
                roots: &roots,
            };
            let expected = expected.map(|minutes| NOW + Duration::minutes(minutes));
            assert_eq!(check.valid_from(&pem, NOW), expected, "{minutes}");
        }
    }

    fn issuer_of_ca() -> Issuer {
        issuer(false)
    }

    #[test]
    fn the_files_are_what_servers_expect() {
        let ca = Ca::new();
        let wanted = attempt(&["example.com"]);
        let pem = ca.issue(&wanted.key, &wanted.identifiers, (NOW, NOW + Duration::days(90)));
        let issued = check(&pem, &wanted, &issuer(false), &ca.roots()).unwrap();
        let file = |name| String::from_utf8(issued.files[name].clone()).unwrap();
        assert_eq!(file(FULLCHAIN), format!("{}{}", file(CERT), file(CHAIN)));
        assert_eq!(file(CERT).matches(BEGIN).count(), 1);
        // The CA is its own root, which no server sends.
        assert!(file(CERT).starts_with(BEGIN) && file(CERT).ends_with(&format!("{END}\n")));
        assert_eq!(file(CHAIN), "");
        assert!(file(PRIVKEY).starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(issued.facts.not_after, NOW + Duration::days(90));
    }
}
