//! What the renewer keeps in the bucket, damaged or dated by a clock that was wrong.

use anyhow::{Context as _, Result, ensure};
use neverlapse::renewal::Renewal;
use serde_json::{Value, json};

use crate::fixture::{Lab, certificate, forced, request};
use crate::isolated::Isolated;

/// An error names the record, another certificate is renewed, and no account is made.
pub(crate) async fn a_damaged_record_is_named_and_costs_its_own_certificate_alone(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "damaged").await?;
    lab.stack.create_zone("damaged.test").await?;
    let (pebble, entry) = isolated.issuer("own").await?;
    let names = ["damaged", "whole"];
    let entries = names.map(|name| certificate(name, &[&format!("{name}.damaged.test")], "own"));
    isolated.inventory(&format!("{}{entry}", entries.concat())).await?;
    for name in names {
        isolated.renewed(&request(name), &pebble).await?;
    }
    let orders = pebble.orders()?;

    let records = [
        "certificates/damaged/current.json",
        "orders/damaged.json",
        "state/renewals/damaged.json",
        "accounts/own/account.json",
    ];
    for key in records {
        let before = isolated.bucket.get(key).await?;
        for damaged in [
            "",
            r#"{"schema": 1}"#,
            r#"{"schema": "neverlapse.order/99"}"#,
            &"[".repeat(9_000),
        ] {
            isolated.bucket.put(key, damaged).await?;
            ensure!(!isolated.run(&forced("damaged")).await?, "{key} was not read");
            let log = isolated.log("damaged")?;
            let error = log.lines().rev().find(|line| line.contains(key));
            let error = error.with_context(|| format!("{key} is not named:\n{log}"))?;
            ensure!(!error.contains("panicked"), "{error}");
            println!("{damaged:.20}: {error}");
        }
        match before {
            Some(before) => isolated.bucket.put(key, &before).await?,
            None => isolated.bucket.delete(key).await?,
        }
    }

    // What followed it was 0, which every instance refuses.
    let key = "certificates/damaged/current.json";
    let before = isolated.bucket.get(key).await?.context("a pointer")?;
    let mut last: Value = serde_json::from_str(&before)?;
    last["sequence"] = json!(u64::MAX);
    isolated.bucket.put(key, &last.to_string()).await?;
    ensure!(
        !isolated.run(&forced("damaged")).await?,
        "the last sequence was followed"
    );
    let log = isolated.log("damaged")?;
    ensure!(
        log.contains("its sequence is 18446744073709551615 (expected at most the Unix time)"),
        "{log}"
    );
    isolated.bucket.put(key, &before).await?;

    ensure!(pebble.orders()? == orders, "an order was made");
    ensure!(pebble.accounts()? == 1, "an account was made");

    isolated.bucket.put("orders/damaged.json", "[]").await?;
    isolated.renewed(&forced("whole"), &pebble).await?;
    isolated.bucket.delete("orders/damaged.json").await?;

    // What is known of an issuer is not worth a certificate.
    isolated.bucket.put("state/issuers/own.json", "[]").await?;
    isolated.renewed(&forced("damaged"), &pebble).await?;
    Ok(())
}

/// A time in the far future in one of these kept a certificate from being renewed until it expired.
pub(crate) async fn waits_that_no_renewer_writes_hold_nothing_up(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "ahead").await?;
    lab.stack.create_zone("ahead.test").await?;
    let (pebble, entry) = isolated.issuer("own").await?;
    isolated
        .inventory(&format!("{}{entry}", certificate("ahead", &["ahead.test"], "own")))
        .await?;

    let far = "9999-12-31T23:59:59Z";
    let renewal = json!({
        "schema": Renewal::SCHEMA, "name": "ahead", "waits": [{ "issuer": "own", "until": far }],
        "failure": { "count": u32::MAX, "since": far, "at": far, "problem": "none", "next_try": far },
    });
    let issuer = json!({
        "schema": "neverlapse.issuer/1", "directory": pebble.directory,
        "trouble": { "problem": "none", "is_declined": false, "at": far, "until": far },
    });
    let lease = json!({ "schema": "neverlapse.order/1", "name": "ahead", "leased_until": far });
    for (key, record) in [
        (Renewal::key("ahead"), renewal),
        ("state/issuers/own.json".to_owned(), issuer),
        ("orders/ahead.json".to_owned(), lease),
    ] {
        isolated.bucket.put(&key, &record.to_string()).await?;
    }

    isolated.renewed(&request("ahead"), &pebble).await?;
    let left = isolated.bucket.renewal("ahead").await?.context("a record")?;
    ensure!(left.failure.is_none(), "{left:?}");
    Ok(())
}
