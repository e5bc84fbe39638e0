//! The fleet's part of the template, as an instance meets it: what it may do, and how the client
//! comes, is replaced and is refused.
//!
//! The emulator knows no SSM documents, so the template's own one is taken from it and its script
//! run, in a root folder of its own, with the real AWS CLI, against the bucket of the deployed
//! stack.

use neverlapse::timestamp::Timestamp;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use neverlapse_tests::depot::Depot;
use neverlapse_tests::emulator::Call;
use neverlapse_tests::pki::Authority;
use neverlapse_tests::stack::{Stack, root};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::Duration;
use tokio::runtime::Handle;

const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");
const NAME: &str = "shop.test";

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_fleet() {
    let stack = Stack::deploy(&[("ReaderCertificates", "shop.test,mail.shop.test")])
        .await
        .unwrap();
    let fleet = Fleet::new(&stack);

    fleet.a_reader_may_do_this_and_nothing_else().await;

    let changed = fleet.workshop.change();
    assert!(
        !changed.status.success() && text(&changed).contains("no commit has"),
        "{}",
        text(&changed)
    );
    fleet.workshop.commit();

    fleet.publish_certificate();
    let instance = Instance::new(&fleet);
    let first = fleet.publish(&fleet.client, &instance.configuration(NAME));
    fleet.publishes_no_configuration_with_mistakes();
    instance.installs(&first);
    instance.a_second_run_changes_nothing(&first);
    let newer = fleet.newer_client();
    let second = fleet.publish(&newer, &instance.configuration(NAME));
    instance.is_upgraded_to(&second, &newer);

    // Back to the first, for what follows to have something to install: side by side, because most
    // of it is the AWS CLI's starts.
    instance.run(&first, "web.toml");
    thread::scope(|lanes| {
        lanes.spawn(|| {
            let instance = instance.copy();
            instance.refuses_if_swapped(MACHINE, "is not the one that was published", &newer);
            instance.refuses_if_swapped("web.toml", "is not the one that was published", &newer);
        });
        lanes.spawn(|| {
            let instance = instance.copy();
            instance.refuses_if_swapped("install.sh", "is not that of release", &newer);
            instance.refuses_if_swapped("SHA256SUMS", "is not that of release", &newer);
        });
        lanes.spawn(|| {
            let instance = instance.copy();
            instance.refuses_what_it_cannot_use(&second);
            instance.tells_that_nothing_is_published(&newer);
            Instance::new(&fleet).waits_for_a_configuration(&second);
        });
    });
}

#[test]
fn user_data_fetches_the_client_as_the_document_does() {
    let sample = fs::read_to_string(root().join("docs/user-data.example.sh")).unwrap();
    let code = |script: &str| -> Vec<String> {
        let lines = script.split("set -eu\n").nth(1).unwrap().lines();
        lines.map(str::to_owned).collect()
    };
    assert_eq!(code(&sample), code(&script()));
}

#[test]
fn configurations_in_the_samples_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let kubernetes = yaml("docs/kubernetes.example.yaml");
    let compose = yaml("docs/compose.example.yaml");
    let map = kubernetes
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["kind"] == "ConfigMap");
    let of_kubernetes = map.unwrap()["data"]["pull.toml"].as_str().unwrap();
    let of_compose = compose[0]["configs"]["pull"]["content"].as_str().unwrap();
    for configuration in [of_kubernetes, of_compose] {
        let own = |line: &&str| !line.starts_with("folder") && !line.starts_with("state");
        let rest: Vec<_> = configuration.lines().filter(own).collect();
        let path = folder.path().join("pull.toml");
        let (live, state) = (folder.path().join("etc"), folder.path().join("state"));
        fs::write(
            &path,
            format!("folder = {live:?}\nstate = {state:?}\n{}\n", rest.join("\n")),
        )
        .unwrap();
        let ran = Command::new(NEVERLAPSE)
            .args(["pull", "--dry-run", "--config"])
            .arg(&path)
            .arg("--from")
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(
            text(&ran).contains("example.com: no version is published under this name"),
            "{configuration}\n{}",
            text(&ran)
        );
    }
}

