//! Many certificates that are due at one issuer while it is in trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::fault::{Fate, Reply};
use time::Duration;

use crate::fixture::{Lab, certificate, forced, request};
use crate::isolated::Isolated;
use crate::issuers::{Front, front_entry};

/// Each certificate asked for itself before the time that the CA had named, and sent an alert of
/// its own: 200 mails with 200 certificates.
pub(crate) async fn a_limit_of_the_account_is_one_alert_and_one_wait(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "herd").await?;
    lab.stack.create_zone("herd.test").await?;
    let front = Front::new(&isolated).await?;
    let is_limited = Arc::new(AtomicBool::new(true));
    let limited = is_limited.clone();
    let proxy = front
        .open(
            move |line: &String| match line.starts_with(ORDER) && limited.load(Ordering::Relaxed) {
                true => Fate::Answer(Reply::problem(429, "rateLimited", LIMIT).with("retry-after", "3600")),
                false => Fate::Pass,
            },
        )
        .await?;
    let names: Vec<_> = (0..6).map(|number| format!("h{number}")).collect();
    let entries = names
        .iter()
        .map(|name| certificate(name, &[&format!("{name}.herd.test")], "herd"));
    let issuer = front_entry("herd", &proxy.endpoint);
    isolated
        .inventory(&format!("{}{issuer}", entries.collect::<String>()))
        .await?;
    let alerts = |name: &str| Ok::<_, anyhow::Error>(isolated.log(name)?.matches("alert published").count());

    // One meets it; then the others, at once.
    let (first, others) = names.split_first().context("there are some")?;
    let problem = isolated.refused(&request(first)).await?;
    ensure!(problem.contains("note: every order at"), "{problem}");
    let requests: Vec<_> = others.iter().map(|name| request(name)).collect();
    try_join_all(requests.iter().map(|request| isolated.refused(request))).await?;
    ensure!(proxy.count(ORDER) == 1, "{} orders", proxy.count(ORDER));
    ensure!(alerts(first)? == 1);
    for name in others {
        ensure!(alerts(name)? == 0, "{}", isolated.log(name)?);
        let renewal = isolated
            .bucket
            .renewal(name)
            .await?
            .context("something is remembered")?;
        let failure = renewal.failure.context("a failure is remembered")?;
        ensure!(failure.problem.contains("too many new orders (300)"), "{failure:?}");
        let wait = failure.next_try - Timestamp::now();
        ensure!(wait > Duration::minutes(50) && wait <= Duration::HOUR, "{wait}");
    }

    // A person does not wait. What one certificate finds to be over is over for all, and nobody who
    // was not alerted is reassured.
    is_limited.store(false, Ordering::Relaxed);
    isolated.renewed(&forced(first), &front.pebble).await?;
    for name in others {
        let mut renewal = isolated
            .bucket
            .renewal(name)
            .await?
            .context("something is remembered")?;
        renewal.failure.as_mut().context("a failure")?.next_try = Timestamp::now();
        let key = neverlapse::renewal::Renewal::key(name);
        isolated.bucket.put(&key, &serde_json::to_string(&renewal)?).await?;
        isolated.renewed(&request(name), &front.pebble).await?;
        ensure!(alerts(name)? == 0, "{}", isolated.log(name)?);
    }
    Ok(())
}

const ORDER: &str = "POST /order-plz";
/// Let's Encrypt's words.
const LIMIT: &str = "too many new orders (300) from this account in the last 3h0m0s, retry after 2026-11-26 01:00:00 UTC: see \
                     https://letsencrypt.org/docs/rate-limits/#new-orders-per-account";
