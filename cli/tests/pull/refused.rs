//! What is refused: versions and pointers that are not right, folders that others could write to.

use std::fs;
use std::os::unix::fs::symlink;

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::{CERT, CHAIN, Current, FULLCHAIN, FileHash, PRIVKEY, file_key};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::pki::{Authority, Leaf};
use time::Duration;

use super::bench::{Bench, NAME, chmod};

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
        ran.says(1, expected);
        assert_eq!(bench.everything(), before, "{expected}: nothing is touched");
        bench.serves(&old).await;
        bench.reported_failed(expected);
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
    bench.pulls().await;
    bench.serves(&good).await;
}

#[tokio::test]
async fn an_old_pointer_is_refused_and_a_rollback_is_installed() {
    let (mut bench, first) = Bench::open().await;
    let second = bench.publish(80);
    bench.pulls().await;
    let before = bench.everything();
    bench.depot.point(&first).unwrap();
    let ran = bench.pull().await;
    ran.says(1, "out-of-date current.json (sequence 1, 2 is known here)");
    assert_eq!(bench.everything(), before);
    let mut twin = second.clone();
    twin.manifest_sha256 = "0".repeat(64);
    bench.depot.point(&twin).unwrap();
    let ran = bench.pull().await;
    ran.says(1, "another version under sequence 2");
    bench.serves(&second).await;

    bench.depot.roll_back(&first).unwrap();
    bench.pulls().await;
    bench.serves(&first).await;
    bench.reported(Stage::Served, &first);
}

#[tokio::test]
async fn the_receipt_about_a_refused_pointer_named_the_version_before() {
    let (mut bench, first) = Bench::open().await;
    let second = bench.publish(80);
    bench.pulls().await;
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
    bench.pulls().await;
    bench.reported(Stage::Served, &second);
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
        ran.says(3, "a symlink in its place is refused");
        assert_eq!(fs::read_dir(&trap).unwrap().count(), 0, "{planted}");
    }
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir_all(folder.join("versions")).unwrap();
    chmod(folder.join("versions"), 0o777);
    let ran = bench.pull().await;
    ran.says(3, "versions can be written by others (mode 777); chmod go-w it");
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir_all(bench.live()).unwrap();
    let ran = bench.pull().await;
    ran.says(3, "is there and is no symlink of ours; move it away");
}

#[tokio::test]
async fn a_state_folder_that_others_can_write_to_was_trusted() {
    let (bench, _) = Bench::open().await;
    chmod(bench.state(), 0o777);
    let ran = bench.pull().await;
    ran.says(3, "state can be written by others (mode 777)");
    chmod(bench.state(), 0o700);
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
    ran.says(3, "folder \"../../elsewhere\" is not one of ours");
    fs::remove_file(&file).unwrap();
    fs::remove_file(bench.state().join("lock")).unwrap();
    symlink(&elsewhere, bench.state().join("lock")).unwrap();
    let ran = bench.pull().await;
    ran.says(3, "cannot open");
    assert!(!elsewhere.exists());
}
