//! A PKCS#12 keystore beside the PEM files, made by the system's `openssl`.
//!
//! Key and keystore go through memory, and the password is read by `openssl` from its file: none of them is on a command line, in the
//! environment, or on a disk before the folder is written. What was made is opened again before anybody gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use neverlapse::bucket::version::{FULLCHAIN, PRIVKEY};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::process::geteuid;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::candidate::key_of;
use super::command::Program;
use super::folder::guarded;

/// How one is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keystore {
    /// Its only line is the password.
    pub(crate) password_file: PathBuf,
}

type Files = BTreeMap<&'static str, Vec<u8>>;

impl Keystore {
    /// Whether all is there that is needed; found out before anything is touched.
    pub(crate) fn can_be_made(&self) -> Result<()> {
        has_password(&self.password_file).map_err(|reason| {
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

    /// Makes one of a version's chain and key, under this alias.
    pub(crate) async fn make(&self, alias: &str, files: &Files, limit: Duration) -> Result<Vec<u8>> {
        let password = self.password();
        let export = openssl(&["-export", "-in", "/dev/stdin", "-name", alias, "-passout", &password]);
        let both = [&files[PRIVKEY][..], b"\n", &files[FULLCHAIN]].concat();
        let made = async {
            let made = export.filter(&both, limit).await?;
            self.holds(&made, files, limit).await?;
            Ok(made)
        };
        made.await
            .map_err(|reason: String| anyhow!("cannot make {KEYSTORE}: {reason}"))
    }

    /// That one opens with the password, and holds this chain and its key.
    pub(crate) async fn holds(&self, keystore: &[u8], files: &Files, limit: Duration) -> Result<(), String> {
        let open = openssl(&["-nodes", "-in", "/dev/stdin", "-passin", &self.password()]);
        let opened = open.filter(keystore, limit).await?;
        let (found, expected) = (certificates(&opened), certificates(&files[FULLCHAIN]));
        let leaf = expected.first().ok_or("there is no certificate to look for")?;
        let differs = |what: &str| format!("{KEYSTORE} does not hold the {what}");
        let der = |certificates: &[CertificateDer<'_>]| -> BTreeSet<Vec<u8>> {
            certificates.iter().map(|certificate| certificate.to_vec()).collect()
        };
        if der(&found) != der(&expected) {
            return Err(differs("certificates of the version"));
        }
        key_of(leaf, &opened).map_err(|_| differs("certificate's private key"))
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

/// A file that only its owner can read or exchange, with a password that every program reads alike.
fn has_password(file: &Path) -> Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Ok(());
    };
    let folder = guarded(folder)?;
    // Non-blocking: a pipe in its place would hold everybody up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(&folder, name, flags, Mode::empty()).context("it cannot be opened")?;
    let found = fstat(&opened).context("it cannot be looked at")?;
    ensure!(
        FileType::from_raw_mode(found.st_mode).is_file(),
        "it is no regular file"
    );
    ensure!(
        found.st_uid == 0 || found.st_uid == geteuid().as_raw(),
        "it belongs to user {}",
        found.st_uid
    );
    let mode = found.st_mode & 0o7777;
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
    // OpenSSL and Java differ in what they make of others, and of a line that ends as on Windows.
    ensure!(
        password.iter().all(|byte| matches!(byte, b' '..=b'~')),
        "it has more than one line, or characters that are not printable ASCII"
    );
    Ok(())
}

/// Chain and key, encrypted.
pub(crate) const KEYSTORE: &str = "keystore.p12";
const OPENSSL: &str = "openssl";
/// OpenSSL reads 1023 bytes, and takes the rest for another password.
const LONGEST: u64 = 1_000;
const ACCEPTED: &str = "expected a file of root of mode 0600 or 0400 with one line of printable ASCII";
