//! Renewed, and then: served everywhere, or told who is behind and where it is stuck.

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::current_key;
use neverlapse_tests::cluster::{Instance, current};
use neverlapse_tests::process::free_port;
use serde_json::Value;

use crate::fixture::{Lab, all_serve, says, serves};

pub(crate) async fn three_serve_what_was_renewed_and_it_is_said_once(lab: &Lab) -> Result<()> {
    let cluster = lab.cluster("three.test", 9, 24).await?;
    all_serve(&cluster, &cluster.first).await?;
    let report = lab.probe().await?;
    let seen = report["endpoints"][0]["observations"]
        .as_array()
        .context("it was looked at")?;
    let mut addresses: Vec<_> = seen.iter().filter_map(|one| one["address"].as_str()).collect();
    addresses.sort_unstable();
    let expected: Vec<_> = cluster.instances.iter().map(|one| one.place().to_string()).collect();
    ensure!(addresses == expected, "{addresses:?}, not {expected:?}");
    says(&lab.alert().await?, &["three.test", "expires in 9 d"])?;
    let new = lab.renewed(&cluster.first).await?;
    all_serve(&cluster, &cluster.first).await?;
    for instance in &cluster.instances {
        let ran = instance.pull().await?;
        ensure!(ran.code == 0, "{}: {ran:?}", instance.id);
        let receipt = instance.receipt(&lab.stack).await?;
        ensure!(
            (&receipt.version, receipt.stage) == (&new.facts.version, Stage::Served),
            "{receipt:?}"
        );
    }
    all_serve(&cluster, &new).await?;

    let report = lab.probe().await?;
    ensure!(report["counts"]["ok"] == 1, "{}", report["counts"]);
    let alert = lab.alert().await?;
    says(&alert, &["resolved: a new certificate is served"])?;
    lab.probe().await?;
    lab.quiet().await
}

pub(crate) async fn a_reload_that_fails_is_told_and_the_next_run_finishes(lab: &Lab) -> Result<()> {
    let cluster = lab.cluster("stuck.test", 9, 24).await?;
    lab.probe().await?;
    lab.alert().await?;
    let new = lab.renewed(&cluster.first).await?;
    let [first, stuck, third] = &cluster.instances[..] else {
        anyhow::bail!("there are three");
    };
    // Without a test before it, so that it is the reload that fails: nginx refuses what has nothing
    // to do with certificates.
    let reload = format!("reload_command = {:?}\n", stuck.host.reload_command());
    stuck.configure(&lab.stack.bucket, &reload)?;
    stuck.host.configure("no_such_directive on;")?;
    for instance in [first, third] {
        let ran = instance.pull().await?;
        ensure!(ran.code == 0, "{}: {ran:?}", instance.id);
        serves(instance, &new).await?;
    }
    for _ in 0..2 {
        let ran = stuck.pull().await?;
        ensure!(ran.code == 1 && ran.said.contains("no_such_directive"), "{ran:?}");
        serves(stuck, &cluster.first).await?;
    }
    let receipt = stuck.receipt(&lab.stack).await?;
    ensure!(
        (&receipt.version, receipt.stage) == (&new.facts.version, Stage::Failed),
        "{receipt:?}"
    );
    ensure!(
        receipt.installed.as_ref() == Some(&cluster.first.facts.version),
        "{receipt:?}"
    );

    lab.probe().await?;
    let alert = lab.alert().await?;
    says(
        &alert,
        &[
            "web-2",
            "has failed to install",
            &new.facts.version,
            "the reload failed",
            "no_such_directive",
        ],
    )?;
    ensure!(
        !alert.text.contains("web-1") && !alert.text.contains("web-3"),
        "{}",
        alert.text
    );

    stuck.host.configure("")?;
    let ran = stuck.pull().await?;
    ensure!(ran.code == 0, "repaired: {ran:?}");
    all_serve(&cluster, &new).await?;
    lab.probe().await?;
    let alert = lab.alert().await?;
    says(&alert, &["resolved: a new certificate is served", "web-2"])?;
    ensure!(
        !alert.subject.contains("WARNING") && !alert.subject.contains("CRITICAL"),
        "{}",
        alert.subject
    );
    lab.probe().await?;
    lab.quiet().await
}

pub(crate) async fn who_never_pulls_is_told_after_the_grace(lab: &Lab) -> Result<()> {
    // Enough days, so that nothing but delivery is to be told.
    let cluster = lab.cluster("forgotten.test", 80, 1).await?;
    let new = forced(lab, &cluster.first.facts.name).await?;
    let [first, second, forgotten] = &cluster.instances[..] else {
        anyhow::bail!("there are three");
    };
    for instance in [first, second] {
        let ran = instance.pull().await?;
        ensure!(ran.code == 0, "{}: {ran:?}", instance.id);
    }
    // The addresses disagree, which is told at once; that it is the third that has not pulled, only
    // once its hour is over.
    let report = lab.probe().await?;
    ensure!(codes(&report).is_empty(), "within its grace: {:?}", codes(&report));
    lab.published_hours_ago(&cluster.name, 2).await?;
    let report = lab.probe().await?;
    ensure!(
        codes(&report) == ["not_pulled", "wrong_certificate"],
        "{:?}",
        codes(&report)
    );
    let told = told(lab, "web-3").await?;
    ensure!(
        told.contains(&cluster.first.facts.version) || told.contains(&new.facts.version),
        "{told}"
    );
    ensure!(!told.contains("web-1") && !told.contains("web-2"), "{told}");

    let ran = forgotten.pull().await?;
    ensure!(ran.code == 0, "{ran:?}");
    all_serve(&cluster, &new).await?;
    let report = lab.probe().await?;
    ensure!(codes(&report).is_empty(), "{:?}", codes(&report));
    lab.alert().await?;
    lab.probe().await?;
    lab.quiet().await
}

