//! What a renewal does when nothing is wrong, and when the CA is difficult.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_route53::types::RrType;
use futures::future::try_join_all;
use neverlapse::bucket::version::{CERT, current_key};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::pebble::{HMAC_KEY, KEY_ID, Options};
use neverlapse_tests::stack::root;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::fixture::{Lab, certificate, forced, request};

pub(crate) async fn the_probe_asks_and_apex_wildcard_and_a_delegated_name_are_issued(lab: &Lab) -> Result<()> {
    let (zone, delegated) = (
        lab.stack.create_zone("one.test").await?,
        lab.stack.create_zone("delegated.test").await?,
    );
    let validation = lab.stack.create_zone("validation.test").await?;
    let (name, target) = ("_acme-challenge.www.delegated.test", "www.validation.test");
    lab.stack.create_record(&delegated, name, RrType::Cname, target).await?;
    let identifiers = ["one.test", "*.one.test", "www.delegated.test"];
    lab.inventory(&certificate("one.test", &identifiers, "pebble")).await?;
    let answer = lab.stack.invoke(&json!({})).await?;
    ensure!(!answer.failed, "the probe: {}", answer.payload);
    lab.published("one.test", None).await?;
    lab.at_rest("one.test").await?;
    let current = lab.bucket.verified("one.test", &lab.pebble).await?;
    ensure!(
        current.facts.identifiers == identifiers,
        "{:?}",
        current.facts.identifiers
    );
    for zone in [zone, delegated, validation] {
        let left = lab.stack.txt(&zone).await?;
        ensure!(left.is_empty(), "left in DNS: {left:?}");
    }
    // Asked again on the next day, nothing is due.
    let before = lab.pebble.orders()?;
    lab.stack.invoke(&json!({})).await?;
    lab.drained().await?;
    ensure!(lab.pebble.orders()? == before && lab.bucket.verified("one.test", &lab.pebble).await? == current);
    Ok(())
}

/// The event of the template's second schedule comes to the deployed probe, which looks at nothing
/// and asks for every certificate.
pub(crate) async fn the_second_schedule_renews_too(lab: &Lab) -> Result<()> {
    let event: Value = serde_json::from_str(include_str!("../../../events/renewals.json"))?;
    let template = std::fs::read_to_string(root().join("template.yaml"))?;
    let (_, schedule) = template
        .split_once("ScheduleExpression: !Ref RenewalSchedule")
        .context("a schedule")?;
    let input = schedule
        .lines()
        .find_map(|line| line.trim().strip_prefix("Input: '")?.strip_suffix('\''));
    ensure!(
        serde_json::from_str::<Value>(input.context("an input")?)? == event,
        "{input:?}"
    );
    lab.stack.create_zone("evening.test").await?;
    lab.inventory(&certificate("evening.test", &["evening.test"], "pebble"))
        .await?;

    let answer = lab.stack.invoke(&event).await?;
    ensure!(!answer.failed, "the probe: {}", answer.payload);
    lab.published("evening.test", None).await?;
    lab.at_rest("evening.test").await?;
    lab.bucket.verified("evening.test", &lab.pebble).await?;
    Ok(())
}

pub(crate) async fn ten_deliveries_make_one_certificate(lab: &Lab) -> Result<()> {
    lab.stack.create_zone("ten.test").await?;
    lab.inventory(&certificate("ten.test", &["ten.test"], "pebble")).await?;
    let (orders, issued) = (lab.pebble.orders()?, lab.pebble.issued()?);
    let request = request("ten.test");
    try_join_all((0..10).map(|_| lab.ask(&request))).await?;
    lab.published("ten.test", None).await?;
    lab.drained().await?;
    lab.at_rest("ten.test").await?;
    lab.bucket.verified("ten.test", &lab.pebble).await?;
    let (orders, issued) = (lab.pebble.orders()? - orders, lab.pebble.issued()? - issued);
    ensure!((orders, issued) == (1, 1), "{orders} orders, {issued} certificates");
    ensure!(lab.bucket.versions("ten.test").await?.len() == 1);
    Ok(())
}

