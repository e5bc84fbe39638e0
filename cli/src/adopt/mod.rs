//! `neverlapse adopt`: takes over certificates from certbot, without ordering them again.
//!
//! Each [`lineage`] is verified and published like a version that the renewer ordered. A
//! [`proposal`] says what to write into `inventory.toml` and `pull.toml`. Once `neverlapse pull`
//! has installed the same files, certbot's [`paths`] can lead to them, so that no server's
//! configuration has to change.

mod lineage;
mod paths;
mod proposal;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use neverlapse::bucket::document;
use neverlapse::bucket::publish::Publication;
use neverlapse::bucket::store::{Expecting, Object, Store, Tagged};
use neverlapse::bucket::version::{Current, Facts, current_key};
use neverlapse::text::sha256;
use neverlapse::timestamp::Timestamp;

use self::lineage::{Lineage, names};
use self::paths::Paths;
use crate::stack::{Stack, StackName};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Certbot's folder, such as /etc/letsencrypt
    #[arg(value_name = "DIR")]
    root: PathBuf,
    /// Names of certificates, as `certbot certificates` lists them; otherwise all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    stack: StackName,
    /// Publish into this folder, laid out like the bucket, instead of the stack's bucket
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// Verify, and say what would be published
    #[arg(long)]
    dry_run: bool,
    /// Have DIR/live/NAME lead to what neverlapse pull has installed, and certbot not renew it any
    /// more
    #[arg(long, conflicts_with_all = ["to", "dry_run", "unlink"])]
    link: bool,
    /// Give certbot DIR/live/NAME back, and have it renew it again
    #[arg(long, conflicts_with_all = ["to", "dry_run"])]
    unlink: bool,
    /// Where neverlapse pull installs: `folder` in pull.toml
    #[arg(long, value_name = "FOLDER", default_value = "/etc/neverlapse")]
    folder: PathBuf,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    if arguments.unlink {
        let linked = linked(arguments)?;
        if linked.is_empty() {
            println!(
                "no certificate in {} leads to files of neverlapse",
                arguments.root.display()
            );
        }
        return Ok(exchange(
            arguments,
            &linked,
            "is certbot's again, and certbot renews it",
            Paths::unlink,
        ));
    }
    let wanted = if arguments.names.is_empty() {
        names(&arguments.root)?
    } else {
        arguments.names.clone()
    };
    if arguments.link {
        return Ok(exchange(
            arguments,
            &wanted,
            "leads to the files of neverlapse pull; reload the server",
            Paths::link,
        ));
    }

    let place = Place::open(arguments).await?;
    let mut adopted = Vec::new();
    let mut failed = false;
    for name in &wanted {
        match adopt(arguments, &place, name).await {
            Ok(one) => adopted.push(one),
            // One that cannot be adopted does not keep the others from it.
            Err(error) => {
                failed = true;
                eprintln!("error: {name}: {error:#}");
            }
        }
    }

    if !adopted.is_empty() {
        let hooks = arguments.root.join("renewal-hooks/deploy");
        println!("\n# for inventory.toml\n{}", proposal::inventory(&adopted));
        println!("# for pull.toml\n{}", proposal::pull(place.bucket(), &adopted, &hooks));
    }
    Ok(if failed || adopted.is_empty() { FAILED } else { 0 })
}

/// Publishes a certificate, unless it is published already.
async fn adopt(arguments: &Arguments, place: &Place, name: &str) -> Result<(Lineage, Facts)> {
    let lineage = Lineage::read(&arguments.root, name)?;
    let before = place.current(&current_key(name)).await?;
    let there = before.as_ref().map(|before| &before.value);
    let publication = lineage.publication(&arguments.root, there, Timestamp::now())?;
    let facts = publication.current.facts.clone();

    if let Some(Current { facts: there, .. }) = there {
        if there.fingerprint == facts.fingerprint {
            println!("{name}: is in {place} already, as version {}", there.version);
            return Ok((lineage, facts));
        }
        // Certbot may have renewed it since it was adopted. What was issued earlier replaces
        // nothing.
        if there.not_before >= facts.not_before {
            bail!(
                "{place} has version {} under this name, which was issued later; nothing was changed",
                there.version
            );
        }
    }

    if arguments.dry_run {
        println!("{name}: would be version {} in {place}", facts.version);
    } else {
        place.publish(publication, before.as_ref()).await?;
        println!(
            "{name}: is version {} in {place}, valid until {}",
            facts.version, facts.not_after
        );
    }
    Ok((lineage, facts))
}

