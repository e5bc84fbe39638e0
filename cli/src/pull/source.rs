//! Where versions come from and receipts go: the bucket, or a folder that is laid out like it.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use neverlapse::bucket::store::{self, Expecting, Fresh, Object, Store, Tagged};
use neverlapse::text::sha256;

/// Nothing but `certificates/{name}/*` of what is configured is read, nothing but this instance's receipts written.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Bucket(Store),
    Folder(PathBuf),
}

impl Source {
    /// An object, unless it is still what the caller has.
    pub(crate) async fn fresh(&self, key: &str, known: Option<&str>) -> Result<Fresh> {
        match self {
            Self::Bucket(store) => Ok(store.tagged_unless(key, known).await?),
            Self::Folder(folder) => {
                // Somebody unplugged the medium: that is not "nothing was published".
                fs::metadata(folder).with_context(|| format!("cannot read {}", folder.display()))?;
                Ok(match read(folder, key)? {
                    None => Fresh::Missing,
                    Some(value) => match sha256(&value) {
                        tag if known == Some(&tag) => Fresh::Unchanged,
                        tag => Fresh::Changed(Tagged { value, tag }),
                    },
                })
            }
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
                store
                    .put(key, Object::new(body, "application/json"), Expecting::Anything)
                    .await?;
                Ok(())
            }
            Self::Folder(folder) => {
                // Never made by us: an empty folder in the place of a medium that is not there would look like one.
                fs::metadata(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
                let path = folder.join(key);
                write(&path, &body).with_context(|| format!("cannot write {}", path.display()))
            }
        }
    }

    /// Removes a receipt; that it is not there is no error.
    pub(crate) async fn remove(&self, key: &str) -> Result<()> {
        match self {
            Self::Bucket(store) => Ok(store.delete(key).await?),
            Self::Folder(folder) => match fs::remove_file(folder.join(key)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot remove {}", folder.join(key).display()))
                }
                _ => Ok(()),
            },
        }
    }

    /// Whether it is a medium that nobody can write to.
    pub(crate) fn is_read_only(&self, error: &anyhow::Error) -> bool {
        let io = error.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(self, Self::Folder(_))
            && matches!(io, Some(ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied))
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bucket(store) => write!(f, "s3://{}", store.bucket()),
            Self::Folder(folder) => folder.display().fmt(f),
        }
    }
}

/// Whether the bucket answered, and said no.
pub(crate) fn is_denied(error: &anyhow::Error) -> bool {
    let is_denied =
        |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref().is_some_and(store::Error::is_denied);
    error.chain().any(is_denied)
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

fn write(path: &Path, body: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&temporary)?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

/// Certificates and keys are some kilobytes.
const LONGEST: u64 = 1 << 20;
