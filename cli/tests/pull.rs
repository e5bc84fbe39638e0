//! `neverlapse pull` on hosts with real nginx servers: what it installs, what it refuses, and what is left when it is killed.

use std::fs;
use std::iter::StepBy;
use std::net::Ipv4Addr;
use std::ops::RangeFrom;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use futures::future::join_all;
use neverlapse::bucket::receipt::{Receipt, Stage};
use neverlapse::bucket::version::{CERT, CHAIN, Current, FULLCHAIN, FileHash, PRIVKEY, file_key};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::depot::Depot;
use neverlapse_tests::pki::{Authority, Leaf};
use neverlapse_tests::process::eventually;
use neverlapse_tests::webhost::WebHost;
use serde_json::Value;
use time::Duration;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");
const NAME: &str = "shop.test";
const KEYSTORE: &str = "keystore.p12";

struct Bench {
    authority: Authority,
    depot: Depot,
    host: WebHost,
}

impl Bench {
    /// A host that serves the first version of its certificate.
    async fn open() -> (Self, Current) {
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

    fn closed(names: &[&str]) -> Self {
        let bench = Self {
            authority: Authority::new().unwrap(),
            depot: Depot::new().unwrap(),
            host: WebHost::new(Ipv4Addr::LOCALHOST, names).unwrap(),
        };
        bench.configure("");
        bench
    }

    /// `more` goes into every certificate's table.
    fn configure(&self, more: &str) {
        let (test, reload) = (self.host.test_command(), self.host.reload_command());
        self.configure_with(&test, &reload, more);
    }

    fn configure_with(&self, test: &str, reload: &str, more: &str) {
        self.configure_within(30, test, reload, more);
    }

    /// Likewise, with a short wait where it is known that nothing will be served.
    fn configure_unserved(&self, test: &str, reload: &str, more: &str) {
        self.configure_within(5, test, reload, more);
    }

    fn configure_within(&self, seconds: u16, test: &str, reload: &str, more: &str) {
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

    fn config(&self) -> PathBuf {
        self.host.path().join("pull.toml")
    }

    fn leaf(&self, days: i64) -> Leaf {
        let now = Timestamp::now();
        self.authority
            .issue(
                &[NAME, "*.shop.test"],
                now - Duration::days(90 - days),
                now + Duration::days(days),
            )
            .unwrap()
    }

    fn publish(&mut self, days: i64) -> Current {
        let leaf = self.leaf(days);
        self.depot.publish(NAME, &leaf).unwrap()
    }

    async fn pull(&self) -> Ran {
        self.pull_with(&[]).await
    }

    async fn pull_with(&self, more: &[&str]) -> Ran {
        run(self.command(Command::new(NEVERLAPSE)).args(more)).await
    }

    fn command(&self, mut command: Command) -> Command {
        command
            .args(["pull", "--config"])
            .arg(self.config())
            .arg("--from")
            .arg(self.depot.path());
        command
    }

    fn receipt(&self) -> Receipt {
        self.depot.receipt(NAME, "web-1").unwrap()
    }

    fn live(&self) -> PathBuf {
        self.host.folder().join("live").join(NAME)
    }

    /// What is live, as a version.
    fn live_version(&self) -> String {
        fs::read_link(self.live())
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn state(&self) -> PathBuf {
        self.host.path().join("state")
    }

    /// Has the client remember something else.
    fn remember(&self, edit: impl FnOnce(&mut Value)) {
        let file = self.state().join("shop.test.json");
        let mut state = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        edit(&mut state);
        fs::write(file, state.to_string()).unwrap();
    }

    /// A test that the server's own answer to a version stands for: it passes while this one is live.
    fn passes_only(&self, current: &Current) -> String {
        let (live, test) = (self.live(), self.host.test_command());
        let version = &current.facts.version;
        format!(
            "case $(readlink {}) in */{version}) {test};; *) echo refused; exit 1;; esac",
            live.display()
        )
    }

    /// Every file below the folder with its content and mode, so that a test can tell whether anything was touched.
    fn everything(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let mut all = Vec::new();
        walk(&self.host.folder(), &mut all);
        all.sort();
        all
    }

    /// The server may take a moment to hand over, and then stays with it.
    async fn serves(&self, current: &Current) {
        self.host.serves(current).await.unwrap();
    }

    /// Writes a password, and answers with the line that has a keystore made with it.
    fn password(&self, password: &str) -> String {
        let file = self.host.path().join("keystore.pass");
        let _ = fs::remove_file(&file);
        fs::write(&file, format!("{password}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        format!("pkcs12_password_file = {file:?}")
    }

    /// What OpenSSL finds in the keystore with a password.
    async fn keystore(&self, password: &str, what: &[&str]) -> Ran {
        let mut openssl = Command::new("openssl");
        openssl.args(["pkcs12", "-in"]).arg(self.live().join(KEYSTORE));
        let Output { status, stdout, stderr } = openssl
            .args(["-passin", &format!("pass:{password}")])
            .args(what)
            .output()
            .await
            .unwrap();
        Ran {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// It opens with the password and holds the leaf that lies beside it, with its key and its issuers.
    async fn assert_keystore(&self, password: &str) {
        let read = |file| fs::read_to_string(self.live().join(file)).unwrap();
        let der = |pem: &str| -> Vec<_> {
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .map(Result::unwrap)
                .collect()
        };
        let leaf = self.keystore(password, &["-nokeys", "-clcerts"]).await;
        assert!(
            leaf.code == 0 && leaf.out.contains(&format!("friendlyName: {NAME}\n")),
            "{leaf:?}"
        );
        assert_eq!(der(&leaf.out), der(&read(CERT)));
        let issuers = self.keystore(password, &["-nokeys", "-cacerts"]).await;
        assert_eq!(der(&issuers.out), der(&read(CHAIN)));
        let key = self.keystore(password, &["-nocerts", "-nodes"]).await;
        let (found, expected) = (
            PrivateKeyDer::from_pem_slice(key.out.as_bytes()).unwrap(),
            PrivateKeyDer::from_pem_slice(read(PRIVKEY).as_bytes()).unwrap(),
        );
        let public = |key| any_supported_type(key).unwrap().public_key().unwrap().to_vec();
        assert_eq!(public(&found), public(&expected));
    }

    fn assert_keys_are_secret(&self) {
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
struct Ran {
    code: i32,
    out: String,
    err: String,
}

async fn run(command: &mut Command) -> Ran {
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

#[tokio::test]
async fn a_new_version_is_installed_once_and_served() {
    let (mut bench, _) = Bench::open().await;
    let new = bench.publish(80);
    let ran = bench.pull_with(&["--dry-run"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out
            .contains(&format!("would install version {}", new.facts.version)),
        "{ran:?}"
    );
    assert_ne!(bench.host.served().await.unwrap(), new.facts.fingerprint);

    let ran = bench.pull().await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains(&format!("installed version {}", new.facts.version)),
        "{ran:?}"
    );
    bench.serves(&new).await;
    let receipt = bench.receipt();
    assert_eq!(
        (receipt.stage, &receipt.version, &receipt.instance[..]),
        (Stage::Served, &new.facts.version, "web-1")
    );
    assert_eq!(
        (receipt.sequence, receipt.not_after),
        (Some(new.sequence), Some(new.facts.not_after))
    );
    assert_eq!(
        (receipt.installed, receipt.reason, receipt.fingerprint),
        (None, None, new.facts.fingerprint)
    );
    for (file, mode) in [(CERT, 0o644), (CHAIN, 0o644), (FULLCHAIN, 0o644), (PRIVKEY, 0o600)] {
        assert_eq!(
            fs::metadata(bench.live().join(file)).unwrap().permissions().mode() & 0o777,
            mode,
            "{file}"
        );
    }
    bench.assert_keys_are_secret();

    // Nothing is new: nothing is reloaded, nothing reported.
    bench.configure_with("exit 1", "exit 1", "");
    let before = fs::metadata(bench.depot.object("receipts/shop.test/web-1.json"))
        .unwrap()
        .mtime_nsec();
    let ran = bench.pull().await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        fs::metadata(bench.depot.object("receipts/shop.test/web-1.json"))
            .unwrap()
            .mtime_nsec(),
        before
    );
}

#[tokio::test]
async fn a_failed_test_or_reload_leaves_the_old_one_and_is_tried_again() {
    let (mut bench, old) = Bench::open().await;
    let new = bench.publish(80);
    let (test, reload) = (bench.host.test_command(), bench.host.reload_command());
    for (test, reload, expected) in [
        (
            &*test,
            "echo sorry >&2; exit 1",
            "the reload failed: `echo sorry >&2; exit 1` ended with 1: sorry",
        ),
        (
            "echo broken; exit 3",
            &*reload,
            "the test failed: `echo broken; exit 3` ended with 3: broken",
        ),
        ("/bin/false", &*reload, "the test failed"),
        // The server was never told, so it goes on with the old one.
        (&*test, "true", "after the reload 127.0.0.1"),
    ] {
        bench.configure_unserved(test, reload, "");
        let ran = bench.pull_with(&["--now"]).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.err.contains(expected)
                && ran
                    .err
                    .contains(&format!("version {} stays installed", old.facts.version)),
            "{ran:?}"
        );
        bench.serves(&old).await;
        assert_eq!(bench.live_version(), old.facts.version);
        let receipt = bench.receipt();
        assert_eq!(
            (receipt.stage, &receipt.version, receipt.installed.as_ref()),
            (Stage::Failed, &new.facts.version, Some(&old.facts.version))
        );
        assert!(receipt.reason.unwrap().contains(expected));
        bench.host.could_start().await.unwrap();
    }
    // A configuration that is broken elsewhere, then repaired.
    bench.configure("");
    bench.host.configure("nonsense;").unwrap();
    let ran = bench.pull_with(&["--now"]).await;
    assert!(
        ran.code == 1 && ran.err.contains("unknown directive \"nonsense\""),
        "{ran:?}"
    );
    bench.host.configure("").unwrap();
    let ran = bench.pull_with(&["--now"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    bench.serves(&new).await;
    assert_eq!((bench.receipt().stage, bench.receipt().reason), (Stage::Served, None));
}

#[tokio::test]
async fn a_failed_reload_is_not_forgotten_when_the_bucket_is_away() {
    let (mut bench, _) = Bench::open().await;
    let new = bench.publish(80);
    bench.configure_with("true", "exit 1", "");
    assert_eq!(bench.pull().await.code, 1);
    bench.configure("");
    let away = bench.host.path().join("away");
    let nowhere = [
        "pull",
        "--config",
        bench.config().to_str().unwrap(),
        "--from",
        "/nonexistent",
    ]
    .map(str::to_owned);
    let ran = run(Command::new(NEVERLAPSE).args(nowhere)).await;
    assert_eq!(
        ran.code, 3,
        "the old is gone, the new is in, but nobody could ask: {ran:?}"
    );
    assert!(!away.exists(), "a place that is not there is not made");
    bench.serves(&new).await;
    assert_eq!(bench.pull().await.code, 0);
    assert_eq!(bench.receipt().stage, Stage::Served);
}

#[tokio::test]
async fn what_is_not_right_is_refused_and_nothing_is_touched() {
    let (mut bench, old) = Bench::open().await;
    let now = Timestamp::now();
    let (other, root) = (bench.leaf(70), bench.authority.root());
    let swap = |bench: &mut Bench, file: &'static str, content: &str| {
        let leaf = bench.leaf(80);
        let current = bench.depot.store(NAME, &leaf, false).unwrap();
        let mut manifest = bench.depot.manifest(&current).unwrap();
        bench
            .depot
            .write(&file_key(NAME, &current.facts.version, file), content.as_bytes())
            .unwrap();
        manifest.files.insert(file.to_owned(), FileHash::of(content.as_bytes()));
        bench.depot.vouch(&manifest).unwrap()
    };
    let mut cases: Vec<(Current, &str)> = vec![
        (
            swap(&mut bench, PRIVKEY, &other.key),
            "the private key does not belong to the certificate",
        ),
        (
            swap(&mut bench, PRIVKEY, &other.certificate),
            "privkey.pem is not what the client understands",
        ),
        (
            swap(&mut bench, CERT, &other.certificate),
            "fullchain.pem is not cert.pem and chain.pem",
        ),
        (
            swap(&mut bench, CHAIN, &root),
            "fullchain.pem is not cert.pem and chain.pem",
        ),
        (
            swap(&mut bench, CERT, ""),
            "cert.pem is not what the client understands: it holds 0 certificates",
        ),
    ];
    let leaf = bench.leaf(80);
    let truncated = bench.depot.store(NAME, &leaf, false).unwrap();
    bench
        .depot
        .write(
            &file_key(NAME, &truncated.facts.version, FULLCHAIN),
            &leaf.fullchain.as_bytes()[..900],
        )
        .unwrap();
    cases.push((truncated, "fullchain.pem is not the one that was published"));
    let swapped = bench.depot.store(NAME, &leaf, false).unwrap();
    bench
        .depot
        .write(
            &file_key(NAME, &swapped.facts.version, PRIVKEY),
            leaf.certificate.as_bytes(),
        )
        .unwrap();
    cases.push((swapped, "privkey.pem is not the one that was published"));
    let mut forged = bench.depot.store(NAME, &leaf, false).unwrap();
    forged.manifest_sha256 = "0".repeat(64);
    cases.push((forged, "manifest.json is not the one that current.json vouches for"));
    let mut lying = bench.depot.store(NAME, &leaf, false).unwrap();
    lying.facts.not_after = lying.facts.not_after + Duration::days(1);
    cases.push((lying, "current.json and manifest.json disagree"));
    let mut described_otherwise = bench.depot.store(NAME, &leaf, false).unwrap();
    let mut manifest = bench.depot.manifest(&described_otherwise).unwrap();
    manifest.facts.not_after = manifest.facts.not_after + Duration::days(1);
    described_otherwise = bench.depot.vouch(&manifest).unwrap();
    cases.push((described_otherwise, "its not_after differs"));
    let elsewhere = bench.authority.leaf("other.test", now + Duration::days(80)).unwrap();
    cases.push((
        bench.depot.store(NAME, &elsewhere, false).unwrap(),
        "it is not valid for shop.test",
    ));
    let early = bench
        .authority
        .issue(&[NAME], now + Duration::days(1), now + Duration::days(80))
        .unwrap();
    cases.push((
        bench.depot.store(NAME, &early, false).unwrap(),
        "it is not valid before",
    ));
    let late = bench.authority.leaf(NAME, now - Duration::days(1)).unwrap();
    cases.push((bench.depot.store(NAME, &late, false).unwrap(), "it expired on"));
    let stranger = Authority::new().unwrap().leaf(NAME, now + Duration::days(80)).unwrap();
    let issuer = leaf.fullchain.strip_prefix(&leaf.certificate).unwrap();
    let unlinked = Leaf {
        fullchain: format!("{}{issuer}", stranger.certificate),
        ..stranger
    };
    cases.push((
        bench.depot.store(NAME, &unlinked, false).unwrap(),
        "chain.pem does not lead from the certificate to its issuer",
    ));
    cases.push((
        bench.depot.store(NAME, &leaf, true).unwrap(),
        "it comes from a staging issuer",
    ));
    let mut foreign = bench.depot.store("other.test", &leaf, false).unwrap();
    foreign.facts.version.clone_from(&old.facts.version);
    let foreign_name = foreign.clone();
    let mut path = bench.depot.store(NAME, &leaf, false).unwrap();
    path.facts.version = "../../x".to_owned();
    cases.push((path, "version \"../../x\" cannot be a folder"));

    bench.configure("identifiers = [\"shop.test\"]");
    let before = bench.everything();
    for (current, expected) in cases {
        bench.depot.point(&current).unwrap();
        let ran = bench.pull().await;
        assert_eq!(ran.code, 1, "{expected}: {ran:?}");
        assert!(ran.err.contains(expected), "{expected}: {ran:?}");
        assert_eq!(bench.everything(), before, "{expected}: nothing is touched");
        bench.serves(&old).await;
        let receipt = bench.receipt();
        assert!(
            receipt.stage == Stage::Failed && receipt.reason.as_ref().unwrap().contains(expected),
            "{receipt:?}"
        );
    }
    // The pointer of another certificate in its place.
    bench
        .depot
        .write(
            "certificates/shop.test/current.json",
            &serde_json::to_vec(&foreign_name).unwrap(),
        )
        .unwrap();
    let ran = bench.pull().await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(bench.everything(), before);
    // And after all of that a good one is installed.
    let good = bench.publish(85);
    assert_eq!(bench.pull().await.code, 0);
    bench.serves(&good).await;
}

#[tokio::test]
async fn an_old_pointer_is_refused_and_a_rollback_is_installed() {
    let (mut bench, first) = Bench::open().await;
    let second = bench.publish(80);
    assert_eq!(bench.pull().await.code, 0);
    let before = bench.everything();
    bench.depot.point(&first).unwrap();
    let ran = bench.pull().await;
    assert!(
        ran.code == 1
            && ran
                .err
                .contains("out-of-date current.json (sequence 1, 2 is known here)"),
        "{ran:?}"
    );
    assert_eq!(bench.everything(), before);
    let mut twin = second.clone();
    twin.manifest_sha256 = "0".repeat(64);
    bench.depot.point(&twin).unwrap();
    let ran = bench.pull().await;
    assert!(
        ran.code == 1 && ran.err.contains("another version under sequence 2"),
        "{ran:?}"
    );
    bench.serves(&second).await;

    bench.depot.roll_back(&first).unwrap();
    let ran = bench.pull().await;
    assert_eq!(ran.code, 0, "{ran:?}");
    bench.serves(&first).await;
    assert_eq!(
        (bench.receipt().stage, bench.receipt().version),
        (Stage::Served, first.facts.version)
    );
}

#[tokio::test]
async fn several_certificates_take_one_reload_and_one_bad_one_does_not_hold_up_the_others() {
    let mut bench = Bench::closed(&[NAME, "b.test", "c.test"]);
    let now = Timestamp::now();
    let publish = |bench: &mut Bench, days| {
        for name in [NAME, "b.test", "c.test"] {
            let leaf = bench.authority.leaf(name, now + Duration::days(days)).unwrap();
            bench.depot.publish(name, &leaf).unwrap();
        }
    };
    publish(&mut bench, 60);
    bench.pull().await;
    bench.host.start().await.unwrap();
    let log = bench.host.path().join("reloads");
    let reload = format!("echo reload >> {}; {}", log.display(), bench.host.reload_command());
    let test = bench.host.test_command();
    bench.configure_with(&test, &reload, "");
    assert_eq!(bench.pull().await.code, 0);
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 1);
    // A test that rejects whatever is new of c.test.
    publish(&mut bench, 70);
    let known = fs::read_link(bench.host.folder().join("live/c.test")).unwrap();
    let picky = format!(
        "test \"$(readlink {}/live/c.test)\" = {} && {test}",
        bench.host.folder().display(),
        known.display()
    );
    bench.configure_with(&picky, &reload, "");
    let ran = bench.pull().await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let stage = |name: &str| bench.depot.receipt(name, "web-1").unwrap().stage;
    assert_eq!(
        [NAME, "b.test", "c.test"].map(stage),
        [Stage::Served, Stage::Served, Stage::Failed]
    );
}

#[tokio::test]
async fn trying_a_batch_one_by_one_forgot_that_the_bucket_was_away() {
    let mut bench = Bench::closed(&[NAME, "b.test"]);
    let publish = |bench: &mut Bench, days| {
        let leaf = bench.authority.leaf("b.test", Timestamp::now() + Duration::days(days));
        bench.depot.publish("b.test", &leaf.unwrap()).unwrap();
        bench.publish(days)
    };
    publish(&mut bench, 60);
    bench.pull().await;
    bench.host.start().await.unwrap();
    assert_eq!(bench.pull().await.code, 0);

    // Both are on the disk, and b.test is the one at fault.
    let new = publish(&mut bench, 80);
    bench.configure_with("true", "exit 1", "");
    assert_eq!(bench.pull().await.code, 1);
    let live = bench.host.folder().join("live/b.test");
    let known = fs::read_link(&live).unwrap();
    let picky = format!("test \"$(readlink {})\" = {}", live.display(), known.display());
    bench.configure_with(&picky, &bench.host.reload_command(), "");

    let mut command = Command::new(NEVERLAPSE);
    command.args(["pull", "--from", "/nonexistent", "--config"]);
    let ran = run(command.arg(bench.config())).await;
    assert!(
        ran.code == 3 && ran.err.contains("shop.test: cannot read /nonexistent"),
        "it is installed, but nobody could ask: {ran:?}"
    );
    assert!(ran.err.contains("b.test: the test failed"), "{ran:?}");
    bench.serves(&new).await;
}

#[tokio::test]
async fn outside_of_its_window_a_change_waits() {
    let (mut bench, old) = Bench::open().await;
    let hour = Timestamp::now().utc().hour();
    let closed = format!("window = \"{:02}:00-{:02}:00\"", (hour + 6) % 24, (hour + 8) % 24);
    bench.configure(&closed);
    let new = bench.publish(80);
    let ran = bench.pull().await;
    assert!(
        ran.code == 0 && ran.out.contains("is ready and waits for its window"),
        "{ran:?}"
    );
    bench.serves(&old).await;
    assert_eq!(
        (bench.receipt().stage, bench.receipt().installed),
        (Stage::Pulled, Some(old.facts.version))
    );
    bench.configure(&format!(
        "window = \"{:02}:00-{:02}:00\"",
        (hour + 23) % 24,
        (hour + 2) % 24
    ));
    assert_eq!(bench.pull().await.code, 0);
    bench.serves(&new).await;
}

#[tokio::test]
async fn a_closed_window_is_ignored_in_the_last_week() {
    let mut bench = Bench::closed(&[NAME]);
    bench.publish(5);
    bench.pull().await;
    bench.host.start().await.unwrap();
    assert_eq!(bench.pull().await.code, 0);
    let hour = Timestamp::now().utc().hour();
    bench.configure(&format!(
        "window = \"{:02}:00-{:02}:00\"",
        (hour + 6) % 24,
        (hour + 8) % 24
    ));
    let new = bench.publish(80);
    assert_eq!(bench.pull().await.code, 0);
    bench.serves(&new).await;
}

#[tokio::test]
async fn it_says_goodbye_and_is_back_with_the_next_run() {
    let mut bench = Bench::closed(&[NAME, "b.test"]);
    bench.publish(60);
    let leaf = bench
        .authority
        .leaf("b.test", Timestamp::now() + Duration::days(60))
        .unwrap();
    bench.depot.publish("b.test", &leaf).unwrap();
    bench.pull().await;
    let there = |bench: &Bench| [NAME, "b.test"].map(|name| bench.depot.receipt(name, "web-1").is_ok());
    assert_eq!(there(&bench), [true, true]);
    let ran = bench.pull_with(&["--leave"]).await;
    assert_eq!((ran.code, there(&bench)), (0, [false, false]), "{ran:?}");
    assert!(bench.live().join(PRIVKEY).exists(), "what is installed stays");
    bench.pull().await;
    assert_eq!(there(&bench), [true, true]);

    // Nor is anybody to wait for a certificate that is no longer wanted here.
    bench.host.places.pop();
    bench.configure("");
    let ran = bench.pull().await;
    assert!(ran.out.contains("b.test: is no longer in the configuration"), "{ran:?}");
    assert_eq!(there(&bench), [true, false]);
}

#[tokio::test]
async fn two_runs_do_not_meet() {
    let (bench, _) = Bench::open().await;
    let mut holder = Command::new("flock")
        .arg(bench.host.path().join("state/lock"))
        .args(["sh", "-c", "echo held; read -r _"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    tokio::io::AsyncReadExt::read_exact(holder.stdout.as_mut().unwrap(), &mut said)
        .await
        .unwrap();
    let ran = bench.pull().await;
    assert!(ran.code == 3 && ran.err.contains("another run is at work"), "{ran:?}");

    // A goodbye waits for it instead.
    let trace = bench.host.path().join("trace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-e", "trace=flock", "-o"])
        .arg(&trace)
        .arg(NEVERLAPSE);
    let mut leave = bench.command(strace);
    let end = async {
        eventually("a lock that is refused", async || {
            let refused = fs::read_to_string(&trace).unwrap_or_default().contains("EAGAIN");
            Ok(refused.then_some(()))
        })
        .await
        .unwrap();
        drop(holder.stdin.take());
    };
    let (ran, ()) = tokio::join!(run(leave.arg("--leave")), end);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[tokio::test]
async fn a_change_of_the_layout_is_an_installation() {
    let (bench, version) = Bench::open().await;
    bench.configure("combined = true\nkey_mode = \"0640\"\ngroup = \"0\"");
    // Without the right to give files away there is nothing to be shown here.
    if fs::metadata(bench.host.folder()).unwrap().uid() != 0 {
        bench.configure("combined = true\nkey_mode = \"0640\"");
    }
    assert_eq!(bench.pull().await.code, 0);
    let combined = fs::read_to_string(bench.live().join("combined.pem")).unwrap();
    assert!(combined.contains("BEGIN CERTIFICATE") && combined.contains("PRIVATE KEY"));
    assert_eq!(
        fs::metadata(bench.live().join("combined.pem")).unwrap().mode() & 0o777,
        0o640
    );
    bench.serves(&version).await;
    assert_eq!(bench.pull().await.code, 0);
}

#[tokio::test]
async fn a_keystore_goes_live_with_its_pair_and_follows_its_password() {
    let (mut bench, first) = Bench::open().await;
    // Writes down what it is told, and how.
    let (bin, log) = (bench.host.path().join("bin"), bench.host.path().join("openssl.log"));
    fs::create_dir(&bin).unwrap();
    let path = std::env::var("PATH").unwrap();
    let spy = format!(
        "#!/bin/sh\n{{ echo \"$@\"; env; }} >> {}\nPATH={path:?} exec openssl \"$@\"\n",
        log.display()
    );
    fs::write(bin.join("openssl"), spy).unwrap();
    fs::set_permissions(bin.join("openssl"), fs::Permissions::from_mode(0o755)).unwrap();
    let pull = async || {
        let mut command = Command::new(NEVERLAPSE);
        command.env("PATH", format!("{}:{path}", bin.display()));
        let ran = run(&mut bench.command(command)).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let told = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        told
    };

    bench.configure(&bench.password("corr$ct horse"));
    let told = pull().await;
    assert!(told.contains("pkcs12 -export"), "{told}");
    assert!(
        !told.contains("horse"),
        "the password is an argument or in the environment: {told}"
    );
    bench.assert_keystore("corr$ct horse").await;
    assert_eq!(fs::metadata(bench.live().join(KEYSTORE)).unwrap().mode() & 0o777, 0o600);
    bench.serves(&first).await;

    // Nothing is new: it is looked at, and neither made again nor installed.
    let before = bench.everything();
    let told = pull().await;
    assert!(told.contains("pkcs12 -nodes") && !told.contains("-export"), "{told}");
    assert_eq!(bench.everything(), before);

    bench.password("another");
    assert!(pull().await.contains("-export"));
    bench.assert_keystore("another").await;
    assert_ne!(bench.keystore("corr$ct horse", &["-noout"]).await.code, 0);
    let before = bench.everything();
    assert!(!pull().await.contains("-export"));
    assert_eq!(bench.everything(), before);

    // One that is damaged, or gone, is made again.
    fs::write(bench.live().join(KEYSTORE), "no keystore").unwrap();
    assert!(pull().await.contains("-export"));
    bench.assert_keystore("another").await;
    fs::remove_file(bench.live().join(KEYSTORE)).unwrap();
    assert!(pull().await.contains("-export"));
    bench.assert_keystore("another").await;

    // What waits for its test is made once.
    let leaf = bench.leaf(80);
    let new = bench.depot.publish(NAME, &leaf).unwrap();
    bench.configure_with("exit 1", "true", &bench.password("another"));
    let mut made = Vec::new();
    for _ in 0..2 {
        assert_eq!(bench.pull_with(&["--now"]).await.code, 1);
        let of_new = |(path, ..): &(PathBuf, u32, Vec<u8>)| {
            path.to_string_lossy().contains(&new.facts.version) && path.ends_with(KEYSTORE)
        };
        made.push(bench.everything().into_iter().filter(of_new).collect::<Vec<_>>());
    }
    assert!(made[0].len() == 1 && made[0] == made[1], "{made:?}");
    bench.assert_keystore("another").await;
    bench.configure(&bench.password("another"));
    let ran = bench.pull_with(&["--now"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    bench.assert_keystore("another").await;
    bench.serves(&new).await;
    bench.assert_keys_are_secret();
}

#[tokio::test]
async fn a_keystore_that_cannot_be_made_is_told_and_nothing_is_touched() {
    let (mut bench, old) = Bench::open().await;
    let line = bench.password("one");
    bench.configure(&line);
    assert_eq!(bench.pull().await.code, 0);
    let new = bench.publish(80);
    let before = bench.everything();
    let file = bench.host.path().join("keystore.pass");
    let refused = async |expected: &str, path: Option<&Path>| {
        for more in [&["--dry-run"][..], &[]] {
            let mut command = Command::new(NEVERLAPSE);
            if let Some(path) = path {
                command.env("PATH", path);
            }
            let ran = run(bench.command(command).args(more)).await;
            assert!(ran.code == 1 && ran.err.contains(expected), "{expected}: {ran:?}");
            assert!(!ran.err.contains("hunter2"), "the password is told: {ran:?}");
            assert_eq!(bench.everything(), before, "{expected}");
        }
        let receipt = bench.receipt();
        assert_eq!(receipt.stage, Stage::Failed);
        assert!(receipt.reason.unwrap().contains(expected));
        bench.serves(&old).await;
    };
    let accepted = "(expected a file of root of mode 0600 or 0400 with one line of printable ASCII)";
    let characters = "it has more than one line, or characters that are not printable ASCII";
    let long = "hunter2".repeat(150);
    for (content, mode, expected) in [
        ("hunter2\n", 0o644, "it has mode 0644"),
        ("hunter2\n", 0o640, "it has mode 0640"),
        ("", 0o600, "it is empty"),
        ("\n", 0o600, "it is empty"),
        ("hunter2\nhunter2\n", 0o600, characters),
        ("hunter2\r\n", 0o600, characters),
        ("hunter2ü\n", 0o400, characters),
        (&*long, 0o600, "its line is longer than 1000 bytes"),
    ] {
        let _ = fs::remove_file(&file);
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        refused(&format!("pkcs12_password_file = {file:?}: {expected} {accepted}"), None).await;
    }
    let elsewhere = bench.host.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    refused("it cannot be opened: No such file or directory", None).await;
    symlink(&elsewhere, &file).unwrap();
    refused("it cannot be opened: Too many levels of symbolic links", None).await;
    bench.password("one");
    let folder = fs::metadata(bench.host.path()).unwrap().permissions();
    fs::set_permissions(bench.host.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let ran = bench.pull().await;
    assert!(ran.err.contains("can be written by others (mode 777)"), "{ran:?}");
    fs::set_permissions(bench.host.path(), folder).unwrap();

    let empty = bench.host.path().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(
        "keystore.p12 needs the program openssl, which is not on the PATH; install openssl, or take pkcs12_password_file out",
        Some(&empty),
    )
    .await;
    // There, and of no use: what it says is told, and no half of a version stays.
    fs::write(empty.join("openssl"), "#!/bin/sh\necho no such algorithm >&2; exit 1\n").unwrap();
    fs::set_permissions(empty.join("openssl"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(NEVERLAPSE);
    let ran = run(&mut bench.command({
        command.env("PATH", &empty);
        command
    }))
    .await;
    assert!(
        ran.code == 1 && ran.err.contains("cannot make keystore.p12: `openssl pkcs12 -export "),
        "{ran:?}"
    );
    assert!(ran.err.contains("ended with 1: no such algorithm"), "{ran:?}");
    assert_eq!(bench.everything(), before);

    assert_eq!(bench.pull().await.code, 0);
    bench.assert_keystore("one").await;
    bench.serves(&new).await;
}

#[tokio::test]
async fn symlinks_and_folders_of_others_are_refused() {
    let mut bench = Bench::closed(&[NAME]);
    bench.publish(60);
    let (folder, trap) = (bench.host.folder(), bench.host.path().join("trap"));
    fs::create_dir(&trap).unwrap();
    for planted in ["live", "versions", "versions/shop.test"] {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join(planted).parent().unwrap()).unwrap();
        symlink(&trap, folder.join(planted)).unwrap();
        let ran = bench.pull().await;
        assert!(
            ran.code == 3 && ran.err.contains("a symlink in its place is refused"),
            "{planted}: {ran:?}"
        );
        assert_eq!(fs::read_dir(&trap).unwrap().count(), 0, "{planted}");
    }
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir_all(folder.join("versions")).unwrap();
    fs::set_permissions(folder.join("versions"), fs::Permissions::from_mode(0o777)).unwrap();
    let ran = bench.pull().await;
    assert!(
        ran.code == 3
            && ran
                .err
                .contains("versions can be written by others (mode 777); chmod go-w it"),
        "{ran:?}"
    );
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir_all(bench.live()).unwrap();
    let ran = bench.pull().await;
    assert!(
        ran.code == 3 && ran.err.contains("is there and is no symlink of ours; move it away"),
        "{ran:?}"
    );
}

/// Every system call that changes something on the disk.
const CHANGES: [&str; 8] = [
    "mkdirat",
    "fchmod",
    "write",
    "fsync",
    "rename",
    "renameat",
    "symlinkat",
    "unlinkat",
];

/// Runs it under strace, which does something to the n-th of a kind of system call; answers whether it came so far.
async fn injected(bench: &Bench, call: &str, what: &str, nth: usize) -> Option<Ran> {
    let log = bench.host.path().join("strace");
    let mut command = Command::new("strace");
    // "?": not every processor has every call. Only the first thread changes anything, so the commands that it starts are left alone.
    command
        .args(["-qq", "-o"])
        .arg(&log)
        .args(["-e", &format!("trace=?{call}")]);
    command
        .args(["-e", &format!("inject=?{call}:{what}:when={nth}")])
        .arg(NEVERLAPSE);
    let ran = run(&mut bench.command(command)).await;
    let calls = fs::read_to_string(&log).expect("strace is installed (apt-get install strace)");
    (calls.lines().filter(|line| line.starts_with(call)).count() >= nth).then_some(ran)
}

/// The calls of a run, with the paths that they are about.
async fn traced(bench: &Bench, calls: &str) -> Vec<String> {
    let log = bench.host.path().join("strace");
    let mut command = Command::new("strace");
    command
        .args(["-qq", "-y", "-o"])
        .arg(&log)
        .args(["-e", calls])
        .arg(NEVERLAPSE);
    let ran = run(&mut bench.command(command)).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let calls = fs::read_to_string(&log).unwrap();
    calls.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_goes_live_is_on_the_disk_and_no_key_was_ever_open_to_others() {
    let (mut bench, _) = Bench::open().await;
    bench.configure(&format!("combined = true\n{}", bench.password("one")));
    let new = bench.publish(80);
    let calls = traced(&bench, "trace=?openat,?fchmod,?fsync,?renameat").await;
    let at = |what: &dyn Fn(&&String) -> bool| calls.iter().position(|call| what(&call));
    let live =
        at(&|call| call.starts_with("renameat") && call.contains("\".shop.test.next\"")).expect("it is switched");
    let stored = at(&|call| call.starts_with("renameat") && call.contains(&format!(".{}", new.facts.version)));
    let stored = stored.expect("the folder gets its name");
    for file in [CERT, CHAIN, FULLCHAIN, PRIVKEY, "combined.pem", KEYSTORE] {
        let synced = at(&|call| call.starts_with("fsync") && call.contains(&format!("/{file}>")));
        assert!(synced.is_some_and(|synced| synced < stored), "{file}: {calls:#?}");
    }
    let synced = |folder: &str, from: usize| {
        let mut later = calls[from..].iter();
        later.any(|call| call.starts_with("fsync") && call.contains(folder))
    };
    assert!(
        stored < live && synced("/versions/shop.test>", stored) && synced("/live>", live),
        "{calls:#?}"
    );
    for key in [PRIVKEY, "combined.pem", KEYSTORE] {
        let of_key: Vec<_> = calls.iter().filter(|call| call.contains(key)).collect();
        let made = of_key.iter().filter(|call| call.contains("O_CREAT"));
        assert!(
            made.clone().count() == 1
                && made
                    .clone()
                    .all(|call| call.contains("O_EXCL") && call.contains("0600")),
            "{of_key:#?}"
        );
        let opened = of_key.iter().filter(|call| call.starts_with("fchmod"));
        assert!(
            opened.clone().count() > 0 && opened.clone().all(|call| call.contains(", 0600)")),
            "{of_key:#?}"
        );
    }
}

/// Sums up what every call of these does, each on benches of its own: a run waits most of its time, for the server to
/// settle. The first of the benches takes the first call of that name, the fourth one and so on.
async fn side_by_side<T: Future<Output = usize>>(
    calls: &[&'static str],
    at_each: impl Fn(&'static str, StepBy<RangeFrom<usize>>) -> T,
) -> usize {
    let benches = calls
        .iter()
        .flat_map(|&call| (1..=BENCHES).map(move |first| (call, (first..).step_by(BENCHES))));
    let counts = join_all(benches.map(|(call, turns)| at_each(call, turns))).await;
    counts.into_iter().sum()
}

/// For each kind of call.
const BENCHES: usize = 3;

#[tokio::test]
async fn whenever_it_is_killed_the_server_can_start_and_the_next_run_finishes() {
    let kills = side_by_side(&CHANGES, killed_at).await;

    assert!(kills > 20, "{kills} kills are fewer than an installation has steps");
}

/// Kills the client at these calls of this name, one after the other, until a run ends before it; says how often it was
/// killed.
async fn killed_at(call: &str, turns: impl Iterator<Item = usize>) -> usize {
    let (mut bench, mut before) = Bench::open().await;
    let mut kills = 0;
    for nth in turns {
        let new = bench.publish(80);
        let ran = injected(&bench, call, "signal=KILL", nth).await;

        bench
            .host
            .could_start()
            .await
            .unwrap_or_else(|error| panic!("{call} {nth}: {error:#}"));
        bench.assert_keys_are_secret();
        let served = bench.host.served().await.unwrap();
        assert!(
            [&before, &new]
                .iter()
                .any(|version| version.facts.fingerprint == served),
            "{call} {nth}"
        );

        let again = bench.pull().await;
        assert_eq!(again.code, 0, "{call} {nth}: {again:?}");
        bench.serves(&new).await;
        assert_eq!(
            (bench.receipt().stage, bench.receipt().version),
            (Stage::Served, new.facts.version.clone()),
            "{call} {nth}"
        );
        let left: Vec<_> = bench
            .everything()
            .into_iter()
            .filter(|(path, ..)| {
                [".new", ".back", ".next"]
                    .iter()
                    .any(|end| path.to_string_lossy().ends_with(end))
            })
            .collect();
        assert_eq!(left, [], "{call} {nth}");

        before = new;
        match ran {
            Some(_) => kills += 1,
            None => break,
        }
    }
    kills
}

#[tokio::test]
async fn whenever_it_is_killed_a_keystore_belongs_to_the_key_beside_it() {
    let kills = side_by_side(&["fsync", "renameat", "unlinkat"], keystore_killed_at).await;

    assert!(kills > 10, "{kills} kills are fewer than an installation has steps");
}

async fn keystore_killed_at(call: &str, turns: impl Iterator<Item = usize>) -> usize {
    let (mut bench, _) = Bench::open().await;
    let mut before = "password-0".to_owned();
    let line = bench.password(&before);
    bench.configure(&line);
    assert_eq!(bench.pull().await.code, 0);

    let mut kills = 0;
    for nth in turns {
        // A new password alone is an installation of the same version.
        if nth % 2 == 0 {
            bench.publish(80);
        }
        let password = format!("password-{call}-{nth}");
        bench.password(&password);
        let ran = injected(&bench, call, "signal=KILL", nth).await;
        let is_new = bench.keystore(&password, &["-noout"]).await.code == 0;
        bench.assert_keystore(if is_new { &password } else { &before }).await;

        let again = bench.pull().await;
        assert_eq!(again.code, 0, "{call} {nth}: {again:?}");
        bench.assert_keystore(&password).await;
        bench.assert_keys_are_secret();

        before = password;
        match ran {
            Some(_) => kills += 1,
            None => break,
        }
    }
    kills
}

#[tokio::test]
async fn a_disk_that_is_full_at_any_step_leaves_one_that_serves() {
    let calls = ["mkdirat", "fsync", "rename", "renameat", "symlinkat"];
    let failures = side_by_side(&calls, full_at).await;

    assert!(failures > 5, "only {failures} failures were seen");
}

/// Likewise, says how often the client failed.
async fn full_at(call: &str, turns: impl Iterator<Item = usize>) -> usize {
    let (mut bench, mut before) = Bench::open().await;
    let mut failures = 0;
    for nth in turns {
        let new = bench.publish(80);
        let ran = injected(&bench, call, "error=ENOSPC", nth).await;
        bench
            .host
            .could_start()
            .await
            .unwrap_or_else(|error| panic!("{call} {nth}: {error:#}"));
        bench.assert_keys_are_secret();
        let served = bench.host.served().await.unwrap();
        assert!(
            [&before, &new]
                .iter()
                .any(|version| version.facts.fingerprint == served),
            "{call} {nth}"
        );
        // The one before the last went live when only the state could not be written.
        let live = bench.live_version();
        assert!(
            [&before, &new].iter().any(|version| version.facts.version == live),
            "{call} {nth}: {live} is live"
        );

        assert_eq!(bench.pull().await.code, 0, "{call} {nth}");
        assert!(
            !bench.host.folder().join("live/.shop.test.back").is_symlink(),
            "{call} {nth}"
        );
        bench.serves(&new).await;

        before = new;
        match ran {
            Some(ran) if ran.code != 0 => failures += 1,
            Some(_) => {}
            None => break,
        }
    }
    failures
}

#[tokio::test]
async fn where_no_file_may_grow_the_old_one_is_served() {
    let (mut bench, before) = Bench::open().await;
    bench.publish(80);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", NEVERLAPSE]);

    let ran = run(&mut bench.command(shell)).await;

    assert!(ran.code == 1 && ran.err.contains("cannot write"), "{ran:?}");
    bench.serves(&before).await;
    assert_eq!(bench.pull().await.code, 0);
}

/// A host that serves a certificate which has just expired, next to one that has not.
///
/// It must be installed and served before it expires. Where that took too long, everything starts over with twice the
/// lifetime.
async fn with_an_expired_one() -> (Bench, Current) {
    for seconds in [20, 40, 80, 160] {
        let mut bench = Bench::closed(&[NAME, "b.test"]);
        let end = Timestamp::now() + Duration::seconds(seconds);
        let old = bench.authority.issue(&[NAME], end - Duration::days(60), end).unwrap();
        let old = bench.depot.publish(NAME, &old).unwrap();
        publish_other(&mut bench, 60);

        bench.pull().await;
        let started = bench.host.start().await;
        let ran = bench.pull().await;
        if Timestamp::now() > end {
            continue;
        }
        started.unwrap();
        assert_eq!(ran.code, 0, "{ran:?}");

        while Timestamp::now() <= end + Duration::seconds(1) {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        return (bench, old);
    }
    panic!("two runs and the start of a server took minutes");
}

fn publish_other(bench: &mut Bench, days: i64) -> Current {
    let end = Timestamp::now() + Duration::days(days);
    let leaf = bench.authority.leaf("b.test", end).unwrap();
    bench.depot.publish("b.test", &leaf).unwrap()
}

#[tokio::test]
async fn a_refused_version_stayed_live_once_the_old_one_had_expired() {
    let (mut bench, old) = with_an_expired_one().await;
    let new = bench.publish(80);
    let other = publish_other(&mut bench, 80);

    let reload = bench.host.reload_command();
    bench.configure_with(&bench.passes_only(&old), &reload, "");
    let ran = bench.pull().await;
    assert!(ran.code == 2 && ran.err.contains("the test failed"), "{ran:?}");
    assert_eq!(bench.live_version(), old.facts.version, "the server can start again");
    let of_other = bench.depot.receipt("b.test", "web-1").unwrap();
    assert_eq!((of_other.stage, of_other.version), (Stage::Served, other.facts.version));
    bench.configure_with("true", "exit 1", "");
    assert_eq!(bench.pull().await.code, 2);
    assert_eq!(
        bench.live_version(),
        old.facts.version,
        "nor after a reload that failed"
    );

    // When only nobody sees it, it is better than one that has expired.
    bench.configure_unserved("true", "true", "");
    let ran = bench.pull().await;
    assert!(ran.code == 2 && ran.err.contains("does not serve it"), "{ran:?}");
    assert_eq!(bench.live_version(), new.facts.version);
    bench.configure("");
    assert_eq!(bench.pull().await.code, 0);
    bench.serves(&new).await;
}

#[tokio::test]
async fn a_group_could_not_reach_its_key_under_the_units_umask() {
    let mut bench = Bench::closed(&[NAME]);
    // Without the right to give files away there is nothing to be shown here.
    if fs::metadata(bench.host.path()).unwrap().uid() != 0 {
        return;
    }
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    chmod(bench.host.path(), 0o755);
    bench.configure("group = \"65534\"");
    bench.publish(60);
    let pull = async || {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 077; exec \"$@\"", "sh", NEVERLAPSE]);
        run(&mut bench.command(shell)).await
    };
    let key = bench.live().join(PRIVKEY);
    let can_read = async |id: u32| {
        let mut command = Command::new("setpriv");
        command.args([
            &format!("--reuid={id}"),
            &format!("--regid={id}"),
            "--clear-groups",
            "cat",
        ]);
        let read = command.arg(&key).output().await.unwrap();
        String::from_utf8(read.stdout).unwrap().contains("PRIVATE KEY")
    };
    pull().await;
    assert_eq!((can_read(65_534).await, can_read(65_533).await), (true, false));
    // What earlier versions left behind is mended.
    for folder in ["live", "versions", "versions/shop.test"] {
        chmod(&bench.host.folder().join(folder), 0o700);
    }
    assert!(!can_read(65_534).await);
    pull().await;
    assert_eq!((can_read(65_534).await, can_read(65_533).await), (true, false));
}

#[tokio::test]
async fn a_server_that_was_just_restarting_was_reloaded() {
    let (mut bench, version) = Bench::open().await;
    bench.configure_with("exit 1", "exit 1", "");
    bench.host.stop();
    let mut command = bench.command(Command::new(NEVERLAPSE));
    let restart = async {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        bench.host.start().await.unwrap();
    };
    let (ran, ()) = tokio::join!(run(&mut command), restart);
    assert_eq!(ran.code, 0, "{ran:?}");
    bench.serves(&version).await;
}

#[tokio::test]
async fn a_server_that_is_down_was_reloaded_outside_of_the_window() {
    let (mut bench, version) = Bench::open().await;
    let hour = Timestamp::now().utc().hour();
    let closed = format!("window = \"{:02}:00-{:02}:00\"", (hour + 6) % 24, (hour + 8) % 24);
    let log = bench.host.path().join("reloads");
    bench.configure_unserved("true", &format!("echo reload >> {}", log.display()), &closed);
    bench.host.stop();
    let ran = bench.pull().await;
    assert!(
        ran.code == 1 && ran.err.contains("no TCP connection") && ran.err.contains("tried again in its window"),
        "{ran:?}"
    );
    assert!(!log.exists());
    let receipt = bench.receipt();
    assert_eq!((receipt.stage, receipt.version), (Stage::Failed, version.facts.version));
    assert!(receipt.reason.unwrap().contains("no TCP connection"));
    assert_eq!(bench.pull_with(&["--now"]).await.code, 1);
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        "reload\n",
        "once, and not again for the same files"
    );
    // It is back by itself: nothing is left to be done.
    bench.host.start().await.unwrap();
    assert_eq!(bench.pull().await.code, 0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "reload\n");
    assert_eq!(bench.receipt().stage, Stage::Served);
}

#[tokio::test]
async fn telling_a_server_again_removed_the_version_before() {
    let (mut bench, old) = Bench::open().await;
    let new = bench.publish(80);
    assert_eq!(bench.pull().await.code, 0);
    bench.serves(&new).await;
    // Somebody had the server load the old one.
    let point = |version: &Current| {
        fs::remove_file(bench.live()).unwrap();
        symlink(format!("../versions/shop.test/{}", version.facts.version), bench.live()).unwrap();
    };
    point(&old);
    run(Command::new("sh").args(["-c", &bench.host.reload_command()])).await;
    bench.serves(&old).await;
    point(&new);
    // It waits for the server to show it by itself, and reloads it then.
    let (test, reload) = (bench.host.test_command(), bench.host.reload_command());
    bench.configure_within(10, &test, &reload, "");
    assert_eq!(bench.pull().await.code, 0);
    bench.serves(&new).await;
    for version in [old, new] {
        let folder = bench
            .host
            .folder()
            .join("versions/shop.test")
            .join(version.facts.version);
        assert!(folder.exists(), "{}", folder.display());
    }
}

#[tokio::test]
async fn what_failed_three_times_waits_and_is_not_forgotten() {
    let (mut bench, old) = Bench::open().await;
    let new = bench.publish(80);
    let log = bench.host.path().join("reloads");
    bench.configure_with("true", &format!("echo reload >> {}; exit 1", log.display()), "");
    // Each try tells the server twice: of the new files, and that the old ones are back.
    let reloads = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    for tries in 1..=3 {
        assert_eq!(bench.pull().await.code, 1);
        assert_eq!(reloads(), 2 * tries);
    }
    let ran = bench.pull().await;
    assert!(
        ran.code == 1 && ran.err.contains("the reload failed") && ran.err.contains("tried again from"),
        "{ran:?}"
    );
    assert_eq!((reloads(), bench.live_version()), (6, old.facts.version));
    assert_eq!(
        (bench.receipt().stage, bench.receipt().version),
        (Stage::Failed, new.facts.version.clone())
    );
    bench.remember(|state| {
        let tried = state["pending"]["tried"].as_str().unwrap();
        let tried: Timestamp = tried.parse().unwrap();
        state["pending"]["tried"] = (tried - Duration::hours(2)).rfc3339().into();
    });
    assert_eq!((bench.pull().await.code, reloads()), (1, 8));
    assert_eq!((bench.pull().await.code, reloads()), (1, 8));
    bench.configure("");
    assert_eq!(bench.pull_with(&["--now"]).await.code, 0);
    bench.serves(&new).await;
}

/// Shows a certificate whatever its key is.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn a_server_that_cannot_use_its_key_counted_as_one_that_serves() {
    let mut bench = Bench::closed(&[NAME]);
    bench.configure_unserved("true", "true", "");
    let (leaf, other) = (bench.leaf(60), bench.leaf(60));
    bench.depot.publish(NAME, &leaf).unwrap();
    let chain = CertificateDer::pem_slice_iter(leaf.fullchain.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(other.key.as_bytes()).unwrap();
    let key = CertifiedKey::new(chain.unwrap(), any_supported_type(&key).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::new(key))));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(bench.host.places[0].1).await.unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let ran = bench.pull().await;
    assert!(
        ran.code == 2
            && ran
                .err
                .contains("shows it, but no handshake comes to its end: the TLS handshake failed"),
        "{ran:?}"
    );
    assert_eq!(bench.receipt().stage, Stage::Failed);
    serving.abort();
}

#[tokio::test]
async fn a_server_that_met_a_refused_version_at_its_start_was_never_told_of_the_old_one() {
    let (mut bench, old) = Bench::open().await;
    let new = bench.publish(80);
    // Killed between switch and test.
    bench.configure_with("kill -KILL $PPID", "true", "");
    assert_eq!(bench.pull().await.code, -1);
    assert_eq!(bench.live_version(), new.facts.version);
    let log = bench.host.path().join("reloads");
    bench.configure_with(
        &bench.passes_only(&old),
        &format!("echo reload >> {}", log.display()),
        "",
    );
    let ran = bench.pull().await;
    assert!(ran.code == 1 && ran.err.contains("the test failed"), "{ran:?}");
    assert_eq!(bench.live_version(), old.facts.version);
    assert_eq!(fs::read_to_string(&log).unwrap(), "reload\n");
    // From now on the server has what is live, and need not be told.
    assert_eq!(bench.pull().await.code, 1);
    assert_eq!(fs::read_to_string(&log).unwrap(), "reload\n");
}

#[tokio::test]
async fn a_state_folder_that_others_can_write_to_was_trusted() {
    let (bench, _) = Bench::open().await;
    let chmod = |mode| fs::set_permissions(bench.state(), fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o777);
    let ran = bench.pull().await;
    assert!(
        ran.code == 3 && ran.err.contains("state can be written by others (mode 777)"),
        "{ran:?}"
    );
    chmod(0o700);
    let file = bench.state().join("shop.test.json");
    let elsewhere = bench.host.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    let ran = bench.pull().await;
    assert!(
        ran.code == 3 && ran.err.contains("cannot read"),
        "a symlink is not followed: {ran:?}"
    );
    fs::rename(&elsewhere, &file).unwrap();
    bench.remember(|state| state["installed"]["folder"] = "../../elsewhere".into());
    let ran = bench.pull().await;
    assert!(
        ran.code == 3 && ran.err.contains("folder \"../../elsewhere\" is not one of ours"),
        "{ran:?}"
    );
    fs::remove_file(&file).unwrap();
    fs::remove_file(bench.state().join("lock")).unwrap();
    symlink(&elsewhere, bench.state().join("lock")).unwrap();
    let ran = bench.pull().await;
    assert!(ran.code == 3 && ran.err.contains("cannot open"), "{ran:?}");
    assert!(!elsewhere.exists());
}

#[tokio::test]
async fn a_clock_that_was_ahead_silenced_the_receipts() {
    let (bench, _) = Bench::open().await;
    for ahead in [&["at", "next_by"][..], &["since"]] {
        bench.remember(|state| {
            for time in ahead {
                state["receipt"][time] = "2099-01-01T00:00:00Z".into();
            }
        });
        fs::remove_file(bench.depot.object("receipts/shop.test/web-1.json")).unwrap();
        assert_eq!(bench.pull().await.code, 0);
        let (receipt, now) = (bench.receipt(), Timestamp::now());
        assert!(receipt.since <= now && receipt.at <= now, "{receipt:?}");
    }
}

#[tokio::test]
async fn the_receipt_about_a_refused_pointer_named_the_version_before() {
    let (mut bench, first) = Bench::open().await;
    let second = bench.publish(80);
    assert_eq!(bench.pull().await.code, 0);
    bench.depot.point(&first).unwrap();
    assert_eq!(bench.pull().await.code, 1);
    let receipt = bench.receipt();
    assert_eq!(
        (receipt.stage, receipt.version, receipt.fingerprint, receipt.installed),
        (
            Stage::Failed,
            first.facts.version,
            first.facts.fingerprint,
            Some(second.facts.version.clone())
        )
    );
    assert!(receipt.reason.unwrap().contains("out-of-date current.json"));
    bench.depot.point(&second).unwrap();
    assert_eq!(bench.pull().await.code, 0);
    assert_eq!(
        (bench.receipt().stage, bench.receipt().version),
        (Stage::Served, second.facts.version)
    );
}

#[tokio::test]
async fn what_was_damaged_on_the_disk_was_neither_seen_nor_restored() {
    let (bench, version) = Bench::open().await;
    let log = bench.host.path().join("reloads");
    let reload = format!("echo reload >> {}; {}", log.display(), bench.host.reload_command());
    // What is damaged is restored whatever the window.
    let hour = Timestamp::now().utc().hour();
    let closed = format!(
        "window = \"{:02}:00-{:02}:00\"\ncombined = true",
        (hour + 6) % 24,
        (hour + 8) % 24
    );
    bench.configure_with(&bench.host.test_command(), &reload, &closed);
    assert_eq!(bench.pull_with(&["--now"]).await.code, 0);
    let read = |bench: &Bench| {
        let folder = fs::read_dir(bench.live()).unwrap();
        let mut files: Vec<_> = folder
            .map(|file| file.unwrap().path())
            .map(|path| {
                (
                    path.clone(),
                    fs::metadata(&path).unwrap().mode(),
                    fs::read(path).unwrap(),
                )
            })
            .map(|(path, mode, content)| (path.file_name().unwrap().to_owned(), mode, content))
            .collect();
        files.sort();
        files
    };
    let before = read(&bench);
    let other = bench.leaf(60);
    let chmod = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    type Damage<'a> = Box<dyn Fn() + 'a>;
    let live = |file: &str| bench.live().join(file);
    let folder = || fs::canonicalize(bench.live()).unwrap();
    let cases: Vec<(&str, bool, Damage<'_>)> = vec![
        (
            "privkey.pem had mode 0644",
            false,
            Box::new(|| chmod(live(PRIVKEY), 0o644)),
        ),
        (
            "combined.pem had mode 0640",
            false,
            Box::new(|| chmod(live("combined.pem"), 0o640)),
        ),
        ("cert.pem had mode 0600", false, Box::new(|| chmod(live(CERT), 0o600))),
        ("its folder had mode 0755", false, Box::new(|| chmod(folder(), 0o755))),
        (
            "privkey.pem is empty",
            true,
            Box::new(|| fs::write(live(PRIVKEY), "").unwrap()),
        ),
        (
            "privkey.pem is missing",
            true,
            Box::new(|| fs::remove_file(live(PRIVKEY)).unwrap()),
        ),
        (
            "privkey.pem is not the one",
            true,
            Box::new(|| fs::write(live(PRIVKEY), &other.key).unwrap()),
        ),
        (
            "chain.pem is empty",
            true,
            Box::new(|| fs::write(live(CHAIN), "").unwrap()),
        ),
        (
            "fullchain.pem is not the one",
            true,
            Box::new(|| fs::write(live(FULLCHAIN), &other.fullchain).unwrap()),
        ),
        (
            "combined.pem is not the one",
            true,
            Box::new(|| fs::write(live("combined.pem"), &other.key).unwrap()),
        ),
        (
            "privkey.pem is a symlink",
            true,
            Box::new(|| {
                let elsewhere = bench.host.path().join("key");
                fs::rename(live(PRIVKEY), &elsewhere).unwrap();
                symlink(elsewhere, live(PRIVKEY)).unwrap();
            }),
        ),
        (
            "privkey.pem is no regular file",
            true,
            Box::new(|| {
                fs::remove_file(live(PRIVKEY)).unwrap();
                fs::create_dir(live(PRIVKEY)).unwrap();
            }),
        ),
        (
            "its folder is missing",
            true,
            Box::new(|| fs::remove_dir_all(folder()).unwrap()),
        ),
        (
            "live/shop.test is missing",
            true,
            Box::new(|| fs::remove_file(bench.live()).unwrap()),
        ),
    ];
    for (expected, is_reloaded, damage) in cases {
        let _ = fs::remove_file(&log);
        damage();
        let dry = bench.pull_with(&["--dry-run"]).await;
        assert!(
            dry.out.contains("would ") && dry.out.contains(expected),
            "{expected}: {dry:?}"
        );
        let ran = bench.pull().await;
        assert!(ran.code == 0 && ran.err.contains(expected), "{expected}: {ran:?}");
        assert_eq!(read(&bench), before, "{expected}");
        assert_eq!(log.exists(), is_reloaded, "{expected}");
        bench.host.could_start().await.unwrap();
        let receipt = bench.receipt();
        assert_eq!(receipt.stage, Stage::Served);
        assert!(receipt.reason.unwrap().contains(expected), "{expected}");
        // It is reported once.
        let ran = bench.pull().await;
        assert!(ran.code == 0 && ran.err.is_empty(), "{expected}: {ran:?}");
        assert_eq!(bench.receipt().reason, None);
    }
    bench.serves(&version).await;
}

#[tokio::test]
async fn what_was_damaged_while_the_bucket_was_away_is_restored_as_far_as_it_can_be() {
    let (bench, _) = Bench::open().await;
    let away = async || {
        let mut command = Command::new(NEVERLAPSE);
        command
            .args(["pull", "--from", "/nonexistent", "--config"])
            .arg(bench.config());
        run(&mut command).await
    };
    let before = fs::read(bench.live().join(CERT)).unwrap();
    // It is a part of fullchain.pem.
    fs::remove_file(bench.live().join(CERT)).unwrap();
    let ran = away().await;
    assert!(ran.code == 3 && ran.err.contains("cert.pem is missing"), "{ran:?}");
    assert_eq!(fs::read(bench.live().join(CERT)).unwrap(), before);

    fs::remove_file(bench.live().join(PRIVKEY)).unwrap();
    let ran = away().await;
    assert!(
        ran.code == 2
            && ran
                .err
                .contains("is damaged (privkey.pem is missing), and cannot be restored"),
        "{ran:?}"
    );
    let ran = bench.pull().await;
    assert!(ran.code == 0 && ran.err.contains("privkey.pem is missing"), "{ran:?}");
    bench.host.could_start().await.unwrap();

    // Nor can it be when the bucket has it no more. The receipt says so, until a new one comes.
    fs::remove_file(bench.live().join(PRIVKEY)).unwrap();
    fs::rename(
        bench.depot.object("certificates/shop.test/versions"),
        bench.host.path().join("gone"),
    )
    .unwrap();
    assert_eq!(bench.pull().await.code, 2);
    let receipt = bench.receipt();
    assert_eq!(receipt.stage, Stage::Failed);
    assert!(receipt.reason.unwrap().contains("privkey.pem is missing"));
}

#[tokio::test]
async fn could_not_look_was_taken_for_not_served() {
    let mut bench = Bench::closed(&[NAME, "b.test"]);
    bench.publish(60);
    let place = bench.host.places[0].1;
    let port = neverlapse_tests::process::free_port().unwrap();
    let places = format!("verify = [\"{place}\", \"127.0.0.1:{port}\"]");
    let configure = |bench: &Bench| {
        bench.configure("");
        let text = fs::read_to_string(bench.config()).unwrap();
        let text = text.split("[[certificate]]\nname = \"b.test\"").next().unwrap();
        fs::write(bench.config(), text.replace(&format!("verify = \"{place}\""), &places)).unwrap();
    };
    let live = bench.host.folder().join("live");
    fs::create_dir_all(&live).unwrap();
    bench.host.places.truncate(1);
    bench.host.configure("").unwrap();
    bench.configure("");
    bench.pull().await;
    bench.host.start().await.unwrap();
    assert_eq!(bench.pull().await.code, 0);

    // One of two servers is stopped. The other one keeps the new version.
    configure(&bench);
    let new = bench.publish(80);
    let ran = bench.pull_with(&["--now"]).await;
    assert!(
        ran.code == 1 && ran.err.contains("could not look whether it is served") && ran.err.contains(&port.to_string()),
        "{ran:?}"
    );
    assert!(!ran.err.contains(&format!("{place} ")), "{ran:?}");
    bench.serves(&new).await;
    let receipt = bench.receipt();
    assert_eq!(
        (receipt.stage, receipt.version),
        (Stage::Installed, new.facts.version.clone())
    );
    assert!(receipt.reason.unwrap().contains("could not look"));
    assert_eq!(bench.pull().await.code, 1, "it looks again");
    assert_eq!(bench.live_version(), new.facts.version);

    let live = live.join(NAME);
    let live = live.display();
    bench
        .host
        .configure(&format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem; }}"
        ))
        .unwrap();
    run(Command::new("sh").args(["-c", &bench.host.reload_command()])).await;
    let ran = bench.pull().await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!((bench.receipt().stage, bench.receipt().reason), (Stage::Served, None));
}

#[tokio::test]
async fn a_port_that_nobody_can_look_at_kept_the_new_version_from_clients() {
    let (mut bench, _) = Bench::open().await;
    let place = bench.host.places[0].1;
    let (folder, live) = (bench.host.path().display().to_string(), bench.live());
    let live = live.display();
    // The same files behind a port that wants the PROXY protocol, and one that knows no curve of ours.
    for (more, listen) in [
        ("", "proxy_protocol"),
        ("ssl_ecdh_curve X448; ssl_protocols TLSv1.3;", ""),
    ] {
        let port = neverlapse_tests::process::free_port().unwrap();
        bench
            .host
            .configure(&format!(
                "server {{ listen 127.0.0.1:{port} ssl {listen}; {more} ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem; }}"
            ))
            .unwrap();
        bench.configure("");
        let text = fs::read_to_string(bench.config()).unwrap();
        let text = text.replace(&place.to_string(), &format!("127.0.0.1:{port}"));
        fs::write(bench.config(), text).unwrap();
        let log = format!("{folder}/reloads");
        let new = bench.publish(80);
        let ran = bench.pull().await;
        assert!(ran.code == 1 && ran.err.contains("could not look"), "{ran:?}");
        bench.serves(&new).await;
        assert_eq!(
            (bench.receipt().stage, bench.live_version()),
            (Stage::Installed, new.facts.version)
        );
        // To reload it again would show nothing more.
        bench.configure_with("true", &format!("echo reload >> {log}"), "");
        let text = fs::read_to_string(bench.config()).unwrap();
        fs::write(
            bench.config(),
            text.replace(&place.to_string(), &format!("127.0.0.1:{port}")),
        )
        .unwrap();
        assert_eq!(bench.pull().await.code, 1);
        assert!(!Path::new(&log).exists());
    }
}

/// Shows one certificate to some clients, and another one to the others.
#[derive(Debug)]
struct Alternates {
    one: Arc<CertifiedKey>,
    other: Arc<CertifiedKey>,
    clients: std::sync::atomic::AtomicU32,
}

impl ResolvesServerCert for Alternates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let client = self.clients.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let is_one = client.is_multiple_of(7);
        Some(if is_one { self.one.clone() } else { self.other.clone() })
    }
}

#[tokio::test]
async fn a_process_with_the_old_certificate_on_the_same_port_was_not_seen() {
    let mut bench = Bench::closed(&[NAME]);
    bench.configure_with("true", "true", "");
    let certified = |leaf: &Leaf| {
        let chain = CertificateDer::pem_slice_iter(leaf.fullchain.as_bytes()).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
        Arc::new(CertifiedKey::new(chain.unwrap(), any_supported_type(&key).unwrap()))
    };
    let (old, new) = (bench.leaf(60), bench.leaf(80));
    // It is installed, and nothing serves yet.
    let before = bench.depot.publish(NAME, &old).unwrap();
    bench.pull().await;
    let current = bench.depot.publish(NAME, &new).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Alternates {
            one: certified(&old),
            other: certified(&new),
            clients: 0.into(),
        }));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(bench.host.places[0].1).await.unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    for _ in 0..2 {
        let ran = bench.pull().await;
        let expected = format!("but version {} from before", before.facts.version);
        assert!(
            ran.code == 1 && ran.err.contains("not every process serves it") && ran.err.contains(&expected),
            "{ran:?}"
        );
        let receipt = bench.receipt();
        assert_eq!(
            (receipt.stage, &receipt.version),
            (Stage::Failed, &current.facts.version)
        );
        assert_eq!(
            bench.live_version(),
            current.facts.version,
            "to go back would gain nothing"
        );
    }
    serving.abort();
}

#[tokio::test]
async fn what_could_not_be_opened_was_told_to_nobody() {
    let (mut bench, old) = Bench::open().await;
    let chmod = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let new = bench.publish(80);
    let live = bench.host.folder().join("live");
    chmod(live.clone(), 0o775);
    assert_eq!(bench.pull().await.code, 3);
    let receipt = bench.receipt();
    assert_eq!((receipt.stage, receipt.sequence), (Stage::Failed, Some(old.sequence)));
    assert!(
        receipt
            .reason
            .unwrap()
            .contains("live can be written by others (mode 775)")
    );
    chmod(live, 0o755);

    // Of a state that cannot be read nothing is known but what the bucket shows.
    let file = bench.state().join("shop.test.json");
    let state = fs::read(&file).unwrap();
    for damaged in ["", "{", "\0\0\0"] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(bench.pull().await.code, 3);
        let receipt = bench.receipt();
        assert_eq!((receipt.stage, &receipt.version), (Stage::Failed, &new.facts.version));
        assert!(receipt.reason.unwrap().contains("shop.test.json is damaged"));
    }
    fs::write(&file, state).unwrap();

    chmod(bench.state(), 0o777);
    assert_eq!(bench.pull().await.code, 3);
    assert!(
        bench
            .receipt()
            .reason
            .unwrap()
            .contains("state can be written by others (mode 777)")
    );
    chmod(bench.state(), 0o700);
    assert_eq!(bench.pull().await.code, 0);
    assert_eq!((bench.receipt().stage, bench.receipt().reason), (Stage::Served, None));
}

#[tokio::test]
async fn a_reload_that_hangs_took_its_time_again_for_each_certificate() {
    let names = [NAME, "b.test", "c.test", "d.test", "e.test"];
    let mut bench = Bench::closed(&names);
    let publish = |bench: &mut Bench, days| {
        for name in names {
            let leaf = bench.authority.leaf(name, Timestamp::now() + Duration::days(days));
            bench.depot.publish(name, &leaf.unwrap()).unwrap();
        }
    };
    let configure = |reload: &str| {
        bench.configure_with("true", reload, "");
        let text = fs::read_to_string(bench.config()).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("verify = "));
        let text: Vec<_> = ["command_timeout_seconds = 1"].into_iter().chain(lines).collect();
        fs::write(bench.config(), text.join("\n")).unwrap();
    };
    configure("true");
    let config = fs::read_to_string(bench.config()).unwrap();
    publish(&mut bench, 60);
    assert_eq!(bench.pull().await.code, 0);
    publish(&mut bench, 80);
    let reloads = bench.host.path().join("reloads");
    let hangs = format!("reload_command = \"echo >>{}; sleep 600\"", reloads.display());
    fs::write(bench.config(), config.replace("reload_command = \"true\"", &hangs)).unwrap();

    let ran = bench.pull().await;

    assert_eq!(ran.code, 1, "{ran:?}");
    // For the new ones, and for the way back: not once more for each certificate.
    assert_eq!(fs::read_to_string(reloads).unwrap().len(), 2);
    for name in names {
        let receipt = bench.depot.receipt(name, "web-1").unwrap();
        assert_eq!(receipt.stage, Stage::Failed);
        assert!(receipt.reason.unwrap().contains("took longer than 1 s"));
    }
}

#[tokio::test]
async fn receipts_came_only_after_everything() {
    let mut bench = Bench::closed(&[NAME, "b.test"]);
    for name in [NAME, "b.test"] {
        let leaf = bench.authority.leaf(name, Timestamp::now() + Duration::days(60));
        bench.depot.publish(name, &leaf.unwrap()).unwrap();
    }
    bench.configure_with("true", "true", "");
    let text = fs::read_to_string(bench.config()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("verify = "));
    let text = lines.collect::<Vec<_>>().join("\n");
    // The second one's reload ends the run.
    fs::write(
        bench.config(),
        format!("{text}\nreload_command = \"kill -KILL $PPID\"\n"),
    )
    .unwrap();
    assert_eq!(bench.pull().await.code, -1);
    assert_eq!(bench.receipt().stage, Stage::Installed);
}

#[tokio::test]
async fn what_lies_in_an_old_folder_was_a_failed_installation() {
    let (mut bench, first) = Bench::open().await;
    bench.publish(70);
    assert_eq!(bench.pull().await.code, 0);
    let folder = bench.host.folder().join("versions/shop.test").join(first.facts.version);
    fs::create_dir(folder.join("backup")).unwrap();
    let new = bench.publish(80);
    let ran = bench.pull().await;
    assert!(
        ran.code == 0 && ran.err.contains("cannot remove versions/shop.test/"),
        "{ran:?}"
    );
    bench.serves(&new).await;
    assert_eq!((bench.receipt().stage, bench.receipt().reason), (Stage::Served, None));
    assert!(!folder.join(PRIVKEY).exists(), "the old key is gone all the same");
}

#[tokio::test]
async fn a_clone_removed_the_receipts_of_its_original() {
    let mut bench = Bench::closed(&[NAME, "old.test"]);
    for name in [NAME, "old.test"] {
        let leaf = bench.authority.leaf(name, Timestamp::now() + Duration::days(60));
        bench.depot.publish(name, &leaf.unwrap()).unwrap();
    }
    let write = |file: &str, instance: &str, state: &str, names: &[&str]| {
        let (folder, state) = (bench.host.folder(), bench.host.path().join(state));
        let mut text = format!("instance = {instance:?}\nfolder = {folder:?}\nstate = {state:?}\n");
        for name in names {
            text += &format!("[[certificate]]\nname = {name:?}\n");
        }
        fs::write(bench.host.path().join(file), text).unwrap();
    };
    let pull = async |file: &str, more: &[&str]| {
        let mut command = Command::new(NEVERLAPSE);
        command.args(["pull", "--from"]).arg(bench.depot.path());
        command.arg("--config").arg(bench.host.path().join(file));
        let ran = run(command.args(more)).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    };
    let there = |name: &str, instance: &str| bench.depot.receipt(name, instance).is_ok();
    write("a.toml", "web-a", "state", &[NAME, "old.test"]);
    write("c.toml", "web-c", "state-c", &[NAME]);
    pull("a.toml", &[]).await;
    let copy = async || {
        let mut command = Command::new("cp");
        let from = bench.host.path().join("state");
        run(command.arg("-a").arg(from).arg(bench.host.path().join("state-c"))).await
    };

    copy().await;
    pull("c.toml", &["--leave"]).await;
    assert!(there(NAME, "web-a") && there("old.test", "web-a"));
    pull("c.toml", &[]).await;
    assert!(there(NAME, "web-a") && there("old.test", "web-a") && there(NAME, "web-c"));
    pull("c.toml", &["--leave"]).await;
    assert!(there(NAME, "web-a") && there("old.test", "web-a") && !there(NAME, "web-c"));

    // A new name takes the old receipt along.
    write("a.toml", "web-b", "state", &[NAME, "old.test"]);
    pull("a.toml", &[]).await;
    assert!(there(NAME, "web-b") && !there(NAME, "web-a"));

    // Two configurations share the folder of their state.
    write("mail.toml", "web-b", "state", &["old.test"]);
    write("a.toml", "web-b", "state", &[NAME]);
    pull("mail.toml", &[]).await;
    for _ in 0..2 {
        pull("a.toml", &[]).await;
        pull("mail.toml", &[]).await;
        assert!(there(NAME, "web-b") && there("old.test", "web-b"));
    }
    bench.host.stop();
}

#[tokio::test]
async fn what_was_damaged_while_a_newer_version_waits_was_left_to_that() {
    let (mut bench, old) = Bench::open().await;
    let log = bench.host.path().join("reloads");
    let reload = format!("echo reload >> {}; {}", log.display(), bench.host.reload_command());
    let hour = Timestamp::now().utc().hour();
    let closed = format!("window = \"{:02}:00-{:02}:00\"", (hour + 6) % 24, (hour + 8) % 24);
    bench.configure_with(&bench.host.test_command(), &reload, &closed);
    bench.publish(80);
    assert_eq!(bench.pull().await.code, 0);
    assert_eq!(bench.receipt().stage, Stage::Pulled);

    fs::write(bench.live().join(PRIVKEY), "").unwrap();
    let ran = bench.pull().await;
    assert!(
        ran.code == 0 && ran.err.contains("privkey.pem is empty") && ran.out.contains("waits for its window"),
        "{ran:?}"
    );
    assert_eq!(bench.live_version(), old.facts.version);
    assert_eq!(fs::read_to_string(&log).unwrap(), "reload\n");
    bench.host.could_start().await.unwrap();
    assert!(bench.receipt().reason.unwrap().contains("privkey.pem is empty"));

    // What the bucket no longer has cannot be restored. The newer version takes its place at once.
    fs::write(bench.live().join(PRIVKEY), "").unwrap();
    let versions = bench.depot.object("certificates/shop.test/versions");
    fs::remove_dir_all(versions.join(&old.facts.version)).unwrap();
    let ran = bench.pull().await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_ne!(bench.live_version(), old.facts.version);
    assert_eq!(bench.receipt().stage, Stage::Served);
}

#[tokio::test]
async fn a_state_of_an_earlier_client_knows_no_hashes() {
    let (bench, _) = Bench::open().await;
    let forget = |bench: &Bench| {
        bench.remember(|state| {
            for key in ["manifests", "owner"] {
                state.as_object_mut().unwrap().remove(key);
            }
            for key in ["unseen", "keystore"] {
                state["installed"].as_object_mut().unwrap().remove(key);
            }
        });
    };
    let issuer = fs::read_to_string(bench.live().join(CHAIN)).unwrap();
    forget(&bench);
    // The certificates are the same, the file is not.
    fs::write(bench.live().join(CHAIN), format!("# a note\n{issuer}")).unwrap();
    let ran = bench.pull().await;
    assert!(
        ran.code == 0 && ran.err.contains("chain.pem is not the one that was installed"),
        "{ran:?}"
    );
    assert_eq!(fs::read_to_string(bench.live().join(CHAIN)).unwrap(), issuer);

    // And where there is nobody to ask, at least everything has to belong together.
    forget(&bench);
    fs::write(bench.live().join(PRIVKEY), bench.leaf(60).key).unwrap();
    let mut command = Command::new(NEVERLAPSE);
    command.args(["pull", "--from", "/nonexistent", "--config"]);
    let ran = run(command.arg(bench.config())).await;
    assert!(
        ran.code == 2
            && ran
                .err
                .contains("privkey.pem does not hold the certificate's private key"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn of_two_certificates_at_one_place_the_wrong_one_was_looked_at() {
    let mut bench = Bench::closed(&[NAME]);
    bench.publish(60);
    let rsa = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .await
        .unwrap();
    let rsa = String::from_utf8(rsa.stdout).unwrap();
    let publish = |bench: &mut Bench, days| {
        let end = Timestamp::now() + Duration::days(days);
        let leaf = bench.authority.leaf(NAME, end).unwrap();
        bench.depot.publish("ec", &leaf).unwrap();
        let leaf = bench.authority.of_key(NAME, &rsa, end).unwrap();
        bench.depot.publish("rsa", &leaf).unwrap();
    };
    publish(&mut bench, 60);

    let port = neverlapse_tests::process::free_port().unwrap();
    let live = bench.host.folder().join("live").display().to_string();
    let configure = |bench: &Bench, reload: &str, verify: &str| {
        bench.configure_with("true", reload, "");
        let mut text = fs::read_to_string(bench.config()).unwrap();
        for name in ["ec", "rsa"] {
            text += &format!("[[certificate]]\nname = {name:?}\nserver_name = \"shop.test\"\n{verify}\n");
        }
        fs::write(bench.config(), text).unwrap();
    };
    configure(&bench, "true", "");
    bench.pull().await;
    let pair = |name: &str| {
        format!("ssl_certificate {live}/{name}/fullchain.pem; ssl_certificate_key {live}/{name}/privkey.pem;")
    };
    let server = format!(
        "server {{ listen 127.0.0.1:{port} ssl; {} {} }}",
        pair("ec"),
        pair("rsa")
    );
    bench.host.configure(&server).unwrap();
    bench.host.start().await.unwrap();
    configure(
        &bench,
        &bench.host.reload_command(),
        &format!("verify = \"127.0.0.1:{port}\""),
    );
    for days in [60, 80] {
        if days == 80 {
            publish(&mut bench, days);
        }
        let ran = bench.pull_with(&["--now"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        for name in ["ec", "rsa"] {
            let receipt = bench.depot.receipt(name, "web-1").unwrap();
            assert_eq!((receipt.stage, receipt.reason), (Stage::Served, None), "{name}");
        }
    }

    // The RSA one is not reloaded: it is not hidden by the other one.
    configure(&bench, "true", &format!("verify = \"127.0.0.1:{port}\""));
    publish(&mut bench, 85);
    let ran = bench.pull_with(&["--now"]).await;
    for name in ["ec", "rsa"] {
        assert!(
            ran.err.contains(&format!("{name}: after the reload 127.0.0.1")),
            "{ran:?}"
        );
    }
}

#[tokio::test]
async fn a_reload_that_uses_the_aws_cli_lost_its_profile() {
    let mut bench = Bench::closed(&[NAME]);
    bench.publish(60);
    let said = bench.host.path().join("environment");
    bench.configure_unserved("true", &format!("env >{}", said.display()), "");

    let mut command = bench.command(Command::new(NEVERLAPSE));
    let secrets = [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ];
    for (variable, value) in [
        ("AWS_PROFILE", "shop"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "secret"),
    ] {
        command.env(variable, value);
    }
    run(command.envs(secrets.map(|secret| (secret, "secret")))).await;

    let environment = fs::read_to_string(said).unwrap();
    let live = bench.live();
    for expected in [
        "AWS_PROFILE=shop",
        "AWS_REGION=eu-west-1",
        "RENEWED_DOMAINS=shop.test *.shop.test",
        &format!("RENEWED_LINEAGE={}", live.display()),
    ] {
        assert!(
            environment.lines().any(|line| line == expected),
            "{expected}: {environment}"
        );
    }
    assert!(!environment.contains("secret"), "{environment}");
}
