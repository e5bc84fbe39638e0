//! Where versions come from and receipts go: the bucket, or a folder that is laid out like it.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use neverlapse::bucket::document;
use neverlapse::bucket::store::{self, Expecting, Fresh, Object, Store, Tagged};
use neverlapse::bucket::version::Current;
use neverlapse::name;
use neverlapse::text::sha256;

use super::config::Config;
use super::instance::{Identity, Machine};

/// Only `certificates/{name}/*` of what is configured is read, and only this instance's receipts
/// are written.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Bucket(Store),
    Folder(PathBuf),
}

/// The source, and the name under which this instance's receipts are kept there.
pub(crate) async fn open(from: Option<&Path>, config: &Config, machine: &Machine) -> Result<(Source, Identity)> {
    let configured = config.instance.clone().map(Identity::Name);

    if let Some(folder) = from {
        let identity = configured.unwrap_or_else(|| Identity::Name(machine.name().to_owned()));
        return Ok((Source::Folder(folder.to_owned()), identity));
    }

    let bucket = config
        .bucket
        .clone()
        .context("no bucket is set (expected bucket = \"…\" in the configuration, or --from DIR)")?;
    let shared = neverlapse::aws::config().await?;
    let mut s3 = aws_sdk_s3::config::Builder::from(&shared);
    // What is written about the bucket comes before what is known about this machine.
    let own = shared.region().is_none().then_some(machine.region.as_ref()).flatten();
    if let Some(region) = config.region.as_ref().or(own) {
        s3 = s3.region(aws_sdk_s3::config::Region::new(region.clone()));
    }

    let store = Store::new(aws_sdk_s3::Client::from_conf(s3.build()), bucket);
    let identity = configured.unwrap_or_else(|| Identity::by_user_id(&shared, machine, config));
    Ok((Source::Bucket(store), identity))
}

impl Source {
    /// An object, unless it is still what the caller has.
    pub(crate) async fn fresh(&self, key: &str, known: Option<&str>) -> Result<Fresh> {
        let folder = match self {
            Self::Bucket(store) => return Ok(store.tagged_unless(key, known).await?),
            Self::Folder(folder) => folder,
        };

        // Somebody unplugged the medium: that is not "nothing was published".
        fs::metadata(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let Some(value) = read(folder, key)? else {
            return Ok(Fresh::Missing);
        };
        let tag = sha256(&value);
        if known == Some(&tag) {
            Ok(Fresh::Unchanged)
        } else {
            Ok(Fresh::Changed(Tagged { value, tag }))
        }
    }

    /// An object that must be there.
    pub(crate) async fn object(&self, key: &str) -> Result<Vec<u8>> {
        let object = match self {
            Self::Bucket(store) => store.object(key).await?,
            Self::Folder(folder) => read(folder, key)?,
        };
        object.with_context(|| format!("{self} has no {key}, although current.json names it"))
    }

    /// Writes a receipt.
    pub(crate) async fn put(&self, key: &str, body: Vec<u8>) -> Result<()> {
        match self {
            Self::Bucket(store) => {
                let object = Object::new(body, "application/json");
                store.put(key, object, Expecting::Anything).await?;
                Ok(())
            }
            Self::Folder(folder) => {
                // Never created: an empty folder in the place of a medium that is not there would
                // look like one.
                fs::metadata(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
                let path = folder.join(key);
                write(&path, &body).with_context(|| format!("cannot write {}", path.display()))
            }
        }
    }

    /// Removes a receipt. It may be missing.
    pub(crate) async fn remove(&self, key: &str) -> Result<()> {
        let folder = match self {
            Self::Bucket(store) => return Ok(store.delete(key).await?),
            Self::Folder(folder) => folder,
        };

        let path = folder.join(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether an error only means that this is a medium that nobody can write to.
    pub(crate) fn is_read_only(&self, error: &anyhow::Error) -> bool {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(self, Self::Folder(_))
            && matches!(kind, Some(ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket(store) => write!(f, "s3://{}", store.bucket()),
            Self::Folder(folder) => folder.display().fmt(f),
        }
    }
}

/// Whether the bucket answered, and refused.
pub(crate) fn is_denied(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref().is_some_and(store::Error::is_denied))
}

fn read(folder: &Path, key: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(key);
    match fs::metadata(&path) {
        Ok(found) if found.len() > LONGEST => bail!(
            "{} has {} bytes (expected at most {LONGEST})",
            path.display(),
            found.len()
        ),
        Ok(_) => Ok(Some(
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?,
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file so that a reader finds the old or the new one.
fn write(path: &Path, body: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }

    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&temporary)?;
    file.write_all(body)?;
    file.sync_all()?;

    fs::rename(temporary, path)
}

/// A `current.json`, if this client knows its format and can have a folder for it.
pub(super) fn understood(json: &[u8]) -> Result<Current, String> {
    let current: Current = document::read(json).map_err(|error| error.to_string())?;
    if !name::is_folder(&current.facts.version) {
        return Err(format!("version {:?} cannot be a folder", current.facts.version));
    }
    Ok(current)
}

/// What to set where receipts cannot be written or removed.
pub(crate) const RECEIPTS: &str = "the instance may need s3:PutObject and s3:DeleteObject on receipts/NAME/${aws:userid}.json; with instance = \"…\" \
                                   in the configuration, on receipts/NAME/INSTANCE.json";
/// Certificates and keys are some kilobytes.
const LONGEST: u64 = 1 << 20;
