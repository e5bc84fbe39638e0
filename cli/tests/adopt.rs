//! From certbot and back, in the order of docs/from-certbot.md, on a host with a real nginx that
//! answers at every step.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::{CERT, Current, FULLCHAIN, PRIVKEY, current_key};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::certbot::Lineage;
use neverlapse_tests::depot::Depot;
use neverlapse_tests::pki::{Authority, Leaf};
use neverlapse_tests::webhost::WebHost;
use time::Duration;

const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");
const NAME: &str = "shop.test";

/// A host whose nginx serves what certbot has put into its own folder.
struct Host {
    authority: Authority,
    depot: Depot,
    web: WebHost,
}

impl Host {
    async fn with_certbot() -> (Self, Leaf) {
        let mut host = Self {
            authority: Authority::new().unwrap(),
            depot: Depot::new().unwrap(),
            web: WebHost::new(Ipv4Addr::LOCALHOST, &[NAME]).unwrap(),
        };
        let leaf = host.certbot_renews(1, 40);
        host.web.start().await.unwrap();
        (host, leaf)
    }

    /// What certbot does.
    fn certbot_renews(&self, number: u32, days: i64) -> Leaf {
        let not_after = Timestamp::now() + Duration::days(days);
        let leaf = self.authority.leaf(NAME, not_after).unwrap();
        self.lineage().renew(number, &leaf).unwrap();
        leaf
    }

    /// nginx's configuration names `live/` here.
    fn lineage(&self) -> Lineage {
        Lineage {
            root: self.web.folder(),
            name: NAME.to_owned(),
            directory: "https://ca.test/directory".to_owned(),
            hook: self.web.reload_command(),
        }
    }

    fn ours(&self) -> PathBuf {
        self.web.path().join("neverlapse")
    }

    fn metrics(&self) -> PathBuf {
        self.web.path().join("neverlapse.prom")
    }

    fn adopt(&self, more: &[&str]) -> Ran {
        let mut adopt = Command::new(NEVERLAPSE);
        adopt.arg("adopt").arg(self.web.folder()).args(more);
        Ran::of(&mut adopt)
    }

    fn publishes(&self) -> Ran {
        self.adopt(&["--to", self.depot.path().to_str().unwrap()])
    }

    fn links(&self, how: &str) -> Ran {
        self.adopt(&[how, "--folder", self.ours().to_str().unwrap()])
    }

    fn configure(&self, more: &str) {
        let (folder, state, metrics) = (self.ours(), self.web.path().join("state"), self.metrics());
        let text = format!(
            "instance = \"web-1\"\nfolder = {folder:?}\nstate = {state:?}\nmetrics_file = {metrics:?}\n\
             verify_timeout_seconds = 5\n[[certificate]]\nname = \"{NAME}\"\n{more}\n"
        );
        fs::write(self.web.path().join("pull.toml"), text).unwrap();
    }

    /// With everything that reloads the server and looks at it.
    fn configure_whole(&self) {
        self.configure(&format!(
            "test_command = {:?}\nreload_command = {:?}\nverify = \"{}\"",
            self.web.test_command(),
            self.web.reload_command(),
            self.web.places[0].1
        ));
    }

    fn pull(&self, more: &[&str]) -> Ran {
        let mut pull = Command::new(NEVERLAPSE);
        pull.args(["pull", "--config"]).arg(self.web.path().join("pull.toml"));
        Ran::of(pull.arg("--from").arg(self.depot.path()).args(more))
    }

    fn current(&self) -> Current {
        let written = fs::read(self.depot.object(&current_key(NAME))).unwrap();
        serde_json::from_slice(&written).unwrap()
    }

    fn stage(&self) -> Stage {
        self.depot.receipt(NAME, "web-1").unwrap().stage
    }

    /// Everything on the host and in the depot, so that a test can tell whether anything was
    /// touched.
    fn everything(&self) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
        let mut all = Vec::new();
        walk(self.web.path(), &mut all);
        walk(self.depot.path(), &mut all);
        all.sort();
        all
    }
}

fn walk(folder: &Path, all: &mut Vec<(PathBuf, u32, i64, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        let content = if found.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap_or_default()
        };
        all.push((path.clone(), found.mode(), found.ctime_nsec(), content));
        if found.is_dir() {
            walk(&path, all);
        }
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert!(
            !out.contains("PRIVATE KEY") && !err.contains("PRIVATE KEY"),
            "a key is in the output"
        );
        Self {
            code: status.code().unwrap_or(-1),
            out,
            err,
        }
    }
}

