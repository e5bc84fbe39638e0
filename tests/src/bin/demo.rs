//! The demo: deploys the real template to a local AWS, lets the probe look at real servers, and shows what arrives.

use std::time::Duration;

use anyhow::{Context, Result};
use neverlapse_tests::inbox::Inbox;
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
    let shop = Shop::open(OffsetDateTime::now_utc()).await?;
    for (endpoint, state) in &shop.endpoints {
        println!("     {endpoint:<28} {state}");
    }
    println!("\n2. sam build, and sam deploy of template.yaml to a local AWS (the first build takes about 5 minutes)");
    let nameserver = shop.dns.address.to_string();
    let stack = Stack::deploy(&[("Nameserver", &nameserver)]).await?;
    println!("     bucket {}, probe {}", stack.bucket, stack.probe);
    let inbox = Inbox::subscribe(&stack.config, &stack.topic, "demo-inbox").await?;
    stack.put("inventory.toml", &shop.inventory_by_name()).await?;
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

    println!(
        "\n5. The same on the command line: neverlapse check --inventory inventory.toml --nameserver {nameserver}\n"
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
