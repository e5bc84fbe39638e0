//! The client's .deb and .rpm: what is in them, and that dpkg and rpm install, upgrade and remove
//! them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use tempfile::TempDir;

/// A folder with both packages of the binary that this test was built with.
struct Packages {
    folder: TempDir,
}

/// The packages that all tests share; none where nfpm is not installed.
static PACKAGES: LazyLock<Option<Packages>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("neverlapse");
    fs::copy(env!("CARGO_BIN_EXE_neverlapse"), &binary).unwrap();
    // Without symbols, which would only take time to compress.
    let _ = Command::new("strip").arg(&binary).status();
    Packages::make(&binary)
});

impl Packages {
    fn make(binary: &Path) -> Option<Self> {
        let nfpm = root().join(".local/nfpm/bin");
        if !nfpm.join("nfpm").exists() {
            eprintln!("SKIPPED: nfpm is not installed, so no package was made (make setup)");
            return None;
        }

        let folder = tempfile::tempdir().unwrap();
        let path = format!("{}:{}", nfpm.display(), std::env::var("PATH").unwrap());
        let made = Command::new(root().join("packaging/package.sh"))
            .arg(binary)
            .arg(std::env::consts::ARCH)
            .arg(folder.path())
            .envs([("PATH", path.as_str()), ("SOURCE_DATE_EPOCH", "1700000000")])
            .env("NEVERLAPSE", env!("CARGO_BIN_EXE_neverlapse"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", said(&made));
        Some(Self { folder })
    }

    fn file(&self, extension: &str) -> PathBuf {
        let files = fs::read_dir(self.folder.path()).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        paths
            .find(|path| path.extension().is_some_and(|found| found == extension))
            .unwrap()
    }
}

/// What an installed package has put into a root folder.
#[track_caller]
fn assert_installed(machine: &Path) {
    let mode = |path: &str| {
        fs::metadata(machine.join(path))
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .permissions()
            .mode()
    };
    assert_eq!(mode("usr/bin/neverlapse") & 0o777, 0o755);
    for path in [
        "usr/lib/systemd/system/neverlapse-pull.service",
        "usr/lib/systemd/system/neverlapse-pull.timer",
        "usr/lib/systemd/system/neverlapse-boot.timer",
        "usr/lib/systemd/system/neverlapse-leave.service",
        "usr/share/man/man1/neverlapse.1.gz",
        "usr/share/man/man1/neverlapse-pull.1.gz",
        "usr/share/bash-completion/completions/neverlapse",
        "usr/share/doc/neverlapse/pull.example.toml",
        "etc/neverlapse/pull.toml",
    ] {
        assert_eq!(mode(path) & 0o777, 0o644, "{path}");
    }

    let unit = fs::read_to_string(machine.join("usr/lib/systemd/system/neverlapse-pull.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/neverlapse pull"), "{unit}");
    let configuration = fs::read_to_string(machine.join("etc/neverlapse/pull.toml")).unwrap();
    assert!(configuration.contains("# bucket = "), "{configuration}");
    let is_comment = |line: &str| line.is_empty() || line.starts_with('#');
    assert!(
        configuration.lines().all(is_comment),
        "it does nothing until somebody fills it in: {configuration}"
    );

    let version = Command::new(machine.join("usr/bin/neverlapse"))
        .arg("--version")
        .output()
        .unwrap();
    assert_eq!(
        said(&version).trim(),
        format!("neverlapse {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_deb_is_installed_upgraded_and_removed() {
    let Some(packages) = &*PACKAGES else { return };
    let deb = packages.file("deb");
    if Command::new("dpkg").arg("--version").output().is_err() {
        eprintln!("SKIPPED: dpkg is not on this machine, so the .deb was not installed");
        return;
    }
    let machine = tempfile::tempdir().unwrap();
    let database = machine.path().join("var/lib/dpkg");
    fs::create_dir_all(database.join("updates")).unwrap();
    fs::create_dir_all(database.join("info")).unwrap();
    fs::write(database.join("status"), "").unwrap();
    let dpkg = |arguments: &[&str]| {
        let done = Command::new("dpkg")
            .arg(format!("--root={}", machine.path().display()))
            // The folder has no shell and no libc, and this test may not be root's.
            .args([
                "--force-not-root",
                "--force-script-chrootless",
                "--force-depends",
                "--force-confold",
            ])
            .args(arguments)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", said(&done));
        said(&done)
    };

    dpkg(&["--install", deb.to_str().unwrap()]);
    assert_installed(machine.path());
    assert!(
        dpkg(&["--status", "neverlapse"]).contains(" /etc/neverlapse/pull.toml "),
        "a conffile"
    );

    let configuration = machine.path().join("etc/neverlapse/pull.toml");
    fs::write(&configuration, "bucket = \"mine\"\n").unwrap();
    dpkg(&["--install", deb.to_str().unwrap()]);
    assert_eq!(
        fs::read_to_string(&configuration).unwrap(),
        "bucket = \"mine\"\n",
        "an upgrade keeps it"
    );

    dpkg(&["--remove", "neverlapse"]);
    assert!(!machine.path().join("usr/bin/neverlapse").exists());
    assert!(
        !machine
            .path()
            .join("usr/lib/systemd/system/neverlapse-pull.timer")
            .exists()
    );
    assert!(configuration.exists(), "a person's file stays until --purge");
    dpkg(&["--purge", "neverlapse"]);
    assert!(!configuration.exists());
}

#[test]
fn the_rpm_is_installed_and_removed() {
    let Some(packages) = &*PACKAGES else { return };
    let file = packages.file("rpm");
    if Command::new("rpm").arg("--version").output().is_err() {
        eprintln!("SKIPPED: rpm is not on this machine, so the .rpm was not installed (make setup)");
        return;
    }
    let machine = tempfile::tempdir().unwrap();
    let rpm = |arguments: &[&str]| {
        let done = Command::new("rpm").args(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", said(&done));
        said(&done)
    };
    let scratch = [
        "--root",
        machine.path().to_str().unwrap(),
        "--nodeps",
        "--noscripts",
        "--nosignature",
        "--ignorearch",
    ];

    rpm(&[&scratch[..], &["--install", file.to_str().unwrap()]].concat());
    assert_installed(machine.path());
    let configurations = rpm(&[
        "--query",
        "--package",
        "--configfiles",
        "--nosignature",
        file.to_str().unwrap(),
    ]);
    assert_eq!(configurations.lines().last(), Some("/etc/neverlapse/pull.toml"));
    let scripts = rpm(&[
        "--query",
        "--package",
        "--scripts",
        "--nosignature",
        file.to_str().unwrap(),
    ]);
    assert!(
        scripts.contains("systemctl disable --now neverlapse-pull.timer"),
        "{scripts}"
    );

    rpm(&[
        &[
            "--root",
            machine.path().to_str().unwrap(),
            "--nodeps",
            "--noscripts",
            "--erase",
        ][..],
        &["neverlapse"],
    ]
    .concat());
    assert!(!machine.path().join("usr/bin/neverlapse").exists());
}

/// Two builds of a commit have to be the same bytes, or nobody can check one.
#[test]
fn a_package_made_again_is_the_same() {
    // A small one: it is about names, times and order.
    let binary = root().join("packaging/package.sh");
    let (Some(first), Some(second)) = (Packages::make(&binary), Packages::make(&binary)) else {
        return;
    };
    for extension in ["deb", "rpm"] {
        let bytes = |packages: &Packages| fs::read(packages.file(extension)).unwrap();
        assert!(bytes(&first) == bytes(&second), "two .{extension} of one source differ");
    }
}

/// What the packaged template needs: no build, the zips beside it, and one architecture.
#[test]
fn the_template_of_a_release_builds_nothing() {
    for architecture in ["arm64", "x86_64"] {
        let made = Command::new(root().join("packaging/template.sh"))
            .arg(architecture)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", said(&made));
        let template = said(&made);
        for absent in ["BuildMethod", "BuildProperties", "CodeUri: ."] {
            assert!(!template.contains(absent), "{absent}");
        }
        for present in [
            "      CodeUri: probe.zip",
            "      CodeUri: renewer.zip",
            &format!("    Default: {architecture}\n    AllowedValues: [{architecture}]"),
        ] {
            assert!(template.contains(present), "{present}");
        }
    }
}

/// Everything that a person may hold in hands says which version it is.
#[test]
fn every_part_has_the_same_version() {
    let template = fs::read_to_string(root().join("template.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        template.contains(&format!("    Value: {version}")),
        "the template's output Version"
    );
    let changes = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(
        changes.contains(&format!("## {version} - 20")),
        "a dated entry in CHANGELOG.md"
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