pub(crate) async fn an_address_that_another_process_serves_is_told_with_both_fingerprints(lab: &Lab) -> Result<()> {
    let mut cluster = lab.cluster("other.test", 80, 1).await?;
    let port = free_port()?;
    // The first one's nginx stays where clients come; what the client looks after from now on is
    // another one.
    let left = cluster.instances.remove(0);
    let mut moved = Instance::new(&lab.stack, "web-1", &cluster.name, (left.place().ip(), port).into())?;
    moved.launch().await?;
    let new = forced(lab, &cluster.name).await?;
    for instance in cluster.instances.iter().chain([&moved]) {
        let ran = instance.pull().await?;
        ensure!(ran.code == 0, "{}: {ran:?}", instance.id);
        serves(instance, &new).await?;
        ensure!(instance.receipt(&lab.stack).await?.stage == Stage::Served);
    }
    serves(&left, &cluster.first).await?;
    lab.published_hours_ago(&cluster.name, 2).await?;
    let report = lab.probe().await?;
    ensure!(codes(&report) == ["wrong_certificate"], "{:?}", codes(&report));
    let told = told(lab, "serves a different certificate").await?;
    let (place, old, new) = (
        left.place().to_string(),
        &cluster.first.facts.fingerprint[..SHOWN],
        &new.facts.fingerprint[..SHOWN],
    );
    for words in [place.as_str(), old, new] {
        ensure!(told.contains(words), "{words} is missing in:\n{told}");
    }
    ensure!(!told.contains("127.0.0.3") && !told.contains("127.0.0.4"), "{told}");
    // Its process is ended, and the address served by who should.
    drop(left);
    let mut back = Instance::new(&lab.stack, "web-1", &cluster.name, place.parse()?)?;
    back.launch().await?;
    let report = lab.probe().await?;
    ensure!(codes(&report).is_empty(), "{:?}", codes(&report));
    lab.alert().await?;
    lab.quiet().await
}

pub(crate) async fn rolled_back_it_is_installed_as_told(lab: &Lab) -> Result<()> {
    let cluster = lab.cluster("back.test", 80, 24).await?;
    let new = forced(lab, &cluster.name).await?;
    for instance in &cluster.instances {
        let ran = instance.pull().await?;
        ensure!(ran.code == 0, "{}: {ran:?}", instance.id);
    }
    all_serve(&cluster, &new).await?;
    let ran = lab.neverlapse(&["rollback", &cluster.name]).await?;
    ensure!(ran.code == 0, "{ran:?}");
    let back = current(&lab.stack, &cluster.name).await?;
    ensure!(back.rolled_back && back.facts == cluster.first.facts, "{back:?}");
    ensure!(back.sequence > new.sequence, "{} after {}", back.sequence, new.sequence);
    for instance in &cluster.instances {
        let ran = instance.pull().await?;
        ensure!(ran.code == 0, "{}: {ran:?}", instance.id);
    }
    all_serve(&cluster, &cluster.first).await
}

/// Renews it the way an operator does.
async fn forced(lab: &Lab, name: &str) -> Result<neverlapse::bucket::version::Current> {
    let before = current(&lab.stack, name).await.with_context(|| current_key(name))?;
    let ran = lab.neverlapse(&["renew", name, "--force"]).await?;
    ensure!(ran.code == 0, "{ran:?}");
    lab.renewed(&before).await
}

pub(crate) async fn one_that_is_taken_out_of_the_inventory_is_told_until_it_is_let_go(lab: &Lab) -> Result<()> {
    let cluster = lab.cluster("dropped.test", 80, 24).await?;
    let name = &cluster.first.facts.name;
    forced(lab, name).await?;
    while lab.probe().await.is_ok() && lab.quiet().await.is_err() {}
    // A slip of the pen: nothing is left but an endpoint that nobody renews.
    let rest = format!("[[endpoint]]\nhost = {:?}\nquiet = true\n", cluster.name);
    lab.stack.put("inventory.toml", &rest).await?;
    let report = lab.probe().await?;
    ensure!(codes(&report) == ["not_renewed"], "{:?}", codes(&report));
    let record = neverlapse::renewal::Renewal::key(name);
    let alert = lab.alert().await?;
    says(&alert, &["no longer renewed or watched", "valid until", &record])?;
    ensure!(
        alert.subject.starts_with("WARNING: certificate dropped.test"),
        "{}",
        alert.subject
    );
    lab.probe().await?;
    lab.quiet().await?;
    lab.stack.remove(&record).await?;
    let report = lab.probe().await?;
    ensure!(codes(&report).is_empty(), "{:?}", codes(&report));
    says(&lab.alert().await?, &["no longer watched"])
}

/// The section with these words, of the first alert that has them.
async fn told(lab: &Lab, words: &str) -> Result<String> {
    loop {
        let alert = lab.alert().await?;
        let found = alert.text.lines().find(|line| line.contains(words));
        if let Some(line) = found {
            return Ok(line.to_owned());
        }
    }
}

/// What the report has against its one certificate.
fn codes(report: &Value) -> Vec<&str> {
    let findings = report["certificates"][0]["findings"].as_array();
    let mut codes: Vec<_> = findings
        .into_iter()
        .flatten()
        .filter_map(|one| one["code"].as_str())
        .collect();
    codes.sort_unstable();
    codes
}

/// As much of a fingerprint as an alert shows.
const SHOWN: usize = 12;
