//! Certbot's paths, kept working: `live/NAME` leads to our files, or to certbot's again.
//!
//! Both are in place at every moment: the symlink and certbot's folder change places by one rename.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use neverlapse::bucket::version::{CERT, FILES, PRIVKEY};
use neverlapse::certificate::{Role, describe};
use neverlapse::timestamp::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pull::candidate::key_of;

/// Where a lineage and our files are.
pub(crate) struct Paths {
    /// `live/{name}` of certbot's.
    lineage: PathBuf,
    /// The same while it is exchanged.
    next: PathBuf,
    /// Certbot's folder, while the lineage leads to our files.
    kept: PathBuf,
    /// `renewal/{name}.conf`, and what it is called while certbot is not to renew it.
    renewal: PathBuf,
    resting: PathBuf,
    /// `live/{name}` of ours.
    ours: PathBuf,
}

impl Paths {
    pub(crate) fn new(root: &Path, name: &str, folder: &Path) -> Self {
        let live = root.join("live");
        let renewal = root.join("renewal");
        Self {
            lineage: live.join(name),
            next: live.join(format!(".{name}.neverlapse")),
            kept: live.join(format!("{name}.certbot")),
            renewal: renewal.join(format!("{name}.conf")),
            resting: renewal.join(format!("{name}.conf.neverlapse")),
            ours: folder.join("live").join(name),
        }
    }

    /// Has certbot's path lead to our files. Does nothing where it does already.
    pub(crate) fn link(&self) -> Result<()> {
        if !self.lineage.is_symlink() {
            self.check()?;
            // An earlier try may have left it.
            if self.next.is_symlink() {
                fs::remove_file(&self.next)?;
            }
            symlink(&self.ours, &self.next).with_context(|| format!("cannot write {}", self.next.display()))?;
            exchange(&self.next, &self.lineage)?;
        } else if fs::read_link(&self.lineage)? != self.ours {
            bail!("{} is a symlink that is not ours", self.lineage.display());
        }

        // A run that was cut off left them.
        if self.next.is_dir() && !self.next.is_symlink() {
            rename(&self.next, &self.kept)?;
        }
        if self.renewal.exists() {
            rename(&self.renewal, &self.resting)?;
        }
        Ok(())
    }

    /// Gives certbot its path back. Does nothing where it has it.
    pub(crate) fn unlink(&self) -> Result<()> {
        if self.lineage.is_symlink() {
            if fs::read_link(&self.lineage)? != self.ours {
                bail!("{} is a symlink that is not ours", self.lineage.display());
            }
            let theirs = if self.kept.is_dir() { &self.kept } else { &self.next };
            exchange(theirs, &self.lineage)?;
            fs::remove_file(theirs).with_context(|| format!("cannot remove {}", theirs.display()))?;
        }

        if self.resting.exists() && !self.renewal.exists() {
            rename(&self.resting, &self.renewal)?;
        }
        Ok(())
    }

    /// Whether servers can use our files as they use certbot's: all are there, they belong
    /// together, and whoever could read certbot's key can read ours.
    fn check(&self) -> Result<()> {
        let mut contents = Vec::new();
        for file in FILES {
            let path = self.ours.join(file);
            let content = fs::read(&path)
                .with_context(|| format!("cannot read {} (has neverlapse pull installed it?)", path.display()))?;
            contents.push((file, content));
        }
        let content = |wanted: &str| {
            contents
                .iter()
                .find(|(file, _)| *file == wanted)
                .map(|(_, content)| &content[..])
        };
        let leaf = CertificateDer::from_pem_slice(content(CERT).unwrap_or_default());
        let leaf = leaf.with_context(|| format!("{} holds no certificate", self.ours.join(CERT).display()))?;
        key_of(&leaf, content(PRIVKEY).unwrap_or_default()).with_context(|| self.ours.display().to_string())?;

        let theirs = fs::read(self.lineage.join(CERT)).unwrap_or_default();
        if let Ok(theirs) = CertificateDer::from_pem_slice(&theirs)
            && end(&theirs) > end(&leaf)
        {
            bail!("certbot has renewed it since: neverlapse adopt it again, then run neverlapse pull");
        }
        let theirs = fs::metadata(self.lineage.join(PRIVKEY))
            .with_context(|| format!("cannot read {}", self.lineage.join(PRIVKEY).display()))?;
        let ours = fs::metadata(self.ours.join(PRIVKEY))?;
        if let Some(reason) = cannot_read(&theirs, &ours) {
            bail!(
                "{} {reason}; set group = \"…\" or owner = \"…\" in pull.toml, and run neverlapse pull",
                self.ours.join(PRIVKEY).display()
            );
        }
        Ok(())
    }
}

fn end(leaf: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    Some(describe(&parsed, leaf, Role::Leaf).not_after)
}

/// Who could read the old key and cannot read the new one.
fn cannot_read(old: &Metadata, new: &Metadata) -> Option<String> {
    if new.mode() & 0o004 != 0 {
        return None;
    }
    if old.mode() & 0o004 != 0 {
        return Some(format!(
            "has mode {:04o}, and everybody could read certbot's",
            new.mode() & 0o7777
        ));
    }

    if group_reads(old) && old.gid() != 0 && !(group_reads(new) && new.gid() == old.gid()) {
        return Some(format!(
            "cannot be read by the group {}, which could read certbot's",
            old.gid()
        ));
    }
    (old.uid() != new.uid() && old.uid() != 0)
        .then(|| format!("does not belong to the user {}, to whom certbot's belonged", old.uid()))
}

fn group_reads(file: &Metadata) -> bool {
    file.mode() & 0o040 != 0
}

fn exchange(one: &Path, other: &Path) -> Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .with_context(|| format!("cannot exchange {} and {}", one.display(), other.display()))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}
