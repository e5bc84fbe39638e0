//! What this instance has done with a certificate and has still to do, kept so that a crash forgets
//! nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::receipt::Receipt;
use neverlapse::bucket::version::{Current, Facts, Manifest};
use neverlapse::name;
use neverlapse::text::sha256;
use neverlapse::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use super::guard::NOFOLLOW;

/// Of one certificate: `{state}/{name}.json`. It holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What is in place, and was tested and loaded.
    pub(crate) installed: Option<Installed>,
    /// What is to be installed: written before anything is switched, removed when a handshake has
    /// shown it.
    pub(crate) pending: Option<Pending>,
    /// The pointer as it was last read, and its tag there.
    pub(crate) seen: Option<Shown>,
    /// The folder that was live when there was no state: servers may have its files, until a
    /// version is installed.
    #[serde(default)]
    pub(crate) found: Option<String>,
    /// What was last reported.
    pub(crate) receipt: Option<Receipt>,
    /// Who reported it: a copy of this state, in an image or a backup, is somebody else's.
    #[serde(default)]
    pub(crate) owner: Option<Owner>,
    /// The manifests of what is installed and pending, by their SHA-256, which `current.json` has:
    /// with them the files on the disk are compared, whether the source can be reached or not.
    #[serde(default)]
    pub(crate) manifests: BTreeMap<String, String>,
}

/// Whose state it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// The machine, by what an image does not take along.
    pub(crate) machine: String,
    /// The configuration, and the folder of its state: one machine can have several.
    pub(crate) configuration: String,
}

/// A version in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub(crate) current: Current,
    /// In `versions/{name}/`.
    pub(crate) folder: String,
    /// Whether the server served it when it was last probed; `None` without `verify`, or if nobody
    /// could look.
    pub(crate) served: Option<bool>,
    /// Whether its files were restored, and the server has not been reloaded since.
    #[serde(default)]
    pub(crate) unloaded: bool,
    /// Why nobody could look.
    #[serde(default)]
    pub(crate) unseen: Option<String>,
    /// The version that was installed before it, to name it where that one is still served.
    #[serde(default)]
    pub(crate) before: Option<Box<Facts>>,
    /// The SHA-256 of its keystore, if it has one.
    #[serde(default)]
    pub(crate) keystore: Option<String>,
    pub(crate) since: Timestamp,
}

/// Work that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) current: Current,
    /// In `versions/{name}/`.
    pub(crate) folder: String,
    /// Runs that have tried.
    pub(crate) attempts: u32,
    /// When the last of them did.
    #[serde(default)]
    pub(crate) tried: Option<Timestamp>,
    pub(crate) since: Timestamp,
    /// Why it is not done, if a try has failed.
    #[serde(default)]
    pub(crate) failure: Option<String>,
}

/// `current.json`, where it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) source: String,
    pub(crate) tag: String,
    pub(crate) current: Current,
}

impl State {
    /// Reads what was written; the default if nothing was.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let Some(json) = load(path)? else {
            return Ok(Self::default());
        };
        Self::parse(&json).with_context(|| format!("{} is damaged; the next run starts it over", path.display()))
    }

    /// Reads what was written. What is damaged, such as after a loss of power, is put aside and
    /// started over, as on a new host: a person who has to do that may come too late. The second
    /// says so.
    pub(crate) fn recover(path: &Path) -> Result<(Self, Option<String>)> {
        let Some(json) = load(path)? else {
            return Ok((Self::default(), None));
        };
        let error = match serde_json::from_slice::<Self>(&json) {
            Ok(state) => {
                let checked = state.checked();
                let state =
                    checked.with_context(|| format!("{} is not followed; remove it to start over", path.display()))?;
                return Ok((state, None));
            }
            Err(error) => error,
        };

        let aside = path.with_extension("damaged");
        fs::rename(path, &aside).with_context(|| format!("cannot rename {}", path.display()))?;
        let what = format!(
            "{} was damaged ({error}) and is started over; what was in it is in {}",
            path.display(),
            aside.display()
        );
        Ok((Self::default(), Some(what)))
    }

    fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice::<Self>(json)?.checked()
    }

    /// Folders are opened and removed by their names: one that leads elsewhere is no damage of a
    /// disk, so a person has to look at it.
    fn checked(self) -> Result<Self> {
        let installed = self.installed.iter().map(|installed| &installed.folder);
        let pending = self.pending.iter().map(|pending| &pending.folder);
        for folder in installed.chain(pending).chain(&self.found) {
            ensure!(name::is_folder(folder), "folder {folder:?} is not one of ours");
        }
        Ok(self)
    }

    /// The manifest that a pointer vouches for, if it was kept.
    pub(crate) fn manifest(&self, current: &Current) -> Option<Manifest> {
        let kept = self.manifests.get(&current.manifest_sha256)?;
        if sha256(kept.as_bytes()) != current.manifest_sha256 {
            return None;
        }
        serde_json::from_str(kept).ok()
    }

    /// Keeps a manifest, and forgets those of versions that are neither installed nor pending.
    pub(crate) fn keep_manifest(&mut self, current: &Current, manifest: &[u8]) {
        let installed = self.installed.iter().map(|installed| &installed.current);
        let pending = self.pending.iter().map(|pending| &pending.current);
        let wanted: Vec<_> = installed.chain(pending).map(|known| &known.manifest_sha256).collect();
        self.manifests.retain(|hash, _| wanted.contains(&hash));

        if let Ok(manifest) = String::from_utf8(manifest.to_vec()) {
            self.manifests.insert(current.manifest_sha256.clone(), manifest);
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
            // Files that begin with a dot are the instance's, not a certificate's.
            if let Some(name) = name.filter(|name| !name.starts_with('.')) {
                all.push((name.to_owned(), path.clone()));
            }
        }
        all.sort();
        Ok(all)
    }
}