pub(crate) async fn two_certificates_and_a_foreign_value_share_a_name(lab: &Lab) -> Result<()> {
    let zone = lab.stack.create_zone("shared.test").await?;
    let (name, foreign) = ("_acme-challenge.shared.test", "somebody else's");
    let quoted = format!("{foreign:?}");
    lab.stack.create_record(&zone, name, RrType::Txt, &quoted).await?;
    let (apex, wildcard) = (
        certificate("apex", &["shared.test"], "pebble"),
        certificate("wildcard", &["*.shared.test"], "pebble"),
    );
    lab.inventory(&format!("{apex}{wildcard}")).await?;
    let (apex, wildcard) = (request("apex"), request("wildcard"));
    tokio::try_join!(lab.ask(&apex), lab.ask(&wildcard))?;
    for certificate in ["apex", "wildcard"] {
        lab.published(certificate, None).await?;
        lab.at_rest(certificate).await?;
    }
    for certificate in ["apex", "wildcard"] {
        lab.bucket.verified(certificate, &lab.pebble).await?;
    }
    let left = lab.stack.txt(&zone).await?;
    ensure!(left == [(name.to_owned(), foreign.to_owned())], "in DNS: {left:?}");
    Ok(())
}

pub(crate) async fn with_every_fourth_nonce_rejected_twenty_of_twenty_are_issued(lab: &Lab) -> Result<()> {
    let options = Options {
        nonces_refused: 25,
        ..Options::default()
    };
    let (pebble, issuer) = lab.issuer("difficult", options).await?;
    lab.stack.create_zone("nonces.test").await?;
    let names: Vec<_> = (0..20).map(|number| format!("n{number:02}.nonces.test")).collect();
    let entries: String = names
        .iter()
        .map(|name| certificate(name, &[name], "difficult"))
        .collect();
    lab.inventory(&format!("{entries}{issuer}")).await?;
    try_join_all(names.iter().map(async |name| lab.ask(&request(name)).await)).await?;
    for name in &names {
        lab.published(name, None).await?;
        lab.at_rest(name).await?;
    }
    for name in &names {
        lab.bucket.verified(name, &pebble).await?;
    }
    ensure!(
        pebble.issued()? == 20 && pebble.accounts()? == 1,
        "{} issued",
        pebble.issued()?
    );
    println!(
        "with 25 of 100 nonces rejected, {} of {} were issued",
        pebble.issued()?,
        names.len()
    );
    Ok(())
}

