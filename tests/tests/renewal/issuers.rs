//! Several issuers: whatever one answers, the next one is asked, and an alert says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use futures::future::try_join_all;
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::fault::{Fate, Proxy, Reply};
use neverlapse_tests::pebble::{Options, Pebble};
use neverlapse_tests::pki::{Authority, Leaf};
use serde_json::{Value, json};
use time::Duration;

use crate::fixture::{Lab, certificate, forced, request};
use crate::isolated::Isolated;
use crate::killed::ROLLOVER;

/// What stands before Pebble, and lets it say something else.
pub(crate) struct Front {
    leaf: Leaf,
    pub(crate) pebble: Pebble,
}

impl Front {
    pub(crate) async fn new(isolated: &Isolated<'_>) -> Result<Self> {
        let (pebble, _) = isolated.issuer("first").await?;
        let authority = Authority::new()?;
        let leaf = authority.leaf("127.0.0.1", Timestamp::now() + Duration::days(60))?;
        let roots = format!("{}{}", authority.root(), pebble.issuing_root);
        isolated.bucket.put("ca/front.pem", &roots).await?;
        Ok(Self { leaf, pebble })
    }

    pub(crate) async fn open(&self, fate: impl Fn(&String) -> Fate + Send + Sync + 'static) -> Result<Proxy> {
        let upstream = self.pebble.directory.trim_end_matches("/dir");
        Proxy::start_tls(upstream, &self.pebble.listening_root, &self.leaf, fate).await
    }
}

/// The inventory's entries for a certificate of `first` and then `second`, and for `first`.
pub(crate) fn entries(name: &str, front: &str) -> String {
    let entry = certificate(name, &[&format!("{name}.issuers.test")], name);
    let both = entry.replace(&format!("[{name:?}]"), &format!("[{name:?}, \"second\"]"));
    format!("{both}{}", front_entry(name, front))
}

/// The inventory's entry for an issuer whose proxy, opened by a [`Front`], is at `front`.
pub(crate) fn front_entry(name: &str, front: &str) -> String {
    format!("[issuer.{name}]\ndirectory = \"{front}/dir\"\nca = \"ca/front.pem\"\n")
}

