//! Makes docs/report.png anew: the report's page of an invented fleet, as a browser shows it.

use anyhow::Result;
use neverlapse::page::page;
use neverlapse_tests::browser::Browser;
use neverlapse_tests::{fleet, stack};
use time::OffsetDateTime;

#[tokio::main]
async fn main() -> Result<()> {
    let html = page(
        &fleet::shop(OffsetDateTime::now_utc()),
        Some("shop-prod in eu-central-1"),
    )?;
    let browser = Browser::start().await?;
    let visit = browser.open(&html, (1_100, 1_780)).await?;
    let file = stack::root().join("docs/report.png");
    std::fs::write(&file, visit.picture().await?)?;
    println!("{}", file.display());
    Ok(())
}
