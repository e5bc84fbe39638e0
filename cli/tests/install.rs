//! `install.sh` and the units, on a machine where a person has decided something in between.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use neverlapse::text::sha256;
use tempfile::TempDir;

/// A release, and an instance's root folder. `aws` and `systemctl` are stand-ins.
struct Machine {
    folder: TempDir,
    release: String,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("release");
        fs::create_dir(&release).unwrap();
        for source in ["cli/systemd", "cli/fleet"] {
            for file in fs::read_dir(root().join(source)).unwrap() {
                let file = file.unwrap().path();
                fs::copy(&file, release.join(file.file_name().unwrap())).unwrap();
            }
        }
        for machine in ["neverlapse-x86_64", "neverlapse-aarch64"] {
            fs::write(release.join(machine), "#!/bin/sh\necho neverlapse 0.1.0\n").unwrap();
        }
        fs::write(release.join("web.toml"), "bucket = \"b\"\n").unwrap();

        let mut sums = String::new();
        for file in fs::read_dir(&release).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            sums += &format!("{}  {name}\n", sha256(&fs::read(&path).unwrap()));
        }
        fs::write(release.join("SHA256SUMS"), &sums).unwrap();

        let machine = Self {
            release: sha256(sums.as_bytes()),
            folder,
        };
        machine.program("aws", "cat \"$RELEASE/${4##*/}\" >\"$5\"");
        machine.systemctl("enabled");
        machine.program("journalctl", "echo \"journalctl $*\" >>\"$LOG\"");
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    fn program(&self, name: &str, commands: &str) {
        let bin = self.folder.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join(name), format!("#!/bin/sh\n{commands}\n")).unwrap();
        chmod(&bin.join(name), 0o755);
    }

    /// One to which the timer is in this state.
    fn systemctl(&self, state: &str) {
        self.program(
            "systemctl",
            &format!(
                "echo \"systemctl $*\" >>\"$LOG\"\ncase \"$1 $2\" in\n--version*) echo 'systemd 252 (252)' ;;\n\
                 'is-enabled neverlapse-pull.timer') echo {state} ;;\nesac"
            ),
        );
    }

    fn command(&self) -> Command {
        let path = format!(
            "{}:{}",
            self.folder.path().join("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let mut command = Command::new("sh");
        command
            .arg(self.folder.path().join("release/install.sh"))
            .args(["bucket", &self.release, "web.toml"])
            .env("PATH", path)
            .env("DESTDIR", self.path(""))
            .env("RELEASE", self.folder.path().join("release"))
            .env("TMPDIR", self.temporary())
            .env("LOG", self.folder.path().join("log"));
        command
    }

    fn temporary(&self) -> PathBuf {
        let folder = self.folder.path().join("tmp");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// What it said, and what was done by systemd's programs.
    fn install(&self) -> (bool, String, String) {
        let log = self.folder.path().join("log");
        let _ = fs::remove_file(&log);
        let Output { status, stdout, stderr } = self.command().output().unwrap();
        let said = [stdout, stderr].concat();
        let done = fs::read_to_string(log).unwrap_or_default();
        (status.success(), String::from_utf8(said).unwrap(), done)
    }
}

#[test]
fn two_installers_at_once_took_each_others_files_away() {
    let machine = Machine::new();
    // Fetching takes a while, and only one of them may be at it.
    machine.program(
        "aws",
        "mkdir \"$RELEASE/../busy\" || exit 9\nsleep 0.2\ncat \"$RELEASE/${4##*/}\" >\"$5\"\nrmdir \"$RELEASE/../busy\"",
    );
    let mut installers: Vec<_> = (0..2).map(|_| machine.command().spawn().unwrap()).collect();
    for installer in &mut installers {
        assert!(installer.wait().unwrap().success());
    }
    assert!(machine.path("usr/local/bin/neverlapse").is_file());
}

#[test]
fn wrong_modes_and_types_were_left_as_they_were() {
    let machine = Machine::new();
    assert!(machine.install().0);
    let (binary, config) = (
        machine.path("usr/local/bin/neverlapse"),
        machine.path("etc/neverlapse/pull.toml"),
    );
    for (file, wrong, expected) in [
        (&binary, 0o644, 0o755),
        (&binary, 0o777, 0o755),
        // A person may allow less.
        (&binary, 0o700, 0o700),
        (&config, 0o666, 0o644),
        (&config, 0o600, 0o600),
    ] {
        chmod(file, wrong);
        let (is_done, said, _) = machine.install();
        assert!(is_done, "{said}");
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, expected, "{wrong:o}: {said}");
        assert_eq!(said.contains("had mode"), wrong != expected, "{said}");
        chmod(file, expected);
    }

    // The right content, by a symlink to somewhere else.
    let elsewhere = machine.path("elsewhere");
    fs::rename(&binary, &elsewhere).unwrap();
    symlink(&elsewhere, &binary).unwrap();
    let (is_done, said, _) = machine.install();
    assert!(is_done && !binary.is_symlink(), "{said}");

    fs::remove_file(&binary).unwrap();
    fs::create_dir(&binary).unwrap();
    let (is_done, said, _) = machine.install();
    assert!(
        !is_done && said.contains("/usr/local/bin/neverlapse is a folder; move it away"),
        "{said}"
    );
}

#[test]
fn what_was_masked_or_disabled_was_enabled_again() {
    let machine = Machine::new();
    let (is_done, said, done) = machine.install();
    assert!(
        is_done && done.contains("enable --quiet neverlapse-pull.timer"),
        "{said}{done}"
    );
    let untouched = |machine: &Machine| {
        let (is_done, said, done) = machine.install();
        assert!(
            is_done && said.contains("this machine has it switched off"),
            "{said}{done}"
        );
        for timer in [
            "neverlapse-pull.timer",
            "neverlapse-boot.timer",
            "neverlapse-pull.service",
        ] {
            for verb in ["enable --quiet", "start", "restart"] {
                assert!(!done.contains(&format!("{verb} {timer}")), "{done}");
            }
        }
    };
    machine.systemctl("disabled");
    untouched(&machine);
    machine.systemctl("enabled");

    let timer = machine.path("etc/systemd/system/neverlapse-pull.timer");
    fs::remove_file(&timer).unwrap();
    symlink("/dev/null", &timer).unwrap();
    untouched(&machine);
    assert_eq!(fs::read_link(&timer).unwrap(), Path::new("/dev/null"));
}

#[test]
fn a_signal_left_files_behind() {
    let machine = Machine::new();
    machine.program(
        "aws",
        "case $4 in *.timer) exec sleep 60 ;; esac\ncat \"$RELEASE/${4##*/}\" >\"$5\"",
    );
    let mut running = machine.command().spawn().unwrap();
    for _ in 0..200 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        if machine.path("usr/local/bin/.neverlapse.new").exists() {
            break;
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let id = running.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(143));
    assert_eq!(fs::read_dir(machine.temporary()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(machine.path("usr/local/bin")).unwrap().count(), 0);
}

#[test]
fn a_target_that_cannot_be_written_to_was_blamed_on_the_bucket() {
    let machine = Machine::new();
    // Not even root can make a folder of a file.
    fs::create_dir_all(machine.path("usr")).unwrap();
    fs::write(machine.path("usr/local"), "").unwrap();
    let (is_done, said, _) = machine.install();
    assert!(
        !is_done && said.contains("cannot create /usr/local/bin; nothing was changed"),
        "{said}"
    );
    assert!(!said.contains("may this machine read"), "{said}");
}

#[test]
fn a_failed_run_was_explained_by_the_runs_before_it() {
    let machine = Machine::new();
    machine.program(
        "systemctl",
        "case \"$*\" in\n--version) echo 'systemd 252 (252)' ;;\n'start neverlapse-pull.service') exit 1 ;;\n\
         show*) echo InvocationID=0123456789abcdef0123456789abcdef ;;\nesac",
    );
    let (is_done, said, done) = machine.install();
    assert!(!is_done && said.contains("neverlapse pull failed"), "{said}");
    assert!(
        done.contains("_SYSTEMD_INVOCATION_ID=0123456789abcdef0123456789abcdef") && !done.contains("--lines"),
        "{done}"
    );
}

#[test]
fn the_first_run_after_a_boot_came_up_to_50_minutes_late() {
    let unit = |name: &str| fs::read_to_string(root().join("cli/systemd").join(name)).unwrap();
    let has = |text: &str, start: &str| text.lines().any(|line| line.starts_with(start));
    let boot = unit("neverlapse-boot.timer");
    let starts = boot.lines().filter(|line| line.starts_with("OnBootSec=")).count();
    assert!(
        starts == 3 && !has(&boot, "RandomizedDelaySec="),
        "the network may come late"
    );
    assert!(!has(&unit("neverlapse-pull.timer"), "OnBootSec="));
}

#[test]
fn commands_of_the_documentation_failed_in_the_sandbox() {
    let unit = fs::read_to_string(root().join("cli/systemd/neverlapse-pull.service")).unwrap();
    for line in [
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallErrorNumber=EPERM",
        "KillMode=process",
    ] {
        assert!(unit.lines().any(|one| one == line), "{line}");
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