pub(crate) async fn the_second_issues_when_the_first_does_not(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "two-issuers").await?;
    lab.stack.create_zone("issuers.test").await?;
    let front = Front::new(&isolated).await?;
    let (second, second_entry) = isolated.issuer("second").await?;
    let order = "POST /order-plz";
    let html = |status, body: &str| Reply {
        status,
        headers: vec![("content-type", "text/html".to_owned())],
        body: body.to_owned(),
    };
    let elsewhere = json!({ "status": "pending", "identifier": { "type": "dns", "value": "bank.test" }, "expires": "2030-01-01T00:00:00Z",
        "challenges": [{ "type": "dns-01", "url": "https://127.0.0.1/1", "status": "pending", "token": "t" }] });
    let http_only = json!({ "status": "pending", "identifier": { "type": "dns", "value": "http-only.issuers.test" },
        "expires": "2030-01-01T00:00:00Z",
        "challenges": [{ "type": "http-01", "url": "https://127.0.0.1/1", "status": "pending", "token": "t" }] });
    let at_fault = [
        (
            order,
            "down",
            html(500, "<h1>Internal Server Error</h1>"),
            "HTTP 500 Internal Server Error",
        ),
        (order, "limited", limited("3600"), "too many new orders"),
        (
            "HEAD /nonce-plz",
            "busy",
            html(503, "later").with("retry-after", "60"),
            "503",
        ),
        (order, "huge", html(201, &"x".repeat(3 << 20)), "answers with more than"),
        (
            "GET /dir",
            "leading",
            html(307, "").with("location", "https://localhost:1/dir"),
            "it leads to another server",
        ),
        (
            "POST /authZ",
            "nosy",
            html(200, &elsewhere.to_string()).with("replay-nonce", "n"),
            "which was not ordered",
        ),
        ("GET /dir", "nonsense", html(200, "hello"), "is no ACME directory"),
        // A time that no clock has: the library panicked, and with it the whole batch.
        (
            "POST /my-order",
            "eternal",
            Reply::problem(403, "unauthorized", "not your order").with("retry-after", &u64::MAX.to_string()),
            "not your order",
        ),
        (
            "POST /finalize-order",
            "caa",
            Reply::problem(403, "caa", "CAA record for caa.issuers.test prevents issuance"),
            "CAA record for caa.issuers.test prevents issuance",
        ),
        (
            order,
            "deactivated",
            Reply::problem(403, "unauthorized", "Account is deactivated"),
            "delete accounts/ISSUER/account.json",
        ),
        (
            "POST /sign-me-up",
            "unknown",
            Reply::problem(400, "malformed", "The external account is not known"),
            "The external account is not known",
        ),
        (
            order,
            "terms",
            Reply::problem(403, "userActionRequired", "Terms of service have changed")
                .with("link", "<https://ca.example/tos-2.pdf>;rel=\"terms-of-service\""),
            "https://ca.example/tos-2.pdf",
        ),
        (
            order,
            "waf",
            html(403, "<h1>error 1020</h1>"),
            "HTTP 403 Forbidden: <h1>error 1020</h1>",
        ),
        (
            order,
            "gateway",
            Reply {
                status: 429,
                headers: vec![
                    ("content-type", "application/json".to_owned()),
                    ("retry-after", "3600".to_owned()),
                ],
                body: "{\"message\": \"Too Many Requests\"}".to_owned(),
            },
            "Too Many Requests",
        ),
        (
            "GET /dir",
            "service",
            Reply::problem(503, "rateLimited", "Service busy; retry later."),
            "Service busy; retry later.",
        ),
        (
            order,
            "identifier",
            Reply::problem(400, "rejectedIdentifier", "not for this name"),
            "hint: the CA does not issue for this name",
        ),
        // Let's Encrypt's words.
        (
            order,
            "many",
            Reply::problem(400, "malformed", "Order cannot contain more than 100 DNS names"),
            "more than 100 DNS names",
        ),
        // A CA's own policy, and a name that none issues for, look the same.
        (
            "POST /authZ",
            "http-only",
            html(200, &http_only.to_string()).with("replay-nonce", "n"),
            "offers no dns-01 challenge",
        ),
    ];
    let expected = at_fault.len() + 1;
    let mut fronts = Vec::new();
    for (asked, name, reply, words) in at_fault {
        let fate = move |line: &String| match line.starts_with(asked) {
            true => Fate::Answer(reply.clone()),
            false => Fate::Pass,
        };
        fronts.push((name, front.open(fate).await?, words));
    }
    // Nobody listens at port 1.
    let unreachable = entries("unreachable", "https://127.0.0.1:1");
    let all: String = fronts
        .iter()
        .map(|(name, proxy, ..)| entries(name, &proxy.endpoint))
        .collect();
    isolated.inventory(&format!("{all}{unreachable}{second_entry}")).await?;

    let since = Timestamp::now();
    isolated.renewed(&request("unreachable"), &second).await?;
    try_join_all(fronts.iter().map(async |(name, _, words)| {
        let current = isolated.renewed(&request(name), &second).await?;
        ensure!(
            current.facts.issuer.name == "second",
            "{name}: {:?}",
            current.facts.issuer
        );
        let said = isolated.log(name)?;
        ensure!(said.contains(words), "{name}: {words:?} is not in {said}");
        // A first issuer that never issues again was in the log alone.
        let alert = said.lines().find(|line| line.contains("alert published"));
        let alert = alert.with_context(|| format!("{name}: no alert in {said}"))?;
        ensure!(alert.contains(&format!("{name} is renewed")), "{alert}");
        Ok(())
    }))
    .await?;
    let (orders, issued) = (second.orders()?, second.issued()?);
    ensure!(
        (orders, issued) == (expected, expected),
        "{orders} orders, {issued} certificates of the second"
    );
    // What the first asked for is kept, also by what stands in front of it.
    for name in ["limited", "gateway"] {
        let renewal = isolated
            .bucket
            .renewal(name)
            .await?
            .context("something is remembered")?;
        let wait = renewal.wait_for(name, Timestamp::now()).context("until when to wait")?;
        ensure!(
            wait.until >= since + Duration::HOUR && renewal.failure.is_none(),
            "{renewal:?}"
        );
    }
    Ok(())
}

