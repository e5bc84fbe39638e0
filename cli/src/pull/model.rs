//! Random short histories of one certificate on one host: versions come and are rolled back, files are damaged, tests and reloads fail,
//! the server is started again, the bucket is away, and runs are cut off at every step.
//!
//! Whatever happens, the next run that nothing disturbs ends with the current version whole on the disk, loaded by the server, and a
//! receipt that says so.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::{CERT, CHAIN, Current, FILES, FULLCHAIN, PRIVKEY, file_key};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::depot::Depot;
use neverlapse_tests::pki::{Authority, Leaf};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use time::Duration;

use super::budget::Budget;
use super::config::Config;
use super::install::{Failures, install};
use super::journal::Journal;
use super::plan::Plan;
use super::receipt::{Reporter, receipt};
use super::source::Source;
use super::state::Owner;
use super::work::{Errand, Work};
use super::{Job, prepare};

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
    Remove(&'static str),
    Empty(&'static str),
    Swap(&'static str),
    OpenToAll(&'static str),
    RemoveFolder,
    RemoveLink,
    LinkToAnother,
}

/// What disturbs a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    TestFails,
    ReloadFails,
    BucketAway,
    /// It is cut off.
    AfterPreparing,
    AfterBeginning,
    AfterSwitching,
    AfterReloading,
    AfterInstalling,
}

const EVENTS: [Event; 28] = [
    Event::Publish,
    Event::Publish,
    Event::Publish,
    Event::RollBack,
    Event::Damage(Damage::Remove(PRIVKEY)),
    Event::Damage(Damage::Remove(FULLCHAIN)),
    Event::Damage(Damage::Empty(PRIVKEY)),
    Event::Damage(Damage::Empty(CHAIN)),
    Event::Damage(Damage::Swap(CERT)),
    Event::Damage(Damage::Swap(PRIVKEY)),
    Event::Damage(Damage::OpenToAll(PRIVKEY)),
    Event::Damage(Damage::RemoveFolder),
    Event::Damage(Damage::RemoveLink),
    Event::Damage(Damage::LinkToAnother),
    Event::Restart,
    Event::Restart,
    Event::ForgetState,
    Event::Hours(1),
    Event::Hours(30),
    Event::Run(Fault::Nothing),
    Event::Run(Fault::TestFails),
    Event::Run(Fault::ReloadFails),
    Event::Run(Fault::BucketAway),
    Event::Run(Fault::AfterPreparing),
    Event::Run(Fault::AfterBeginning),
    Event::Run(Fault::AfterSwitching),
    Event::Run(Fault::AfterReloading),
    Event::Run(Fault::AfterInstalling),
];

struct Host<'l> {
    folder: tempfile::TempDir,
    depot: Depot,
    config: Config,
    leaves: &'l [Leaf],
    published: Vec<Current>,
    now: Timestamp,
}

impl<'l> Host<'l> {
    fn new(leaves: &'l [Leaf], now: Timestamp) -> Self {
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
             {root}/tls/live/shop/privkey.pem >{root}/loaded\"\n[[certificate]]\nname = \"shop\""
        );
        fs::create_dir(folder.path().join("state")).unwrap();
        Self {
            config: Config::parse(&config).unwrap(),
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
        match damage {
            Damage::Remove(file) => drop(fs::remove_file(live.join(file))),
            Damage::Empty(file) if live.join(file).exists() => drop(fs::write(live.join(file), "")),
            Damage::Swap(file) if live.join(file).exists() => drop(fs::write(live.join(file), &self.leaves[0].key)),
            Damage::OpenToAll(file) => {
                let _ = fs::set_permissions(live.join(file), fs::Permissions::from_mode(0o666));
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
                if let Some(other) = other.filter(|_| live.is_symlink()) {
                    fs::remove_file(&live).unwrap();
                    symlink(
                        format!("../versions/shop/{}", other.file_name().to_str().unwrap()),
                        live,
                    )
                    .unwrap();
                }
            }
            Damage::Empty(_) | Damage::Swap(_) => {}
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
        let away = fault == Fault::BucketAway;
        let source = Source::Folder(if away {
            "/nowhere".into()
        } else {
            self.depot.path().to_owned()
        });

        self.run_from(&source, fault).await;
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
        let Ok(work) = Work::open(&self.config, wanted, source, errand, self.now) else {
            panic!("it cannot be opened");
        };
        let mut job = prepare(work).await;
        if fault == Fault::AfterPreparing {
            return;
        }

        let budget = Budget::of_run();
        let mut failures = Failures::new();
        if job.plan == Plan::Install {
            let work = &mut job.work;
            match fault {
                Fault::AfterBeginning => return drop(work.begin()),
                Fault::AfterSwitching => return drop(work.begin().and_then(|_| work.switch())),
                Fault::AfterReloading => {
                    work.begin().and_then(|_| work.switch()).unwrap();
                    return self.restart();
                }
                _ => failures = install(vec![work], budget, Journal::open()).await,
            }
        } else if job.work.load_restored(budget).await.is_err() {
            return;
        }
        if fault == Fault::AfterInstalling {
            return;
        }
        report(&mut job, &failures).await;
    }

    async fn assert_all_is_well(&self, history: &str) {
        let Some(current) = self.published.last() else { return };
        let live = |file| fs::read(self.live().join(file)).unwrap_or_default();
        for file in FILES {
            let key = file_key("shop", &current.facts.version, file);
            let expected = fs::read(self.depot.object(&key)).unwrap();
            assert!(live(file) == expected, "{file} is not as it was published: {history}");
        }
        let mode = fs::metadata(self.live().join(PRIVKEY)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{history}");

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

async fn report(job: &mut Job<'_>, failures: &Failures<'_>) {
    let outcome = job.outcome(failures);
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
        let _ = job.work.report(receipt, &owner).await;
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
    let number: u64 = std::env::var("HISTORIES").map_or(120, |number| number.parse().unwrap());
    for seed in first..first + number {
        let mut random = StdRng::seed_from_u64(seed);
        let mut host = Host::new(&leaves, now);
        let mut history = vec![Event::Publish];
        for _ in 0..random.random_range(2..9) {
            history.push(*EVENTS.choose(&mut random).unwrap());
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