#[test]
fn the_association_gives_what_the_document_takes() {
    let template = yaml("template.yaml");
    let property = |resource: &str, name: &str| template[0]["Resources"][resource]["Properties"][name].clone();
    let names = |object: &Value| -> Vec<String> {
        let mut names: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    let content = property("FleetDocument", "Content");
    assert_eq!(
        names(&property("FleetAssociation", "Parameters")),
        names(&content["parameters"])
    );
    // What the script takes is what no shell can read as anything else.
    let script = script();
    let used = script
        .split("'{{ ")
        .skip(1)
        .map(|rest| rest.split(" }}'").next().unwrap());
    let mut used: Vec<_> = used.map(str::to_owned).collect();
    used.sort();
    assert_eq!(used, names(&content["parameters"]));
    assert_eq!(script.matches("{{").count(), used.len());
    for (name, parameter) in content["parameters"].as_object().unwrap() {
        let pattern = parameter["allowedPattern"].as_str().unwrap();
        assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{name}: {pattern}");
        assert!(!pattern.contains(['\'', ' ', '\\']), "{name}: {pattern}");
    }
}

/// As far as this machine has systemd, though none may be running.
#[test]
fn systemd_understands_the_units_and_finds_little_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for unit in fs::read_dir(root().join("cli/systemd")).unwrap() {
        let unit = unit.unwrap().path();
        let here = folder.path().join(unit.file_name().unwrap());
        let text = fs::read_to_string(unit).unwrap();
        fs::write(&here, text.replace("/usr/local/bin/neverlapse", NEVERLAPSE)).unwrap();
        units.push(here);
    }
    let verify = ["verify", "--man=no"];
    let Ok(ran) = Command::new("systemd-analyze").args(verify).args(&units).output() else {
        eprintln!("systemd-analyze is not on this machine: the units were not looked at");
        return;
    };
    assert!(ran.status.success() && text(&ran).is_empty(), "{}", text(&ran));
    let service = folder.path().join("neverlapse-pull.service");
    let security = ["security", "--offline=true", "--threshold=35"];
    let ran = Command::new("systemd-analyze")
        .args(security)
        .arg(service)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", text(&ran));
}

#[test]
fn a_binary_that_needs_a_later_glibc_is_not_published() {
    let check = |limit: &str| {
        let script = root().join("cli/fleet/glibc.sh");
        Command::new(script).args([limit, NEVERLAPSE]).output().unwrap()
    };
    let passed = check("2.99");
    assert!(
        passed.status.success() && text(&passed).contains("needs GLIBC_2."),
        "{}",
        text(&passed)
    );
    let failed = check("2.2");
    assert!(
        !failed.status.success() && text(&failed).contains("expected GLIBC_2.2 or earlier"),
        "{}",
        text(&failed)
    );
}

/// The stack, and what is published in its bucket.
struct Fleet<'a> {
    stack: &'a Stack,
    runtime: Handle,
    workshop: Workshop,
    folder: TempDir,
    client: PathBuf,
}

impl<'a> Fleet<'a> {
    fn new(stack: &'a Stack) -> Self {
        let folder = tempfile::Builder::new().prefix("neverlapse-fleet-").tempdir().unwrap();
        let client = folder.path().join(MACHINE);
        // As they ship: symbols are a third of a debug build, which is copied and hashed often.
        for name in CLIENTS {
            let stripped = Command::new("strip")
                .arg("-o")
                .args([&folder.path().join(name), Path::new(NEVERLAPSE)])
                .status();
            assert!(stripped.unwrap().success());
        }
        Self {
            stack,
            runtime: Handle::current(),
            workshop: Workshop::new(stack),
            folder,
            client,
        }
    }

    fn put(&self, key: &str, content: &str) {
        self.runtime.block_on(self.stack.put(key, content)).unwrap();
    }

