//! What the CA issued, looked at before anybody serves it, then stored as a version and pointed at.

use std::collections::{BTreeMap, BTreeSet};

use neverlapse::bucket::store::{self, Expecting, Object, Store, Tagged};
use neverlapse::bucket::version::{
    self, CERT, CHAIN, Current, FULLCHAIN, Facts, FileHash, IssuedBy, MANIFEST, Manifest, PRIVKEY, current_key,
    file_key,
};
use neverlapse::certificate::fingerprint;
use neverlapse::certificate::{Role, describe};
use neverlapse::chain::roots::Roots;
use neverlapse::text::sha256;
use neverlapse::timestamp::Timestamp;
use time::Duration;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::bucket::lease::Attempt;
use crate::error::Fault;

/// A version that can be published.
pub(crate) struct Issued {
    facts: Facts,
    files: BTreeMap<&'static str, Vec<u8>>,
}

impl Issued {
    /// Looks at a chain as the CA sent it: the key is ours, the names are all there, the dates make sense, and a path leads to a root
    /// that clients trust (unless `roots` is none, which is right for a staging CA only).
    pub(crate) fn new(
        pem: &str,
        attempt: &Attempt,
        staging: bool,
        roots: Option<&Roots>,
        now: Timestamp,
    ) -> Result<Self, Fault> {
        let wrong = |what: String| Fault::Issuer {
            said: format!("{} issued a certificate that cannot be served: {what}", attempt.issuer),
            // Each try is a certificate more, and CAs count: Let's Encrypt issues five a week for the same names.
            retry_after: Some(now + UNFIT),
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let chain = chain.map_err(|error| wrong(format!("it is not PEM ({error})")))?;
        let [leaf_der, issuers @ ..] = chain.as_slice() else {
            return Err(wrong("there is none in the answer".to_owned()));
        };
        let (_, leaf) = X509Certificate::from_der(leaf_der).map_err(|error| wrong(error.to_string()))?;
        if leaf.public_key().raw != attempt.key.public()? {
            return Err(wrong("it has another key than ours".to_owned()));
        }
        let description = describe(&leaf, leaf_der, Role::Leaf);
        let names: BTreeSet<_> = description.names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let missing: Vec<_> = attempt
            .identifiers
            .iter()
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(wrong(format!("it is not for {}", missing.join(", "))));
        }
        if description.not_before > now + SKEW || description.not_after <= now {
            return Err(wrong(format!(
                "it is valid from {} to {}",
                description.not_before, description.not_after
            )));
        }
        if let Some(roots) = roots {
            path(leaf_der, issuers, roots, now)
                .map_err(|error| wrong(format!("no path to a trusted root: {error}")))?;
        }
        let facts = Facts {
            name: String::new(),
            version: attempt.version.clone(),
            fingerprint: fingerprint(leaf_der),
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
                staging,
            },
        };
        let blocks = pem_blocks(pem);
        let files = BTreeMap::from([
            (CERT, blocks[..1].concat().into_bytes()),
            (CHAIN, blocks[1..].concat().into_bytes()),
            (FULLCHAIN, blocks.concat().into_bytes()),
            (PRIVKEY, attempt.key.pem().as_bytes().to_vec()),
        ]);
        Ok(Self { facts, files })
    }

    /// Writes the version, then moves the pointer if it is still where it was when the order began. A version's files are written once; a
    /// renewer that was killed and runs again writes the same.
    pub(crate) async fn publish(
        mut self,
        name: &str,
        store: &Store,
        before: Option<&Tagged<Current>>,
        now: Timestamp,
    ) -> Result<Current, Fault> {
        name.clone_into(&mut self.facts.name);
        let files = self
            .files
            .iter()
            .map(|(file, content)| ((*file).to_owned(), FileHash::of(content)));
        let manifest = Manifest {
            schema: Manifest::SCHEMA.to_owned(),
            facts: self.facts,
            files: files.collect(),
        };
        let written = Object::json(&manifest)?;
        let current = Current {
            schema: Current::SCHEMA.to_owned(),
            sequence: before.map_or_else(|| first(now), |before| before.value.sequence + 1),
            manifest_sha256: sha256(written.body()),
            facts: manifest.facts.clone(),
            published_at: now,
            rolled_back: false,
        };
        let version = &manifest.facts.version;
        for (file, content) in self.files {
            let object = Object::new(content, "application/x-pem-file");
            store
                .put(&file_key(name, version, file), object, Expecting::Nothing)
                .await?;
        }
        store
            .put(&file_key(name, version, MANIFEST), written, Expecting::Nothing)
            .await?;
        match store
            .put(
                &current_key(name),
                Object::json(&current)?,
                Expecting::unchanged(before),
            )
            .await
        {
            Ok(_) => Ok(current),
            Err(store::Error::Changed { .. }) => Err(Fault::Overtaken),
            Err(error) => Err(error.into()),
        }
    }
}

/// Where a sequence begins: above all that a bucket before this one has shown to instances, for they refuse what has a lower one.
fn first(now: Timestamp) -> u64 {
    now.unix().try_into().unwrap_or(1)
}

