//! One certificate on its way: read, verified, stored, switched, and reported.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use neverlapse::bucket::receipt::{self, Receipt, Stage};
use neverlapse::bucket::store::Fresh;
use neverlapse::bucket::version::{Current, FILES, FULLCHAIN, MANIFEST, PRIVKEY, current_key, file_key};
use neverlapse::name::is_folder;
use neverlapse::timestamp::Timestamp;

use super::candidate::{Candidate, Expected, verify};
use super::config::{Config, Wanted};
use super::folder::{Folder, base};
use super::handshake;
use super::keystore::KEYSTORE;
use super::source::{Source, is_denied};
use super::state::{Installed, Pending, Seen, State, Step};
use super::window::{Window, is_urgent};

/// A certificate that is wanted here, and how far it is.
pub(crate) struct Work<'a> {
    pub(crate) wanted: &'a Wanted,
    source: &'a Source,
    file: PathBuf,
    folder: Folder,
    pub(crate) state: State,
    /// What this run could not do.
    pub(crate) trouble: Option<Trouble>,
    /// A pointer that was shown and not believed.
    refused: Option<Current>,
    /// How this run can go back.
    way_back: Option<WayBack>,
    /// Whether a person wants it done now, whatever window and failed tries say.
    at_once: bool,
    now: Timestamp,
}

/// To the installed version, from the moment that another one is made live.
#[derive(Clone, Copy, Debug)]
struct WayBack {
    /// A run before this one had made it live, and was cut off: servers may have seen it.
    was_live: bool,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The source could not be asked.
    Unreachable(String),
    /// The bucket answered, and said no.
    Denied(String),
    /// There is nothing there for this name.
    NotPublished,
    /// It was refused, or could not be installed.
    Failed(String),
}

/// What became of the files when something could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// They are as they were, or stay as they are now.
    Nothing,
    /// The old ones are back.
    Switched,
    /// The old ones are back, and were away for longer than this run.
    WasLive,
}

/// What is to be done about it in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Nothing,
    /// To switch, test, reload and look.
    Install,
    /// To wait for the hours in which changes are wanted.
    Wait,
    /// To try again, but not before then: it has failed too often.
    Later(Timestamp),
}

type Files = BTreeMap<&'static str, Vec<u8>>;

impl<'a> Work<'a> {
    pub(crate) fn open(
        config: &Config,
        wanted: &'a Wanted,
        source: &'a Source,
        at_once: bool,
        now: Timestamp,
    ) -> Result<Self> {
        let file = config.state.join(format!("{}.json", wanted.name));
        let state = State::read(&file)?;
        let folder = Folder::open(&config.folder, &wanted.name)?;
        Ok(Self {
            wanted,
            source,
            file,
            folder,
            state,
            trouble: None,
            refused: None,
            way_back: None,
            at_once,
            now,
        })
    }

    /// Finds out what is to be done, and has it ready on the disk.
    pub(crate) async fn prepare(&mut self) -> Next {
        let current = match self.pointer().await {
            Ok(current) => Some(current),
            Err(trouble) => {
                self.trouble = Some(trouble);
                None
            }
        };
        let Some(current) = current else {
            return self.without_source().await;
        };
        match self.state.step(&current) {
            Step::Older { known } => {
                let found = current.sequence;
                self.refused = Some(current);
                self.failed(format!(
                    "{} shows an out-of-date current.json (sequence {found}, {known} is known here); if the bucket was made anew, remove {}",
                    self.source,
                    self.file.display()
                ));
                self.without_source().await
            }
            Step::Conflict => {
                self.failed(format!(
                    "{} shows another version under sequence {} than before; it is not installed",
                    self.source, current.sequence
                ));
                self.refused = Some(current);
                self.without_source().await
            }
            Step::Done | Step::Continue if self.is_in_place(&current).await => self.look_again().await,
            Step::Done | Step::Continue | Step::Fetch => match self.fetch(&current).await {
                Ok(folder) => self.plan(current, folder, None),
                Err(reason) => {
                    self.failed(format!("{reason:#}"));
                    self.without_source().await
                }
            },
        }
    }

