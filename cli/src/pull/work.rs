//! One certificate's files, state and place in the source: everything that a run reads and writes
//! about it.

use std::path::PathBuf;

use anyhow::{Context, Error, Result, anyhow, bail};
use neverlapse::bucket::receipt::Receipt;
use neverlapse::bucket::store::Fresh;
use neverlapse::bucket::version::{Current, FILES, FULLCHAIN, Facts, MANIFEST, PRIVKEY, current_key, file_key};
use neverlapse::text::sha256;
use neverlapse::timestamp::Timestamp;

use super::broken::Broken;
use super::budget::Budget;
use super::candidate::{Candidate, Expected, verify};
use super::condition::{self, Condition};
use super::config::{Config, Wanted};
use super::folder::Folder;
use super::handshake::{self, Seen};
use super::layout::{COMBINED, Files, KEYSTORE};
use super::outcome::SourceProblem;
use super::plan::{Circumstances, Plan, Pointer, unfinished};
use super::program::Variables;
use super::report::send;
use super::source::{Source, is_denied, understood};
use super::state::{Installed, Owner, Pending, Shown, State};

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
    /// What was wrong with what is installed, and was put right in this run.
    pub(crate) repaired: Option<String>,
    /// What is wrong with it, and could not be put right.
    pub(crate) damage: Option<String>,
    /// What went wrong that does no harm to the certificate.
    pub(crate) warnings: Vec<String>,
    at_once: bool,
    /// Of the run, for keystores and for looks before anything is installed.
    budget: Budget,
    source: &'a Source,
    state_file: PathBuf,
    folder: Folder,
}

