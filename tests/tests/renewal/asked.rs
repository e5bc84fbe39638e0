//! What a person asks for, by the built command: it goes through SNS and SQS to the deployed
//! renewer.

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::version::{Current, PRIVKEY};
use neverlapse::renewal::decide;
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::pebble::{self, Options, Pebble};
use tokio::time::{Duration, sleep};

use crate::fixture::{Lab, certificate, forced, request};
use crate::isolated::Isolated;

const NAME: &str = "asked.test";

pub(crate) async fn plan_dry_run_renew_rollback_and_revoke_by_command(lab: &Lab) -> Result<()> {
    let (pebble, issuer) = lab.issuer("asked", Options::default()).await?;
    let (staging, _) = lab.issuer("rehearsal", Options::default()).await?;
    // One file has the roots of both, as a private CA's own would.
    lab.bucket
        .put("ca/asked.pem", &format!("{}{}", pebble.roots, staging.roots))
        .await?;
    lab.stack.create_zone(NAME).await?;
    let entry = certificate(NAME, &[NAME, "*.asked.test"], "asked");
    let rehearsed = format!("staging_directory = {:?}\n", staging.directory);
    lab.inventory(&format!("{entry}reuse_key = true\n{issuer}{rehearsed}"))
        .await?;

    let said = command(lab, &["plan"]).await?;
    ensure!(
        said.contains("due: there is no certificate yet") && said.contains("1 certificate, 1 due"),
        "{said}"
    );
    ensure!(pebble.orders()? == 0, "plan orders nothing");

    // A dry run does all of it, at the staging directory, says so, and leaves nothing.
    let said = command(lab, &["renew", NAME, "--dry-run"]).await?;
    ensure!(said.contains("dry run for asked.test succeeded"), "{said}");
    let alert = lab.alert("dry run for asked.test succeeded").await?;
    ensure!(alert.text.contains("nothing was published"), "{}", alert.text);
    ensure!((pebble.orders()?, staging.issued()?) == (0, 1));
    ensure!(lab.bucket.versions(NAME).await?.is_empty() && lab.bucket.current(NAME).await?.is_none());

    // It is followed to its end.
    let said = command(lab, &["renew", NAME]).await?;
    for words in ["asked.test is renewed until", "pulled by 0 of 0 instances"] {
        ensure!(said.contains(words), "{words:?} is not in {said}");
    }
    lab.at_rest(NAME).await?;
    let first = lab.bucket.verified(NAME, &pebble).await?;
    let alert = lab.alert("asked.test is renewed until").await?;
    ensure!(alert.text.contains(&first.facts.version), "{}", alert.text);

    // The renewer's decision is the one that plan prints.
    let said = command(lab, &["plan"]).await?;
    let decided = decision(lab, &first).await?;
    ensure!(
        decided.starts_with("not due before") && said.contains(&decided),
        "{decided:?} is not in {said}"
    );
    ensure!(
        said.contains(&first.facts.not_after.to_string()) && said.contains("1 certificate, 0 due"),
        "{said}"
    );
    let orders = pebble.orders()?;
    let said = command(lab, &["renew", NAME]).await?;
    ensure!(
        said.contains("not due before") && said.contains("--force orders anyway"),
        "{said}"
    );
    lab.drained().await?;
    ensure!(pebble.orders()? == orders, "nothing was due");

    // What fails is answered in the CA's words, and what has to wait is not even asked.
    lab.inventory(&format!(
        "{}{issuer}",
        certificate(NAME, &[NAME, pebble::BLOCKED], "asked")
    ))
    .await?;
    let (done, said) = lab.neverlapse(&["renew", NAME]).await?;
    for words in ["failed; it is tried again", "rejectedIdentifier"] {
        ensure!(!done && said.contains(words), "{words:?} is not in {said}");
    }
    lab.purge().await?;
    let (done, said) = lab.neverlapse(&["renew", NAME]).await?;
    ensure!(
        !done && said.contains("it waits until") && said.contains("rejectedIdentifier"),
        "{said}"
    );
    let (done, said) = lab.neverlapse(&["renew", NAME, "--dry-run"]).await?;
    ensure!(
        !done && said.contains("[issuer.asked] has no staging_directory"),
        "{said}"
    );
    lab.inventory(&format!("{entry}reuse_key = true\n{issuer}{rehearsed}"))
        .await?;

    let second = by_force(lab, &first, &pebble).await?;
    ensure!(
        second.sequence == first.sequence + 1 && key(lab, &second).await? == key(lab, &first).await?,
        "reuse_key = true"
    );

    let (done, said) = lab.neverlapse(&["rollback", NAME]).await?;
    let back = lab.bucket.verified(NAME, &pebble).await?;
    ensure!(done && said.contains("it is kept until"), "{said}");
    ensure!(
        back.facts == first.facts && back.sequence == first.sequence + 2 && back.rolled_back,
        "{back:?}"
    );
    let (done, said) = lab.neverlapse(&["rollback", NAME]).await?;
    ensure!(
        !done && said.contains("there is no version of asked.test before"),
        "{said}"
    );
    let (done, said) = lab.neverlapse(&["rollback", NAME, "20200101T000000Z-00000000"]).await?;
    ensure!(
        !done && said.contains(&second.facts.version),
        "the versions that there are: {said}"
    );
    command(lab, &["rollback", NAME, &second.facts.version]).await?;
    let again = lab.bucket.verified(NAME, &pebble).await?;
    ensure!(
        again.facts == second.facts && again.sequence == first.sequence + 3,
        "{again:?}"
    );

    // Revoked at the CA, and replaced by a version with another key, although the key is to be kept
    // otherwise.
    let (done, said) = lab.neverlapse(&["revoke", NAME]).await?;
    ensure!(!done && said.contains("nothing was revoked"), "without a yes: {said}");
    command(lab, &["revoke", NAME, "--yes", "--key-compromise"]).await?;
    lab.published(NAME, Some(&again)).await?;
    lab.at_rest(NAME).await?;
    let third = lab.bucket.verified(NAME, &pebble).await?;
    ensure!(
        third.sequence == first.sequence + 4 && key(lab, &third).await? != key(lab, &second).await?,
        "a new key"
    );
    let status = async |current: &Current| pebble.status(&current.facts.serial).await;
    ensure!(status(&second).await? == ("Revoked".into(), Some(KEY_COMPROMISE)));
    // A repeated request finds it done. One for a version that a renewal has overtaken still
    // revokes it, and renews nothing.
    let (orders, revoke) = (pebble.orders()?, |of: &Current| Request {
        action: Action::Revoke,
        version: Some(of.facts.version.clone()),
        requested_by: RequestedBy::Person,
        ..request(NAME)
    });
    lab.ask(&revoke(&second)).await?;
    lab.ask(&revoke(&first)).await?;
    lab.drained().await?;
    ensure!(
        status(&first).await? == ("Revoked".into(), Some(SUPERSEDED)),
        "{:?}",
        status(&first).await?
    );
    ensure!(status(&third).await? == ("Valid".into(), None));
    ensure!(pebble.orders()? == orders && lab.bucket.verified(NAME, &pebble).await? == third);
    Ok(())
}