pub(crate) async fn nothing_is_asked_before_the_time_that_an_issuer_named(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "retry-after").await?;
    lab.stack.create_zone("patient.test").await?;
    let front = Front::new(&isolated).await?;
    let busy = Arc::new([AtomicBool::new(true), AtomicBool::new(true)]);
    let order = "POST /order-plz";
    let (first, second) = (busy.clone(), busy.clone());
    let first = front.open(
        move |line: &String| match line.starts_with(order) && first[0].load(Ordering::Relaxed) {
            true => Fate::Answer(limited("7200")),
            false => Fate::Pass,
        },
    );
    // Not even a problem document, and no time.
    let second = front.open(
        move |line: &String| match line.starts_with(order) && second[1].load(Ordering::Relaxed) {
            true => Fate::Answer(Reply {
                status: 502,
                ..Reply::default()
            }),
            false => Fate::Pass,
        },
    );
    let (first, second) = (first.await?, second.await?);
    let issuers = format!(
        "{}{}",
        front_entry("first", &first.endpoint),
        front_entry("second", &second.endpoint)
    );
    let alone = certificate("alone", &["alone.patient.test"], "first");
    let both = certificate("both", &["both.patient.test"], "first").replace("[\"first\"]", "[\"first\", \"second\"]");
    isolated.inventory(&format!("{alone}{both}{issuers}")).await?;

    // One issuer: nothing is tried for two hours, and --force does not wait.
    let since = Timestamp::now();
    let problem = isolated.refused(&request("alone")).await?;
    ensure!(
        problem.contains("too many new orders") && problem.contains("hint: the CA's limits"),
        "{problem}"
    );
    let next = |name: &'static str| async {
        let renewal = isolated
            .bucket
            .renewal(name)
            .await?
            .context("something is remembered")?;
        Ok::<_, anyhow::Error>(renewal.failure.context("a failure")?.next_try)
    };
    let wait = next("alone").await? - since;
    ensure!((Duration::hours(2)..Duration::hours(3)).contains(&wait), "{wait}");
    let asked = first.passed().len();
    ensure!(
        isolated.run(&request("alone")).await?,
        "a request that has to wait is done"
    );
    ensure!(first.passed().len() == asked, "it was asked before its time");
    isolated.refused(&forced("alone")).await?;
    ensure!(first.count(order) == 2, "--force asks");

    // Two of them: the second named no time, so it is asked again sooner, and the first is not.
    isolated.refused(&request("both")).await?;
    let wait = next("both").await? - since;
    ensure!(wait < Duration::HOUR, "{wait}");
    busy[1].store(false, Ordering::Relaxed);
    let asked = first.count(order);
    let mut renewal = isolated
        .bucket
        .renewal("both")
        .await?
        .context("something is remembered")?;
    let failure = renewal.failure.as_mut().context("a failure")?;
    failure.next_try = Timestamp::now();
    let key = neverlapse::renewal::Renewal::key("both");
    isolated.bucket.put(&key, &serde_json::to_string(&renewal)?).await?;
    ensure!(isolated.run(&request("both")).await?, "{}", isolated.log("both")?);
    ensure!(first.count(order) == asked, "the first was asked before its time");
    let current = isolated.bucket.verified("both", &front.pebble).await?;
    ensure!(current.facts.issuer.name == "second", "{:?}", current.facts.issuer);
    Ok(())
}

