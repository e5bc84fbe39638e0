//! The demo: deploys the real template to a local AWS, lets the probe look at real servers, and shows what arrives.

use std::time::Duration;

use anyhow::{Context, Result};
use neverlapse::finding::date;
use neverlapse::version::{Current, current_key};
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::inbox::Inbox;
use neverlapse_tests::pebble::{self, Pebble};
use neverlapse_tests::process::{command, run};
use neverlapse_tests::shop::{CA, Shop};
use neverlapse_tests::stack::{Stack, root};
use time::OffsetDateTime;
use tokio::process::Command;

#[tokio::main]
async fn main() -> Result<()> {
    tokio::select! {
        shown = show() => shown,
        // Dropping what runs ends it: nothing is left behind.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; everything that was started is stopped"),
    }
}

async fn show() -> Result<()> {
    println!("1. Six real TLS servers on this machine");
    let emulator = Emulator::start().await?;
    let shop = Shop::open_on(OffsetDateTime::now_utc(), &emulator.config).await?;
    for (endpoint, state) in &shop.endpoints {
        println!("     {endpoint:<28} {state}");
    }
    println!("\n2. sam build, and sam deploy of template.yaml to a local AWS (the first build takes about 5 minutes)");
    let nameserver = shop.dns.address.to_string();
    let stack = Stack::deploy_to(emulator, &[("Nameserver", &nameserver)]).await?;
    println!("     bucket {}, probe {}", stack.bucket, stack.probe);
    let inbox = Inbox::subscribe(&stack.config, &stack.topic, "demo-inbox").await?;
    let pebble = Pebble::start(pebble::Options::default(), shop.dns.address).await?;
    let zone = stack.create_zone("shop.test").await?;
    let managed = shop.endpoint("soon");
    let renewed = format!(
        "[[certificate]]\nidentifiers = [\"soon.shop.test\"]\nserved_at = [{managed:?}]\nissuers = [\"pebble\"]\n\n\
         [issuer.pebble]\ndirectory = {:?}\nca = \"ca/pebble.pem\"\n",
        pebble.directory
    );
    stack.put("ca/pebble.pem", &pebble.roots).await?;
    let inventory = shop.inventory_by_name();
    stack.put("inventory.toml", &format!("{inventory}{renewed}")).await?;
    stack.put(CA, &shop.root).await?;

    println!("\n3. The schedule's event reaches the probe");
    let answer = stack
        .invoke(&serde_json::from_str(include_str!("../../../events/schedule.json"))?)
        .await?;
    anyhow::ensure!(!answer.failed, "the probe failed: {}", answer.payload);
    println!("     {}", answer.payload["counts"]);

    println!("\n4. The alert, as it arrived through SNS\n");
    let alert = inbox.next(Duration::from_secs(30)).await?.context("no alert arrived")?;
    println!("     Subject: {}\n", alert.subject);
    alert.text.lines().for_each(|line| println!("     {line}"));

    println!("\n5. It also asked the renewer for {managed}: an ACME server (Pebble), TXT records in Route 53\n");
    renewal(&stack, &zone).await?;

    println!(
        "\n6. The same on the command line: neverlapse check --inventory inventory.toml --nameserver {nameserver}\n"
    );
    let folder = tempfile::tempdir()?;
    let inventory = folder.path().join("inventory.toml");
    std::fs::create_dir_all(folder.path().join("ca"))?;
    std::fs::write(&inventory, shop.inventory_by_name())?;
    std::fs::write(folder.path().join(CA), &shop.root)?;
    run(command("cargo")
        .current_dir(root())
        .args(["build", "--quiet", "-p", "neverlapse-cli"]))
    .await?;
    let mut check = Command::new(root().join("target/debug/neverlapse"));
    let status = check
        .arg("check")
        .arg("--inventory")
        .arg(&inventory)
        .args(["--nameserver", &nameserver])
        .status()
        .await?;
    println!(
        "\n     exit code {} (0 ok, 1 warning, 2 critical, 3 unknown)",
        status.code().unwrap_or(-1)
    );
    Ok(())
}

/// Shows the TXT value while it is there, and the version that comes of it.
async fn renewal(stack: &Stack, zone: &str) -> Result<()> {
    let mut seen = false;
    for _ in 0..600 {
        let txt = stack.txt(zone).await?;
        if !seen && !txt.is_empty() {
            seen = true;
            txt.iter().for_each(|(name, value)| println!("     {name} TXT {value}"));
        }
        if let Some(text) = stack.get(&current_key("soon.shop.test")).await? {
            let current: Current = serde_json::from_str(&text)?;
            println!("     s3://{}/{}", stack.bucket, current_key("soon.shop.test"));
            let facts = current.facts;
            println!("     version {}, valid until {}", facts.version, date(facts.not_after));
            println!("     fingerprint {}", facts.fingerprint);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("no certificate was published within a minute")
}