#[tokio::test]
async fn from_certbot_and_back_without_an_outage() {
    let (host, leaf) = Host::with_certbot().await;

    // 1. Into the bucket, without a new order.
    let dry = host.adopt(&["--dry-run", "--to", host.depot.path().to_str().unwrap()]);
    assert!(dry.code == 0 && dry.out.contains("would be version"), "{dry:?}");
    assert!(!host.depot.object(&current_key(NAME)).exists());
    let ran = host.publishes();
    let current = host.current();
    let facts = &current.facts;
    assert!(
        ran.code == 0 && ran.out.contains(&format!("is version {}", facts.version)),
        "{ran:?}"
    );
    assert_eq!(
        (facts.issuer.name.as_str(), facts.issuer.account.as_str()),
        ("ca-test", "https://ca.test/account/7")
    );
    let reload = format!("reload_command = {:?}", host.web.reload_command());
    for expected in [
        "identifiers = [\"shop.test\"]",
        "[issuer.ca-test]",
        &reload,
        "reload_each = true",
    ] {
        assert!(ran.out.contains(expected), "{expected}: {ran:?}");
    }
    let again = host.publishes();
    assert!(again.code == 0 && again.out.contains("already"), "{again:?}");
    assert_eq!(host.current(), current);

    // 2. The files are installed, and no server is touched. Before that, there is nothing to lead
    // to.
    let early = host.links("--link");
    assert!(
        early.code == 1 && early.err.contains("has neverlapse pull installed it?"),
        "{early:?}"
    );
    host.configure("");
    assert_eq!(host.pull(&[]).code, 0);
    assert_eq!(host.web.served().await.unwrap(), facts.fingerprint);

    // 3. Certbot's paths lead to them: nginx's configuration stays as it is, and can be loaded at
    // every moment.
    let ran = host.links("--link");
    assert_eq!(ran.code, 0, "{ran:?}");
    host.web.could_start().await.unwrap();
    assert_eq!(host.links("--link").code, 0, "twice");
    assert!(!host.lineage().renewal().exists(), "certbot would renew it");
    let privkey = fs::read_to_string(host.lineage().live().join(PRIVKEY)).unwrap();
    assert_eq!(privkey, leaf.key);

    // 4. From now on pull reloads nginx.
    host.configure_whole();
    assert_eq!(host.pull(&["--now"]).code, 0);
    assert_eq!(host.stage(), Stage::Served);
    let mut depot = Depot::new().unwrap();
    let next = host
        .authority
        .leaf(NAME, Timestamp::now() + Duration::days(80))
        .unwrap();
    // The depot of the tests counts from one.
    fs::remove_file(host.web.path().join("state").join(format!("{NAME}.json"))).unwrap();
    let next = depot.publish(NAME, &next).unwrap();
    let host = Host { depot, ..host };
    let ran = host.pull(&[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    host.web.serves(&next).await.unwrap();
    let metrics = fs::read_to_string(host.metrics()).unwrap();
    assert!(
        metrics.contains("stage=\"served\"} 1") && metrics.contains("neverlapse_pull_success"),
        "{metrics}"
    );

    // 5. And back: certbot's own certificate, and certbot renews it again.
    assert_eq!(host.pull(&["--leave"]).code, 0);
    let ran = host.links("--unlink");
    assert_eq!(ran.code, 0, "{ran:?}");
    host.web.could_start().await.unwrap();
    assert!(host.lineage().renewal().exists());
    assert!(
        fs::read_link(host.lineage().live().join(CERT))
            .unwrap()
            .starts_with("../../archive")
    );
    assert_eq!(fs::read_dir(host.lineage().root.join("live")).unwrap().count(), 1);
}

#[tokio::test]
async fn what_certbot_renewed_meanwhile_is_adopted_again() {
    let (host, _) = Host::with_certbot().await;
    assert_eq!(host.publishes().code, 0);
    host.configure("");
    assert_eq!(host.pull(&[]).code, 0);

    let first = host.current();
    host.certbot_renews(2, 89);
    let ran = host.links("--link");
    assert!(
        ran.code == 1 && ran.err.contains("certbot has renewed it since"),
        "{ran:?}"
    );
    assert_eq!(host.publishes().code, 0);
    let second = host.current();
    assert_eq!(second.sequence, first.sequence + 1);

    // What was issued before replaces nothing.
    host.certbot_renews(3, 20);
    let ran = host.publishes();
    assert!(ran.code == 1 && ran.err.contains("which was issued later"), "{ran:?}");
    assert_eq!(host.current(), second);

    // A key that does not belong to its certificate is not adopted.
    let other = host
        .authority
        .leaf(NAME, Timestamp::now() + Duration::days(90))
        .unwrap();
    host.certbot_renews(4, 90);
    fs::write(host.lineage().live().join(PRIVKEY), other.key).unwrap();
    let ran = host.publishes();
    assert!(
        ran.code == 1 && ran.err.contains("the private key does not belong"),
        "{ran:?}"
    );
    assert_eq!(host.current(), second);

    // Who could read certbot's key can read ours.
    host.certbot_renews(5, 88);
    assert_eq!(host.pull(&[]).code, 0);
    let key = fs::canonicalize(host.lineage().live().join(PRIVKEY)).unwrap();
    std::os::unix::fs::chown(&key, None, Some(65534)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let ran = host.links("--link");
    assert!(ran.code == 1 && ran.err.contains("group 65534"), "{ran:?}");
    assert!(!host.lineage().live().is_symlink());
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_what_would_happen() {
    let (host, _) = Host::with_certbot().await;
    assert_eq!(host.publishes().code, 0);
    let hour = Timestamp::now().utc().hour();
    let closed = format!("{:02}:00-{:02}:00", (hour + 6) % 24, (hour + 8) % 24);
    host.configure_whole();
    let config = host.web.path().join("pull.toml");
    let whole = fs::read_to_string(&config).unwrap();

    let before = host.everything();
    let dry = host.pull(&["--dry-run"]);
    let version = host.current().facts.version;
    for expected in [
        format!("would install version {version}"),
        format!(
            "would then run `{}`, then `{}`",
            host.web.test_command(),
            host.web.reload_command()
        ),
        format!("version {version} is served now"),
    ] {
        assert!(dry.code == 0 && dry.out.contains(&expected), "{expected}: {dry:?}");
    }
    assert!(before == host.everything(), "a dry run changed something");

    // With something installed, and a window.
    assert_eq!(host.pull(&[]).code, 0);
    let newer = host.certbot_renews(2, 80);
    assert_eq!(host.publishes().code, 0);
    fs::write(&config, format!("{whole}window = \"{closed}\"\n")).unwrap();
    let before = host.everything();
    let dry = host.pull(&["--dry-run"]);
    assert!(
        dry.out
            .contains(&format!("would wait for its window ({closed} UTC) to install version")),
        "{dry:?}"
    );
    assert!(dry.out.contains("from before, which ends on"), "{dry:?}");
    assert!(host.pull(&["--dry-run", "--now"]).out.contains("would install version"));
    assert!(before == host.everything(), "a dry run changed something");
    drop(newer);
}

#[tokio::test]
async fn a_server_that_does_not_name_our_folder_was_only_called_wrong() {
    let (host, leaf) = Host::with_certbot().await;
    assert_eq!(host.publishes().code, 0);
    let other = Leaf {
        ..host
            .authority
            .leaf(NAME, Timestamp::now() + Duration::days(70))
            .unwrap()
    };
    // Another certificate is in the bucket, and nginx goes on with certbot's.
    let mut depot = Depot::new().unwrap();
    depot.publish(NAME, &other).unwrap();
    let host = Host { depot, ..host };
    host.configure_whole();
    let ran = host.pull(&[]);
    let path = host.ours().join("live").join(NAME).join(FULLCHAIN);
    let question = format!("does the server's configuration name {} for this name", path.display());
    assert!(ran.code == 2 && ran.err.contains(&question), "{ran:?}");
    assert!(ran.err.contains("another certificate, for shop.test by"), "{ran:?}");
    assert!(ran.err.contains("its files stay live"), "{ran:?}");
    assert!(
        host.depot
            .receipt(NAME, "web-1")
            .unwrap()
            .reason
            .unwrap()
            .contains(&question)
    );
    drop(leaf);
}

#[test]
fn a_pull_toml_is_told_from_an_inventory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.toml");
    for (text, code, expected) in [
        (
            "bukcket = \"x\"\n[[certificate]]\nname = \"a\"\nverify = \"127.0.0.1\"\n",
            1,
            "unknown key `bukcket`",
        ),
        (
            "bucket = \"s3://x\"\n[[certificate]]\nname = \"a\"\nwindow = \"1\"\n",
            1,
            "window: \"1\" is not a window",
        ),
        (
            "bucket = \"x\"\n[[certificate]]\nname = \"a\"\ngroup = \"no-such-group\"\n",
            0,
            "on this machine: group = \"no-such-group\": there is no such group",
        ),
        (
            "bucket = \"x\"\nreload_command = \"true\"\n[[certificate]]\nname = \"a\"\nverify = \"127.0.0.1\"\n",
            0,
            "reloads by `true`, checks 127.0.0.1:443",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let ran = Ran::of(Command::new(NEVERLAPSE).arg("validate").arg(&file));
        assert!(
            ran.code == code && format!("{}{}", ran.out, ran.err).contains(expected),
            "{text}{ran:?}"
        );
    }
}