    /// The policy word by word, then asked.
    async fn a_reader_may_do_this_and_nothing_else(&self) {
        let bucket = format!("arn:aws:s3:::{}", self.stack.bucket);
        let policy = self.reader_policy();
        let key = policy["Statement"][4]["Resource"].clone();
        assert!(key.as_str().unwrap().contains(":key/"), "{policy}");
        assert_ne!(key, json!(self.stack.secrets_key));
        // The suffix is another one in China and in the European Sovereign Cloud.
        let via_s3 = json!({"StringLike": {"kms:ViaService": "s3.eu-central-1.amazonaws.*"}});
        // Two names in three places: the first comes again, and means the same.
        let names = ["shop.test", "mail.shop.test", "shop.test"];
        let each = |before: &str, after: &str| -> Vec<String> {
            names
                .iter()
                .map(|name| format!("{bucket}/{before}/{name}/{after}"))
                .collect()
        };
        let prefixes = ["client/*", "certificates/shop.test/*", "certificates/mail.shop.test/*"];
        let expected = json!({"Version": "2012-10-17", "Statement": [
            {"Sid": "ReadItsCertificates", "Effect": "Allow", "Action": "s3:GetObject", "Resource": each("certificates", "*")},
            {"Sid": "WriteItsOwnReceipts", "Effect": "Allow", "Action": ["s3:PutObject", "s3:DeleteObject"],
             "Resource": each("receipts", "${aws:userid}.json")},
            {"Sid": "FetchTheClient", "Effect": "Allow", "Action": "s3:GetObject", "Resource": format!("{bucket}/client/*")},
            {"Sid": "TellMissingFromForbidden", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket,
             "Condition": {"StringLike": {"s3:prefix": prefixes}}},
            {"Sid": "UseTheBucketsKey", "Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": key,
             "Condition": via_s3},
        ]});
        assert_eq!(policy, expected);

        // The emulator's evaluation knows no user id: here is one.
        let policy = policy.to_string().replace("${aws:userid}", "AROAEXAMPLE:i-1");
        for (action, key, expected) in [
            ("s3:GetObject", "certificates/shop.test/current.json", "allowed"),
            (
                "s3:GetObject",
                "certificates/shop.test/versions/1/privkey.pem",
                "allowed",
            ),
            ("s3:GetObject", "certificates/mail.shop.test/current.json", "allowed"),
            (
                "s3:GetObject",
                "certificates/api.shop.test/versions/1/privkey.pem",
                "implicitDeny",
            ),
            (
                "s3:GetObject",
                "certificates/shop.test.evil/versions/1/privkey.pem",
                "implicitDeny",
            ),
            ("s3:GetObject", "accounts/letsencrypt/account.json", "implicitDeny"),
            ("s3:GetObject", "orders/shop.test.json", "implicitDeny"),
            ("s3:GetObject", "secrets/slack-webhook", "implicitDeny"),
            ("s3:GetObject", "inventory.toml", "implicitDeny"),
            (
                "s3:GetObject",
                "receipts/shop.test/AROAEXAMPLE:i-1.json",
                "implicitDeny",
            ),
            ("s3:GetObject", "client/1/install.sh", "allowed"),
            ("s3:PutObject", "client/1/install.sh", "implicitDeny"),
            ("s3:PutObject", "certificates/shop.test/current.json", "implicitDeny"),
            ("s3:PutObject", "receipts/shop.test/AROAEXAMPLE:i-1.json", "allowed"),
            ("s3:DeleteObject", "receipts/shop.test/AROAEXAMPLE:i-1.json", "allowed"),
            (
                "s3:PutObject",
                "receipts/shop.test/AROAEXAMPLE:i-2.json",
                "implicitDeny",
            ),
            (
                "s3:PutObject",
                "receipts/api.shop.test/AROAEXAMPLE:i-1.json",
                "implicitDeny",
            ),
        ] {
            let resource = format!("{bucket}/{key}");
            let asked = Call::query(
                "iam",
                &[
                    ("Action", "SimulateCustomPolicy"),
                    ("PolicyInputList.member.1", &policy),
                    ("ActionNames.member.1", action),
                    ("ResourceArns.member.1", &resource),
                ],
            );
            let answer = self.stack.call(&asked).await.unwrap();
            assert!(
                answer.contains(&format!("<EvalDecision>{expected}</EvalDecision>")),
                "{action} {key}: {answer}"
            );
        }
    }