    /// The same, with nothing written and nothing run; answers with what would be done.
    pub(crate) async fn rehearse(&mut self) -> Result<String, Trouble> {
        let current = self.pointer().await?;
        let version = &current.facts.version;
        match self.state.step(&current) {
            Step::Older { known } => Err(Trouble::Failed(format!(
                "would refuse version {version}: sequence {known} is known here already"
            ))),
            Step::Conflict => Err(Trouble::Failed(format!(
                "would refuse version {version}: another one has its sequence"
            ))),
            Step::Done | Step::Continue if self.is_in_place(&current).await => {
                Ok(format!("would do nothing: version {version} is installed"))
            }
            Step::Done | Step::Continue | Step::Fetch => match self.download(&current).await {
                Ok(_) => Ok(format!(
                    "would install version {version}, valid until {}",
                    current.facts.not_after
                )),
                Err(reason) => Err(Trouble::Failed(format!("would refuse version {version}: {reason:#}"))),
            },
        }
    }

    /// Makes the way back, writes down what is about to happen, then makes it so: whoever is killed from here on is followed by a run that
    /// knows.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let pending = self.state.pending.as_mut().context("nothing is to be installed")?;
        pending.count(self.now);
        let folder = pending.folder.clone();
        let installed = self.state.installed.as_ref().map(|installed| &installed.folder);
        let back = installed.filter(|installed| **installed != folder);
        if let Some(back) = back {
            self.folder.prepare_to_switch_back(back)?;
        }
        self.state.write(&self.file)?;
        let was_live = self.folder.live()?.as_ref() == Some(&folder);
        // Before it is switched: a switch that fails may have happened.
        self.way_back = back.map(|_| WayBack { was_live });
        self.folder.switch(&folder)
    }

    /// Looks whether the server shows the new certificate.
    pub(crate) async fn look(&self) -> Result<(), String> {
        match &self.state.pending {
            Some(pending) => handshake::comes_to_show(self.wanted, &pending.current.facts).await,
            None => Ok(()),
        }
    }

    /// It is done: tested, loaded and seen.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.way_back = None;
        self.folder.stay()?;
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
        self.state.write(&self.file)?;
        match previous.map(|previous| previous.folder) {
            // The server was told again: the version before this one is still the one before it.
            Some(previous) if previous == folder => Ok(()),
            previous => self
                .folder
                .sweep(&previous.iter().map(String::as_str).collect::<Vec<_>>()),
        }
    }

    /// It could not be done: what was there before is there again, and a later run tries again. Answers with what servers may have to be
    /// told.
    pub(crate) fn back_out(&mut self, reason: String) -> Back {
        let mut reason = reason;
        let mut back = Back::Nothing;
        if let Some(WayBack { was_live }) = self.way_back.take() {
            match self.folder.switch_back() {
                Ok(()) if was_live => back = Back::WasLive,
                Ok(()) => back = Back::Switched,
                Err(error) => reason = format!("{reason}; and {error:#}"),
            }
        }
        self.put_off(reason);
        back
    }

    /// The server took it and does not show it: likewise, but once what was there before has expired, what is new is better, shown or not.
    pub(crate) fn not_shown(&mut self, reason: String) -> Back {
        let installed = self.installed();
        if installed.is_none_or(|installed| installed.facts.not_after > self.now) {
            return self.back_out(reason);
        }
        self.way_back = None;
        let stayed = self.folder.stay();
        self.put_off(match stayed {
            Ok(()) => reason,
            Err(error) => format!("{reason}; and {error:#}"),
        });
        Back::Nothing
    }

    /// Remembers why it is not done.
    fn put_off(&mut self, reason: String) {
        let mut reason = reason;
        if let Some(pending) = &mut self.state.pending {
            pending.failure = Some(reason.clone());
        }
        if let Err(error) = self.state.write(&self.file) {
            reason = format!("{reason}; and {error:#}");
        }
        self.failed(reason);
    }

    /// The version that clients get from this host, as far as it knows.
    pub(crate) fn installed(&self) -> Option<&Current> {
        self.state.installed.as_ref().map(|installed| &installed.current)
    }

    /// In a line, for people.
    pub(crate) fn summary(&self, next: Next) -> String {
        let name = &self.wanted.name;
        let of = |current: &Current| {
            format!(
                "version {}, valid until {}",
                current.facts.version, current.facts.not_after
            )
        };
        match (&self.state.pending, &self.state.installed, next) {
            (Some(pending), _, Next::Wait) => {
                format!("{name}: {} is ready and waits for its window", of(&pending.current))
            }
            (_, Some(installed), Next::Install) if installed.served.is_some() => {
                format!("{name}: installed {}; the server shows it", of(&installed.current))
            }
            (_, Some(installed), Next::Install) => format!("{name}: installed {}", of(&installed.current)),
            (_, Some(installed), _) => format!("{name}: {} is installed", of(&installed.current)),
            _ => format!("{name}: nothing is installed"),
        }
    }

    /// Tells the probe, at the end of everything; not again when there is nothing new to tell for some hours.
    pub(crate) async fn report(&mut self, instance: &str, host: &str, runs_every: time::Duration) -> Result<()> {
        let Some(receipt) = self.receipt(instance, host, runs_every) else {
            return Ok(());
        };
        if self
            .state
            .receipt
            .as_ref()
            .is_some_and(|last| says_the_same(last, &receipt))
        {
            return Ok(());
        }
        let mut body = serde_json::to_vec_pretty(&receipt)?;
        body.push(b'\n');
        self.source
            .put(&receipt::key(&self.wanted.name, instance), body)
            .await?;
        self.state.receipt = Some(receipt);
        self.state.write(&self.file)
    }

    fn receipt(&self, instance: &str, host: &str, runs_every: time::Duration) -> Option<Receipt> {
        let pending = self.state.pending.as_ref().map(|pending| &pending.current);
        let seen = self.state.seen.as_ref().map(|seen| &seen.current);
        let facts = &self.refused.as_ref().or(seen).or(pending).or(self.installed())?.facts;
        let version = &facts.version;
        let failure = match &self.trouble {
            Some(Trouble::Failed(reason)) => Some(reason.clone()),
            _ => self.state.pending.as_ref().and_then(|pending| pending.failure.clone()),
        };
        let there = self.installed();
        let installed = there.map(|current| &current.facts.version);
        let stage = match (&failure, &self.state.installed) {
            (Some(_), _) => Stage::Failed,
            (None, Some(there)) if there.current.facts.version == *version => {
                if there.served == Some(true) {
                    Stage::Served
                } else {
                    Stage::Installed
                }
            }
            (None, _) => Stage::Pulled,
        };
        let last = self
            .state
            .receipt
            .as_ref()
            .filter(|last| (&last.version, last.stage) == (version, stage));
        Some(Receipt {
            schema: Receipt::SCHEMA.to_owned(),
            name: self.wanted.name.clone(),
            instance: instance.to_owned(),
            host: host.to_owned(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            version: version.clone(),
            fingerprint: facts.fingerprint.clone(),
            stage,
            reason: failure,
            installed: installed.filter(|installed| *installed != version).cloned(),
            sequence: there.map(|current| current.sequence),
            not_after: there.map(|current| current.facts.not_after),
            since: last.map_or(self.now, |last| last.since.min(self.now)),
            at: self.now,
            next_by: self.now + SILENT.max(runs_every * 3),
        })
    }

    /// What `current.json` says, read again only if it has changed.
    async fn pointer(&mut self) -> Result<Current, Trouble> {
        let source = self.source.to_string();
        let seen = self.state.seen.as_ref().filter(|seen| seen.source == source);
        let key = current_key(&self.wanted.name);
        let fresh = self.source.fresh(&key, seen.map(|seen| seen.tag.as_str())).await;
        let tagged = match (fresh, seen) {
            (Err(error), _) if is_denied(&error) => return Err(Trouble::Denied(format!("{error:#}"))),
            (Err(error), _) => return Err(Trouble::Unreachable(format!("{error:#}"))),
            (Ok(Fresh::Missing), _) | (Ok(Fresh::Unchanged), None) => return Err(Trouble::NotPublished),
            (Ok(Fresh::Unchanged), Some(seen)) => return Ok(seen.current.clone()),
            (Ok(Fresh::Changed(tagged)), _) => tagged,
        };
        let not_understood =
            |reason: String| Trouble::Failed(format!("{source}/{key} is not what the client understands: {reason}"));
        let current: Current =
            serde_json::from_slice(&tagged.value).map_err(|error| not_understood(error.to_string()))?;
        if current.schema != Current::SCHEMA {
            return Err(not_understood(format!(
                "schema {:?} (expected {:?})",
                current.schema,
                Current::SCHEMA
            )));
        }
        if !is_folder(&current.facts.version) {
            return Err(not_understood(format!(
                "version {:?} cannot be a folder",
                current.facts.version
            )));
        }
        // One that is out of date is not to be believed again after a restart.
        if !matches!(self.state.step(&current), Step::Older { .. } | Step::Conflict) {
            self.state.seen = Some(Seen {
                source,
                tag: tagged.tag,
                current: current.clone(),
            });
        }
        Ok(current)
    }

    async fn fetch(&self, current: &Current) -> Result<String> {
        let mut files = self.download(current).await?;
        if let Some(keystore) = self.keystore(current, &files).await? {
            files.insert(KEYSTORE, keystore);
        }
        self.folder.store(&current.facts.version, &self.wanted.layout, &files)
    }

    /// The one that is there already, if it is good; each that is made differs from the one before, and would be another installation.
    async fn keystore(&self, current: &Current, files: &Files) -> Result<Option<Vec<u8>>> {
        let Some(keystore) = &self.wanted.keystore else {
            return Ok(None);
        };
        let base = base(&current.facts.version, &self.wanted.layout);
        let live = self.folder.live()?;
        let others = self.folder.folders()?.into_iter();
        for folder in live.into_iter().chain(others).filter(|folder| is_of(folder, &base)) {
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

    async fn download(&self, current: &Current) -> Result<Files> {
        if let Some(keystore) = &self.wanted.keystore {
            keystore.can_be_made()?;
        }
        let (name, version) = (&self.wanted.name, &current.facts.version);
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

    /// Writes down what is to be done, and says when.
    fn plan(&mut self, current: Current, folder: String, failure: Option<String>) -> Next {
        let known = self
            .state
            .pending
            .take()
            .filter(|pending| pending.current.sequence == current.sequence);
        let mut pending = known.unwrap_or_else(|| Pending {
            current: current.clone(),
            folder: folder.clone(),
            attempts: 0,
            tried: None,
            since: self.now,
            failure: None,
        });
        pending.failure = failure.or(pending.failure);
        (pending.current, pending.folder) = (current, folder);
        let next = self.when(&pending);
        let failure = pending.failure.clone();
        self.state.pending = Some(pending);
        if next == Next::Install {
            return next;
        }
        if let (None, Some(failure)) = (&self.trouble, failure) {
            self.failed(failure);
        }
        if let Err(error) = self.state.write(&self.file) {
            self.failed(format!("{error:#}"));
        }
        next
    }

    /// Outside of its window a change waits, unless there is nothing to lose, or much. What has failed too often waits as well.
    fn when(&self, pending: &Pending) -> Next {
        let installed = self.state.installed.as_ref();
        let live = self.folder.live().ok().flatten();
        // What a run was cut off in the middle of is neither tested nor told to the server.
        let is_half_done = live.as_ref() == Some(&pending.folder)
            && installed.is_some_and(|installed| installed.folder != pending.folder);
        if self.at_once || is_half_done {
            return Next::Install;
        }
        let installed = installed.map(|installed| &installed.current.facts);
        let next_try = pending.next_try(installed.map(|installed| installed.not_after), self.now);
        if next_try > self.now {
            return Next::Later(next_try);
        }
        let is_wanted_now = |window: Window| {
            window.is_open(self.now)
                || pending.current.rolled_back
                || installed.is_none_or(|installed| is_urgent(installed.not_before, installed.not_after, self.now))
        };
        match self.wanted.window.is_none_or(is_wanted_now) {
            true => Next::Install,
            false => Next::Wait,
        }
    }

    /// What can be done with what is on the disk.
    async fn without_source(&mut self) -> Next {
        let there = self.folder.folders().unwrap_or_default();
        let installed = self.state.installed.as_ref().map(|installed| installed.folder.clone());
        match self.state.pending.clone() {
            Some(pending) if installed.as_ref() != Some(&pending.folder) && there.contains(&pending.folder) => {
                self.plan(pending.current, pending.folder, None)
            }
            _ => self.look_again().await,
        }
    }

    /// Whether this version's files are where they belong, and the keystore opens with the password of today.
    async fn is_in_place(&self, current: &Current) -> bool {
        let live = self.folder.live().ok().flatten();
        let belongs = |installed: &Installed| {
            let base = base(&installed.current.facts.version, &self.wanted.layout);
            live.as_ref() == Some(&installed.folder)
                && is_of(&installed.folder, &base)
                && installed.current.sequence == current.sequence
        };
        let Some(installed) = self.state.installed.as_ref().filter(|installed| belongs(installed)) else {
            return false;
        };
        let Some(keystore) = &self.wanted.keystore else {
            return true;
        };
        let read = |file: &'static str| Some((file, self.folder.read(&installed.folder, file).ok()?));
        let files: Option<Files> = [FULLCHAIN, PRIVKEY, KEYSTORE].into_iter().map(read).collect();
        let Some(files) = files.filter(|_| keystore.can_be_made().is_ok()) else {
            return false;
        };
        let held = keystore.holds(&files[KEYSTORE], &files, self.wanted.timeout);
        held.await.is_ok()
    }

    /// What is installed is looked at in every run: a server that lost it is told again. One that is just being restarted is waited for.
    async fn look_again(&mut self) -> Next {
        let Some(Installed { current, folder, .. }) = self.state.installed.clone() else {
            return Next::Nothing;
        };
        let facts = &current.facts;
        let mut shown = handshake::shows(self.wanted, facts).await;
        if shown.is_err() {
            shown = handshake::comes_to_show(self.wanted, facts).await;
        }
        if let Some(there) = &mut self.state.installed {
            there.served = (!self.wanted.verify.is_empty()).then_some(shown.is_ok());
        }
        let Err(reason) = shown else {
            self.state.pending = None;
            return Next::Nothing;
        };
        self.plan(current, folder, Some(reason))
    }

    fn failed(&mut self, reason: String) {
        self.trouble = Some(Trouble::Failed(reason));
    }
}

/// Whether a folder is one of those with this name, or with it and a number.
fn is_of(folder: &str, base: &str) -> bool {
    folder
        .strip_prefix(base)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a receipt would tell nothing new yet: half of the time until the next one is due is left.
fn says_the_same(last: &Receipt, new: &Receipt) -> bool {
    let same = Receipt {
        at: last.at,
        next_by: last.next_by,
        ..new.clone()
    } == *last;
    // A clock that was ahead would have us silent until then.
    same && last.at <= new.at && new.at < last.at + (last.next_by - last.at) / 2
}

/// Receipts are rewritten twice in this time.
const SILENT: time::Duration = time::Duration::hours(26);
