//! Where versions come from and receipts go: the bucket, or a folder that is laid out like it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use neverlapse::bucket::document;
use neverlapse::bucket::store::{self, Expecting, Fresh, LONGEST_FILE, Object, Store, Tagged};
use neverlapse::bucket::version::Current;
use neverlapse::text::sha256;
use neverlapse::timestamp::Timestamp;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::config::Config;
use super::folder::{ignore_missing, read_file};
use super::guard::FOLDER;
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
            Self::Bucket(store) => return Ok(store.tagged_unless(key, known, LONGEST_FILE).await?),
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
            Self::Bucket(store) => store.object(key, LONGEST_FILE).await?,
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
                write(folder, key, &body).with_context(|| format!("cannot write {}", folder.join(key).display()))
            }
        }
    }

    /// Removes a receipt. It may be missing.
    pub(crate) async fn remove(&self, key: &str) -> Result<()> {
        let folder = match self {
            Self::Bucket(store) => return Ok(store.delete(key).await?),
            Self::Folder(folder) => folder,
        };

        match remove(folder, key) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", folder.join(key).display()))
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
    match read_file(&path, LONGEST_FILE) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes an object so that a reader finds the old or the new one.
fn write(folder: &Path, key: &str, body: &[u8]) -> io::Result<()> {
    let (folder, name) = enter(folder, key, true)?;
    let new = Path::new(name).with_extension("new");

    ignore_missing(unlinkat(&folder, &new, AtFlags::empty()))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&folder, &new, flags, Mode::from_raw_mode(0o644))?);
    file.write_all(body)?;
    file.sync_all()?;

    Ok(renameat(&folder, &new, &folder, name)?)
}

fn remove(folder: &Path, key: &str) -> io::Result<()> {
    let (folder, name) = enter(folder, key, false)?;
    Ok(unlinkat(folder, name, AtFlags::empty())?)
}

/// Opens the folder that an object is in, and answers with the object's name there. No symlink is
/// followed: somebody else may write to the medium, and root must not write elsewhere for them.
fn enter<'k>(folder: &Path, key: &'k str, is_created: bool) -> io::Result<(OwnedFd, &'k str)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut opened = openat(CWD, folder, flags, Mode::empty())?;
    let mut name = key;

    while let Some((inner, rest)) = name.split_once('/') {
        if is_created {
            match mkdirat(&opened, inner, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        opened = openat(&opened, inner, FOLDER.union(OFlags::PATH), Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR => io::Error::other(format!("{inner} is no folder (a symlink in its place is refused)")),
            error => error.into(),
        })?;
        name = rest;
    }
    Ok((opened, name))
}

/// The `current.json` of the certificate `name`, if this client knows its format and can have a
/// folder for it.
pub(super) fn understood(json: &[u8], name: &str) -> Result<Current, String> {
    let current: Current = document::read(json).map_err(|error| error.to_string())?;
    match current.problem(name, Timestamp::now()) {
        Some(problem) => Err(problem),
        None => Ok(current),
    }
}

/// What to set where receipts cannot be written or removed.
pub(crate) const RECEIPTS: &str = "the instance may need s3:PutObject and s3:DeleteObject on receipts/NAME/${aws:userid}.json; with instance = \"…\" \
                                   in the configuration, on receipts/NAME/INSTANCE.json";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::thread;

    use rustix::fs::mkfifoat;

    use super::*;

    #[test]
    fn a_file_is_read_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let longest = usize::try_from(LONGEST_FILE).unwrap();
        for (length, is_read) in [(longest, true), (longest + 1, false)] {
            fs::write(folder.path().join("x"), vec![0_u8; length]).unwrap();
            assert_eq!(read(folder.path(), "x").is_ok(), is_read, "{length}");
        }
        assert_eq!(read(folder.path(), "y").unwrap(), None);
    }

    #[test]
    fn what_never_ends_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| folder.path().join(name));
        fs::write(&file, "{}").unwrap();
        symlink(&file, link).unwrap();
        assert_eq!(read(folder.path(), "link").unwrap().unwrap(), b"{}");

        mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        // It waits for a reader, who would wait for ever without it.
        thread::spawn(move || fs::write(pipe, "{}"));
        for (folder, key) in [(folder.path(), "pipe"), (Path::new("/dev"), "zero")] {
            let error = format!("{:#}", read(folder, key).unwrap_err());
            assert!(error.ends_with(": it is no regular file"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_link_in_the_folder_led_root_to_files_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let [depot, elsewhere] = ["depot", "elsewhere"].map(|name| folder.path().join(name));
        let receipts = depot.join("receipts/shop");
        fs::create_dir_all(&receipts).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let file = elsewhere.join("web.json");
        fs::write(&file, "theirs").unwrap();
        symlink(&file, receipts.join("web.new")).unwrap();
        symlink(&elsewhere, depot.join("receipts/linked")).unwrap();
        let source = Source::Folder(depot.clone());

        for key in ["receipts/shop/web.json", "receipts/new/web.json"] {
            source.put(key, b"{}".to_vec()).await.unwrap();
            let path = depot.join(key);
            assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{key}");
            assert_eq!(fs::read(&path).unwrap(), b"{}", "{key}");
            source.remove(key).await.unwrap();
            assert!(!path.exists(), "{key}");
            source.remove(key).await.unwrap();
        }
        source.remove("receipts/missing/web.json").await.unwrap();

        let linked = "receipts/linked/web.json";
        let error = source.put(linked, b"{}".to_vec()).await.unwrap_err();
        let expected = "linked is no folder (a symlink in its place is refused)";
        assert!(format!("{error:#}").ends_with(expected), "{error:#}");
        source.remove(linked).await.unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    }

    /// A pointer to another certificate was remembered as what this one's source shows.
    #[test]
    fn a_pointer_to_another_certificate_is_not_understood() {
        let json = r#"{"schema": "neverlapse.current/1", "sequence": 7, "name": "other.test", "version": "v1", "fingerprint": "ab",
            "serial": "1f", "not_before": "2026-10-01T00:00:00Z", "not_after": "2026-12-30T00:00:00Z", "identifiers": [],
            "key": "ecdsa-p256", "manifest_sha256": "cd", "published_at": "2026-10-01T00:00:09Z",
            "issuer": {"name": "letsencrypt", "directory": "https://x/directory", "account": "https://x/acct/1"}}"#;
        assert_eq!(understood(json.as_bytes(), "other.test").unwrap().sequence, 7);
        assert_eq!(
            understood(json.as_bytes(), "shop.test").unwrap_err(),
            "it is about \"other.test\" (expected \"shop.test\")"
        );

        let last = json.replace("\"sequence\": 7", "\"sequence\": 18446744073709551615");
        let problem = understood(last.as_bytes(), "other.test").unwrap_err();
        assert_eq!(
            problem,
            "its sequence is 18446744073709551615 (expected at most the Unix time)"
        );
    }
}
