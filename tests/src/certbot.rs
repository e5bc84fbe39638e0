//! Certbot's folder: what it keeps of a certificate, and how it renews one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use neverlapse::bucket::version::{CERT, CHAIN, FULLCHAIN, PRIVKEY};

use crate::pki::Leaf;

/// A lineage in a folder such as `/etc/letsencrypt`.
#[derive(Clone, Debug)]
pub struct Lineage {
    /// Certbot's folder.
    pub root: PathBuf,
    /// The certificate's name.
    pub name: String,
    /// The ACME directory that it comes from.
    pub directory: String,
    /// What certbot runs after a renewal.
    pub hook: String,
}

impl Lineage {
    /// What a renewal leaves: the files of that number in `archive/`, symlinks to them in `live/`,
    /// and `renewal/`.
    pub fn renew(&self, number: u32, leaf: &Leaf) -> Result<()> {
        let chain = leaf.fullchain.strip_prefix(&leaf.certificate);
        let chain = chain.context("the leaf is the first of its chain")?;
        let (archive, live) = (self.root.join("archive").join(&self.name), self.live());
        fs::create_dir_all(&archive)?;
        fs::create_dir_all(&live)?;

        for (file, content) in [
            (CERT, &*leaf.certificate),
            (CHAIN, chain),
            (FULLCHAIN, &leaf.fullchain),
            (PRIVKEY, &leaf.key),
        ] {
            let numbered = file.replace(".pem", &format!("{number}.pem"));
            fs::write(archive.join(&numbered), content)?;
            let mode = if file == PRIVKEY { 0o600 } else { 0o644 };
            fs::set_permissions(archive.join(&numbered), fs::Permissions::from_mode(mode))?;

            let _ = fs::remove_file(live.join(file));
            symlink(format!("../../archive/{}/{numbered}", self.name), live.join(file))?;
        }
        self.write_renewal()
    }

    /// `live/NAME`.
    pub fn live(&self) -> PathBuf {
        self.root.join("live").join(&self.name)
    }

    /// How certbot renews it; missing while it is not to.
    pub fn renewal(&self) -> PathBuf {
        self.root.join("renewal").join(format!("{}.conf", self.name))
    }

    fn write_renewal(&self) -> Result<()> {
        let Self {
            name, directory, hook, ..
        } = self;
        let conf = format!(
            "version = 2.11.0\n[renewalparams]\naccount = 0a1b\nauthenticator = webroot\nserver = {directory}\n\
             renew_hook = {hook}\n[[webroot_map]]\n{name} = /var/www\n"
        );
        write(&self.renewal(), &conf)?;

        let (_, place) = directory.split_once("://").context("a directory is a URL")?;
        let account = self.root.join("accounts").join(place).join("0a1b/regr.json");
        write(&account, r#"{"body": {}, "uri": "https://ca.test/account/7"}"#)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, text)?)
}
