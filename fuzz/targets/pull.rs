//! What the client on an instance reads: `pull.toml`, and a version that it downloaded.

#![no_main]
#![allow(dead_code, reason = "modules of the client, of which a target calls a part")]

mod hostile;

#[path = "../../cli/src/pull"]
mod pull {
    pub(crate) mod candidate;
    pub(crate) mod config;
    pub(crate) mod guard;
    pub(crate) mod keystore;
    pub(crate) mod layout;
    pub(crate) mod program;
    pub(crate) mod relay;
    pub(crate) mod window;
}

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use neverlapse::bucket::version::{CERT, CHAIN, Current, FULLCHAIN, Facts, FileHash, IssuedBy, Manifest, PRIVKEY};
use neverlapse::certificate::{Role, describe};
use neverlapse::inventory::KeyType;
use neverlapse::text::sha256;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::hostile::NOW;
use crate::pull::candidate::{Candidate, Expected, Refused, verify};
use crate::pull::config::Config;
use crate::pull::layout::Files;

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    if first % 2 == 0 {
        configuration(&String::from_utf8_lossy(rest));
    } else {
        let _ = version(&mut Unstructured::new(rest));
    }
});

/// Errors are for people, and what is accepted cannot leave its folders.
fn configuration(text: &str) {
    match Config::parse(text) {
        Ok(config) => {
            assert!(config.folder.is_absolute() && config.state.is_absolute());
            let names: BTreeSet<_> = config.certificates.iter().map(|wanted| &wanted.name).collect();
            assert_eq!(names.len(), config.certificates.len());
            for name in names {
                assert!(
                    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']),
                    "{name:?}"
                );
            }
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
}

/// Somebody who may write to the bucket, and to all of it: hashes fit, signatures are valid. What
/// is accepted has a key of its own and is valid for the names that are wanted, now.
fn version(wish: &mut Unstructured<'_>) -> Result<()> {
    let chain = hostile::chain(wish)?;
    let Some((leaf, issuers)) = chain.split_first() else {
        return Ok(());
    };
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return Ok(());
    };
    let described = describe(&parsed, leaf, Role::Leaf);

    let mut files: Files = BTreeMap::new();
    let issuers: String = issuers
        .iter()
        .map(|issuer| hostile::pem("CERTIFICATE", issuer))
        .collect();
    let cert = hostile::pem("CERTIFICATE", leaf);
    files.insert(FULLCHAIN, format!("{cert}{issuers}").into());
    files.insert(CERT, cert.into());
    files.insert(CHAIN, issuers.into());
    let key = wish.choose_index(hostile::keys().len())?;
    files.insert(PRIVKEY, hostile::keys()[key].serialize_pem().into());
    if wish.ratio(1, 8)? {
        let file = *wish.choose(&[FULLCHAIN, CERT, CHAIN, PRIVKEY])?;
        let length = wish.int_in_range(0..=2_000usize)?.min(wish.len());
        files.insert(file, wish.bytes(length)?.to_vec());
    }

    let facts = Facts {
        name: "a.test".into(),
        version: "20261124T060000Z-00000000".into(),
        fingerprint: described.fingerprint,
        serial: described.serial,
        not_before: described.not_before,
        not_after: described.not_after,
        identifiers: vec!["a.test".into()],
        key: KeyType::EcdsaP256,
        issuer: IssuedBy {
            name: "letsencrypt".into(),
            directory: "https://ca.test/directory".into(),
            account: "https://ca.test/account/1".into(),
            profile: None,
            staging: false,
        },
    };
    let manifest = serde_json::to_vec(&Manifest {
        schema: Manifest::SCHEMA.into(),
        facts: facts.clone(),
        files: files
            .iter()
            .map(|(name, content)| ((*name).to_owned(), FileHash::of(content)))
            .collect(),
    });
    let manifest = if wish.ratio(1, 8)? {
        wish.peek_bytes(wish.len()).unwrap_or_default().to_vec()
    } else {
        manifest.expect("a manifest is JSON")
    };
    let current = Current {
        schema: Current::SCHEMA.into(),
        sequence: 1,
        facts,
        manifest_sha256: sha256(&manifest),
        published_at: NOW,
        rolled_back: false,
    };

    let candidate = Candidate {
        current: &current,
        manifest: &manifest,
        files: &files,
    };
    let expected = Expected {
        name: "a.test",
        identifiers: &["a.test".to_owned()],
        allow_staging: false,
        now: NOW,
    };
    match verify(&candidate, &expected) {
        Ok(()) => {
            assert!(current.facts.not_before <= NOW && NOW <= current.facts.not_after);
            assert!(
                parsed
                    .public_key()
                    .subject_public_key
                    .data
                    .ends_with(hostile::keys()[key].public_key_raw())
            );
        }
        Err(Refused::Unreadable { file, reason }) => {
            assert!(file != PRIVKEY || !reason.contains("PRIVATE"), "{reason}");
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
    Ok(())
}
