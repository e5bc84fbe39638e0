//! A host with a real nginx, a depot that it pulls from, and what a run said.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

use neverlapse::bucket::receipt::{Receipt, Stage};
use neverlapse::bucket::version::Current;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::depot::Depot;
use neverlapse_tests::pki::{Authority, Leaf};
use neverlapse_tests::webhost::WebHost;
use serde_json::Value;
use time::Duration;
use tokio::process::Command;

pub(crate) const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");

pub(crate) const NAME: &str = "shop.test";

/// A host with nginx, and where its certificates come from.
pub(crate) struct Bench {
    pub(crate) authority: Authority,
    pub(crate) depot: Depot,
    pub(crate) host: WebHost,
}

impl Bench {
    /// A host that serves the first version of its certificate.
    pub(crate) async fn open() -> (Self, Current) {
        let mut bench = Self::closed(&[NAME]);
        let first = bench.publish(60);
        let ran = bench.pull().await;
        // Nothing serves yet, so nothing has been seen; what is there lets the server start.
        assert_eq!(ran.code, 2, "{ran:?}");
        bench.host.start().await.unwrap();
        let ran = bench.pull().await;
        assert_eq!(ran.code, 0, "{ran:?}");
        bench.serves(&first).await;
        (bench, first)
    }

    pub(crate) fn closed(names: &[&str]) -> Self {
        let bench = Self {
            authority: Authority::new().unwrap(),
            depot: Depot::new().unwrap(),
            host: WebHost::new(Ipv4Addr::LOCALHOST, names).unwrap(),
        };
        bench.configure("");
        bench
    }

    /// `more` goes into every certificate's table.
    pub(crate) fn configure(&self, more: &str) {
        let (test, reload) = (self.host.test_command(), self.host.reload_command());
        self.configure_with(&test, &reload, more);
    }

    pub(crate) fn configure_with(&self, test: &str, reload: &str, more: &str) {
        self.configure_within(30, test, reload, more);
    }

    /// Likewise, with a short wait where it is known that nothing will be served.
    pub(crate) fn configure_unserved(&self, test: &str, reload: &str, more: &str) {
        self.configure_within(5, test, reload, more);
    }

    pub(crate) fn configure_within(&self, seconds: u16, test: &str, reload: &str, more: &str) {
        let (folder, state) = (self.host.folder(), self.host.path().join("state"));
        let mut text = format!(
            "instance = \"web-1\"\nfolder = {folder:?}\nstate = {state:?}\nverify_timeout_seconds = {seconds}\n\
             test_command = {test:?}\nreload_command = {reload:?}\n"
        );
        for (name, address) in &self.host.places {
            text += &format!("[[certificate]]\nname = {name:?}\nverify = \"{address}\"\n{more}\n");
        }
        fs::write(self.config(), text).unwrap();
    }

    /// Nothing looks whether it is served.
    pub(crate) fn configure_unverified(&self, test: &str, reload: &str) {
        self.configure_with(test, reload, "");
        self.reconfigure(|text| {
            let lines = text.lines().filter(|line| !line.starts_with("verify = "));
            lines.collect::<Vec<_>>().join("\n")
        });
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.host.path().join("pull.toml")
    }

    pub(crate) fn leaf(&self, days: i64) -> Leaf {
        let now = Timestamp::now();
        self.authority
            .issue(
                &[NAME, "*.shop.test"],
                now - Duration::days(90 - days),
                now + Duration::days(days),
            )
            .unwrap()
    }

    pub(crate) fn publish(&mut self, days: i64) -> Current {
        let leaf = self.leaf(days);
        self.depot.publish(NAME, &leaf).unwrap()
    }

