//! The keystore beside the PEM files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use neverlapse::bucket::version::{CERT, CHAIN, PRIVKEY};
use tokio::process::Command;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::bench::{Bench, NAME, NEVERLAPSE, Ran, chmod, mode, run};

pub(crate) const KEYSTORE: &str = "keystore.p12";

impl Bench {
    /// Writes a password, and answers with the line that has a keystore made with it.
    pub(crate) fn password(&self, password: &str) -> String {
        let file = self.host.path().join("keystore.pass");
        let _ = fs::remove_file(&file);
        fs::write(&file, format!("{password}\n")).unwrap();
        chmod(&file, 0o600);
        format!("pkcs12_password_file = {file:?}")
    }

    /// What OpenSSL finds in the keystore with a password.
    pub(crate) async fn keystore(&self, password: &str, what: &[&str]) -> Ran {
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

    /// It opens with the password and holds the leaf that lies beside it, with its key and its
    /// issuers.
    pub(crate) async fn assert_keystore(&self, password: &str) {
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
    chmod(bin.join("openssl"), 0o755);
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
    assert_eq!(mode(bench.live().join(KEYSTORE)), 0o600);
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
    bench.pulls().await;
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
        bench.reported_failed(expected);
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
        chmod(&file, mode);
        refused(&format!("pkcs12_password_file = {file:?}: {expected} {accepted}"), None).await;
    }
    let elsewhere = bench.host.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    refused("it cannot be opened: No such file or directory", None).await;
    symlink(&elsewhere, &file).unwrap();
    refused("it cannot be opened: Too many levels of symbolic links", None).await;
    bench.password("one");
    let folder = mode(bench.host.path());
    chmod(bench.host.path(), 0o777);
    let ran = bench.pull().await;
    assert!(ran.err.contains("can be written by others (mode 777)"), "{ran:?}");
    chmod(bench.host.path(), folder);

    let empty = bench.host.path().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(
        "keystore.p12 needs the program openssl, which is not on the PATH; install openssl, or take pkcs12_password_file out",
        Some(&empty),
    )
    .await;
    // There, and of no use: what it says is told, and no half of a version stays.
    fs::write(empty.join("openssl"), "#!/bin/sh\necho no such algorithm >&2; exit 1\n").unwrap();
    chmod(empty.join("openssl"), 0o755);
    let mut command = Command::new(NEVERLAPSE);
    let ran = run(&mut bench.command({
        command.env("PATH", &empty);
        command
    }))
    .await;
    ran.says(1, "cannot make keystore.p12: `openssl pkcs12 -export ");
    assert!(ran.err.contains("ended with 1: no such algorithm"), "{ran:?}");
    assert_eq!(bench.everything(), before);

    bench.pulls().await;
    bench.assert_keystore("one").await;
    bench.serves(&new).await;
}
