//! A folder laid out like the bucket, with versions that a test publishes itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use neverlapse::bucket::receipt::{self, Receipt};
use neverlapse::bucket::store::{Expecting, Object, Store};
use neverlapse::bucket::version::{
    self, CERT, CHAIN, Current, FULLCHAIN, Facts, FileHash, IssuedBy, MANIFEST, Manifest, PRIVKEY, current_key,
    file_key,
};
use neverlapse::certificate::Role;
use neverlapse::certificate::describe;
use neverlapse::inventory::KeyType;
use neverlapse::text::sha256;
use neverlapse::timestamp::Timestamp;
use serde::Serialize;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::pki::Leaf;

/// Publishes versions.
#[derive(Debug)]
pub struct Depot {
    folder: TempDir,
    sequence: u64,
}

impl Depot {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("neverlapse-depot-").tempdir()?;
        Ok(Self { folder, sequence: 0 })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where an object is.
    pub fn object(&self, key: &str) -> PathBuf {
        self.folder.path().join(key)
    }

    /// Stores a version and makes it current.
    pub fn publish(&mut self, name: &str, leaf: &Leaf) -> Result<Current> {
        let current = self.store(name, leaf, false)?;
        self.point(&current)?;
        Ok(current)
    }

    /// Stores a version, and answers with the pointer to it that would come next.
    pub fn store(&mut self, name: &str, leaf: &Leaf, staging: bool) -> Result<Current> {
        self.sequence += 1;
        let now = Timestamp::now();
        let chain = leaf
            .fullchain
            .strip_prefix(&leaf.certificate)
            .context("the leaf comes first")?;
        let files = [
            (CERT, &*leaf.certificate),
            (CHAIN, chain),
            (FULLCHAIN, &*leaf.fullchain),
            (PRIVKEY, &*leaf.key),
        ];
        let facts = facts(name, &version::id(now, self.sequence.try_into()?), leaf, staging)?;
        for (file, content) in files {
            self.write(&file_key(name, &facts.version, file), content.as_bytes())?;
        }
        let hashes = files.map(|(file, content)| (file.to_owned(), FileHash::of(content.as_bytes())));
        let manifest = Manifest {
            schema: Manifest::SCHEMA.to_owned(),
            facts,
            files: BTreeMap::from(hashes),
        };
        self.vouch(&manifest)
    }

    /// Writes a manifest, and answers with a pointer that vouches for it.
    pub fn vouch(&self, manifest: &Manifest) -> Result<Current> {
        let written = json(manifest)?;
        self.write(
            &file_key(&manifest.facts.name, &manifest.facts.version, MANIFEST),
            &written,
        )?;
        Ok(Current {
            schema: Current::SCHEMA.to_owned(),
            sequence: self.sequence,
            facts: manifest.facts.clone(),
            manifest_sha256: sha256(&written),
            published_at: Timestamp::now(),
            rolled_back: false,
        })
    }

    /// The manifest of a stored version.
    pub fn manifest(&self, current: &Current) -> Result<Manifest> {
        let key = file_key(&current.facts.name, &current.facts.version, MANIFEST);
        Ok(serde_json::from_slice(&fs::read(self.object(&key))?)?)
    }

    /// Makes a pointer current.
    pub fn point(&self, current: &Current) -> Result<()> {
        self.write(&current_key(&current.facts.name), &json(current)?)
    }

    /// Points back to an earlier version, as `neverlapse rollback` does.
    pub fn roll_back(&mut self, to: &Current) -> Result<Current> {
        self.sequence += 1;
        let published_at = Timestamp::now();
        let current = Current {
            sequence: self.sequence,
            rolled_back: true,
            published_at,
            ..to.clone()
        };
        self.point(&current)?;
        Ok(current)
    }

    /// What an instance reported last.
    pub fn receipt(&self, name: &str, instance: &str) -> Result<Receipt> {
        let path = self.object(&receipt::key(name, instance));
        let json = fs::read(&path).with_context(|| format!("there is no {}", path.display()))?;
        Ok(serde_json::from_slice(&json)?)
    }

    /// Puts everything into a bucket, current.json last.
    pub async fn upload(&self, store: &Store) -> Result<()> {
        let mut keys = Vec::new();
        list(self.path(), &mut keys)?;
        keys.sort_by_key(|path| path.ends_with("current.json"));
        for path in keys {
            let key = path.strip_prefix(self.path())?.to_string_lossy().into_owned();
            let object = Object::new(fs::read(&path)?, "application/octet-stream");
            store.put(&key, object, Expecting::Anything).await?;
        }
        Ok(())
    }

    /// Writes an object.
    pub fn write(&self, key: &str, content: &[u8]) -> Result<()> {
        let path = self.object(key);
        fs::create_dir_all(path.parent().context("every key has a folder")?)?;
        Ok(fs::write(path, content)?)
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => list(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

fn facts(name: &str, version: &str, leaf: &Leaf, staging: bool) -> Result<Facts> {
    let der = CertificateDer::from_pem_slice(leaf.certificate.as_bytes())?;
    let (_, parsed) = X509Certificate::from_der(&der)?;
    let seen = describe(&parsed, &der, Role::Leaf);
    Ok(Facts {
        name: name.to_owned(),
        version: version.to_owned(),
        fingerprint: seen.fingerprint,
        serial: seen.serial,
        not_before: seen.not_before,
        not_after: seen.not_after,
        identifiers: seen.names,
        key: if matches!(parsed.public_key().parsed(), Ok(PublicKey::RSA(_))) {
            KeyType::Rsa2048
        } else {
            KeyType::EcdsaP256
        },
        issuer: IssuedBy {
            name: "test".to_owned(),
            directory: "https://ca.test/directory".to_owned(),
            account: "https://ca.test/account/1".to_owned(),
            profile: None,
            staging,
        },
    })
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(value)?)
}
