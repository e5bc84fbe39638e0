//! Whether what is live is still what was installed: every file by its hash, the key by its
//! certificate, modes and owners by the configuration.

use std::collections::BTreeMap;

use neverlapse::bucket::version::{CERT, CHAIN, FILES, FULLCHAIN, FileHash, Manifest, PRIVKEY};
use neverlapse::certificate::fingerprint;
use neverlapse::text::sha256;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::candidate::key_of;
use super::layout::{Access, COMBINED, Files, KEYSTORE, Layout, combined};

/// What a version's folder is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// As it was installed.
    Sound,
    /// The content is right, but modes or owners are not: what is wrong, in words.
    Accessible(Vec<String>),
    /// A file is missing or another one.
    Damaged(String),
}

/// What is in a version's folder.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) folder: Access,
    /// Every file that is looked for; the error says why there is none.
    pub(crate) files: BTreeMap<&'static str, Result<FoundFile, String>>,
}

#[derive(Clone, Debug)]
pub(crate) struct FoundFile {
    pub(crate) access: Access,
    pub(crate) content: Vec<u8>,
}

/// What is to be in a version's folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// Of the leaf.
    pub(crate) fingerprint: &'a str,
    /// The files' hashes; none if an earlier version of the client kept none.
    pub(crate) manifest: Option<&'a Manifest>,
    /// The SHA-256 of the keystore that was installed, if one was.
    pub(crate) keystore: Option<&'a str>,
    /// Today's layout; none if the folder has another one, which is about to be replaced.
    pub(crate) layout: Option<&'a Layout>,
    /// The user who runs the client.
    pub(crate) user: u32,
}

impl Condition {
    /// Compares a folder with what is to be in it.
    pub(crate) fn of(found: &Found, expected: Expected<'_>) -> Self {
        if let Err(reason) = content(found, expected) {
            return Self::Damaged(reason);
        }

        let Some(layout) = expected.layout else {
            return Self::Sound;
        };
        let mut wrong = Vec::new();
        for (name, file) in &found.files {
            if let Ok(file) = file {
                let mode = layout.mode(name);
                wrong.extend(layout.access_problem(name, file.access, mode, expected.user));
            }
        }
        wrong.extend(layout.access_problem("its folder", found.folder, layout.folder_mode(), expected.user));

        if wrong.is_empty() {
            Self::Sound
        } else {
            Self::Accessible(wrong)
        }
    }
}

/// Every file that a folder is to have in a layout.
pub(crate) fn names(layout: Option<&Layout>) -> Vec<&'static str> {
    let mut names = FILES.to_vec();
    if layout.is_some_and(|layout| layout.combined) {
        names.push(COMBINED);
    }
    if layout.is_some_and(|layout| layout.keystore) {
        names.push(KEYSTORE);
    }
    names
}

fn content(found: &Found, expected: Expected<'_>) -> Result<(), String> {
    let mut files = Files::new();
    for name in FILES {
        files.insert(name, read(found, name)?.to_vec());
    }

    if let Some(manifest) = expected.manifest {
        for (name, content) in &files {
            if manifest.files.get(*name) != Some(&FileHash::of(content)) {
                return Err(altered(name, content));
            }
        }
    }
    belongs_together(&files, expected.fingerprint)?;

    if expected.layout.is_some_and(|layout| layout.combined) {
        let content = read(found, COMBINED)?;
        if content != combined(&files) {
            return Err(altered(COMBINED, content));
        }
    }
    if let Some(hash) = expected.keystore
        && expected.layout.is_some_and(|layout| layout.keystore)
    {
        let content = read(found, KEYSTORE)?;
        if sha256(content) != hash {
            return Err(altered(KEYSTORE, content));
        }
    }
    Ok(())
}

fn read<'f>(found: &'f Found, name: &str) -> Result<&'f [u8], String> {
    match found.files.get(name) {
        Some(Ok(file)) => Ok(&file.content),
        Some(Err(reason)) => Err(format!("{name} {reason}")),
        None => Err(format!("{name} is missing")),
    }
}

fn altered(name: &str, content: &[u8]) -> String {
    if content.is_empty() {
        format!("{name} is empty")
    } else {
        format!("{name} is not the one that was installed")
    }
}

/// The leaf is the one that was installed, the three files have the same chain, and the key is the
/// leaf's.
fn belongs_together(files: &Files, expected: &str) -> Result<(), String> {
    let mut separate = certificates(&files[CERT]);
    let leaf = match &separate[..] {
        [leaf] if fingerprint(leaf) == expected => leaf.clone(),
        _ => return Err(altered(CERT, &files[CERT])),
    };
    separate.extend(certificates(&files[CHAIN]));
    if separate != certificates(&files[FULLCHAIN]) {
        return Err(format!("{FULLCHAIN} is not {CERT} and {CHAIN}"));
    }
    key_of(&leaf, &files[PRIVKEY]).map_err(|_| match &files[PRIVKEY][..] {
        [] => altered(PRIVKEY, &[]),
        _ => format!("{PRIVKEY} does not hold the certificate's private key"),
    })
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

/// The files of a version, found among everything that is on the disk: what the manifest vouches
/// for is right wherever it was found.
pub(crate) fn salvage(manifest: &Manifest, everything: &[Vec<u8>]) -> Option<Files> {
    let find = |name: &str, candidates: &[Vec<u8>]| {
        let hash = manifest.files.get(name)?;
        candidates
            .iter()
            .find(|content| FileHash::of(content) == *hash)
            .cloned()
    };

    let mut candidates = everything.to_vec();
    // Each of these files is a part of another one, or two of them.
    for content in everything {
        for other in everything {
            candidates.extend(content.strip_prefix(&other[..]).map(<[u8]>::to_vec));
            candidates.extend(content.strip_suffix(&other[..]).map(<[u8]>::to_vec));
        }
    }
    if let (Some(cert), Some(chain)) = (find(CERT, &candidates), find(CHAIN, &candidates)) {
        candidates.push([cert, chain].concat());
    }

    let mut files = Files::new();
    for name in FILES {
        files.insert(name, find(name, &candidates)?);
    }
    Some(files)
}
