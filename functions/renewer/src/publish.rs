//! What the CA issued, looked at before anybody serves it, then stored as a version and pointed at.

use std::collections::{BTreeMap, BTreeSet};

use neverlapse::chain::{self, fingerprint};
use neverlapse::roots::Roots;
use neverlapse::store::{self, Expecting, Object, Store, Tagged};
use neverlapse::version::{
    self, CERT, CHAIN, Current, FULLCHAIN, Facts, FileHash, IssuedBy, MANIFEST, Manifest, PRIVKEY, current_key,
    file_key,
};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::fault::Fault;
use crate::record::Attempt;

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
        now: OffsetDateTime,
    ) -> Result<Self, Fault> {
        let wrong = |what: String| Fault::Issuer {
            said: format!("{} issued a certificate that cannot be served: {what}", attempt.issuer),
            retry_after: None,
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
        let description = chain::describe(&leaf, leaf_der, neverlapse::report::Role::Leaf);
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

    /// Writes the version, then moves the pointer if it is still where it was when the order began.
    pub(crate) async fn publish(
        mut self,
        name: &str,
        store: &Store,
        before: Option<&Tagged<Current>>,
        now: OffsetDateTime,
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
            sequence: before.map_or(0, |before| before.value.sequence) + 1,
            manifest_sha256: version::sha256(written.body()),
            facts: manifest.facts.clone(),
            published_at: now,
            rolled_back: false,
        };
        let version = &manifest.facts.version;
        for (file, content) in self.files {
            put_once(
                store,
                &file_key(name, version, file),
                Object::new(content, "application/x-pem-file"),
            )
            .await?;
        }
        put_once(store, &file_key(name, version, MANIFEST), written).await?;
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

/// Removes all but the last few versions, never the current one.
pub(crate) async fn prune(name: &str, store: &Store, current: &str) -> Result<Vec<String>, Fault> {
    let prefix = version::versions_prefix(name);
    let keys = store.keys(&prefix).await?;
    let version = |key: &str| key.strip_prefix(&prefix)?.split('/').next().map(str::to_owned);
    let versions: BTreeSet<_> = keys.iter().filter_map(|key| version(key)).collect();
    let old: Vec<_> = versions
        .iter()
        .rev()
        .skip(KEPT)
        .filter(|version| *version != current)
        .cloned()
        .collect();
    for key in keys
        .iter()
        .filter(|key| version(key).is_some_and(|version| old.contains(&version)))
    {
        store.delete(key).await?;
    }
    Ok(old)
}

/// A version's files are written once; a renewer that was killed and runs again writes the same.
async fn put_once(store: &Store, key: &str, object: Object<'_>) -> Result<(), Fault> {
    let content = object.body().to_vec();
    match store.put(key, object, Expecting::Nothing).await {
        Ok(_) => Ok(()),
        Err(store::Error::Changed { .. }) if store.object(key).await?.is_some_and(|there| there == content) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn path(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    roots: &Roots,
    now: OffsetDateTime,
) -> Result<(), webpki::Error> {
    let leaf = webpki::EndEntityCert::try_from(leaf)?;
    // A certificate that begins this second must not fail for a clock that is a little behind the CA's.
    let seconds = (now + SKEW).unix_timestamp().try_into().unwrap_or_default();
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