    fn reader_policy(&self) -> Value {
        let query = "Stacks[0].Outputs[?OutputKey=='ReaderPolicyArn'].OutputValue | [0]";
        let arn = self.aws(&[
            "cloudformation",
            "describe-stacks",
            "--stack-name",
            "neverlapse",
            "--query",
            query,
        ]);
        let arn = arn.as_str().unwrap();
        let policy = self.aws(&["iam", "get-policy", "--policy-arn", arn]);
        let version = policy["Policy"]["DefaultVersionId"].as_str().unwrap();
        let version = self.aws(&[
            "iam",
            "get-policy-version",
            "--policy-arn",
            arn,
            "--version-id",
            version,
        ]);
        version["PolicyVersion"]["Document"].clone()
    }

    /// Publishes a release by `make publish-client`'s script, and answers with its name.
    fn publish(&self, client: &Path, configuration: &str) -> String {
        let folder = tempfile::tempdir_in(&self.folder).unwrap();
        for name in CLIENTS {
            fs::copy(client, folder.path().join(name)).unwrap();
        }
        let file = folder.path().join("web.toml");
        fs::write(&file, configuration).unwrap();
        let ran = self.workshop.publish(folder.path(), &[&file]);
        assert!(ran.status.success(), "{}", text(&ran));
        let said = String::from_utf8_lossy(&ran.stdout);
        let release = said.split("FleetRelease=").nth(1).unwrap().split_whitespace().next();
        assert!(said.trim_end().ends_with(" FleetConfiguration=web.toml"), "{said}");
        release.unwrap().to_owned()
    }

    /// It would fail on every instance that gets it.
    fn publishes_no_configuration_with_mistakes(&self) {
        let file = self.folder.path().join("bad.toml");
        fs::write(&file, "bukcket = \"x\"\n[[certificate]]\nname = \"a\"\n").unwrap();
        let ran = self.workshop.publish(self.folder.path(), &[&file]);
        let said = text(&ran);
        assert!(
            !ran.status.success() && said.contains("unknown key `bukcket`"),
            "{said}"
        );
        assert!(said.contains("is not published"), "{said}");
    }

    fn publish_certificate(&self) {
        let mut depot = Depot::new().unwrap();
        let now = Timestamp::now();
        let leaf = Authority::new().unwrap().leaf(NAME, now + Duration::days(60)).unwrap();
        depot.publish(NAME, &leaf).unwrap();
        let to = format!("s3://{}/", self.stack.bucket);
        self.cli(&["s3", "cp", "--recursive", depot.path().to_str().unwrap(), &to]);
    }

    /// The same program in another file.
    fn newer_client(&self) -> PathBuf {
        let newer = self.folder.path().join("newer");
        fs::copy(&self.client, &newer).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&newer).unwrap();
        file.write_all(b"newer").unwrap();
        newer
    }

    fn script(&self, name: &str, commands: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        executable(&path, commands);
        path
    }

    fn aws(&self, arguments: &[&str]) -> Value {
        let said = self.cli(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{arguments:?}: {said}"))
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let mut aws = Command::new(tools().join("aws"));
        // Its first version does not know AWS_REGION.
        aws.args(arguments)
            .envs(self.stack.environment())
            .env("AWS_DEFAULT_REGION", REGION);
        let ran = aws.output().unwrap();
        assert!(ran.status.success(), "{arguments:?}: {}", text(&ran));
        String::from_utf8(ran.stdout).unwrap()
    }
}

/// A repository of its own, with what is published of this one.
struct Workshop {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Workshop {
    fn new(stack: &Stack) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("neverlapse-workshop-")
            .tempdir()
            .unwrap();
        for from in ["cli/fleet", "cli/systemd"] {
            let to = folder.path().join(from);
            fs::create_dir_all(&to).unwrap();
            for file in fs::read_dir(root().join(from)).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
        let mut environment: Vec<_> = stack
            .environment()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        environment.push(("PATH".to_owned(), path_with(&[&tools()])));
        let workshop = Self { folder, environment };
        workshop.git(&["init", "--quiet"]);
        workshop.git(&["add", "."]);
        workshop.commit();
        workshop
    }