/// What a person asked of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand {
    /// To change nothing.
    pub(crate) is_dry: bool,
    /// To change at once, whatever window and failed tries say.
    pub(crate) is_at_once: bool,
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
    /// Reads the state, and opens the folders. Creates what is missing of them, unless the run is a
    /// dry one.
    pub(crate) fn open(
        config: &Config,
        wanted: &'a Wanted,
        source: &'a Source,
        errand: Errand,
        budget: Budget,
        now: Timestamp,
    ) -> Result<Self, Box<Broken<'a>>> {
        let state_file = config.state.join(format!("{}.json", wanted.name));
        let broken = |state, state_file, error: &Error| {
            Box::new(Broken {
                wanted,
                reason: format!("{error:#}"),
                state,
                source,
                state_file,
            })
        };

        let read = if errand.is_dry {
            State::read(&state_file).map(|state| (state, None))
        } else {
            State::recover(&state_file)
        };
        let (mut state, repaired) = read.map_err(|error| broken(State::default(), None, &error))?;
        if let Some(reason) = &wanted.no_account {
            return Err(broken(state, Some(state_file), &anyhow!("{reason}")));
        }
        let folder = if errand.is_dry {
            Folder::look(&config.folder, &wanted.name)
        } else {
            Folder::open(&config.folder, &wanted.name)
        };
        let folder = match folder {
            Ok(folder) => folder,
            Err(error) => return Err(broken(state, Some(state_file), &error)),
        };
        if state == State::default() {
            state.found = folder.live().ok().flatten();
        }
        Ok(Self {
            state,
            folder,
            wanted,
            now,
            repaired,
            damage: None,
            warnings: Vec::new(),
            at_once: errand.is_at_once,
            budget,
            source,
            state_file,
        })
    }

    /// Reads the pointer, and has its version ready on the disk. The state is not written yet.
    pub(crate) async fn prepare(&mut self) -> Result<Plan, SourceProblem> {
        let current = self.pointer().await;
        self.repair(current.as_ref().err()).await;

        let current = current?;
        let pointer = Pointer::judge(&self.state, &current);
        let reason = match pointer {
            Pointer::OutOfDate { known } => Some(format!(
                "{} shows an out-of-date current.json (sequence {}, {known} is known here); if the bucket was created again, remove {}",
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
            return Err(SourceProblem::Refused { current, reason });
        }

        let installed = self
            .state
            .installed
            .as_ref()
            .map(|installed| installed.current.sequence);
        if installed == Some(current.sequence)
            && let Some(damage) = &self.damage
        {
            return Err(SourceProblem::Damaged(damage.clone()));
        }
        if pointer == Pointer::Known && self.is_in_place(&current).await {
            return Ok(self.check_installed().await);
        }
        let folder = self
            .fetch(&current)
            .await
            .map_err(|error| SourceProblem::failed(&error))?;
        Ok(self.plan(current, folder, None))
    }

    /// The same for what is on the disk already, where the source is of no use.
    pub(crate) async fn carry_on(&mut self) -> Plan {
        let folders = self.folder.folders().unwrap_or_default();
        match unfinished(&self.state, &folders).cloned() {
            Some(pending) => self.plan(pending.current, pending.folder, None),
            // To load damaged files is of no use, and the server may have good ones in its memory.
            None if self.damage.is_some() => Plan::Nothing,
            None => self.check_installed().await,
        }
    }

    /// What [`Work::prepare`] and what follows it would do, in lines for a person. Nothing is
    /// written, and none of the server's commands is run.
    pub(crate) async fn dry_run(&mut self) -> Result<Vec<String>, SourceProblem> {
        let current = self.pointer().await?;
        let version = &current.facts.version;

        let pointer = Pointer::judge(&self.state, &current);
        match pointer {
            Pointer::OutOfDate { known } => {
                return Err(SourceProblem::Failed(format!(
                    "would refuse version {version}: sequence {known} is known here already"
                )));
            }
            Pointer::Conflict => {
                return Err(SourceProblem::Failed(format!(
                    "would refuse version {version}: another one has its sequence"
                )));
            }
            Pointer::New | Pointer::Known => {}
        }

        let mut lines = Vec::new();
        if let Some(installed) = self.state.installed.clone() {
            match self.condition(&installed).await {
                Condition::Sound => {}
                Condition::Accessible(wrong) => {
                    lines.push(format!("would put right what is installed: {}", wrong.join(", ")));
                }
                Condition::Damaged(reason) => {
                    lines.push(format!(
                        "would restore version {}: {reason}",
                        installed.current.facts.version
                    ));
                    self.damage = (pointer == Pointer::Known).then_some(reason);
                }
            }
        }

        if pointer == Pointer::Known && self.damage.is_none() && self.is_in_place(&current).await {
            lines.push(format!("would do nothing: version {version} is installed"));
        } else if self.damage.is_none() {
            self.download(&current)
                .await
                .map_err(|error| SourceProblem::Failed(format!("would refuse version {version}: {error:#}")))?;
            lines.push(self.would_install(&current));
            lines.extend(self.would_run());
        }

        if !self.wanted.verify.is_empty() {
            let before = self.before(version);
            lines.push(match handshake::looks(self.wanted, &current.facts, before).await {
                Seen::Served => format!("version {version} is served now"),
                Seen::Unknown { reason, .. } | Seen::Mixed(reason) | Seen::Another(reason) => {
                    format!("version {version} is not seen to be served now: {reason}")
                }
            });
        }
        Ok(lines)
    }

    /// When a version would be installed.
    fn would_install(&mut self, current: &Current) -> String {
        let version = format!(
            "version {}, valid until {}",
            current.facts.version, current.facts.not_after
        );
        let folder = self.wanted.layout.base(&current.facts.version);

        match (self.plan(current.clone(), folder, None), self.wanted.window) {
            (Plan::Install | Plan::Nothing, _) => format!("would install {version}"),
            (Plan::AwaitWindow, Some(window)) => {
                format!("would wait for its window ({window} UTC) to install {version}")
            }
            (Plan::AwaitWindow, None) => format!("would wait for its window to install {version}"),
            (Plan::Retry { at }, _) => format!("would try from {at} on to install {version}, which has failed before"),
        }
    }

    /// Which commands would be run then.
    fn would_run(&self) -> Option<String> {
        let commands: Vec<_> = [&self.wanted.test, &self.wanted.reload]
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        let places: Vec<_> = self.wanted.verify.iter().map(ToString::to_string).collect();

        let run = (!commands.is_empty()).then(|| format!("run {}", commands.join(", then ")));
        let look = (!places.is_empty()).then(|| format!("check whether {} serves it", places.join(", ")));
        let steps: Vec<_> = run.into_iter().chain(look).collect();
        (!steps.is_empty()).then(|| format!("would then {}", steps.join(", and ")))
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
        // What is damaged is nothing to go back to.
        let back = installed
            .or(self.state.found.as_ref())
            .filter(|back| **back != folder && self.damage.is_none());
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
    pub(crate) async fn check(&self, budget: Budget) -> Seen {
        match &self.state.pending {
            Some(pending) => {
                let limit = budget.limit(self.wanted.verify_timeout);
                let before = self.before(&pending.current.facts.version);
                handshake::comes_to_serve(self.wanted, &pending.current.facts, before, limit).await
            }
            None => Seen::Served,
        }
    }

    /// The pending version is tested and loaded: it becomes the installed one, with what was seen
    /// of it. Versions before the previous one are removed.
    pub(crate) fn finish(&mut self, seen: &Seen) -> Result<()> {
        if let Err(error) = self.stay() {
            self.warnings.push(format!("{error:#}"));
        }
        let Some(pending) = self.state.pending.take() else {
            return Ok(());
        };

        let folder = pending.folder.clone();
        let before = self.before(&pending.current.facts.version).cloned();
        let found = self.state.found.take();
        let previous = self.state.installed.replace(Installed {
            before: before.map(Box::new),
            current: pending.current.clone(),
            keystore: self.keystore_hash(&folder),
            folder: folder.clone(),
            served: None,
            unloaded: false,
            unseen: None,
            since: self.now,
        });
        self.remember(seen);
        if let Seen::Mixed(reason) = seen {
            self.state.pending = Some(Pending {
                failure: Some(format!("after the reload {reason}")),
                ..pending
            });
        }
        self.save()?;

        let previous = previous.map(|previous| previous.folder).or(found);
        // The same files were loaded again: the version before them is still the previous one.
        if previous.as_ref() != Some(&folder) {
            let keep: Vec<_> = previous.iter().map(String::as_str).collect();
            self.warnings.extend(self.folder.sweep(&keep));
        }
        Ok(())
    }

    /// Has the server load files that were restored, while a newer version waits.
    pub(crate) async fn load_restored(&mut self, budget: Budget) -> Result<(), String> {
        if !self.is_unloaded() {
            return Ok(());
        }

        let variables = renewed([&*self]);
        for program in [&self.wanted.test, &self.wanted.reload].into_iter().flatten() {
            let ran = program.run(&variables, budget.limit(self.wanted.timeout)).await;
            ran.map_err(|failure| format!("what is restored is not loaded: {}", failure.reason))?;
        }
        self.set_unloaded(false);
        self.save().map_err(|error| format!("{error:#}"))
    }

    fn is_unloaded(&self) -> bool {
        self.state
            .installed
            .as_ref()
            .is_some_and(|installed| installed.unloaded)
    }

    fn set_unloaded(&mut self, unloaded: bool) {
        if let Some(installed) = &mut self.state.installed {
            installed.unloaded = unloaded;
        }
    }

    /// The version that was served here before this one.
    fn before(&self, version: &str) -> Option<&Facts> {
        let installed = self.state.installed.as_ref()?;
        if installed.current.facts.version == version {
            installed.before.as_deref()
        } else {
            Some(&installed.current.facts)
        }
    }

    /// What the pending version is for, or else the installed one.
    pub(crate) fn identifiers(&self) -> &[String] {
        let State { pending, installed, .. } = &self.state;
        let pending = pending.as_ref().map(|pending| &pending.current);
        let current = pending.or(installed.as_ref().map(|installed| &installed.current));
        current.map_or(&[], |current| &current.facts.identifiers)
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
    pub(crate) async fn report(&mut self, receipt: Receipt, owner: &Owner) -> Result<()> {
        let warning = send(&mut self.state, receipt, owner, self.source, Some(&self.state_file)).await?;
        self.warnings.extend(warning);
        Ok(())
    }

    /// What `current.json` says. It is transferred again only if it has changed.
    async fn pointer(&mut self) -> Result<Current, SourceProblem> {
        let source = self.source.to_string();
        let key = current_key(&self.wanted.name);
        let seen = self.state.seen.as_ref().filter(|seen| seen.source == source);

        let fresh = self.source.fresh(&key, seen.map(|seen| seen.tag.as_str())).await;
        let tagged = match (fresh, seen) {
            (Err(error), _) if is_denied(&error) => return Err(SourceProblem::Denied(format!("{error:#}"))),
            (Err(error), _) => return Err(SourceProblem::Unreachable(format!("{error:#}"))),
            (Ok(Fresh::Missing), _) | (Ok(Fresh::Unchanged), None) => return Err(SourceProblem::NotPublished),
            (Ok(Fresh::Unchanged), Some(seen)) => return Ok(seen.current.clone()),
            (Ok(Fresh::Changed(tagged)), _) => tagged,
        };

        let current = understood(&tagged.value, &self.wanted.name).map_err(|reason| {
            SourceProblem::Failed(format!("{source}/{key} is not what the client understands: {reason}"))
        })?;
        // A pointer that is refused must be refused again when it is read as unchanged.
        if !Pointer::judge(&self.state, &current).is_refused() {
            self.state.seen = Some(Shown {
                source,
                tag: tagged.tag,
                current: current.clone(),
            });
        }
        Ok(current)
    }

    /// Downloads and verifies a version, and stores it in a folder of its own.
    async fn fetch(&mut self, current: &Current) -> Result<String> {
        let mut files = self.download(current).await?;
        if let Some(keystore) = self.keystore(current, &files).await? {
            files.insert(KEYSTORE, keystore);
        }
        self.folder.store(&current.facts.version, &self.wanted.layout, &files)
    }

    /// The files of a version, verified in memory.
    async fn download(&mut self, current: &Current) -> Result<Files> {
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
        self.state.keep_manifest(current, &manifest);
        Ok(files)
    }

    /// Checks every file of what is installed, and puts right what is not as it was installed, at
    /// once: the server may be started again at any time.
    async fn repair(&mut self, source: Option<&SourceProblem>) {
        let Some(installed) = self.state.installed.clone() else {
            return;
        };
        // A run that was cut off had made another version live. It is finished.
        let live = self.folder.live().ok().flatten();
        let pending = self.state.pending.as_ref().map(|pending| &pending.folder);
        if live.is_some() && live.as_ref() == pending && pending != Some(&installed.folder) {
            return;
        }

        // Earlier versions of the client did not keep it.
        let is_reached = source.is_none_or(SourceProblem::is_about_the_version);
        if is_reached && self.state.manifest(&installed.current).is_none() {
            self.fetch_manifest(&installed.current).await;
        }

        match self.condition(&installed).await {
            Condition::Sound => {}
            Condition::Accessible(wrong) => {
                let wrong = wrong.join(", ");
                let names = condition::names(Some(&self.wanted.layout));
                match self.folder.set_access(&installed.folder, &self.wanted.layout, &names) {
                    Ok(()) => self.repaired = Some(format!("what is installed was put right: {wrong}")),
                    Err(error) => self.damage = Some(format!("{wrong}, and it cannot be put right: {error:#}")),
                }
            }
            Condition::Damaged(reason) => match self.restore(&installed, source, is_reached).await {
                Ok(()) => self.repaired = Some(format!("what is installed was damaged, and is restored: {reason}")),
                Err(error) => {
                    self.damage = Some(format!(
                        "what is installed is damaged ({reason}), and cannot be restored: {error:#}"
                    ));
                }
            },
        }
    }

    /// What the installed version is like on the disk.
    async fn condition(&self, installed: &Installed) -> Condition {
        let name = &self.wanted.name;
        match self.folder.live() {
            Ok(Some(live)) if live == installed.folder => {}
            Ok(None) => return Condition::Damaged(format!("live/{name} is missing, or is not ours")),
            Ok(Some(live)) => return Condition::Damaged(format!("live/{name} leads to {live}")),
            Err(error) => return Condition::Damaged(format!("{error:#}")),
        }

        let is_of_today = self
            .wanted
            .layout
            .is_of(&installed.current.facts.version, &installed.folder);
        let layout = is_of_today.then_some(&self.wanted.layout);
        let found = match self.folder.inspect(&installed.folder, &condition::names(layout)) {
            Ok(found) => found,
            Err(reason) => return Condition::Damaged(reason),
        };
        Condition::of(
            &found,
            condition::Expected {
                fingerprint: &installed.current.facts.fingerprint,
                manifest: self.state.manifest(&installed.current).as_ref(),
                keystore: installed.keystore.as_deref(),
                layout,
                user: rustix::process::geteuid().as_raw(),
            },
        )
    }

    /// Makes the installed version live again as it was: from what is left of it on the disk, or
    /// from the source.
    async fn restore(&mut self, installed: &Installed, source: Option<&SourceProblem>, is_reached: bool) -> Result<()> {
        let current = &installed.current;
        let mut files = match (self.salvage(current), source) {
            (Some(files), _) => files,
            (None, Some(problem)) if !is_reached => bail!("{problem}"),
            (None, _) => self.download(current).await?,
        };
        if let Some(keystore) = self.keystore(current, &files).await? {
            files.insert(KEYSTORE, keystore);
        }

        // Written down first: this run may be cut off before the server has loaded it. Where that
        // cannot be written, hardly anything can.
        self.set_unloaded(true);
        let _ = self.save();

        let version = &current.facts.version;
        let is_of_today = self.wanted.layout.is_of(version, &installed.folder);
        let repaired = if is_of_today {
            self.folder.repair(&installed.folder, &self.wanted.layout, &files)
        } else {
            Err(anyhow!("another layout is wanted"))
        };
        let folder = match repaired {
            Ok(()) => installed.folder.clone(),
            Err(_) => self.folder.store(version, &self.wanted.layout, &files)?,
        };
        if self.folder.live()?.as_ref() != Some(&folder) {
            self.folder.switch(&folder)?;
        }
        let keystore = self.keystore_hash(&folder);
        if let Some(installed) = &mut self.state.installed {
            installed.folder.clone_from(&folder);
            installed.keystore = keystore;
        }
        self.save()?;

        if folder != installed.folder
            && let Err(error) = self.folder.discard(&installed.folder)
        {
            self.warnings.push(format!("{error:#}"));
        }
        Ok(())
    }

    /// The files of a version, if all of them are somewhere on the disk.
    fn salvage(&self, current: &Current) -> Option<Files> {
        let manifest = self.state.manifest(current)?;
        let mut everything = Vec::new();
        for folder in self.folder.folders().ok()? {
            for name in FILES.into_iter().chain([COMBINED]) {
                everything.extend(self.folder.read(&folder, name));
            }
        }
        condition::salvage(&manifest, &everything)
    }

    async fn fetch_manifest(&mut self, current: &Current) {
        let key = file_key(&self.wanted.name, &current.facts.version, MANIFEST);
        if let Ok(manifest) = self.source.object(&key).await {
            self.state.keep_manifest(current, &manifest);
            // Nothing depends on it: the next run fetches it again.
            let _ = self.save();
        }
    }

    fn keystore_hash(&self, folder: &str) -> Option<String> {
        self.wanted.keystore.as_ref()?;
        self.folder.read(folder, KEYSTORE).ok().map(|content| sha256(&content))
    }

    /// Notes what was seen of the installed version.
    fn remember(&mut self, seen: &Seen) {
        let Some(installed) = &mut self.state.installed else {
            return;
        };
        installed.unseen = None;
        installed.served = match seen {
            _ if self.wanted.verify.is_empty() => None,
            Seen::Served => Some(true),
            Seen::Mixed(_) | Seen::Another(_) => Some(false),
            Seen::Unknown { reason, .. } => {
                installed.unseen = Some(format!("could not check whether it is served: {reason}"));
                None
            }
        };
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
            let limit = self.budget.limit(self.wanted.timeout);
            if keystore.holds(&there, files, limit).await.is_ok() {
                return Ok(Some(there));
            }
        }

        let limit = self.budget.limit(self.wanted.timeout);
        let made = keystore.make(&self.wanted.name, files, limit).await?;
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
        let limit = self.budget.limit(self.wanted.timeout);
        keystore.can_be_made().is_ok() && keystore.holds(&files[KEYSTORE], &files, limit).await.is_ok()
    }

    /// Probes the server in every run: one that has lost what is installed is to load it again.
    async fn check_installed(&mut self) -> Plan {
        let Some(Installed {
            current,
            folder,
            served,
            unloaded,
            ..
        }) = self.state.installed.clone()
        else {
            return Plan::Nothing;
        };
        // The server may have the good files in its memory only.
        if unloaded {
            return self.plan(current, folder, None);
        }

        let before = self.before(&current.facts.version);
        let mut seen = handshake::looks(self.wanted, &current.facts, before).await;
        if seen != Seen::Served {
            // It may just be restarting.
            let limit = self.budget.limit(self.wanted.verify_timeout);
            seen = handshake::comes_to_serve(self.wanted, &current.facts, before, limit).await;
        }

        self.remember(&seen);
        match seen {
            Seen::Served => {
                self.state.pending = None;
                Plan::Nothing
            }
            Seen::Mixed(reason) | Seen::Another(reason) => self.plan(current, folder, Some(reason)),
            // It was served, and then the server went down: it is to be started again.
            Seen::Unknown { reason, is_down: true } if served.is_some() => {
                if let Some(installed) = &mut self.state.installed {
                    installed.served = Some(false);
                    installed.unseen = None;
                }
                self.plan(current, folder, Some(reason))
            }
            // It has never been seen: a server that is down may need another start.
            Seen::Unknown { is_down: true, .. } => self.plan(current, folder, None),
            // A reload does not make a place visible.
            Seen::Unknown { is_down: false, .. } => {
                self.state.pending = None;
                Plan::Nothing
            }
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
            at_once: self.at_once || self.is_pressing(&pending),
            now: self.now,
        };
        let plan = Plan::of(&self.state, &pending, circumstances);

        self.state.pending = Some(pending);
        plan
    }

    /// Whether something is to be done whatever the window: what is live is damaged, or was
    /// restored and is not loaded.
    fn is_pressing(&self, pending: &Pending) -> bool {
        let installed = self.state.installed.as_ref().map(|installed| &installed.folder);
        self.damage.is_some() || (self.is_unloaded() && installed == Some(&pending.folder))
    }
}

/// What commands learn about certificates, in the variables that certbot's hooks know.
pub(super) fn renewed<'w, 'a: 'w>(works: impl IntoIterator<Item = &'w Work<'a>>) -> Variables {
    let works: Vec<_> = works.into_iter().collect();
    let identifiers: Vec<_> = works.iter().flat_map(|work| work.identifiers()).cloned().collect();

    let mut variables = Variables::from([("RENEWED_DOMAINS", identifiers.join(" "))]);
    // Certbot runs a hook for one certificate. With several there is none to name.
    if let [work] = works[..]
        && let Some(lineage) = work.wanted.live.parent()
    {
        variables.insert("RENEWED_LINEAGE", lineage.display().to_string());
    }
    variables
}