pub(crate) async fn an_external_account_a_profile_an_advised_window_and_another_account(lab: &Lab) -> Result<()> {
    let options = Options {
        external_account: true,
        shortlived: true,
        ..Options::default()
    };
    let (pebble, issuer) = lab.issuer("customers", options).await?;
    let zone = lab.stack.create_zone("bound.test").await?;
    let (name, other) = ("bound.test", "other.bound.test");
    let entry = |name| format!("{}profile = \"shortlived\"\n", certificate(name, &[name], "customers"));
    lab.inventory(&format!("{}{}{issuer}", entry(name), entry(other)))
        .await?;

    // Without its credentials nothing is registered, and the alert says what to put where.
    let since = Timestamp::now();
    lab.ask(&request(name)).await?;
    lab.failed(name, since).await?;
    let alert = lab.alert(name).await?;
    ensure!(alert.text.contains("accounts/customers/eab.json"), "{}", alert.text);
    ensure!(pebble.accounts()? == 0);

    let secret = json!({ "key_id": KEY_ID, "hmac_key": HMAC_KEY }).to_string();
    lab.stack.put("accounts/customers/eab.json", &secret).await?;
    lab.ask(&forced(name)).await?;
    lab.published(name, None).await?;
    let first = lab.bucket.verified(name, &pebble).await?;
    let lifetime = first.facts.not_after - first.facts.not_before;
    ensure!(lifetime <= time::Duration::days(6), "shortlived, but {lifetime}");
    let alert = lab.alert(&format!("{name} is renewed")).await?;
    ensure!(
        alert.text.contains("after 1 failed"),
        "success after failure: {}",
        alert.text
    );

    // Nothing is due, until the CA's window moves into the past (a mass revocation).
    let past = |hours| Timestamp::now() - time::Duration::hours(hours);
    let leaf = lab.bucket.file(&first, CERT).await?;
    pebble.set_renewal_window(&leaf, past(48), past(24)).await?;
    lab.ask(&request(name)).await?;
    lab.published(name, Some(&first)).await?;
    let second = lab.bucket.verified(name, &pebble).await?;
    ensure!(second.facts.serial != first.facts.serial && second.sequence == first.sequence + 1);
    ensure!(pebble.replacements()? == 1, "the order says what it replaces");

    // The account is replaced by another one; `replaces` is not sent to where it would be refused.
    lab.at_rest(name).await?;
    lab.bucket.delete("accounts/customers/account.json").await?;
    lab.ask(&request(other)).await?;
    let others = lab.published(other, None).await?;
    ensure!(others.facts.issuer.account != second.facts.issuer.account && pebble.accounts()? == 2);
    lab.ask(&forced(name)).await?;
    let third = lab.published(name, Some(&second)).await?;
    ensure!(third.facts.issuer.account == others.facts.issuer.account && pebble.replacements()? == 1);

    // What is stored says that the first account's certificate is ours: the CA refuses, and it is
    // ordered without.
    lab.at_rest(name).await?;
    let mut forged = second.clone();
    forged.facts.issuer.account = others.facts.issuer.account.clone();
    forged.sequence = third.sequence + 1;
    lab.stack
        .put(&current_key(name), &serde_json::to_string(&forged)?)
        .await?;
    lab.ask(&forced(name)).await?;
    lab.published(name, Some(&forged)).await?;
    lab.bucket.verified(name, &pebble).await?;
    ensure!(pebble.replacements()? == 1, "refused, and then ordered without");
    lab.at_rest(name).await?;
    let left = lab.stack.txt(&zone).await?;
    ensure!(left.is_empty(), "left in DNS: {left:?}");
    Ok(())
}

pub(crate) async fn a_hundred_due_at_once_stay_within_the_concurrency(lab: &Lab) -> Result<()> {
    let zone = lab.stack.create_zone("hundred.test").await?;
    let names: Vec<_> = (0..100).map(|number| format!("h{number:03}.hundred.test")).collect();
    let entries: String = names.iter().map(|name| certificate(name, &[name], "pebble")).collect();
    lab.inventory(&entries).await?;
    let issued = lab.pebble.issued()?;
    let begun = Instant::now();
    let work = async {
        let answer = lab.stack.invoke(&json!({})).await?;
        ensure!(!answer.failed, "the probe: {}", answer.payload);
        for name in &names {
            lab.published(name, None).await?;
            lab.at_rest(name).await?;
        }
        Ok(())
    };
    let mut most = 0;
    let watch = async {
        loop {
            most = most.max(lab.renewers()?);
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        done = work => done?,
        failed = watch => { let _: Result<()> = failed; }
    }
    let took = begun.elapsed().as_secs_f64();
    println!("100 certificates: {took:.1} s, at most {most} renewers at once");
    ensure!((1..=CONCURRENCY).contains(&most), "{most} renewers ran at once");
    let mut keys = BTreeSet::new();
    for name in &names {
        keys.insert(lab.bucket.verified(name, &lab.pebble).await?.facts.fingerprint);
    }
    ensure!(keys.len() == 100 && lab.pebble.issued()? - issued == 100);
    let left = lab.stack.txt(&zone).await?;
    ensure!(left.is_empty(), "left in DNS: {left:?}");
    Ok(())
}

/// The template's MaximumConcurrency.
const CONCURRENCY: usize = 4;