    fn commit(&self) {
        let who = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        self.git(&[&who[..], &["commit", "--quiet", "--all", "--message", "as it is"]].concat());
    }

    /// Changes a file, and tries to publish.
    fn change(&self) -> Output {
        let service = self.folder.path().join("cli/systemd/neverlapse-pull.service");
        let text = fs::read_to_string(&service).unwrap();
        fs::write(&service, format!("{text}# changed\n")).unwrap();
        self.publish(Path::new("/nowhere"), &[])
    }

    fn publish(&self, binaries: &Path, configurations: &[&Path]) -> Output {
        let mut publish = Command::new(self.folder.path().join("cli/fleet/publish.sh"));
        publish.arg("neverlapse").arg(binaries).args(configurations);
        publish
            .env_remove("DIRTY")
            .envs(self.environment.clone())
            .output()
            .unwrap()
    }

    fn git(&self, arguments: &[&str]) {
        let ran = Command::new("git")
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(ran.status.success(), "{arguments:?}: {}", text(&ran));
    }
}

/// A machine: a root folder, and programs that are found before this machine's.
struct Instance<'a> {
    fleet: &'a Fleet<'a>,
    root: TempDir,
    bin: PathBuf,
}

impl<'a> Instance<'a> {
    fn new(fleet: &'a Fleet<'a>) -> Self {
        let root = tempfile::Builder::new().prefix("neverlapse-root-").tempdir().unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let instance = Self { fleet, root, bin };
        // Nothing of systemd runs here. Units are enabled by its own program, and started as it
        // would.
        instance.program("systemctl", SYSTEMCTL);
        instance.program("journalctl", "cat \"$DESTDIR/journal\"");
        instance
    }

    /// Another one, with the same on its disk.
    fn copy(&self) -> Self {
        let copy = Self::new(self.fleet);
        let (from, to) = (self.root.path().join("."), copy.root.path());
        let copied = Command::new("cp").arg("-a").args([&from, to]).status();
        assert!(copied.unwrap().success());
        copy
    }

    fn program(&self, name: &str, commands: &str) {
        executable(&self.bin.join(name), commands);
    }

    fn configuration(&self, name: &str) -> String {
        let (folder, state) = (self.path("etc/neverlapse"), self.path("var/lib/neverlapse"));
        let touched = self.path("reloaded");
        format!(
            "bucket = {:?}\ninstance = \"web-1\"\nfolder = {folder:?}\nstate = {state:?}\nreload_command = [\"touch\", {touched:?}]\n\
             [[certificate]]\nname = {name:?}\n",
            self.fleet.stack.bucket
        )
    }

    /// What SSM does with the document: puts the parameters in, and runs the script.
    fn run(&self, release: &str, configuration: &str) -> Output {
        let mut script = script();
        for (name, value) in [
            ("Bucket", self.fleet.stack.bucket.as_str()),
            ("Release", release),
            ("Configuration", configuration),
        ] {
            script = script.replace(&format!("{{{{ {name} }}}}"), value);
        }
        assert!(!script.contains("{{"), "{script}");
        let path = self.path("_script.sh");
        fs::write(&path, script).unwrap();
        let environment = self.fleet.stack.environment();
        let ran = Command::new("sh")
            .arg(path)
            .envs(environment.iter().copied().filter(|(key, _)| *key != "AWS_REGION"))
            .env("AWS_SSM_REGION_NAME", REGION)
            .env("DESTDIR", self.root.path())
            .env("PATH", path_with(&[&self.bin, &tools()]))
            .output();
        ran.unwrap()
    }

