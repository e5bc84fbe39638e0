//! What cannot be done: each is an alert that says what to do, and nothing is lost by it.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::fault::{Fate, Proxy};
use neverlapse_tests::pebble::BLOCKED;
use neverlapse_tests::program::program;
use neverlapse_tests::runtime::Function;

use crate::fixture::{DELEGATED_ELSEWHERE, Lab, certificate, forced, request};

pub(crate) async fn what_cannot_be_done_is_told_and_loses_nothing(lab: &Lab) -> Result<()> {
    let mut zones = Vec::new();
    for name in ["kept.test", DELEGATED_ELSEWHERE, "twice.test", "twice.test"] {
        zones.push(lab.stack.create_zone(name).await?);
    }
    // Each case has a certificate already, and then asks for one more name.
    let cases: [(&str, &str, &[&str]); 4] = [
        (
            "rejected",
            BLOCKED,
            &[
                "rejectedIdentifier",
                BLOCKED,
                "hint: the CA does not issue for this name",
            ],
        ),
        (
            "wrong-zone",
            DELEGATED_ELSEWHERE,
            &["DNS does not show them", "is elsewhere.test delegated"],
        ),
        (
            "no-zone",
            "nozone.test",
            &[
                "no public hosted zone for _acme-challenge.nozone.test",
                "role_arn",
                "CNAME",
            ],
        ),
        (
            "two-zones",
            "twice.test",
            &[
                "2 public hosted zones are named \"twice.test\"",
                "[[zone]] name = \"twice.test\", id =",
            ],
        ),
    ];
    let host = |name: &str| format!("{name}.kept.test");
    let entries = |more: bool| {
        let entry = |(name, another, _): &(&str, &str, &[&str])| {
            let host = host(name);
            let identifiers: &[&str] = if more { &[&host, another] } else { &[&host] };
            certificate(name, identifiers, "pebble")
        };
        cases.iter().map(entry).collect::<String>()
    };
    lab.inventory(&entries(false)).await?;
    let mut before = Vec::new();
    for (name, ..) in cases {
        lab.ask(&request(name)).await?;
    }
    for (name, ..) in cases {
        before.push(lab.published(name, None).await?);
        lab.at_rest(name).await?;
    }
    let accounts = lab.pebble.accounts()?;

    lab.inventory(&entries(true)).await?;
    let since = Timestamp::now();
    try_join_all(cases.iter().map(async |(name, ..)| lab.ask(&request(name)).await)).await?;
    for ((name, _, words), before) in cases.iter().zip(&before) {
        let problem = lab.failed(name, since).await?;
        let alert = lab.alert(&format!("renewal of {name} failed")).await?;
        for words in *words {
            ensure!(
                alert.text.contains(words),
                "{name}: {words:?} is missing in:\n{}",
                alert.text
            );
        }
        ensure!(
            alert.text.contains(problem.lines().next().unwrap_or_default()),
            "{}",
            alert.text
        );
        ensure!(alert.text.contains("is untouched: version"), "{}", alert.text);
        ensure!(
            lab.bucket.verified(name, &lab.pebble).await? == *before,
            "{name} lost its certificate"
        );
        println!("{name}: {}", alert.subject);
    }
    ensure!(lab.pebble.accounts()? == accounts, "a failure made an account");
    for zone in zones {
        let left = lab.stack.txt(&zone).await?;
        ensure!(left.is_empty(), "left in DNS: {left:?}");
    }
    Ok(())
}

pub(crate) async fn what_the_bucket_refuses_is_told_and_makes_no_account(lab: &Lab) -> Result<()> {
    let zone = lab.stack.create_zone("denied.test").await?;
    lab.inventory(&certificate("denied.test", &["denied.test"], "pebble"))
        .await?;
    lab.ask(&request("denied.test")).await?;
    let mut before = lab.published("denied.test", None).await?;
    lab.at_rest("denied.test").await?;
    let (accounts, folder) = (lab.pebble.accounts()?, tempfile::tempdir()?);
    let denied = [
        ("GET", "accounts/pebble/account.json"),
        ("PUT", "orders/denied.test.json"),
        ("PUT", "/fullchain.pem"),
        ("PUT", "certificates/denied.test/current.json"),
        ("GET", "certificates/denied.test/current.json"),
        ("GET", "inventory.toml"),
    ];
    for (method, key) in denied {
        let proxy = Proxy::start(lab.stack.endpoint(), move |line| {
            match line.starts_with(method) && line.ends_with(key) {
                true => Fate::Refuse(403, ACCESS_DENIED.to_owned()),
                false => Fate::Pass,
            }
        });
        let proxy = proxy.await?;
        let environment = lab.stack.renewer_environment(lab.dns.address, &proxy.endpoint);
        let log = folder.path().join("renewer.log");
        let function = Function::start(&program("renewer").await?, &environment, &log).await?;
        let answer = function.invoke(lab.batch(&forced("denied.test"))?).await?;
        let failures = answer["batchItemFailures"].as_array().map(Vec::len);
        ensure!(
            failures == Some(1),
            "{method} {key}: {answer}; {}",
            std::fs::read_to_string(&log)?
        );
        let alert = lab.alert("renewal of denied.test failed").await?;
        ensure!(alert.text.contains("AccessDenied"), "{method} {key}: {}", alert.text);
        if key == "inventory.toml" {
            // Asked by the probe, which tells that itself, it is handed back, and no certificate
            // counts it as a failure of its own.
            let tries = async || anyhow::Ok(lab.bucket.renewal("denied.test").await?.and_then(|found| found.failure));
            let before = tries().await?;
            let answer = function.invoke(lab.batch(&request("denied.test"))?).await?;
            let failures = answer["batchItemFailures"].as_array().map(Vec::len);
            ensure!(failures == Some(1) && tries().await? == before, "{answer}");
        }
        let known = match (method, key) {
            ("GET", "certificates/denied.test/current.json") => "It is not known whether there is a certificate",
            _ => "is untouched: version",
        };
        ensure!(alert.text.contains(known), "{method} {key}: {}", alert.text);
        ensure!(lab.pebble.accounts()? == accounts, "{method} {key} made an account");
        ensure!(
            lab.bucket.verified("denied.test", &lab.pebble).await? == before,
            "{method} {key} lost the certificate"
        );
        println!("{method} {key}: {}", alert.subject);
        // Once it may again, it finishes, and says so.
        let environment = lab.stack.renewer_environment(lab.dns.address, lab.stack.endpoint());
        let function = Function::start(&program("renewer").await?, &environment, &log).await?;
        function.invoke(lab.batch(&forced("denied.test"))?).await?;
        before = lab.published("denied.test", Some(&before)).await?;
        lab.alert("denied.test is renewed").await?;
    }
    lab.at_rest("denied.test").await?;
    let left = lab.stack.txt(&zone).await?;
    ensure!(left.is_empty(), "left in DNS: {left:?}");
    Ok(())
}

const ACCESS_DENIED: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