    /// The next version of each certificate that this host serves.
    pub(crate) fn publish_all(&mut self, days: i64) {
        let names: Vec<_> = self.host.places.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            self.publish_of(&name, days);
        }
    }

    pub(crate) fn publish_of(&mut self, name: &str, days: i64) -> Current {
        let end = Timestamp::now() + Duration::days(days);
        let leaf = self.authority.leaf(name, end).unwrap();
        self.depot.publish(name, &leaf).unwrap()
    }

    pub(crate) async fn pull(&self) -> Ran {
        self.pull_with(&[]).await
    }

    pub(crate) async fn pull_with(&self, more: &[&str]) -> Ran {
        run(self.command(Command::new(NEVERLAPSE)).args(more)).await
    }

    /// A run in which nothing goes wrong.
    pub(crate) async fn pulls(&self) -> Ran {
        let ran = self.pull().await;
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    }

    /// A run that cannot reach the source.
    pub(crate) async fn pull_from_nowhere(&self) -> Ran {
        let mut command = Command::new(NEVERLAPSE);
        command.args(["pull", "--from", "/nonexistent", "--config"]);
        run(command.arg(self.config())).await
    }

    pub(crate) fn command(&self, mut command: Command) -> Command {
        command
            .args(["pull", "--config"])
            .arg(self.config())
            .arg("--from")
            .arg(self.depot.path());
        command
    }

    pub(crate) fn receipt(&self) -> Receipt {
        self.receipt_of(NAME)
    }

    pub(crate) fn receipt_of(&self, name: &str) -> Receipt {
        self.depot.receipt(name, "web-1").unwrap()
    }

    #[track_caller]
    pub(crate) fn reported(&self, stage: Stage, version: &Current) {
        let receipt = self.receipt();
        let found = (receipt.stage, &receipt.version);
        assert_eq!(found, (stage, &version.facts.version), "{receipt:?}");
    }

    #[track_caller]
    pub(crate) fn reported_served(&self) {
        let receipt = self.receipt();
        assert_eq!((receipt.stage, &receipt.reason), (Stage::Served, &None), "{receipt:?}");
    }

    #[track_caller]
    pub(crate) fn reported_failed(&self, reason: &str) {
        let receipt = self.receipt();
        let is_reason = receipt.reason.as_ref().is_some_and(|found| found.contains(reason));
        assert!(receipt.stage == Stage::Failed && is_reason, "{reason}: {receipt:?}");
    }

    pub(crate) fn live(&self) -> PathBuf {
        self.host.folder().join("live").join(NAME)
    }

    /// What is live, as a version.
    pub(crate) fn live_version(&self) -> String {
        fs::read_link(self.live())
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.host.path().join("state")
    }

    /// Changes what was configured.
    pub(crate) fn reconfigure(&self, edit: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), edit(text)).unwrap();
    }

    /// The server's own reload, which is counted.
    pub(crate) fn logged_reload(&self) -> String {
        format!("{}; {}", self.log_of_reloads(), self.host.reload_command())
    }

    /// A reload that is counted and does nothing.
    pub(crate) fn log_of_reloads(&self) -> String {
        format!("echo reload >>{}", self.host.path().join("reloads").display())
    }

    pub(crate) fn reloads(&self) -> usize {
        let log = fs::read_to_string(self.host.path().join("reloads"));
        log.unwrap_or_default().lines().count()
    }

    /// Has the client remember something else.
    pub(crate) fn remember(&self, edit: impl FnOnce(&mut Value)) {
        let file = self.state().join("shop.test.json");
        let mut state = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        edit(&mut state);
        fs::write(file, state.to_string()).unwrap();
    }

    /// A test that the server's own answer to a version stands for: it passes while this one is
    /// live.
    pub(crate) fn passes_only(&self, current: &Current) -> String {
        let (live, test) = (self.live(), self.host.test_command());
        let version = &current.facts.version;
        format!(
            "case $(readlink {}) in */{version}) {test};; *) echo refused; exit 1;; esac",
            live.display()
        )
    }

    /// A test that passes only while that is live which is live now.
    pub(crate) fn refuses_what_is_new_of(&self, name: &str) -> String {
        let live = self.host.folder().join("live").join(name);
        let known = fs::read_link(&live).unwrap();
        format!("test \"$(readlink {})\" = {}", live.display(), known.display())
    }

    /// Every file below the folder with its content and mode, so that a test can tell whether
    /// anything was touched.
    pub(crate) fn everything(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let mut all = Vec::new();
        walk(&self.host.folder(), &mut all);
        all.sort();
        all
    }

    /// The server may take a moment to hand over, and then stays with it.
    pub(crate) async fn serves(&self, current: &Current) {
        self.host.serves(current).await.unwrap();
    }

    pub(crate) fn assert_keys_are_secret(&self) {
        for (path, mode, content) in self.everything() {
            let is_key = String::from_utf8_lossy(&content).contains("PRIVATE KEY");
            assert!(!is_key || mode & 0o077 == 0, "{} has mode {mode:o}", path.display());
        }
    }
}

fn walk(folder: &Path, all: &mut Vec<(PathBuf, u32, Vec<u8>)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            all.push((path.clone(), found.mode(), Vec::new()));
            walk(&path, all);
        } else if found.is_symlink() {
            all.push((
                path.clone(),
                0,
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            ));
        } else {
            all.push((path.clone(), found.mode(), fs::read(&path).unwrap()));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn says(&self, code: i32, expected: &str) {
        assert!(self.code == code && self.err.contains(expected), "{expected}: {self:?}");
    }
}

pub(crate) async fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.kill_on_drop(true).output().await.unwrap();
    let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(
        !out.contains("PRIVATE KEY") && !err.contains("PRIVATE KEY"),
        "a key is in the output"
    );
    Ran {
        code: status.code().unwrap_or(-1),
        out,
        err,
    }
}

/// From one number of hours from now to another, as a window.
pub(crate) fn window(from: u8, to: u8) -> String {
    let hour = Timestamp::now().utc().hour();
    let [from, to] = [from, to].map(|hours| (hour + hours) % 24);
    format!("window = \"{from:02}:00-{to:02}:00\"")
}

pub(crate) fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