    fn installs(&self, release: &str) {
        let ran = self.run(release, "web.toml");
        let said = text(&ran);
        assert!(ran.status.success(), "{said}");
        for line in [
            "neverlapse: added /usr/local/bin/neverlapse",
            "neverlapse: added /etc/systemd/system/neverlapse-leave.service",
            "neverlapse: added /etc/systemd/system/neverlapse-pull.service",
            "neverlapse: added /etc/systemd/system/neverlapse-pull.timer",
            "neverlapse: added /etc/neverlapse/pull.toml",
            &format!("release {release}, is installed"),
            "neverlapse: neverlapse pull ran, and all is well",
        ] {
            assert!(said.contains(line), "{line:?} is missing in:\n{said}");
        }
        assert_eq!(self.client(), fs::read(&self.fleet.client).unwrap());
        assert_eq!(
            fs::metadata(self.path(CLIENT)).unwrap().permissions().mode() & 0o7777,
            0o755
        );
        let log = fs::read_to_string(self.path("systemctl.log")).unwrap();
        let expected = [
            "daemon-reload",
            "enable --quiet neverlapse-pull.timer",
            "restart neverlapse-pull.timer",
        ];
        for line in expected.into_iter().chain(["start neverlapse-pull.service"]) {
            assert!(log.lines().any(|one| one == line), "{line:?} is missing in:\n{log}");
        }
        let wants = self.path("etc/systemd/system/timers.target.wants/neverlapse-pull.timer");
        assert!(wants.is_symlink(), "the timer is not enabled: {said}");
        let installed = fs::read_to_string(self.path("etc/neverlapse/live/shop.test/fullchain.pem"));
        assert!(installed.unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(self.path("reloaded").exists());
        self.nothing_is_left_over();
    }

    fn a_second_run_changes_nothing(&self, release: &str) {
        let before = self.times();
        fs::remove_file(self.path("systemctl.log")).unwrap();
        let ran = self.run(release, "web.toml");
        let said = text(&ran);
        assert!(ran.status.success(), "{said}");
        assert!(said.contains("was installed before; nothing was changed"), "{said}");
        assert!(!said.contains("added") && !said.contains("replaced"), "{said}");
        assert_eq!(self.times(), before);
        let log = fs::read_to_string(self.path("systemctl.log")).unwrap();
        assert!(!log.contains("daemon-reload") && !log.contains("restart"), "{log}");
    }

    fn is_upgraded_to(&self, release: &str, client: &Path) {
        let ran = self.run(release, "web.toml");
        let said = text(&ran);
        assert!(ran.status.success(), "{said}");
        assert!(
            said.contains("neverlapse: replaced /usr/local/bin/neverlapse\n"),
            "{said}"
        );
        assert!(
            !said.contains("neverlapse-pull.service"),
            "only what differs is replaced: {said}"
        );
        assert_eq!(self.client(), fs::read(client).unwrap());
        self.nothing_is_left_over();
    }

    /// A release of which somebody replaced a file who can write to the bucket.
    fn refuses_if_swapped(&self, file: &str, reason: &str, client: &Path) {
        let configuration = format!("{}# {file}\n", self.configuration(NAME));
        let release = self.fleet.publish(client, &configuration);
        self.fleet.put(
            &format!("client/{release}/{file}"),
            "#!/bin/sh\ntouch \"$DESTDIR/ran\"\n",
        );
        self.refuses(&release, "web.toml", reason);
    }

    fn refuses_what_it_cannot_use(&self, release: &str) {
        self.refuses(&"0".repeat(64), "web.toml", "SHA256SUMS");
        self.refuses(release, "mail.toml", "has no \"mail.toml\"");
        let broken = self.fleet.script("broken", "[ \"$1\" = validate ]");
        let broken = self.fleet.publish(&broken, &self.configuration(NAME));
        self.refuses(&broken, "web.toml", "does not run on this machine");

        self.program("uname", "echo riscv64");
        let reason = "there is no client for \"riscv64\" (expected x86_64 or aarch64)";
        self.refuses(release, "web.toml", reason);
        fs::remove_file(self.bin.join("uname")).unwrap();
    }

    /// What is installed is as told, but there is nothing under this name: whoever rolls out is to
    /// know.
    fn tells_that_nothing_is_published(&self, client: &Path) {
        let unknown = self.fleet.publish(client, &self.configuration("nobody.test"));
        let ran = self.run(&unknown, "web.toml");
        let said = text(&ran);
        assert!(
            !ran.status.success() && said.contains("neverlapse pull failed"),
            "{said}"
        );
        assert!(said.contains("no version is published under this name"), "{said}");
        assert_eq!(self.client(), fs::read(client).unwrap());
    }

    /// Without a configuration of the release the instance keeps its own, or waits for one.
    fn waits_for_a_configuration(&self, release: &str) {
        let ran = self.run(release, "");
        let said = text(&ran);
        assert!(
            ran.status.success() && said.contains("the timer waits for it"),
            "{said}"
        );
    }

    fn refuses(&self, release: &str, configuration: &str, reason: &str) {
        let before = self.times();
        let ran = self.run(release, configuration);
        assert!(!ran.status.success(), "{}", text(&ran));
        assert!(text(&ran).contains(reason), "{reason:?} is missing in:\n{}", text(&ran));
        assert_eq!(self.times(), before, "{reason}");
        assert!(!self.path("ran").exists(), "it ran what was not published");
        self.nothing_is_left_over();
    }

    fn client(&self) -> Vec<u8> {
        fs::read(self.path(CLIENT)).unwrap()
    }

    /// When each installed file was put where it is.
    fn times(&self) -> Vec<(String, std::time::SystemTime)> {
        let files = [
            CLIENT,
            "etc/systemd/system/neverlapse-pull.service",
            "etc/systemd/system/neverlapse-pull.timer",
            "etc/neverlapse/pull.toml",
        ];
        let time = |file: &str| fs::metadata(self.path(file)).unwrap().modified().unwrap();
        files.map(|file| (file.to_owned(), time(file))).into()
    }

    fn nothing_is_left_over(&self) {
        for folder in ["usr/local/bin", "etc/systemd/system", "etc/neverlapse"] {
            for file in fs::read_dir(self.path(folder)).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                assert!(!name.starts_with('.'), "{folder}/{name} is left over");
            }
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }
}

/// The script of the template's document.
fn script() -> String {
    let template = yaml("template.yaml");
    let steps = &template[0]["Resources"]["FleetDocument"]["Properties"]["Content"]["mainSteps"];
    steps[0]["inputs"]["runCommand"][0].as_str().unwrap().to_owned()
}

/// The documents of a YAML file; CloudFormation's tags become its functions.
fn yaml(path: &str) -> Value {
    let python = root().join(".local/sam/bin/python");
    let ran = Command::new(python)
        .args(["-c", YAML])
        .arg(root().join(path))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", text(&ran));
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn executable(path: &Path, commands: &str) {
    fs::write(path, format!("#!/bin/sh\n{commands}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn tools() -> PathBuf {
    root().join(".local/aws/bin")
}

fn path_with(first: &[&Path]) -> String {
    let first = first.iter().map(|folder| folder.display().to_string());
    let all: Vec<_> = first.chain(std::env::var("PATH")).collect();
    all.join(":")
}

fn text(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
}

const REGION: &str = "eu-central-1";
const CLIENT: &str = "usr/local/bin/neverlapse";
const CLIENTS: [&str; 2] = ["neverlapse-x86_64", "neverlapse-aarch64"];
const MACHINE: &str = if cfg!(target_arch = "aarch64") {
    "neverlapse-aarch64"
} else {
    "neverlapse-x86_64"
};
const SYSTEMCTL: &str = r#"
echo "$*" >>"$DESTDIR/systemctl.log"
case "$*" in
  --version | "enable "*) PATH=/usr/bin:/bin exec systemctl --root="$DESTDIR" "$@" ;;
  "start neverlapse-pull.service")
    "$DESTDIR/usr/local/bin/neverlapse" pull --config "$DESTDIR/etc/neverlapse/pull.toml" >"$DESTDIR/journal" 2>&1 ;;
esac"#;
const YAML: &str = "
import json, sys, yaml
def tagged(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ('Ref', 'Condition') else 'Fn::' + suffix: value}
yaml.SafeLoader.add_multi_constructor('!', tagged)
json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)
";