impl Pending {
    /// Work on a version. What was tried before counts if it had the same sequence.
    pub(crate) fn of(
        current: Current,
        folder: String,
        failure: Option<String>,
        known: Option<Self>,
        now: Timestamp,
    ) -> Self {
        let known = known.filter(|known| known.current.sequence == current.sequence);
        match known {
            Some(known) => Self {
                current,
                folder,
                failure: failure.or(known.failure),
                ..known
            },
            None => Self {
                current,
                folder,
                attempts: 0,
                tried: None,
                since: now,
                failure,
            },
        }
    }

    /// Counts a try, once per run.
    pub(crate) fn count(&mut self, now: Timestamp) {
        if self.tried != Some(now) {
            self.attempts += 1;
            self.tried = Some(now);
        }
    }
}

/// A file's content, if it is there.
fn load(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    let read = File::options()
        .read(true)
        .custom_flags(NOFOLLOW)
        .open(path)
        .and_then(|mut file| file.read_to_end(&mut content));

    match read {
        Ok(_) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file so that a crash leaves the old or the new one.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
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
}

#[cfg(test)]
pub(crate) mod tests {
    use neverlapse::timestamp;
    use time::Duration;

    use super::*;

    const NOON: Timestamp = timestamp!(2026-10-01 12:00 UTC);

    /// A version that is valid from 2026-09-01 to 2026-11-30.
    pub(crate) fn current(sequence: u64, version: &str) -> Current {
        let current = CURRENT
            .replace("SEQUENCE", &sequence.to_string())
            .replace("VERSION", version);
        serde_json::from_str(&current).unwrap()
    }

    /// It is served.
    pub(crate) fn installed(sequence: u64, version: &str) -> Installed {
        Installed {
            current: current(sequence, version),
            folder: version.into(),
            served: Some(true),
            unloaded: false,
            unseen: None,
            before: None,
            keystore: None,
            since: NOON - Duration::DAY,
        }
    }

    /// It has not been tried.
    pub(crate) fn pending(sequence: u64, version: &str) -> Pending {
        Pending::of(current(sequence, version), version.into(), None, None, NOON)
    }

    #[test]
    fn what_was_tried_before_counts_for_the_same_sequence() {
        let mut tried = pending(1, "v1");
        tried.count(NOON);
        tried.count(NOON);
        tried.failure = Some("earlier".into());
        let later = NOON + Duration::HOUR;

        let again = Pending::of(current(1, "v1"), "v1-ffffff".into(), None, Some(tried.clone()), later);
        let expected = Pending {
            folder: "v1-ffffff".into(),
            ..tried.clone()
        };
        assert_eq!((again, expected.attempts), (expected.clone(), 1));

        let failed = Pending::of(
            current(1, "v1"),
            "v1".into(),
            Some("now".into()),
            Some(tried.clone()),
            later,
        );
        assert_eq!((failed.attempts, failed.failure.as_deref()), (1, Some("now")));

        let new = Pending::of(current(2, "v2"), "v2".into(), None, Some(tried), later);
        assert_eq!((new.attempts, new.failure, new.since), (0, None, later));
    }

    #[test]
    fn a_state_cannot_name_a_folder_elsewhere() {
        let parse = |folder: &str| {
            let current = CURRENT.replace("SEQUENCE", "1").replace("VERSION", "v");
            let state = format!(
                r#"{{"installed": null, "seen": null, "receipt": null, "pending": {{"current": {current}, "folder": {folder:?},
                "attempts": 0, "since": "2026-10-01T00:00:00Z"}}}}"#
            );
            State::parse(state.as_bytes())
        };

        assert!(parse("v-0a1b2c.1").is_ok());
        for folder in ["../../../root", "..", ".", "", ".v.new", "/etc", "a/b"] {
            let error = parse(folder).unwrap_err().to_string();
            assert_eq!(error, format!("folder {folder:?} is not one of ours"));
        }
    }

    const CURRENT: &str = r#"{"schema": "neverlapse.current/1", "sequence": SEQUENCE, "manifest_sha256": "",
        "published_at": "2026-10-01T00:00:00Z", "name": "n", "version": "VERSION", "fingerprint": "", "serial": "",
        "not_before": "2026-09-01T00:00:00Z", "not_after": "2026-11-30T00:00:00Z", "identifiers": [],
        "key": "ecdsa-p256", "issuer": {"name": "i", "directory": "", "account": ""}}"#;
}
