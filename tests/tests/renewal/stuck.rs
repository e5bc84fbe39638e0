//! Orders that do not move, CAs that cannot answer for a moment, and TXT records that cannot be
//! removed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use neverlapse_tests::fault::{Fate, Proxy, Reply};
use serde_json::json;

use crate::fixture::{Lab, certificate, forced, request};
use crate::isolated::Isolated;
use crate::issuers::{Front, entries};

/// A CA kept finalized orders in `processing` for days: the same order was resumed for ever, the
/// next issuer never asked, also by `--force`.
pub(crate) async fn an_order_that_is_stuck_is_given_up_for_the_next_issuer(lab: &Lab) -> Result<()> {
    second_asked_where_orders_are_stuck(lab, "stuck", false).await
}

/// The order that took the place of a dead one had the whole run again, at each delivery.
pub(crate) async fn an_order_in_place_of_a_dead_one_is_given_up_too(lab: &Lab) -> Result<()> {
    second_asked_where_orders_are_stuck(lab, "dying", true).await
}

/// Nothing moves at the first issuer; if the order `dies`, it is invalid when it is resumed.
async fn second_asked_where_orders_are_stuck(lab: &Lab, name: &str, dies: bool) -> Result<()> {
    let isolated = Isolated::open(lab, name).await?;
    lab.stack.create_zone(&format!("{name}.test")).await?;
    let front = Front::new(&isolated).await?;
    let (second, second_entry) = isolated.issuer("second").await?;
    let is_finalized = AtomicBool::new(false);
    let is_dead = Arc::new(AtomicBool::new(false));
    let dead = is_dead.clone();
    let proxy = front
        .open(move |line: &String| {
            if line.starts_with("POST /finalize-order") {
                is_finalized.store(true, Ordering::Relaxed);
                return Fate::Answer(processing());
            }
            if !line.starts_with("POST /my-order") {
                return Fate::Pass;
            }
            if dead.swap(false, Ordering::Relaxed) {
                return Fate::Answer(order("invalid"));
            }
            match is_finalized.load(Ordering::Relaxed) {
                true => Fate::Answer(processing()),
                false => Fate::Pass,
            }
        })
        .await?;
    let first = entries(name, &proxy.endpoint).replace("issuers.test", &format!("{name}.test"));
    isolated.inventory(&format!("{first}{second_entry}")).await?;

    let run = async || isolated.run_within("40", lab.stack.endpoint(), &request(name)).await;
    ensure!(!run().await?, "it was issued at once");
    let log = isolated.log(name)?;
    ensure!(
        log.contains(&format!("out of time while the CA issues ({name}, order https://")),
        "the CA and its order are not named:\n{log}"
    );
    ensure!(second.orders()? == 0);

    is_dead.store(dies, Ordering::Relaxed);
    ensure!(run().await?, "{}", isolated.log(name)?);
    let current = isolated.bucket.verified(name, &second).await?;
    ensure!(current.facts.issuer.name == "second", "{:?}", current.facts.issuer);
    let lease = isolated.bucket.get(&format!("orders/{name}.json")).await?;
    ensure!(lease.is_none(), "an order is left");
    let orders = proxy.count("POST /order-plz");
    ensure!(orders == 1 + usize::from(dies), "{orders} orders");
    Ok(())
}

/// Each answer came within its time, and all of them together took the run's, at each delivery.
pub(crate) async fn an_issuer_that_answers_slowly_leaves_time_for_the_next(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "slow").await?;
    lab.stack.create_zone("slow.test").await?;
    let front = Front::new(&isolated).await?;
    let (second, second_entry) = isolated.issuer("second").await?;
    let proxy = front.open(|_| Fate::Late(Duration::from_secs(4))).await?;
    let first = entries("slow", &proxy.endpoint).replace("issuers.test", "slow.test");
    isolated.inventory(&format!("{first}{second_entry}")).await?;

    let is_done = isolated
        .run_within("60", lab.stack.endpoint(), &request("slow"))
        .await?;
    let log = isolated.log("slow")?;
    ensure!(is_done, "{log}");
    let current = isolated.bucket.verified("slow", &second).await?;
    ensure!(current.facts.issuer.name == "second", "{:?}", current.facts.issuer);
    ensure!(
        log.contains("its answers take so long that there would be no time to ask another issuer"),
        "{log}"
    );
    Ok(())
}