/// The certificates whose paths are ours.
fn linked(arguments: &Arguments) -> Result<Vec<String>> {
    if !arguments.names.is_empty() {
        return Ok(arguments.names.clone());
    }

    let folder = arguments.root.join("renewal");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let file = entry?.file_name();
        names.extend(
            file.to_str()
                .and_then(|file| file.strip_suffix(".conf.neverlapse"))
                .map(str::to_owned),
        );
    }
    Ok(names)
}

fn exchange(arguments: &Arguments, names: &[String], done: &str, exchange: fn(&Paths) -> Result<()>) -> u8 {
    let mut code = 0;
    for name in names {
        match exchange(&Paths::new(&arguments.root, name, &arguments.folder)) {
            Ok(()) => println!("{name}: {}/live/{name} {done}", arguments.root.display()),
            Err(error) => {
                code = FAILED;
                eprintln!("error: {name}: {error:#}");
            }
        }
    }
    code
}

/// Where certificates are published.
enum Place {
    Bucket(Store),
    Folder(PathBuf),
}

impl Place {
    async fn open(arguments: &Arguments) -> Result<Self> {
        Ok(match &arguments.to {
            Some(folder) => Self::Folder(folder.clone()),
            None => Self::Bucket(Stack::find(&arguments.stack).await?.store),
        })
    }

    fn bucket(&self) -> Option<&str> {
        match self {
            Self::Bucket(store) => Some(store.bucket()),
            Self::Folder(_) => None,
        }
    }

    async fn current(&self, pointer: &str) -> Result<Option<Tagged<Current>>> {
        let folder = match self {
            Self::Bucket(store) => return Ok(store.document(pointer).await?),
            Self::Folder(folder) => folder,
        };
        let path = folder.join(pointer);
        match fs::read(&path) {
            Ok(written) => {
                let value = document::read(&written).with_context(|| format!("{} cannot be read", path.display()))?;
                let tag = sha256(&written);
                Ok(Some(Tagged { value, tag }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes files and manifest, which are new, and the pointer, if it is still as it was.
    async fn publish(&self, publication: Publication, before: Option<&Tagged<Current>>) -> Result<()> {
        let pointer = publication.pointer();
        let current = Object::json(&publication.current)?;
        for (key, content, content_type) in publication.objects {
            self.put(&key, Object::new(content, content_type), Expecting::Nothing)
                .await?;
        }
        self.put(&pointer, current, Expecting::unchanged(before)).await
    }

    async fn put(&self, key: &str, object: Object<'_>, expecting: Expecting<'_>) -> Result<()> {
        match self {
            Self::Bucket(store) => {
                store.put(key, object, expecting).await?;
                Ok(())
            }
            Self::Folder(folder) => {
                let path = folder.join(key);
                write(&path, object.body()).with_context(|| format!("cannot write {}", path.display()))
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bucket(store) => write!(f, "s3://{}", store.bucket()),
            Self::Folder(folder) => folder.display().fmt(f),
        }
    }
}

/// Among these files are keys.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }

    let new = path.with_extension("new");
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// At least one could not be adopted.
const FAILED: u8 = 1;
const EXAMPLES: &str = "\
Examples:
  neverlapse adopt /etc/letsencrypt --dry-run
  neverlapse adopt /etc/letsencrypt example.com
  neverlapse adopt /etc/letsencrypt --link      (once neverlapse pull has installed them)
  neverlapse adopt /etc/letsencrypt --unlink    (the way back)

The order that needs no outage is in docs/from-certbot.md.
Exit codes: 0 all of them, 1 not all of them, 3 the folder or the bucket cannot be read";
