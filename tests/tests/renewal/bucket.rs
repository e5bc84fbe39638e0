//! A bucket as its readers meet it: what is in it is read, and believed only after a look at it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::store::{Expecting, LONGEST_FILE, Object, Store};
use neverlapse::bucket::version::{CERT, CHAIN, Current, FILES, FULLCHAIN, MANIFEST, Manifest, PRIVKEY, current_key};
use neverlapse::bucket::version::{FileHash, file_key, versions_prefix};
use neverlapse::renewal::Renewal;
use neverlapse::text::sha256;
use neverlapse_tests::pebble::Pebble;
use neverlapse_tests::process::{output, text};
use tokio::process::Command;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;

pub(crate) struct Bucket(Store);

impl Bucket {
    pub(crate) fn new(config: &aws_config::SdkConfig, name: &str) -> Self {
        Self(Store::new(aws_sdk_s3::Client::new(config), name))
    }

    pub(crate) fn name(&self) -> &str {
        self.0.bucket()
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<String>> {
        Ok(self.0.text(key, LONGEST_FILE).await?)
    }

    pub(crate) async fn put(&self, key: &str, text: &str) -> Result<()> {
        self.0
            .put(key, Object::new(text, "text/plain"), Expecting::Anything)
            .await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<()> {
        Ok(self.0.delete(key).await?)
    }

    pub(crate) async fn current(&self, name: &str) -> Result<Option<Current>> {
        Ok(self.0.document(&current_key(name)).await?.map(|found| found.value))
    }

    pub(crate) async fn renewal(&self, name: &str) -> Result<Option<Renewal>> {
        Ok(self.0.document(&Renewal::key(name)).await?.map(|found| found.value))
    }

    /// One of a version's files.
    pub(crate) async fn file(&self, current: &Current, file: &str) -> Result<String> {
        let key = file_key(&current.facts.name, &current.facts.version, file);
        self.get(&key).await?.with_context(|| format!("{key} is not there"))
    }

    /// Takes the current version out of the bucket, as an instance would, and looks at it as a
    /// client would: with what rustls uses and with openssl.
    pub(crate) async fn verified(&self, name: &str, pebble: &Pebble) -> Result<Current> {
        let current = self.current(name).await?.context("there is a current version")?;
        let get = async |file: &str| self.file(&current, file).await;
        let manifest = get(MANIFEST).await?;
        ensure!(
            sha256(manifest.as_bytes()) == current.manifest_sha256,
            "the manifest's hash"
        );
        let manifest: Manifest = serde_json::from_str(&manifest)?;
        ensure!(manifest.facts == current.facts, "manifest and pointer differ");
        let folder = tempfile::tempdir()?;
        for file in FILES {
            let text = get(file).await?;
            let hash = FileHash::of(text.as_bytes());
            ensure!(manifest.files.get(file) == Some(&hash), "the hash of {file}");
            std::fs::write(folder.path().join(file), text)?;
        }
        std::fs::write(folder.path().join(ROOT), &pebble.issuing_root)?;
        with_rustls(folder.path(), &current, &pebble.issuing_root)?;
        with_openssl(folder.path()).await?;
        Ok(current)
    }

    /// The versions of a certificate that are in the bucket, and how many files they have.
    pub(crate) async fn versions(&self, name: &str) -> Result<Vec<(String, usize)>> {
        let prefix = versions_prefix(name);
        let mut versions = std::collections::BTreeMap::<String, usize>::new();
        for key in self.0.keys(&prefix).await? {
            let version = key.trim_start_matches(&prefix).split('/').next().unwrap_or_default();
            *versions.entry(version.to_owned()).or_default() += 1;
        }
        Ok(versions.into_iter().collect())
    }
}

fn with_rustls(folder: &Path, current: &Current, root: &str) -> Result<()> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(folder.join(FULLCHAIN))?.collect();
    let chain = chain?;
    let key = PrivateKeyDer::from_pem_file(folder.join(PRIVKEY))?;
    CertifiedKey::from_der(chain.clone(), key, &aws_lc_rs::default_provider())?.keys_match()?;
    let (leaf, issuers) = chain.split_first().context("the chain is empty")?;
    let root = CertificateDer::from_pem_slice(root.as_bytes())?;
    let anchors = [webpki::anchor_from_trusted_cert(&root)?];
    let leaf = webpki::EndEntityCert::try_from(leaf)?;
    let (algorithms, usage) = (webpki::ALL_VERIFICATION_ALGS, webpki::KeyUsage::server_auth());
    leaf.verify_for_usage(algorithms, &anchors, issuers, UnixTime::now(), usage, None, None)?;
    for identifier in &current.facts.identifiers {
        let name = identifier.replace('*', "anything");
        let name = ServerName::try_from(name.as_str())?;
        leaf.verify_is_valid_for_subject_name(&name)?;
    }
    Ok(())
}

async fn with_openssl(folder: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder);
    openssl.args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ROOT]);
    openssl.args(["-untrusted", CHAIN, CERT]);
    let verified = output(&mut openssl, "").await?;
    let said = text(&verified.stdout);
    ensure!(
        said.trim() == format!("{CERT}: OK"),
        "openssl says {said}{}",
        text(&verified.stderr)
    );
    Ok(())
}

const ROOT: &str = "root.pem";