/// Each of these ended the attempt, and lost what the CA issued or was about to.
pub(crate) async fn nothing_is_stuck_at_what_passes_or_at_a_dead_order(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "passing").await?;
    lab.stack.create_zone("passing.test").await?;
    let front = Front::new(&isolated).await?;
    let (second, second_entry) = isolated.issuer("second").await?;
    let busy = |status| Reply {
        status,
        headers: vec![("retry-after", "2".to_owned())],
        body: String::new(),
    };
    let dead = |status: &str| {
        let error =
            json!({ "type": "urn:ietf:params:acme:error:dns", "detail": "SERVFAIL looking up TXT", "status": 400 });
        json_reply(json!({
            "status": status, "identifier": { "type": "dns", "value": "dead.passing.test" }, "expires": "2030-01-01T00:00:00Z",
            "challenges": [{ "type": "dns-01", "url": "https://127.0.0.1/1", "status": "invalid", "token": "t", "error": error }]
        }))
    };
    let missing = Reply::problem(404, "malformed", "No such authorization");
    let cases = [
        ("gateway", "POST /my-order", 1, busy(502)),
        ("limit", "POST /my-order", 2, busy(429)),
        ("late", "POST /authZ", 2, missing),
        ("download", "POST /certZ", 1, busy(503)),
        ("finalize", "POST /finalize-order", 1, busy(500)),
        ("stale-ready", "POST /finalize-order", 1, order("ready")),
        ("stale-pending", "POST /finalize-order", 1, order("pending")),
        ("invalid", "POST /authZ", 1, dead("invalid")),
        ("expired", "POST /authZ", 1, dead("expired")),
        ("deactivated", "POST /authZ", 1, dead("deactivated")),
    ];
    let mut proxies = BTreeMap::new();
    for (name, asked, times, reply) in cases {
        let left = AtomicUsize::new(times);
        let fate = move |line: &String| {
            let is_it = line.starts_with(asked)
                && left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok();
            match is_it {
                true => Fate::Answer(reply.clone()),
                false => Fate::Pass,
            }
        };
        proxies.insert(name, front.open(fate).await?);
    }
    let all: String = proxies
        .iter()
        .map(|(name, proxy)| entries(name, &proxy.endpoint).replace("issuers.test", "passing.test"))
        .collect();
    isolated.inventory(&format!("{all}{second_entry}")).await?;

    let problems = Arc::new(Mutex::new(Vec::new()));
    futures::future::try_join_all(proxies.iter().map(async |(name, proxy)| {
        let is_done = isolated.run(&request(name)).await?;
        let current = isolated.bucket.current(name).await?;
        let issuer = current.map(|current| current.facts.issuer.name);
        let orders = proxy.count("POST /order-plz");
        let expected = match *name {
            "invalid" | "expired" | "deactivated" => 2,
            _ => 1,
        };
        if !is_done || issuer.as_deref() != Some(name) || orders != expected {
            let log = isolated.log(name)?;
            problems
                .lock()
                .unwrap()
                .push(format!("{name}: {issuer:?}, {orders} orders\n{log}"));
        }
        Ok::<_, anyhow::Error>(())
    }))
    .await?;
    let problems = problems.lock().unwrap().join("\n");
    ensure!(problems.is_empty(), "{problems}");
    ensure!(second.orders()? == 0, "the second was asked");
    ensure!(isolated.log("invalid")?.contains("SERVFAIL looking up TXT"));
    Ok(())
}

/// Names were proved, the CA issued, and nothing was published, because Route 53 did not let the
/// TXT record be removed.
pub(crate) async fn txt_records_that_are_stuck_keep_no_certificate_from_being_published(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "leftovers").await?;
    let (pebble, issuer) = isolated.issuer("leaving").await?;
    let zone = lab.stack.create_zone("leftovers.test").await?;
    let entry = certificate("leftovers", &["leftovers.test"], "leaving");
    isolated.inventory(&format!("{entry}{issuer}")).await?;
    let changes = AtomicUsize::new(0);
    let proxy = Proxy::start(lab.stack.endpoint(), move |line| {
        let is_change = line.starts_with("POST") && line.contains("/rrset");
        match is_change && changes.fetch_add(1, Ordering::Relaxed) > 0 {
            true => Fate::Refuse(403, denied()),
            false => Fate::Pass,
        }
    })
    .await?;

    let is_done = isolated.run_through(&proxy.endpoint, &request("leftovers")).await?;
    ensure!(is_done, "{}", isolated.log("leftovers")?);
    isolated.bucket.verified("leftovers", &pebble).await?;
    ensure!(lab.stack.txt(&zone).await?.len() == 1, "the record is gone");
    ensure!(isolated.log("leftovers")?.contains("TXT records are left in DNS"));

    // Neither is it forgotten, nor does it keep the next one from being issued.
    isolated.renewed(&forced("leftovers"), &pebble).await?;
    ensure!(pebble.issued()? == 2);
    let left = lab.stack.txt(&zone).await?;
    ensure!(left.is_empty(), "left in DNS: {left:?}");
    ensure!(isolated.bucket.get("orders/leftovers.json").await?.is_none());
    Ok(())
}

fn order(status: &str) -> Reply {
    json_reply(json!({
        "status": status, "expires": "2030-01-01T00:00:00Z", "identifiers": [], "authorizations": [],
        "finalize": "https://127.0.0.1/finalize"
    }))
}

fn processing() -> Reply {
    order("processing")
}

fn json_reply(body: serde_json::Value) -> Reply {
    Reply {
        status: 200,
        headers: vec![("content-type", "application/json".to_owned())],
        body: body.to_string(),
    }
}

fn denied() -> String {
    "<?xml version=\"1.0\"?>\n<ErrorResponse xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><Error><Type>Sender</Type>\
     <Code>AccessDenied</Code><Message>not authorized</Message></Error><RequestId>00000000</RequestId></ErrorResponse>"
        .to_owned()
}
