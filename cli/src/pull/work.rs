//! One certificate's files, state and place in the source: everything that a run reads and writes
//! about it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use neverlapse::bucket::receipt::{self, Receipt};
use neverlapse::bucket::store::Fresh;
use neverlapse::bucket::version::{Current, FILES, FULLCHAIN, MANIFEST, PRIVKEY, current_key, file_key};
use neverlapse::name;
use neverlapse::timestamp::Timestamp;

use super::candidate::{Candidate, Expected, verify};
use super::config::{Config, Wanted};
use super::folder::Folder;
use super::handshake;
use super::layout::{Files, KEYSTORE};
use super::outcome::Problem;
use super::plan::{Circumstances, Plan, Pointer, unfinished};
use super::receipt::still_stands;
use super::source::{Source, is_denied};
use super::state::{Installed, Pending, Seen, State};

/// A certificate that is wanted here.
///
/// A run prepares it ([`Work::prepare`], or [`Work::carry_on`] where the source is of no use),
/// installs it ([`Work::begin`], [`Work::switch`], [`Work::check`], [`Work::finish`], or
/// [`Work::switch_back`] and [`Work::put_off`]) and reports it ([`Work::report`]).
pub(crate) struct Work<'a> {
    pub(crate) wanted: &'a Wanted,
    /// What is done and not done. It is on the disk where a method says that it writes it.
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    at_once: bool,
    source: &'a Source,
    state_file: PathBuf,
    folder: Folder,
}

/// What is behind an installation that has begun, and what servers may have seen when it is taken
/// back. The more they may have seen, the later it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Back {
    /// The files stay as they are.
    Nothing,
    /// The old files, which were live until this run.
    Switched,
    /// The old files. An earlier run that was cut off had made the new ones live, so servers that
    /// started since then may have found those.
    WasLive,
}

impl<'a> Work<'a> {
    /// Reads the state, and opens the folders. Creates what is missing of them.
    pub(crate) fn open(
        config: &Config,
        wanted: &'a Wanted,
        source: &'a Source,
        at_once: bool,
        now: Timestamp,
    ) -> Result<Self> {
        let state_file = config.state.join(format!("{}.json", wanted.name));
        Ok(Self {
            state: State::read(&state_file)?,
            folder: Folder::open(&config.folder, &wanted.name)?,
            wanted,
            now,
            at_once,
            source,
            state_file,
        })
    }

    /// Reads the pointer, and has its version ready on the disk. The state is not written yet.
    pub(crate) async fn prepare(&mut self) -> Result<Plan, Problem> {
        let current = self.pointer().await?;

        let pointer = Pointer::judge(&self.state, &current);
        let reason = match pointer {
            Pointer::OutOfDate { known } => Some(format!(
                "{} shows an out-of-date current.json (sequence {}, {known} is known here); if the bucket was made anew, remove {}",
                self.source,
                current.sequence,
                self.state_file.display()
            )),
            Pointer::Conflict => Some(format!(
                "{} shows another version under sequence {} than before; it is not installed",
                self.source, current.sequence
            )),
            Pointer::New | Pointer::Known => None,
        };
        if let Some(reason) = reason {
            let current = Box::new(current);
            return Err(Problem::Refused { current, reason });
        }

        if pointer == Pointer::Known && self.is_in_place(&current).await {
            return Ok(self.check_installed().await);
        }
        let folder = self.fetch(&current).await.map_err(|error| Problem::failed(&error))?;
        Ok(self.plan(current, folder, None))
    }

    /// The same for what is on the disk already, where the source is of no use.
    pub(crate) async fn carry_on(&mut self) -> Plan {
        let folders = self.folder.folders().unwrap_or_default();
        match unfinished(&self.state, &folders).cloned() {
            Some(pending) => self.plan(pending.current, pending.folder, None),
            None => self.check_installed().await,
        }
    }

    /// What [`Work::prepare`] would do, in words. Nothing is written and nothing is run.
    pub(crate) async fn dry_run(&mut self) -> Result<String, Problem> {
        let current = self.pointer().await?;
        let version = &current.facts.version;

        let pointer = Pointer::judge(&self.state, &current);
        match pointer {
            Pointer::OutOfDate { known } => {
                return Err(Problem::Failed(format!(
                    "would refuse version {version}: sequence {known} is known here already"
                )));
            }
            Pointer::Conflict => {
                return Err(Problem::Failed(format!(
                    "would refuse version {version}: another one has its sequence"
                )));
            }
            Pointer::New | Pointer::Known => {}
        }

        if pointer == Pointer::Known && self.is_in_place(&current).await {
            return Ok(format!("would do nothing: version {version} is installed"));
        }
        match self.download(&current).await {
            Ok(_) => Ok(format!(
                "would install version {version}, valid until {}",
                current.facts.not_after
            )),
            Err(error) => Err(Problem::Failed(format!("would refuse version {version}: {error:#}"))),
        }
    }

