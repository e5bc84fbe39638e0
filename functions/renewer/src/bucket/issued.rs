//! What the CA issued, checked before anybody serves it.

use std::collections::{BTreeMap, BTreeSet};

use neverlapse::bucket::version::{CERT, CHAIN, FULLCHAIN, Facts, IssuedBy, PRIVKEY};
use neverlapse::certificate::{Certificate, Role, describe, fingerprint};
use neverlapse::chain::roots::Roots;
use neverlapse::inventory::Issuer;
use neverlapse::timestamp::Timestamp;
use time::Duration;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::attempt::Attempt;
use crate::error::Error;

/// A version that can be published: what is known of it, and its files by name.
pub(crate) struct Issued {
    pub(crate) facts: Facts,
    pub(crate) files: BTreeMap<&'static str, Vec<u8>>,
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

impl Expected<'_> {
    /// Checks a chain as the CA sent it: the key is ours, the names are all there, the dates make
    /// sense, and a path leads to a root that clients trust.
    pub(crate) fn check(&self, pem: &str, now: Timestamp) -> Result<Issued, Error> {
        // Our own key is read first: if that fails, the CA is not to blame.
        let public_key = self.attempt.key.public()?;

        self.issued(pem, &public_key, now)
            .map_err(|problem| Error::CaUnavailable {
                problem: format!(
                    "{} issued a certificate that cannot be served: {problem}",
                    self.attempt.issuer
                ),
                // Each try is a certificate more, and CAs count: Let's Encrypt issues five a week
                // for the same names.
                retry_after: Some(now + UNFIT),
            })
    }

    fn issued(&self, pem: &str, public_key: &[u8], now: Timestamp) -> Result<Issued, String> {
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("it is not PEM ({error})"))?;
        let [leaf_der, issuers @ ..] = chain.as_slice() else {
            return Err("there is none in the answer".to_owned());
        };
        let (_, leaf) = X509Certificate::from_der(leaf_der).map_err(|error| error.to_string())?;
        let description = describe(&leaf, leaf_der, Role::Leaf);

        if leaf.public_key().raw != public_key {
            return Err("it has another key than ours".to_owned());
        }
        self.check_names(&description.names)?;
        if description.not_before > now + SKEW || description.not_after <= now {
            return Err(format!(
                "it is valid from {} to {}",
                description.not_before, description.not_after
            ));
        }
        // A staging CA's root is trusted by nobody, unless the inventory names it.
        if !self.issuer.staging || self.issuer.ca.is_some() {
            check_path(leaf_der, issuers, self.roots, now)
                .map_err(|error| format!("no path to a trusted root: {error}"))?;
        }

        let blocks = pem_blocks(pem);
        Ok(Issued {
            facts: self.facts(fingerprint(leaf_der), description),
            files: BTreeMap::from([
                (CERT, blocks[..1].concat().into_bytes()),
                (CHAIN, blocks[1..].concat().into_bytes()),
                (FULLCHAIN, blocks.concat().into_bytes()),
                (PRIVKEY, self.attempt.key.pem().as_bytes().to_vec()),
            ]),
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

fn check_path(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    roots: &Roots,
    now: Timestamp,
) -> Result<(), webpki::Error> {
    // A certificate that begins this second must not fail because our clock is a little behind the
    // CA's.
    let seconds = (now + SKEW).unix().try_into().unwrap_or_default();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));

    webpki::EndEntityCert::try_from(leaf)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            roots.anchors(),
            issuers,
            time,
            webpki::KeyUsage::server_auth(),
            None,
            None,
        )
        .map(drop)
}

/// Each certificate with its markers and a line break, without the text between them.
fn pem_blocks(pem: &str) -> Vec<String> {
    pem.split_inclusive(END)
        .filter_map(|block| Some(format!("{}\n", &block[block.find(BEGIN)?..])))
        .collect()
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const SKEW: Duration = Duration::minutes(5);
const UNFIT: Duration = Duration::days(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;
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
            (String::new(), Some("there is none in the answer")),
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

    #[test]
    fn the_files_are_what_servers_expect() {
        let ca = Ca::new();
        let wanted = attempt(&["example.com"]);
        let pem = ca.issue(&wanted.key, &wanted.identifiers, (NOW, NOW + Duration::days(90)));
        let issued = check(&pem, &wanted, &issuer(false), &ca.roots()).unwrap();
        let file = |name| String::from_utf8(issued.files[name].clone()).unwrap();
        assert_eq!(file(FULLCHAIN), format!("{}{}", file(CERT), file(CHAIN)));
        assert_eq!(file(CERT).matches(BEGIN).count(), 1);
        assert!(file(CERT).starts_with(BEGIN) && file(CHAIN).ends_with(&format!("{END}\n")));
        assert!(file(PRIVKEY).starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(issued.facts.not_after, NOW + Duration::days(90));
    }
}