/// As ACM has them (`PRE_APPROVED`), and every CA that reuses what was proved.
pub(crate) async fn where_authorizations_are_valid_already_no_txt_record_is_written(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "pre-approved").await?;
    let options = Options {
        authorizations_reused: 100,
        ..Options::default()
    };
    let (pebble, issuer) = isolated.issuer_with("trusting", options).await?;
    lab.stack.create_zone("approved.test").await?;
    let entry = certificate("approved", &["approved.test", "*.approved.test"], "trusting");
    isolated.inventory(&format!("{entry}{issuer}")).await?;
    let aws = Proxy::start(lab.stack.endpoint(), |_| Fate::Pass).await?;
    let changes = || {
        aws.passed()
            .iter()
            .filter(|passed| passed.line.starts_with("POST") && passed.line.contains("/rrset"))
            .count()
    };
    // Written and taken out for the first, and never again. A request by force is made when it is
    // sent: an earlier one has been done.
    for ask in [request as fn(&str) -> Request, forced] {
        ensure!(
            isolated.run_through(&aws.endpoint, &ask("approved")).await?,
            "{}",
            isolated.log("approved")?
        );
        isolated.bucket.verified("approved", &pebble).await?;
        ensure!(changes() == 2, "{} changes of TXT records", changes());
    }
    ensure!(pebble.issued()? == 2);
    Ok(())
}

/// Every certificate of the issuer waited for the next key for ever.
pub(crate) async fn a_key_change_that_the_ca_refuses_costs_no_certificate(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "rekey").await?;
    lab.stack.create_zone("rekey.test").await?;
    let front = Front::new(&isolated).await?;
    let is_refused = Arc::new(AtomicBool::new(true));
    let refused = is_refused.clone();
    let proxy = front.open(
        move |line| match line.starts_with(ROLLOVER) && refused.load(Ordering::Relaxed) {
            true => Fate::Answer(Reply::problem(403, "unauthorized", "keys stay as they are")),
            false => Fate::Pass,
        },
    );
    let proxy = proxy.await?;
    let name = "stubborn";
    let entry = certificate(name, &["rekey.test"], name);
    isolated
        .inventory(&format!("{entry}{}", front_entry(name, &proxy.endpoint)))
        .await?;
    let account = async || -> Result<Value> {
        let text = isolated.bucket.get(&format!("accounts/{name}/account.json")).await?;
        Ok(serde_json::from_str(&text.context("there is an account")?)?)
    };

    isolated.renewed(&request(name), &front.pebble).await?;
    let before = account().await?;
    let replacement = Request {
        action: Action::ReplaceAccountKey,
        requested_by: RequestedBy::Person,
        ..request(name)
    };
    // Asked again, it is not taken to be done.
    for times in 1..3 {
        isolated.run(&replacement).await?;
        let log = isolated.log(name)?;
        let refusals = log.matches("it cannot be done: keys stay as they are").count();
        ensure!(refusals == times, "{log}");
        ensure!(account().await?["key"] == before["key"], "the key has changed");
    }
    isolated.renewed(&forced(name), &front.pebble).await?;

    is_refused.store(false, Ordering::Relaxed);
    ensure!(isolated.run(&replacement).await?, "{}", isolated.log(name)?);
    ensure!(account().await?["key"] != before["key"], "the key is not replaced");
    isolated.renewed(&forced(name), &front.pebble).await?;
    ensure!(front.pebble.accounts()? == 1);
    Ok(())
}