    /// Writes the state so that a crash leaves the old or the new one.
    pub(crate) fn save(&self) -> Result<()> {
        self.state.write(&self.state_file)
    }

    /// Prepares the way back, and writes down what is about to happen: when this run is killed from
    /// here on, the next one knows. Answers with what is behind [`Work::switch`].
    pub(crate) fn begin(&mut self) -> Result<Back> {
        let pending = self.state.pending.as_mut().context("nothing is to be installed")?;
        pending.count(self.now);
        let folder = pending.folder.clone();

        let installed = self.state.installed.as_ref().map(|installed| &installed.folder);
        let back = installed.filter(|installed| **installed != folder);
        if let Some(back) = back {
            self.folder.prepare_to_switch_back(back)?;
        }

        self.save()?;

        let was_live = self.folder.live()?.as_ref() == Some(&folder);
        Ok(match back {
            None => Back::Nothing,
            Some(_) if was_live => Back::WasLive,
            Some(_) => Back::Switched,
        })
    }

    /// Makes the pending version live.
    pub(crate) fn switch(&self) -> Result<()> {
        let pending = self.state.pending.as_ref().context("nothing is to be installed")?;
        self.folder.switch(&pending.folder)
    }

    /// Makes live what was live before [`Work::switch`].
    pub(crate) fn switch_back(&self) -> Result<()> {
        self.folder.switch_back()
    }

    /// Gives up the way back.
    pub(crate) fn stay(&self) -> Result<()> {
        self.folder.stay()
    }

    /// Waits until the server serves the pending version.
    pub(crate) async fn check(&self) -> Result<(), String> {
        match &self.state.pending {
            Some(pending) => handshake::comes_to_serve(self.wanted, &pending.current.facts).await,
            None => Ok(()),
        }
    }

    /// The pending version is tested, loaded and served: it becomes the installed one. Versions
    /// before the previous one are removed.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.stay()?;
        let Some(Pending { current, folder, .. }) = self.state.pending.take() else {
            return Ok(());
        };

        let served = (!self.wanted.verify.is_empty()).then_some(true);
        let previous = self.state.installed.replace(Installed {
            current,
            folder: folder.clone(),
            served,
            since: self.now,
        });
        self.save()?;

