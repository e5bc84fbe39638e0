//! What certbot keeps of a certificate: its lineage, read from a folder such as `/etc/letsencrypt`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use neverlapse::bucket::publish::Publication;
use neverlapse::bucket::version::{self, CERT, Current, FILES, Facts, IssuedBy, MANIFEST};
use neverlapse::certificate::{Role, describe};
use neverlapse::inventory::KeyType;
use neverlapse::name;
use neverlapse::timestamp::Timestamp;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NotKnown;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pull::candidate::{Candidate, Expected, verify};

/// A certificate of certbot's, and how certbot renews it.
pub(crate) struct Lineage {
    pub(crate) name: String,
    /// `live/{name}` as certbot made it.
    pub(crate) folder: PathBuf,
    renewal: Renewal,
}

/// `renewal/{name}.conf`, as far as it is needed here.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    values: BTreeMap<String, String>,
}

impl Renewal {
    /// Its lines are `key = value`; what follows `[[` is about domains.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("[["));
        let values = lines
            .filter(|line| !line.starts_with('#') && !line.starts_with('['))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned()))
            .filter(|(_, value)| !value.is_empty() && value != "None");
        Self {
            values: values.collect(),
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }
}

/// The names of all lineages in certbot's folder.
pub(crate) fn names(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("renewal");
    let entries = fs::read_dir(&folder).with_context(|| {
        format!(
            "cannot read {} (expected certbot's folder, such as /etc/letsencrypt)",
            folder.display()
        )
    })?;

    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        names.extend(
            file.to_str()
                .and_then(|file| file.strip_suffix(".conf"))
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

impl Lineage {
    pub(crate) fn read(root: &Path, name: &str) -> Result<Self> {
        if !name::is_folder(name) {
            bail!("{name:?} cannot be a certificate's name (expected letters, digits, - _ . and no leading dot)");
        }
        let file = root.join("renewal").join(format!("{name}.conf"));
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self {
            name: name.to_owned(),
            folder: root.join("live").join(name),
            renewal: Renewal::parse(&text),
        })
    }

    /// The ACME directory that it came from.
    pub(crate) fn directory(&self) -> &str {
        self.renewal.get("server").unwrap_or(LETS_ENCRYPT)
    }

    /// What certbot runs after a renewal of it.
    pub(crate) fn hook(&self) -> Option<&str> {
        let keys = ["renew_hook", "deploy_hook", "post_hook"];
        keys.into_iter().find_map(|key| self.renewal.get(key))
    }

    /// The server that certbot sets up for it.
    pub(crate) fn installer(&self) -> Option<&str> {
        self.renewal.get("installer")
    }

    /// URL of the account that ordered it, if certbot still has that.
    fn account(&self, root: &Path) -> Option<String> {
        let (_, place) = self.directory().split_once("://")?;
        let account = self.renewal.get("account")?;
        let file = root.join("accounts").join(place).join(account).join("regr.json");
        let registration: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        Some(registration["uri"].as_str()?.to_owned())
    }

    /// Its files as a version that follows the one in the bucket, verified like any that instances
    /// install.
    pub(crate) fn publication(&self, root: &Path, before: Option<&Current>, now: Timestamp) -> Result<Publication> {
        let mut files = BTreeMap::new();
        for file in FILES {
            let path = self.folder.join(file);
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(file, content);
        }
        let facts = self.facts(root, &files[CERT], now)?;
        let publication = Publication::new(facts, files.clone(), before, now)?;

        let manifest = publication.objects.iter().find(|(key, ..)| key.ends_with(MANIFEST));
        let (_, manifest, _) = manifest.context("it has no manifest")?;
        let candidate = Candidate {
            current: &publication.current,
            manifest,
            files: &files,
        };
        let expected = Expected {
            name: &self.name,
            identifiers: &[],
            allow_staging: true,
            now,
        };
        verify(&candidate, &expected).with_context(|| format!("what is in {} is refused", self.folder.display()))?;
        Ok(publication)
    }

    fn facts(&self, root: &Path, pem: &[u8], now: Timestamp) -> Result<Facts> {
        let der =
            CertificateDer::from_pem_slice(pem).map_err(|error| anyhow!("{CERT} holds no certificate: {error}"))?;
        let (_, leaf) = X509Certificate::from_der(&der).with_context(|| format!("{CERT} holds no certificate"))?;
        let description = describe(&leaf, &der, Role::Leaf);

        let key = KeyType::deserialize(description.key.as_str().into_deserializer()).map_err(|_: NotKnown| {
            anyhow!(
                "its key is {} (expected ecdsa-p256, ecdsa-p384, rsa-2048 or rsa-4096); have neverlapse order a new one",
                description.key
            )
        })?;
        // The same certificate gets the same id in one second, whoever asks.
        let random = u32::from_str_radix(&description.fingerprint[..8], 16).unwrap_or_default();
        let directory = self.directory();
        Ok(Facts {
            name: self.name.clone(),
            version: version::id(now, random),
            fingerprint: description.fingerprint,
            serial: description.serial,
            not_before: description.not_before,
            not_after: description.not_after,
            identifiers: description.names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            key,
            issuer: IssuedBy {
                name: issuer(directory),
                directory: directory.to_owned(),
                // `replaces` goes to the account that issued a certificate, and to no other.
                account: self.account(root).unwrap_or_default(),
                profile: None,
                staging: directory.contains("staging"),
            },
        })
    }
}

/// The name of an issuer in the inventory: one that is built in, or after its host.
pub(crate) fn issuer(directory: &str) -> String {
    match directory {
        LETS_ENCRYPT => "letsencrypt".to_owned(),
        LETS_ENCRYPT_STAGING => "letsencrypt-staging".to_owned(),
        other => {
            let host = other.split_once("://").map_or(other, |(_, rest)| rest);
            let host = host.split(['/', ':']).next().unwrap_or(host);
            host.replace('.', "-")
        }
    }
}

pub(crate) const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_certbot_writes() {
        let renewal = Renewal::parse(
            "# renew_before_expiry = 30 days\nversion = 2.11.0\narchive_dir = /etc/letsencrypt/archive/a\n\
             cert = /etc/letsencrypt/live/a/cert.pem\n\n# Options used in the renewal process\n[renewalparams]\n\
             account = 0123abcd\nauthenticator = webroot\ninstaller = None\nserver = https://ca.test/directory\n\
             renew_hook = systemctl reload nginx && echo a=b\nkey_type = ecdsa\n[[webroot_map]]\na.test = /var/www\n",
        );
        assert_eq!(renewal.get("server"), Some("https://ca.test/directory"));
        assert_eq!(renewal.get("renew_hook"), Some("systemctl reload nginx && echo a=b"));
        assert_eq!((renewal.get("installer"), renewal.get("a.test")), (None, None));
    }

    #[test]
    fn issuers_by_their_directories() {
        for (directory, expected) in [
            (LETS_ENCRYPT, "letsencrypt"),
            (LETS_ENCRYPT_STAGING, "letsencrypt-staging"),
            ("https://acme.zerossl.com/v2/DV90", "acme-zerossl-com"),
            ("https://127.0.0.1:14000/dir", "127-0-0-1"),
        ] {
            assert_eq!(issuer(directory), expected);
        }
    }
}
