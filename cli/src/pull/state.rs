//! What this instance has done with a certificate and has still to do, kept so that a crash forgets nothing.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::receipt::Receipt;
use neverlapse::bucket::version::Current;
use neverlapse::name::is_folder;
use neverlapse::timestamp::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};
use time::Duration;

use super::folder::guarded;

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
    pub(crate) since: Timestamp,
}

/// Work that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) current: Current,
    pub(crate) folder: String,
    /// Runs that have tried.
    pub(crate) attempts: u32,
    /// When the last of them did.
    #[serde(default)]
    pub(crate) tried: Option<Timestamp>,
    pub(crate) since: Timestamp,
    /// Why it is not done, if a try has ended.
    #[serde(default)]
    pub(crate) failure: Option<String>,
}

impl Pending {
    /// From when on it is tried again, for somebody who has a certificate until then: at first in every run, then ever less often, but
    /// daily at least, and more often the less time is left.
    pub(crate) fn next_try(&self, until: Option<Timestamp>, now: Timestamp) -> Timestamp {
        // A try that is still to come was dated by a clock that was ahead.
        let Some(tried) = self
            .tried
            .filter(|tried| *tried <= now && self.attempts >= IN_EVERY_RUN)
        else {
            return now;
        };
        let doublings = (self.attempts - IN_EVERY_RUN + 1).min(5);
        let wait = (Duration::HOUR * (1_i32 << doublings)).min(Duration::DAY);
        let left = until.map_or(wait, |until| (until - tried).max(Duration::ZERO) / 4);
        tried + (wait.min(left) - EARLY).max(Duration::ZERO)
    }

    /// Counts a try, once a run.
    pub(crate) fn count(&mut self, now: Timestamp) {
        if self.tried != Some(now) {
            self.attempts += 1;
            self.tried = Some(now);
        }
    }
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
        let mut json = Vec::new();
        let read = File::options()
            .read(true)
            .custom_flags(NOFOLLOW)
            .open(path)
            .and_then(|mut file| file.read_to_end(&mut json));
        match read {
            Ok(_) => {
                Self::parse(&json).with_context(|| format!("{} is damaged; remove it to begin anew", path.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn parse(json: &[u8]) -> Result<Self> {
        let state: Self = serde_json::from_slice(json)?;
        let installed = state.installed.iter().map(|installed| &installed.folder);
        let pending = state.pending.iter().map(|pending| &pending.folder);
        for folder in installed.chain(pending) {
            ensure!(is_folder(folder), "folder {folder:?} is not one of ours");
        }
        Ok(state)
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
            .custom_flags(NOFOLLOW)
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
        guarded(folder)?;
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NOFOLLOW)
            .open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// Whatever made a try fail is often gone an hour later.
const IN_EVERY_RUN: u32 = 3;
/// Timers are not exact, and the run that is meant should not be the next but one.
const EARLY: Duration = Duration::minutes(10);
const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

#[cfg(test)]
mod tests {
    use neverlapse::timestamp;

    use super::*;

    fn state(folder: &str) -> String {
        let facts = r#""schema": "neverlapse.current/1", "sequence": 1, "manifest_sha256": "", "published_at": "2026-10-01T00:00:00Z",
            "name": "n", "version": "v", "fingerprint": "", "serial": "", "not_before": "2026-10-01T00:00:00Z",
            "not_after": "2026-10-02T00:00:00Z", "identifiers": [], "key": "ecdsa-p256",
            "issuer": {"name": "i", "directory": "", "account": ""}"#;
        format!(
            r#"{{"installed": null, "seen": null, "receipt": null, "pending": {{"current": {{{facts}}}, "folder": {folder:?},
                "attempts": 0, "since": "2026-10-01T00:00:00Z"}}}}"#
        )
    }

    #[test]
    fn a_version_that_never_passes_was_switched_and_reloaded_every_hour_for_ever() {
        let start = timestamp!(2026-10-01 0:00 UTC);
        let far = Some(start + Duration::days(80));
        let mut pending: Pending = State::parse(state("v").as_bytes()).unwrap().pending.unwrap();
        let tries = |pending: &mut Pending, until, hours: i64| {
            let hours = (0..hours).filter(|hour| {
                let now = start + Duration::hours(*hour);
                let due = now >= pending.next_try(until, now);
                if due {
                    pending.count(now);
                    pending.count(now);
                }
                due
            });
            hours.collect::<Vec<_>>()
        };
        let expected = [0, 1, 2, 4, 8, 16, 32, 56, 80];
        assert_eq!(tries(&mut pending.clone(), far, 90), expected);
        assert_eq!(tries(&mut pending.clone(), None, 90), expected, "nothing is installed");
        let short = Some(start + Duration::hours(40));
        assert_eq!(tries(&mut pending.clone(), short, 33), [0, 1, 2, 4, 8, 16, 22, 27, 31]);
        assert_eq!(tries(&mut pending.clone(), Some(start), 30).len(), 30, "it has expired");
        pending.tried = Some(start + Duration::days(400));
        assert_eq!(tries(&mut pending, far, 2), [0, 1], "the clock was ahead");
    }

    #[test]
    fn a_state_cannot_name_a_folder_elsewhere() {
        assert!(State::parse(state("v-0a1b2c.1").as_bytes()).is_ok());
        for folder in ["../../../root", "..", ".", "", ".v.new", "/etc", "a/b"] {
            let error = State::parse(state(folder).as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("folder {folder:?} is not one of ours"));
        }
    }
}