pub(crate) async fn a_changed_contact_is_told_to_the_ca_once(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "contact").await?;
    lab.stack.create_zone("contact.test").await?;
    let front = Front::new(&isolated).await?;
    let is_refused = Arc::new(AtomicBool::new(false));
    let refused = is_refused.clone();
    let proxy = front.open(
        move |line| match line.starts_with("POST /my-account") && refused.load(Ordering::Relaxed) {
            true => Fate::Answer(Reply::problem(
                400,
                "invalidContact",
                "contact email has a forbidden domain",
            )),
            false => Fate::Pass,
        },
    );
    let proxy = proxy.await?;
    let inventory = |contact: &str| {
        let certificate = certificate("contact", &["contact.test"], "told");
        let issuer = front_entry("told", &proxy.endpoint);
        format!("{certificate}{issuer}contact = [\"mailto:{contact}@contact.test\"]\n")
    };
    let told = |from: usize| -> Result<Vec<Value>> {
        let passed = proxy.passed();
        let accounts = passed[from..].iter().filter(|passed| {
            passed.line.starts_with("POST /sign-me-up") || passed.line.starts_with("POST /my-account")
        });
        accounts.map(|passed| payload(&passed.body)).collect()
    };
    isolated.inventory(&inventory("old")).await?;
    isolated.renewed(&request("contact"), &front.pebble).await?;
    let said = told(0)?;
    ensure!(
        said.len() == 1 && said[0]["contact"] == json!(["mailto:old@contact.test"]),
        "{said:?}"
    );
    let before = proxy.passed().len();
    isolated.inventory(&inventory("new")).await?;
    for _ in 0..2 {
        isolated.renewed(&forced("contact"), &front.pebble).await?;
    }
    let said = told(before)?;
    ensure!(said == [json!({ "contact": ["mailto:new@contact.test"] })], "{said:?}");

    // One that the CA does not take kept every certificate from being renewed.
    is_refused.store(true, Ordering::Relaxed);
    isolated.inventory(&inventory("bad")).await?;
    isolated.renewed(&forced("contact"), &front.pebble).await?;
    let log = isolated.log("contact")?;
    ensure!(
        log.contains("does not take the changed contact") && log.contains("forbidden domain"),
        "{log}"
    );
    ensure!(front.pebble.accounts()? == 1);
    Ok(())
}

/// The directory of an issuer was changed under its name, and the certificates of the CA before
/// stayed. A profile that is preferred is ordered from the one that offers it.
pub(crate) async fn another_directory_is_due_and_has_an_account_of_its_own(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "moved").await?;
    lab.stack.create_zone("moved.test").await?;
    let (before, old) = isolated.issuer("before").await?;
    let options = Options {
        shortlived: true,
        ..Options::default()
    };
    let (after, new) = isolated.issuer_with("after", options).await?;
    let entry = certificate("moved", &["moved.test"], "moved");
    let inventory = |issuer: &str, name: &str| {
        let issuer = issuer.replace(&format!("[issuer.{name}]"), "[issuer.moved]");
        format!("{entry}preferred_profile = \"shortlived\"\n{issuer}")
    };

    isolated.inventory(&inventory(&old, "before")).await?;
    let first = isolated.renewed(&request("moved"), &before).await?;
    ensure!(first.facts.issuer.profile.is_none(), "{:?}", first.facts.issuer);
    isolated.inventory(&inventory(&new, "after")).await?;
    let second = isolated.renewed(&request("moved"), &after).await?;
    let issuer = &second.facts.issuer;
    ensure!(
        issuer.profile.as_deref() == Some("shortlived") && issuer.account != first.facts.issuer.account,
        "{issuer:?}"
    );
    ensure!(second.facts.not_after - second.facts.not_before <= Duration::days(6));
    ensure!(
        isolated.log("moved")?.contains("issuer changed from moved"),
        "{}",
        isolated.log("moved")?
    );

    // Nothing is due any more, and the way back leads to the first account.
    ensure!(isolated.run(&request("moved")).await? && after.issued()? == 1);
    isolated.inventory(&inventory(&old, "before")).await?;
    let third = isolated.renewed(&request("moved"), &before).await?;
    ensure!(third.facts.issuer.account == first.facts.issuer.account && before.accounts()? == 1);
    Ok(())
}

/// What a signed request (RFC 7515, 7.2.2) says.
fn payload(body: &str) -> Result<Value> {
    let signed: Value = serde_json::from_str(body)?;
    let payload = signed["payload"].as_str().context("a signed request has a payload")?;
    Ok(serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes())?)?)
}

fn limited(seconds: &str) -> Reply {
    Reply::problem(429, "rateLimited", "too many new orders recently").with("retry-after", seconds)
}