pub(crate) async fn the_last_five_versions_are_kept_and_an_earlier_one_that_is_current(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "versions").await?;
    let (pebble, issuer) = isolated.issuer("versions").await?;
    lab.stack.create_zone("versions.test").await?;
    let name = "versions.test";
    isolated
        .inventory(&format!("{}{issuer}", certificate(name, &[name], "versions")))
        .await?;
    let mut all = vec![isolated.renewed(&request(name), &pebble).await?];
    for _ in 0..6 {
        // Versions sort by the second.
        sleep(Duration::from_secs(1)).await;
        all.push(isolated.renewed(&forced(name), &pebble).await?);
    }
    let kept = async || isolated.bucket.versions(name).await;
    let expected = |all: &[Current]| all.iter().map(|one| (one.facts.version.clone(), 5)).collect::<Vec<_>>();
    ensure!(kept().await? == expected(&all[2..]), "{:?}", kept().await?);
    // Gone back to the oldest that is left; what a dead renewer left of a version is swept, and the
    // current one is not.
    let key = neverlapse::bucket::version::current_key(name);
    let mut back = all[2].clone();
    back.sequence = all[6].sequence + 1;
    isolated.bucket.put(&key, &serde_json::to_string(&back)?).await?;
    let half = neverlapse::bucket::version::file_key(name, "20200101T000000Z-00000000", PRIVKEY);
    isolated.bucket.put(&half, "half").await?;
    let eighth = isolated.renewed(&forced(name), &pebble).await?;
    ensure!(eighth.sequence == back.sequence + 1);
    all.push(eighth);
    ensure!(kept().await? == expected(&all[3..]), "{:?}", kept().await?);
    Ok(())
}

async fn command(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let (done, said) = lab.neverlapse(arguments).await?;
    ensure!(done, "neverlapse {arguments:?} failed: {said}");
    Ok(said)
}

/// What the renewer decides without anybody's wish.
async fn decision(lab: &Lab, current: &Current) -> Result<String> {
    let written = lab
        .bucket
        .get("inventory.toml")
        .await?
        .context("there is an inventory")?;
    let inventory = neverlapse::inventory::Inventory::parse(&written);
    let wanted = inventory
        .certificates
        .iter()
        .find(|certificate| certificate.name == NAME);
    let (wanted, renewal) = (wanted.context("the inventory has it")?, lab.bucket.renewal(NAME).await?);
    let now = Timestamp::now();
    let issuers = &inventory.issuers;
    Ok(decide(issuers, wanted, Some(current), renewal.as_ref(), None, now).to_string())
}

async fn by_force(lab: &Lab, before: &Current, pebble: &Pebble) -> Result<Current> {
    command(lab, &["renew", NAME, "--force"]).await?;
    lab.published(NAME, Some(before)).await?;
    lab.at_rest(NAME).await?;
    lab.bucket.verified(NAME, pebble).await
}

async fn key(lab: &Lab, current: &Current) -> Result<String> {
    lab.bucket.file(current, PRIVKEY).await
}

/// RFC 5280, 5.3.1.
const KEY_COMPROMISE: u64 = 1;
const SUPERSEDED: u64 = 4;
