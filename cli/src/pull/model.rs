//! Random short histories of one certificate on one host: versions come and are rolled back, files
//! are damaged, tests and reloads fail, the server is started again, the bucket or a version in it
//! is away, and runs are cut off at every step.
//!
//! Whatever happens, the next run that nothing disturbs ends with the current version whole on the
//! disk, loaded by the server, and a receipt that says so.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::{Current, FILES, FULLCHAIN, PRIVKEY, file_key};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::depot::Depot;
use neverlapse_tests::pki::{Authority, Leaf};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::geteuid;
use time::Duration;

use super::budget::Budget;
use super::condition::names;
use super::config::Config;
use super::install::{Failures, install};
use super::journal::Journal;
use super::layout::COMBINED;
use super::plan::Plan;
use super::receipt::{Reporter, receipt};
use super::source::Source;
use super::state::Owner;
use super::work::{Errand, Work};
use super::{Prepared, prepare};

/// What happens to a host.
#[derive(Clone, Copy, Debug)]
enum Event {
    Publish,
    RollBack,
    Damage(Damage),
    /// The server is started again, with what is live.
    Restart,
    ForgetState,
    Hours(i64),
    Run(Fault),
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    File(&'static str, Harm),
    OpenFolder,
    RemoveFolder,
    RemoveLink,
    LinkToAnother,
    LinkToNothing,
    /// What a run of ours would write, left by somebody else.
    Leftovers,
}

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Remove,
    Empty,
    Truncate,
    /// The key of another certificate is in its place.
    Swap,
    MoveBehindSymlink,
    BecomeFolder,
    OpenToAll,
    CloseToAll,
    GiveAway,
}

/// What disturbs a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    TestFails,
    ReloadFails,
    BucketAway,
    /// The pointer is there, and the version that it names is gone.
    VersionAway,
    /// It is cut off.
    AfterPreparing,
    AfterBeginning,
    AfterSwitching,
    AfterReloading,
    AfterInstalling,
}