/// Removes all but the last few versions, never the current one; also what a dead renewer left of one.
pub(crate) async fn prune(name: &str, store: &Store) -> Result<Vec<String>, Fault> {
    let keys = store.keys(&version::versions_prefix(name)).await?;
    // Read now: a person may have gone back to one of the oldest this very moment.
    let Some(current) = store.json::<Current>(&current_key(name)).await? else {
        return Ok(Vec::new());
    };
    let old = outdated(name, &keys, &current.value.facts.version);
    // Without its manifest nobody takes a version for whole.
    let manifests = old.iter().map(|version| file_key(name, version, MANIFEST));
    let of_old = |key: &&String| old.iter().any(|version| key.starts_with(&file_key(name, version, "")));
    for key in manifests.chain(keys.iter().filter(of_old).cloned()) {
        store.delete(&key).await?;
    }
    Ok(old)
}

/// The versions among `keys` that nobody needs any more.
fn outdated(name: &str, keys: &[String], current: &str) -> Vec<String> {
    let prefix = version::versions_prefix(name);
    let version = |key: &String| key.strip_prefix(&prefix)?.split('/').next().map(str::to_owned);
    let versions: BTreeSet<_> = keys.iter().filter_map(version).collect();
    let (whole, half): (Vec<_>, Vec<_>) = versions
        .into_iter()
        .rev()
        .partition(|version| keys.contains(&file_key(name, version, MANIFEST)));
    let old = whole.into_iter().skip(KEPT).chain(half);
    old.filter(|version| version != current).collect()
}

fn path(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    roots: &Roots,
    now: Timestamp,
) -> Result<(), webpki::Error> {
    let leaf = webpki::EndEntityCert::try_from(leaf)?;
    // A certificate that begins this second must not fail for a clock that is a little behind the CA's.
    let seconds = (now + SKEW).unix().try_into().unwrap_or_default();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let (algorithms, usage) = (webpki::ALL_VERIFICATION_ALGS, webpki::KeyUsage::server_auth());
    leaf.verify_for_usage(algorithms, roots.anchors(), issuers, time, usage, None, None)
        .map(drop)
}

/// Each certificate with its markers and a line break, without what stands between them.
fn pem_blocks(pem: &str) -> Vec<String> {
    let blocks = pem
        .split_inclusive(END)
        .filter_map(|block| Some(format!("{}\n", &block[block.find(BEGIN)?..])));
    blocks.collect()
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const KEPT: usize = 5;
const SKEW: Duration = Duration::minutes(5);
const UNFIT: Duration = Duration::days(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;
    use neverlapse::inventory::KeyType;
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
        }
    }

    #[test]
    fn what_cannot_be_served_is_not_published() {
        let (ca, stranger, wanted) = (Ca::new(), Ca::new(), attempt(&["example.com", "*.example.com"]));
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
            let issued = Issued::new(&pem, &wanted, false, Some(&roots), NOW);
            match (issued, expected) {
                (Ok(_), None) => {}
                (Err(fault), Some(words)) => assert!(fault.to_string().contains(words), "{fault}"),
                (issued, expected) => panic!("{expected:?}: {:?}", issued.err()),
            }
        }
        // A staging CA's root is nobody's; all else still has to be right.
        let staging = stranger.issue(&wanted.key, &wanted.identifiers, valid);
        assert!(Issued::new(&staging, &wanted, true, None, NOW).is_ok());
    }

    #[test]
    fn the_last_five_are_kept_and_the_current_one_and_nothing_of_what_is_not_whole() {
        let key = |version: &str, file| file_key("example.com", version, file);
        let mut keys: Vec<_> = (1..=8)
            .flat_map(|number| [CERT, MANIFEST].map(|file| key(&format!("v{number}"), file)))
            .collect();
        keys.push(key("v9", CERT));
        for (current, expected) in [("v8", vec!["v3", "v2", "v1", "v9"]), ("v2", vec!["v3", "v1", "v9"])] {
            assert_eq!(outdated("example.com", &keys, current), expected);
        }
        assert!(outdated("example.com", &keys[..2], "v1").is_empty());
    }

    #[test]
    fn the_files_are_what_servers_expect() {
        let (ca, wanted) = (Ca::new(), attempt(&["example.com"]));
        let pem = ca.issue(&wanted.key, &wanted.identifiers, (NOW, NOW + Duration::days(90)));
        let issued = Issued::new(&pem, &wanted, false, Some(&ca.roots()), NOW).unwrap();
        let file = |name| String::from_utf8(issued.files[name].clone()).unwrap();
        assert_eq!(file(FULLCHAIN), format!("{}{}", file(CERT), file(CHAIN)));
        assert_eq!(file(CERT).matches(BEGIN).count(), 1);
        assert!(file(CERT).starts_with(BEGIN) && file(CHAIN).ends_with(&format!("{END}\n")));
        assert!(file(PRIVKEY).starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(issued.facts.not_after, NOW + Duration::days(90));
    }
}
