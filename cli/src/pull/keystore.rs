//! A PKCS#12 keystore next to the PEM files, made by the system's `openssl`.
//!
//! Key and keystore go through memory, and the password is read by `openssl` from its file: none of
//! them is on a command line, in the environment, or on a disk before the folder is written. Each
//! keystore that was made is opened again before anybody gets it.

use std::collections::BTreeSet;
use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use neverlapse::bucket::version::{FULLCHAIN, PRIVKEY};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::candidate::key_of;
use super::guard::{FILE, guarded, is_ours};
use super::layout::{Files, KEYSTORE};
use super::program::Program;

/// How a keystore is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keystore {
    /// Its only line is the password.
    pub(crate) password_file: PathBuf,
}

impl Keystore {
    /// Checks that everything is there that is needed, before anything is touched.
    pub(crate) fn can_be_made(&self) -> Result<()> {
        check_password(&self.password_file).map_err(|reason| {
            let file = self.password_file.display().to_string();
            anyhow!("pkcs12_password_file = {file:?}: {reason:#} ({ACCEPTED})")
        })?;

        let path = env::var_os("PATH").unwrap_or_default();
        ensure!(
            env::split_paths(&path).any(|folder| folder.join(OPENSSL).is_file()),
            "{KEYSTORE} needs the program openssl, which is not on the PATH; install openssl, or take pkcs12_password_file out"
        );
        Ok(())
    }

    /// Makes a keystore of a version's chain and key, under this alias.
    pub(crate) async fn make(&self, alias: &str, files: &Files, limit: Duration) -> Result<Vec<u8>> {
        self.export(alias, files, limit)
            .await
            .map_err(|reason| anyhow!("cannot make {KEYSTORE}: {reason}"))
    }

    /// Checks that a keystore opens with the password, and holds this chain and its key.
    pub(crate) async fn holds(&self, keystore: &[u8], files: &Files, limit: Duration) -> Result<(), String> {
        let opened = openssl(&["-nodes", "-in", "/dev/stdin", "-passin", &self.password()])
            .filter(keystore, limit)
            .await?;

        let expected = certificates(&files[FULLCHAIN]);
        let leaf = expected.first().ok_or("there is no certificate to look for")?;

        // OpenSSL writes the certificates in an order of its own.
        if der(&certificates(&opened)) != der(&expected) {
            return Err(format!("{KEYSTORE} does not hold the certificates of the version"));
        }
        key_of(leaf, &opened).map_err(|_| format!("{KEYSTORE} does not hold the certificate's private key"))
    }

    async fn export(&self, alias: &str, files: &Files, limit: Duration) -> Result<Vec<u8>, String> {
        let both = [&files[PRIVKEY][..], b"\n", &files[FULLCHAIN]].concat();
        let made = openssl(&[
            "-export",
            "-in",
            "/dev/stdin",
            "-name",
            alias,
            "-passout",
            &self.password(),
        ])
        .filter(&both, limit)
        .await?;

        self.holds(&made, files, limit).await?;
        Ok(made)
    }

    fn password(&self) -> String {
        format!("file:{}", self.password_file.display())
    }
}

fn openssl(arguments: &[&str]) -> Program {
    let words = [OPENSSL, "pkcs12"].iter().chain(arguments);
    Program {
        words: words.map(ToString::to_string).collect(),
    }
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

fn der<'c>(certificates: &'c [CertificateDer<'_>]) -> BTreeSet<&'c [u8]> {
    certificates.iter().map(AsRef::as_ref).collect()
}

/// Checks that only its owner can read or replace a file, and that its password means the same to
/// every program.
fn check_password(file: &Path) -> Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Ok(());
    };
    let folder = guarded(folder)?;
    // Without NONBLOCK, a pipe in its place would block the run.
    let opened = openat(&folder, name, FILE.union(OFlags::NONBLOCK), Mode::empty()).context("it cannot be opened")?;

    let found = fstat(&opened).context("it cannot be read")?;
    let mode = found.st_mode & 0o7777;
    ensure!(
        FileType::from_raw_mode(found.st_mode).is_file(),
        "it is no regular file"
    );
    ensure!(is_ours(&found), "it belongs to user {}", found.st_uid);
    ensure!(matches!(mode, 0o600 | 0o400), "it has mode {mode:04o}");

    let mut content = Vec::new();
    File::from(opened)
        .take(LONGEST + 2)
        .read_to_end(&mut content)
        .context("it cannot be read")?;
    let password = content.strip_suffix(b"\n").unwrap_or(&content);
    ensure!(!password.is_empty(), "it is empty");
    ensure!(
        password.len() as u64 <= LONGEST,
        "its line is longer than {LONGEST} bytes"
    );
    // OpenSSL and Java read other characters differently, and a Windows line ending as well.
    ensure!(
        password.iter().all(|byte| matches!(byte, b' '..=b'~')),
        "it has more than one line, or characters that are not printable ASCII"
    );
    Ok(())
}

const OPENSSL: &str = "openssl";
/// OpenSSL reads 1023 bytes, and takes the rest for another password.
const LONGEST: u64 = 1_000;
const ACCEPTED: &str = "expected a file of root of mode 0600 or 0400 with one line of printable ASCII";