impl Event {
    fn any(files: &[&'static str], random: &mut StdRng) -> Self {
        match random.random_range(0..10) {
            0 | 1 => Self::Publish,
            2 => Self::RollBack,
            3..6 => Self::Damage(Damage::any(files, random)),
            6 => *[
                Self::Restart,
                Self::ForgetState,
                Self::Hours(1),
                Self::Hours(30),
                // A clock that is put right.
                Self::Hours(-5),
            ]
            .choose(random)
            .unwrap(),
            _ => Self::Run(*FAULTS.choose(random).unwrap()),
        }
    }
}

impl Damage {
    fn any(files: &[&'static str], random: &mut StdRng) -> Self {
        match random.random_range(0..12) {
            0 => Self::OpenFolder,
            1 => Self::RemoveFolder,
            2 => Self::RemoveLink,
            3 => Self::LinkToAnother,
            4 => Self::LinkToNothing,
            5 => Self::Leftovers,
            _ => Self::File(files.choose(random).unwrap(), *HARMS.choose(random).unwrap()),
        }
    }
}

const HARMS: [Harm; 9] = [
    Harm::Remove,
    Harm::Empty,
    Harm::Truncate,
    Harm::Swap,
    Harm::MoveBehindSymlink,
    Harm::BecomeFolder,
    Harm::OpenToAll,
    Harm::CloseToAll,
    Harm::GiveAway,
];

const FAULTS: [Fault; 10] = [
    Fault::Nothing,
    Fault::TestFails,
    Fault::ReloadFails,
    Fault::BucketAway,
    Fault::VersionAway,
    Fault::AfterPreparing,
    Fault::AfterBeginning,
    Fault::AfterSwitching,
    Fault::AfterReloading,
    Fault::AfterInstalling,
];

/// What a configuration may ask for besides the files of a version.
const LAYOUTS: [&str; 3] = ["", "combined = true", "combined = true\nkey_mode = \"0400\""];
const KEYSTORE_TOO: &str = "combined = true\npkcs12_password_file = \"PASSWORD\"";

struct Host<'l> {
    folder: tempfile::TempDir,
    files: Vec<&'static str>,
    depot: Depot,
    config: Config,
    leaves: &'l [Leaf],
    published: Vec<Current>,
    now: Timestamp,
}

impl<'l> Host<'l> {
    fn new(layout: &str, leaves: &'l [Leaf], now: Timestamp) -> Self {
        // Nothing here is to survive the machine.
        let memory = PathBuf::from("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let root = folder.path().display();
        // The server of this host: it loads what is live, if key and certificate are there.
        let config = format!(
            "folder = \"{root}/tls\"\nstate = \"{root}/state\"\ntest_command = \"test ! -e {root}/no-test\"\n\
             reload_command = \"test ! -e {root}/no-reload && cat {root}/tls/live/shop/fullchain.pem \
             {root}/tls/live/shop/privkey.pem >{root}/loaded\"\n[[certificate]]\nname = \"shop\"\n{}",
            layout.replace("PASSWORD", &format!("{root}/password"))
        );
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::write(folder.path().join("password"), "password").unwrap();
        fs::set_permissions(folder.path().join("password"), Permissions::from_mode(0o600)).unwrap();

        let config = Config::parse(&config).unwrap();
        Self {
            files: names(Some(&config.certificates[0].layout)),
            config,
            folder,
            depot: Depot::new().unwrap(),
            leaves,
            published: Vec::new(),
            now,
        }
    }

    async fn meets(&mut self, event: Event, random: &mut StdRng) {
        match event {
            Event::Publish => {
                let leaf = self.leaves.choose(random).unwrap();
                let current = self.depot.publish("shop", leaf).unwrap();
                self.published.push(current);
            }
            Event::RollBack => {
                if let Some(earlier) = self.published.choose(random) {
                    let current = self.depot.roll_back(earlier).unwrap();
                    self.published.push(current);
                }
            }
            Event::Damage(damage) => self.damage(damage),
            Event::Restart => self.restart(),
            Event::ForgetState => {
                let _ = fs::remove_file(self.config.state.join("shop.json"));
            }
            Event::Hours(hours) => self.now = self.now + Duration::hours(hours),
            Event::Run(fault) => self.run(fault).await,
        }
    }

    fn live(&self) -> PathBuf {
        self.config.folder.join("live/shop")
    }

    fn damage(&self, damage: Damage) {
        let live = self.live();
        let link = |to: &str| {
            if live.is_symlink() {
                fs::remove_file(&live).unwrap();
                symlink(format!("../versions/shop/{to}"), &live).unwrap();
            }
        };

        match damage {
            Damage::File(file, harm) if live.join(file).is_file() => self.harm(&live.join(file), harm),
            Damage::File(..) => {}
            Damage::OpenFolder => {
                let _ = fs::set_permissions(live, Permissions::from_mode(0o755));
            }
            Damage::RemoveFolder => {
                if let Ok(folder) = fs::canonicalize(live) {
                    fs::remove_dir_all(folder).unwrap();
                }
            }
            Damage::RemoveLink => drop(fs::remove_file(live)),
            Damage::LinkToAnother => {
                let versions = self.config.folder.join("versions/shop");
                let other = fs::read_dir(versions).ok().and_then(|mut all| all.next()?.ok());
                if let Some(other) = other {
                    link(other.file_name().to_str().unwrap());
                }
            }
            Damage::LinkToNothing => link("20200101T000000Z-00000000"),
            Damage::Leftovers => self.leave(),
        }
    }

    fn harm(&self, path: &Path, harm: Harm) {
        match harm {
            Harm::Remove => fs::remove_file(path).unwrap(),
            Harm::Empty => fs::write(path, "").unwrap(),
            Harm::Truncate => fs::write(path, &fs::read(path).unwrap()[..40]).unwrap(),
            Harm::Swap => fs::write(path, &self.leaves[0].key).unwrap(),
            Harm::MoveBehindSymlink => {
                let moved = self.folder.path().join("moved");
                fs::copy(path, &moved).unwrap();
                fs::remove_file(path).unwrap();
                symlink(moved, path).unwrap();
            }
            Harm::BecomeFolder => {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }
            Harm::OpenToAll => fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap(),
            Harm::CloseToAll => fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap(),
            // Nobody but root can.
            Harm::GiveAway => drop(chown(path, Some(65_534), Some(65_534))),
        }
    }

    fn leave(&self) {
        let live = self.config.folder.join("live");
        let versions = self.config.folder.join("versions/shop");
        if !live.exists() {
            return;
        }
        for name in [".shop.next", ".shop.back"] {
            let _ = symlink("../versions/shop/nothing", live.join(name));
        }
        for current in &self.published {
            let staged = versions.join(format!(".{}.new", current.facts.version));
            let _ = fs::create_dir(&staged);
            let _ = fs::write(staged.join(PRIVKEY), "half of a ke");
        }
    }

    fn restart(&self) {
        let read = |file| fs::read(self.live().join(file));
        let loaded = self.folder.path().join("loaded");
        match (read(FULLCHAIN), read(PRIVKEY)) {
            (Ok(chain), Ok(key)) => fs::write(loaded, [chain, key].concat()).unwrap(),
            // It is down.
            _ => drop(fs::remove_file(loaded)),
        }
    }

    async fn run(&self, fault: Fault) {
        let [no_test, no_reload] = ["no-test", "no-reload"].map(|name| self.folder.path().join(name));
        match fault {
            Fault::TestFails => fs::write(&no_test, "").unwrap(),
            Fault::ReloadFails => fs::write(&no_reload, "").unwrap(),
            _ => {}
        }
        let source = Source::Folder(match fault {
            Fault::BucketAway => "/nowhere".into(),
            _ => self.depot.path().to_owned(),
        });
        let versions = self.depot.object("certificates/shop/versions");
        let away = versions.with_extension("away");
        if fault == Fault::VersionAway {
            fs::rename(&versions, &away).unwrap();
        }

        self.run_from(&source, fault).await;
        if fault == Fault::VersionAway {
            fs::rename(away, versions).unwrap();
        }
        for flag in [no_test, no_reload] {
            let _ = fs::remove_file(flag);
        }
    }

    /// What [`super::Run::all`] does for one certificate, cut off at a step.
    async fn run_from(&self, source: &Source, fault: Fault) {
        let errand = Errand {
            is_dry: false,
            is_at_once: false,
        };
        let wanted = &self.config.certificates[0];
        let budget = Budget::of_run();
        let Ok(work) = Work::open(&self.config, wanted, source, errand, budget, self.now) else {
            panic!("it cannot be opened");
        };
        let mut prepared = prepare(work).await;
        if fault == Fault::AfterPreparing {
            return;
        }

        let mut failures = Failures::new();
        if prepared.plan == Plan::Install {
            let work = &mut prepared.work;
            match fault {
                Fault::AfterBeginning => return drop(work.begin()),
                Fault::AfterSwitching => return drop(work.begin().and_then(|_| work.switch())),
                Fault::AfterReloading => {
                    work.begin().and_then(|_| work.switch()).unwrap();
                    return self.restart();
                }
                _ => failures = install(vec![work], budget, Journal::open()).await,
            }
        } else if prepared.work.load_restored(budget).await.is_err() {
            return;
        }
        if fault == Fault::AfterInstalling {
            return;
        }
        report(&mut prepared, &failures).await;
    }

    async fn assert_all_is_well(&self, history: &str) {
        let Some(current) = self.published.last() else { return };
        let live = |file| fs::read(self.live().join(file)).unwrap_or_default();
        for file in FILES {
            let key = file_key("shop", &current.facts.version, file);
            let expected = fs::read(self.depot.object(&key)).unwrap();
            assert!(live(file) == expected, "{file} is not as it was published: {history}");
        }
        let combined = live(COMBINED);
        assert!(
            !self.files.contains(&COMBINED) || combined == [live(FULLCHAIN), live(PRIVKEY)].concat(),
            "{history}"
        );
        let layout = &self.config.certificates[0].layout;
        for file in &self.files {
            let found = fs::symlink_metadata(self.live().join(file)).unwrap();
            assert!(found.is_file(), "{file}: {history}");
            assert_eq!(
                (found.mode() & 0o7777, found.uid()),
                (layout.mode(file), geteuid().as_raw()),
                "{file}: {history}"
            );
        }

        let loaded = fs::read(self.folder.path().join("loaded")).unwrap_or_default();
        assert!(
            loaded == [live(FULLCHAIN), live(PRIVKEY)].concat(),
            "the server has something else: {history}"
        );

        let receipt = self.depot.receipt("shop", "web-1").unwrap();
        assert_eq!(
            (receipt.stage, &receipt.version, receipt.sequence),
            (Stage::Installed, &current.facts.version, Some(current.sequence)),
            "{receipt:?}: {history}"
        );
    }
}

async fn report(prepared: &mut Prepared<'_>, failures: &Failures<'_>) {
    let outcome = prepared.outcome(failures);
    let reporter = Reporter {
        instance: "web-1",
        host: "web",
        runs_every: Duration::HOUR,
    };
    let owner = Owner {
        machine: "machine".to_owned(),
        configuration: "configuration".to_owned(),
    };
    if let Some(receipt) = receipt(&outcome, reporter) {
        // The bucket may be away.
        let _ = prepared.work.report(receipt, &owner).await;
    }
}

#[tokio::test]
async fn whatever_happened_the_next_run_that_nothing_disturbs_puts_it_right() {
    let authority = Authority::new().unwrap();
    let now = Timestamp::now();
    let leaves: Vec<_> = [30, 60, 90]
        .iter()
        .map(|days| authority.leaf("shop", now + Duration::days(*days)).unwrap())
        .collect();

    let first: u64 = std::env::var("SEED").map_or(0, |seed| seed.parse().unwrap());
    let number: u64 = std::env::var("HISTORIES").map_or(200, |number| number.parse().unwrap());
    for seed in first..first + number {
        let mut random = StdRng::seed_from_u64(seed);
        // A keystore takes four programs a run.
        let layout = match seed % 16 {
            0 => KEYSTORE_TOO,
            other => LAYOUTS[other as usize % 3],
        };
        let mut host = Host::new(layout, &leaves, now);
        let mut history = vec![Event::Publish];
        for _ in 0..random.random_range(2..9) {
            history.push(Event::any(&host.files, &mut random));
        }
        for event in &history {
            host.meets(*event, &mut random).await;
        }

        // Pauses between tries are a day at most.
        host.now = host.now + Duration::hours(25);
        host.run(Fault::Nothing).await;
        host.assert_all_is_well(&format!("SEED={seed} {history:?}")).await;
    }
}
