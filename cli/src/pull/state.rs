//! What this instance has done with a certificate and has still to do, kept so that a crash forgets nothing.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use neverlapse::receipt::Receipt;
use neverlapse::version::Current;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Of one certificate: `{state}/{name}.json`. It holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What is in place, and was tested and loaded.
    pub(crate) installed: Option<Installed>,
    /// What is to be: written before anything is switched, removed when a handshake has shown it.
    pub(crate) pending: Option<Pending>,
    /// The pointer as it was last read, and its tag there.
    pub(crate) seen: Option<Seen>,
    /// What was last reported.
    pub(crate) receipt: Option<Receipt>,
}

/// A version in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub(crate) current: Current,
    /// In `versions/{name}/`.
    pub(crate) folder: String,
    /// Whether a handshake showed it when it was last looked at; `None` without `verify`.
    pub(crate) served: Option<bool>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) since: OffsetDateTime,
}

/// Work that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) current: Current,
    pub(crate) folder: String,
    pub(crate) attempts: u32,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) since: OffsetDateTime,
    /// Why it is not done, if a try has ended.
    #[serde(default)]
    pub(crate) failure: Option<String>,
}

/// `current.json`, where it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) source: String,
    pub(crate) tag: String,
    pub(crate) current: Current,
}

/// What to do about a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is installed.
    Done,
    /// It is being installed.
    Continue,
    /// It is new.
    Fetch,
    /// It has been replaced: whoever shows it is replaying or out of date.
    Older { known: u64 },
    /// Two pointers claim the same place.
    Conflict,
}

impl State {
    /// What was written, or nothing yet.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(json) => serde_json::from_slice(&json)
                .with_context(|| format!("{} is damaged; remove it to begin anew", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes it so that a crash leaves the old or the new one.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, &serde_json::to_vec_pretty(self)?)
    }

    /// The certificates of which there is a state, each with its file.
    pub(crate) fn all(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json"));
            if let Some(name) = name.filter(|name| !name.starts_with('.')) {
                all.push((name.to_owned(), path.clone()));
            }
        }
        all.sort();
        Ok(all)
    }

    /// Decides what a pointer means here.
    pub(crate) fn step(&self, current: &Current) -> Step {
        let pending = self.pending.as_ref().map(|pending| &pending.current);
        let installed = self.installed.as_ref().map(|installed| &installed.current);
        let known = pending.into_iter().chain(installed).max_by_key(|known| known.sequence);
        match known {
            None => Step::Fetch,
            Some(known) if current.sequence < known.sequence => Step::Older { known: known.sequence },
            Some(known) if current.sequence > known.sequence => Step::Fetch,
            Some(known) if !is_same(known, current) => Step::Conflict,
            Some(_) if pending.is_some() => Step::Continue,
            Some(_) => Step::Done,
        }
    }
}

/// Writes a file so that a crash leaves the old or the new one.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn is_same(one: &Current, other: &Current) -> bool {
    (&one.facts.version, &one.manifest_sha256) == (&other.facts.version, &other.manifest_sha256)
}

/// Held as long as it lives; the system lets go of it however we end.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// `None` while another run holds it.
    pub(crate) fn take(folder: &Path) -> Result<Option<Self>> {
        let path: PathBuf = folder.join("lock");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}
