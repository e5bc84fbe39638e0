//! What `neverlapse plan --check` finds out before anything is ordered.

use anyhow::{Context, Result, ensure};
use aws_sdk_route53::types::RrType;
use neverlapse_tests::cluster::{Ran, neverlapse};
use neverlapse_tests::pebble::Options;
use neverlapse_tests::program::ensure_fits;
use serde_json::Value;

use crate::fixture::{Lab, certificate};

pub(crate) async fn what_keeps_a_certificate_from_being_issued_is_named_beforehand(lab: &Lab) -> Result<()> {
    let options = Options {
        shortlived: true,
        ..Options::default()
    };
    let (pebble, issuer) = lab.issuer("checked", options).await?;
    let zone = lab.stack.create_zone("checked.test").await?;
    let record = async |name: &str, kind, values: &[&str]| lab.stack.create_records(&zone, name, kind, values).await;
    let theirs = "0 issue \"other.example\"";
    record("caa.checked.test", RrType::Caa, &[theirs]).await?;
    record(
        "wild.checked.test",
        RrType::Caa,
        &["0 issue \"pebble.letsencrypt.org\"", "0 issuewild \";\""],
    )
    .await?;
    record("critical.checked.test", RrType::Caa, &["128 tbs \"unknown\""]).await?;
    record(
        "_acme-challenge.away.checked.test",
        RrType::Cname,
        &["away.nowhere-checked.test"],
    )
    .await?;
    // Its parent has a DS record, and it has no keys.
    let parent = lab.stack.create_zone("parent-checked.test").await?;
    lab.stack.create_zone("signed.parent-checked.test").await?;
    let digest = "60485 13 2 d4b7d520e7bb5f0f67674a0cceb1e3e0614b93c4f9e99b8383f6a1e4469da50a";
    lab.stack
        .create_record(&parent, "signed.parent-checked.test", RrType::Ds, digest)
        .await?;
    let entry = |name: &str, identifiers: &[&str]| certificate(name, identifiers, "checked");
    let entries = [
        entry("fine", &["fine.checked.test", "*.fine.checked.test"]),
        entry("caa", &["deep.below.caa.checked.test"]),
        entry("wild", &["wild.checked.test", "*.wild.checked.test"]),
        entry("critical", &["critical.checked.test"]),
        entry("away", &["away.checked.test"]),
        entry("nowhere", &["nowhere-checked.test"]),
        entry("signed", &["signed.parent-checked.test"]),
        format!(
            "{}profile = \"none-such\"\n",
            entry("profile", &["profile.checked.test"])
        ),
        format!(
            "{}preferred_profile = \"none-such\"\n",
            entry("preferred", &["preferred.checked.test"])
        ),
        certificate("bound", &["bound.checked.test"], "bound"),
    ];
    let bound = issuer
        .replace("[issuer.checked]", "[issuer.bound]")
        .replace("eab = false", "eab = true");
    lab.inventory(&format!("{}{issuer}{bound}", entries.concat())).await?;

    let nameserver = lab.dns.address.to_string();
    let plan = async |more: &[&str]| {
        let mut command = neverlapse(&lab.stack).await?;
        command
            .args(["plan", "--check", "--nameserver", &nameserver])
            .args(more);
        Ran::of(&mut command).await
    };
    let json = plan(&["--format", "json"]).await?;
    ensure!(json.code == 1, "{json:?}");
    let document: Value = serde_json::from_str(&json.said).with_context(|| json.said.clone())?;
    ensure_fits("plan", &document).await?;
    for (place, about, what, status, words) in [
        ("issuers", "checked", "directory", "ok", "answers"),
        (
            "certificates",
            "fine",
            "zone",
            "ok",
            "_acme-challenge.fine.checked.test is in hosted zone checked.test",
        ),
        ("certificates", "fine", "CAA", "ok", "no records"),
        (
            "certificates",
            "caa",
            "CAA",
            "critical",
            "caa.checked.test keeps checked (pebble.letsencrypt.org) from issuing: issue allows only \"other.example\"",
        ),
        ("certificates", "wild", "CAA", "critical", "issuewild allows only \";\""),
        ("certificates", "wild", "CAA", "ok", "wild.checked.test allows checked"),
        ("certificates", "critical", "CAA", "critical", "the unknown tag \"tbs\""),
        (
            "certificates",
            "away",
            "zone",
            "critical",
            "_acme-challenge.away.checked.test -> away.nowhere-checked.test: no public hosted zone",
        ),
        ("certificates", "nowhere", "zone", "critical", "no public hosted zone"),
        (
            "certificates",
            "profile",
            "profile",
            "critical",
            "it offers: default, shortlived",
        ),
        ("certificates", "preferred", "profile", "ok", "so none is ordered"),
        (
            "zones",
            "checked.test",
            "delegation",
            "ok",
            "is delegated to this hosted zone",
        ),
        ("zones", "checked.test", "DNSSEC", "ok", "is not signed"),
        (
            "zones",
            "signed.parent-checked.test",
            "DNSSEC",
            "critical",
            "the zone has no keys",
        ),
        (
            "issuers",
            "bound",
            "EAB",
            "critical",
            "the bucket has no accounts/bound/eab.json",
        ),
    ] {
        let found = checks(&document, place, about).any(|check| {
            check["what"] == what
                && check["status"] == status
                && check["text"].as_str().is_some_and(|text| text.contains(words))
        });
        let all: Vec<_> = checks(&document, place, about).collect();
        ensure!(found, "{about}: no {what} is {status} with {words:?}: {all:#?}");
    }
    ensure!(
        document["issuers"][0]["profiles"]["shortlived"] == "6 days",
        "{document}"
    );

    // People see what is wrong, and which profiles there are.
    let said = plan(&[]).await?.said;
    for words in [
        "keeps checked (pebble.letsencrypt.org)",
        "checked offers the profiles default, shortlived",
    ] {
        ensure!(said.contains(words), "{words:?} is not in {said}");
    }
    ensure!(!said.contains("is not signed"), "{said}");
    let fine = plan(&["fine", "--all"]).await?;
    ensure!(fine.code == 0 && fine.said.contains("is not signed"), "{fine:?}");
    println!("{said}\n{}", fine.said);

    // One that cannot be read ended the plan of all.
    let key = "certificates/caa/current.json";
    lab.bucket.put(key, "[]").await?;
    let rest = plan(&["fine", "caa"]).await?;
    lab.bucket.delete(key).await?;
    ensure!(
        rest.code == 1 && rest.said.contains("1 certificate, 1 due") && rest.said.contains(key),
        "{rest:?}"
    );
    ensure!(pebble.orders()? == 0, "plan orders nothing");
    Ok(())
}

/// The checks of one certificate, zone or issuer.
fn checks<'d>(document: &'d Value, place: &str, about: &str) -> impl Iterator<Item = &'d Value> {
    let entries = document[place].as_array().into_iter().flatten();
    let found: Vec<_> = entries.filter(|entry| entry["name"] == about).collect();
    found
        .into_iter()
        .flat_map(|entry| entry["checks"].as_array().into_iter().flatten())
}