        match previous.map(|previous| previous.folder) {
            // The same files were loaded again: the version before them is still the previous one.
            Some(previous) if previous == folder => Ok(()),
            Some(previous) => self.folder.sweep(&[&previous]),
            None => self.folder.sweep(&[]),
        }
    }

    /// Remembers why the pending version is not installed, for a later run to try again. Answers
    /// with the whole reason.
    pub(crate) fn put_off(&mut self, reason: String) -> String {
        if let Some(pending) = &mut self.state.pending {
            pending.failure = Some(reason.clone());
        }
        match self.save() {
            Ok(()) => reason,
            Err(error) => format!("{reason}; and {error:#}"),
        }
    }

    /// Writes the receipt for the probe to read, unless the last one still stands.
    pub(crate) async fn report(&mut self, receipt: Receipt) -> Result<()> {
        if let Some(last) = &self.state.receipt
            && still_stands(last, &receipt)
        {
            return Ok(());
        }

        let mut body = serde_json::to_vec_pretty(&receipt)?;
        body.push(b'\n');
        self.source
            .put(&receipt::key(&receipt.name, &receipt.instance), body)
            .await?;

        self.state.receipt = Some(receipt);
        self.save()
    }

    /// What `current.json` says. It is transferred again only if it has changed.
    async fn pointer(&mut self) -> Result<Current, Problem> {
        let source = self.source.to_string();
        let key = current_key(&self.wanted.name);
        let seen = self.state.seen.as_ref().filter(|seen| seen.source == source);

        let fresh = self.source.fresh(&key, seen.map(|seen| seen.tag.as_str())).await;
        let tagged = match (fresh, seen) {
            (Err(error), _) if is_denied(&error) => return Err(Problem::Denied(format!("{error:#}"))),
            (Err(error), _) => return Err(Problem::Unreachable(format!("{error:#}"))),
            (Ok(Fresh::Missing), _) | (Ok(Fresh::Unchanged), None) => return Err(Problem::NotPublished),
            (Ok(Fresh::Unchanged), Some(seen)) => return Ok(seen.current.clone()),
            (Ok(Fresh::Changed(tagged)), _) => tagged,
        };

        let current = understood(&tagged.value).map_err(|reason| {
            Problem::Failed(format!("{source}/{key} is not what the client understands: {reason}"))
        })?;
        // A pointer that is refused must be refused again when it is read as unchanged.
        if !Pointer::judge(&self.state, &current).is_refused() {
            self.state.seen = Some(Seen {
                source,
                tag: tagged.tag,
                current: current.clone(),
            });
        }
        Ok(current)
    }

    /// Downloads and verifies a version, and stores it in a folder of its own.
    async fn fetch(&self, current: &Current) -> Result<String> {
        let mut files = self.download(current).await?;
        if let Some(keystore) = self.keystore(current, &files).await? {
            files.insert(KEYSTORE, keystore);
        }
        self.folder.store(&current.facts.version, &self.wanted.layout, &files)
    }

    /// The files of a version, verified in memory.
    async fn download(&self, current: &Current) -> Result<Files> {
        if let Some(keystore) = &self.wanted.keystore {
            keystore.can_be_made()?;
        }

        let name = &self.wanted.name;
        let version = &current.facts.version;
        let manifest = self.source.object(&file_key(name, version, MANIFEST)).await?;
        let mut files = Files::new();
        for file in FILES {
            files.insert(file, self.source.object(&file_key(name, version, file)).await?);
        }

        let candidate = Candidate {
            current,
            manifest: &manifest,
            files: &files,
        };
        let expected = Expected {
            name,
            identifiers: &self.wanted.identifiers,
            allow_staging: self.wanted.allow_staging,
            now: self.now,
        };
        verify(&candidate, &expected).with_context(|| format!("version {version} is refused"))?;
        Ok(files)
    }

    /// The keystore of a version, if one is wanted: the one that is there already, if it is good.
    /// No two that are made are alike, so a new one would be another installation.
    async fn keystore(&self, current: &Current, files: &Files) -> Result<Option<Vec<u8>>> {
        let Some(keystore) = &self.wanted.keystore else {
            return Ok(None);
        };

        let live = self.folder.live()?;
        let folders = live.into_iter().chain(self.folder.folders()?);
        for folder in folders.filter(|folder| self.wanted.layout.is_of(&current.facts.version, folder)) {
            let Ok(there) = self.folder.read(&folder, KEYSTORE) else {
                continue;
            };
            if keystore.holds(&there, files, self.wanted.timeout).await.is_ok() {
                return Ok(Some(there));
            }
        }

        let made = keystore.make(&self.wanted.name, files, self.wanted.timeout).await?;
        Ok(Some(made))
    }

    /// Whether this pointer's version is installed and live, in the layout of today.
    async fn is_in_place(&self, current: &Current) -> bool {
        let Some(installed) = &self.state.installed else {
            return false;
        };

        let is_live = self.folder.live().ok().flatten().as_ref() == Some(&installed.folder);
        let version = &installed.current.facts.version;
        is_live
            && installed.current.sequence == current.sequence
            && self.wanted.layout.is_of(version, &installed.folder)
            && self.has_keystore(&installed.folder).await
    }

    /// Whether a folder has the keystore that is wanted, and it opens with the password of today.
    async fn has_keystore(&self, folder: &str) -> bool {
        let Some(keystore) = &self.wanted.keystore else {
            return true;
        };

        let mut files = Files::new();
        for file in [FULLCHAIN, PRIVKEY, KEYSTORE] {
            let Ok(content) = self.folder.read(folder, file) else {
                return false;
            };
            files.insert(file, content);
        }
        keystore.can_be_made().is_ok()
            && keystore
                .holds(&files[KEYSTORE], &files, self.wanted.timeout)
                .await
                .is_ok()
    }

    /// Probes the server in every run: one that has lost what is installed is to load it again.
    async fn check_installed(&mut self) -> Plan {
        let Some(Installed { current, folder, .. }) = self.state.installed.clone() else {
            return Plan::Nothing;
        };

        let mut served = handshake::serves(self.wanted, &current.facts).await;
        if served.is_err() {
            // It may just be restarting.
            served = handshake::comes_to_serve(self.wanted, &current.facts).await;
        }

        if let Some(installed) = &mut self.state.installed {
            installed.served = (!self.wanted.verify.is_empty()).then_some(served.is_ok());
        }
        match served {
            Ok(()) => {
                self.state.pending = None;
                Plan::Nothing
            }
            Err(reason) => self.plan(current, folder, Some(reason)),
        }
    }

    /// Makes a version that is on the disk the pending one, and decides when it is installed.
    fn plan(&mut self, current: Current, folder: String, failure: Option<String>) -> Plan {
        let known = self.state.pending.take();
        let pending = Pending::of(current, folder, failure, known, self.now);

        let live = self.folder.live().ok().flatten();
        let circumstances = Circumstances {
            live: live.as_deref(),
            window: self.wanted.window,
            at_once: self.at_once,
            now: self.now,
        };
        let plan = Plan::of(&self.state, &pending, circumstances);

        self.state.pending = Some(pending);
        plan
    }
}

/// A `current.json`, if this client knows its format and can have a folder for it.
fn understood(json: &[u8]) -> Result<Current, String> {
    let current: Current = serde_json::from_slice(json).map_err(|error| error.to_string())?;

    if current.schema != Current::SCHEMA {
        return Err(format!("schema {:?} (expected {:?})", current.schema, Current::SCHEMA));
    }
    if !name::is_folder(&current.facts.version) {
        return Err(format!("version {:?} cannot be a folder", current.facts.version));
    }
    Ok(current)
}
