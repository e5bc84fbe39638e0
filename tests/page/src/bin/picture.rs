//! Makes the pictures in docs anew: the report's page of an invented fleet and the alert about a
//! corner of it in Slack, as a browser shows them.

use anyhow::{Context, Result};
use neverlapse::alert::{Memory, Run, Sender, Watchlist, amazon_q, decide, digest, slack};
use neverlapse::inventory::Inventory;
use neverlapse::report::page::page;
use neverlapse::timestamp::Timestamp;
use neverlapse_page_tests::browser::Browser;
use neverlapse_page_tests::chat;
use neverlapse_tests::{fleet, stack};
use time::Duration;

#[tokio::main]
async fn main() -> Result<()> {
    let now = Timestamp::now();
    let browser = Browser::start().await?;
    let report = page(&fleet::shop(now), Some("shop-prod in eu-central-1"))?;
    let visit = browser.open(&report, (1_100, 1_780)).await?;
    keep("docs/report.png", &visit.picture().await?)?;
    let visit = browser.open(&in_slack(now)?, (760, 800)).await?;
    keep("docs/slack.png", &visit.whole_picture().await?)
}

fn keep(name: &str, picture: &[u8]) -> Result<()> {
    let file = stack::root().join(name);
    std::fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

/// The alert of the run after one that had seen less, as a channel shows it.
fn in_slack(now: Timestamp) -> Result<String> {
    let sender = Sender::of(
        "shop-prod",
        "arn:aws:sns:eu-central-1:123456789012:alerts",
        "shop-prod-bucket",
    );
    let watchlist = Watchlist::of(&Inventory::parse(INVENTORY));
    let (yesterday, report) = (now - Duration::DAY, fleet::corner(now));
    let before = fleet::corner(yesterday);
    let run = |outcome| Run {
        outcome: Ok(outcome),
        watchlist: &watchlist,
        weekly: false,
    };
    let (_, mut state) = decide(&run(&before), &Memory::Blank, yesterday);
    // Only the expired one was known.
    state.incidents.retain(|id, _| id.contains("status.shop"));
    let (news, _) = decide(&run(&report), &Memory::Known(state), now);
    let digest = digest(&news, Some(&report), &watchlist, &sender, now).context("there is something to say")?;
    let (block_kit, notification) = (
        slack::message(&digest, &sender),
        amazon_q::custom_notification(&digest, &sender),
    );
    Ok(chat::channel(&block_kit, &notification))
}

const INVENTORY: &str = "\
[[certificate]]
identifiers = [\"shop.example\"]
[[certificate]]
identifiers = [\"legacy.shop.example\"]
";
