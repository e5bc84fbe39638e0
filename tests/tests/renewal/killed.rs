//! The renewer killed (SIGKILL) at each of its requests that changes something, at AWS or at the
//! CA, and started again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::fault::{Fate, Proxy};
use neverlapse_tests::pebble::Pebble;
use neverlapse_tests::pki::Authority;
use serde_json::Value;

use crate::fixture::{Lab, certificate, forced, request};
use crate::isolated::Isolated;

/// One of the renewer's requests: what it asks, and for the how many-th time.
type Step = (String, usize);

/// One certificate with an issuer, an account and a renewer of its own, which is killed at one
/// step.
struct Patient {
    name: String,
    domain: &'static str,
    step: Option<(Step, Fate)>,
    armed: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Step>>>,
    aws: Proxy,
    ca: Proxy,
}

/// What a dead renewer leaves.
struct Remains {
    record: Option<Value>,
    txt: usize,
    files: usize,
    published: bool,
}

pub(crate) async fn killed_at_every_step_it_finishes_with_one_certificate(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "killed").await?;
    let (pebble, authority) = ca(&isolated).await?;
    let zone = lab.stack.create_zone(DOMAIN).await?;

    // One that nobody kills shows the steps.
    let whole = Patient::new("whole", DOMAIN, None, &isolated, &pebble, &authority).await?;
    isolated.inventory(&whole.entry()).await?;
    ensure!(!whole.renew(&isolated).await?, "nobody killed it");
    isolated.bucket.verified("whole", &pebble).await?;
    let steps = whole.steps();
    ensure!(steps.len() > 15, "too few steps: {steps:?}");

    let fates = steps.iter().flat_map(|step| [(step, Fate::Stop), (step, Fate::Hold)]);
    let mut patients = Vec::new();
    for (number, (step, fate)) in fates.enumerate() {
        let (name, at) = (format!("p{number:02}"), Some((step.clone(), fate)));
        patients.push(Patient::new(&name, DOMAIN, at, &isolated, &pebble, &authority).await?);
    }
    let entries: String = patients.iter().map(Patient::entry).collect();
    isolated.inventory(&entries).await?;
    each(&patients, async |patient| {
        ensure!(patient.renew(&isolated).await?, "{patient} was never reached");
        Ok(())
    })
    .await?;

    let mut remains = Vec::new();
    for patient in &patients {
        let left = patient.remains(&isolated, &zone).await?;
        // Half a version is never visible.
        if left.published {
            isolated.bucket.verified(&patient.name, &pebble).await?;
        }
        remains.push(left);
    }
    let free = remains.iter().filter_map(Remains::leased_until).max();
    let wait = free.map(|free| free - Timestamp::now()).unwrap_or_default();
    tokio::time::sleep(wait.try_into().unwrap_or_default()).await;
    each(&patients, async |patient| {
        patient.armed.store(false, Ordering::Relaxed);
        patient.renew(&isolated).await.map(drop)
    })
    .await?;

    let mut table = String::from("killed at each step, then run again:\n");
    let mut wrong = Vec::new();
    for (patient, left) in patients.iter().zip(&remains) {
        let then = patient.remains(&isolated, &zone).await?;
        let versions = isolated.bucket.versions(&patient.name).await?;
        let verified = isolated.bucket.verified(&patient.name, &pebble).await;
        let finalized = patient.count("POST /finalize-order");
        let orders = patient.count("POST /order-plz");
        writeln!(
            table,
            "  {patient:<64} left {left:<46} then {} version, {orders} orders, {finalized} finalized, {} TXT",
            versions.len(),
            then.txt
        )?;
        let done = then.record.is_none() && then.txt == 0 && versions.iter().map(|version| version.1).eq([5]);
        if !done || verified.is_err() {
            wrong.push(format!("{patient}: {then}, {versions:?}, {:?}", verified.err()));
        }
    }
    println!("{table}");
    ensure!(wrong.is_empty(), "not repaired:\n{}", wrong.join("\n"));
    let (issued, accounts) = (pebble.issued()?, pebble.accounts()?);
    let expected = patients.len() + 1;
    ensure!(issued == expected, "{issued} certificates for {expected} names");
    ensure!(accounts == expected, "{accounts} accounts for {expected} issuers");
    Ok(())
}

/// An account's key is stored as the next one, told to the CA, and stored as the only one; the
/// renewer is killed at each of that.
pub(crate) async fn an_account_key_is_replaced_once_wherever_it_dies(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "rekeyed").await?;
    let (pebble, authority) = ca(&isolated).await?;
    lab.stack.create_zone(REKEYED).await?;
    let patient = async |name: &str, step| Patient::new(name, REKEYED, step, &isolated, &pebble, &authority).await;
    let replacement = |patient: &Patient| Request {
        action: Action::ReplaceAccountKey,
        requested_by: RequestedBy::Person,
        ..request(&patient.name)
    };

    let whole = patient("k-whole", None).await?;
    isolated.inventory(&whole.entry()).await?;
    ensure!(!whole.renew(&isolated).await?, "nobody killed it");
    whole.forget();
    ensure!(!whole.run(&replacement(&whole), &isolated).await?, "nobody killed it");
    let steps = whole.steps();
    let told = steps.iter().filter(|step| step.0 == ROLLOVER).count();
    let stored = steps.iter().filter(|step| step.0.starts_with("PUT accounts/")).count();
    ensure!((told, stored) == (1, 2), "{steps:?}");

    let fates = steps.iter().flat_map(|step| [(step, Fate::Stop), (step, Fate::Hold)]);
    let mut patients = Vec::new();
    for (number, (step, fate)) in fates.enumerate() {
        patients.push(patient(&format!("k{number:02}"), Some((step.clone(), fate))).await?);
    }
    let entries: String = patients.iter().map(Patient::entry).collect();
    isolated.inventory(&entries).await?;
    let key = async |patient: &Patient| {
        let account = format!("accounts/{}/account.json", patient.name);
        let text = isolated.bucket.get(&account).await?;
        let account: Value = serde_json::from_str(&text.context("there is an account")?)?;
        ensure!(account["next_key"].is_null(), "{patient}: a replacement is under way");
        Ok(account["key"].clone())
    };
    each(&patients, async |patient| {
        patient.armed.store(false, Ordering::Relaxed);
        ensure!(!patient.renew(&isolated).await?, "{patient}: nobody killed it");
        let before = key(patient).await?;
        patient.forget();
        patient.armed.store(true, Ordering::Relaxed);
        let asked = replacement(patient);
        ensure!(patient.run(&asked, &isolated).await?, "{patient} was never reached");
        patient.armed.store(false, Ordering::Relaxed);
        // Delivered again, twice: the first finishes it, the second finds it done.
        patient.run(&asked, &isolated).await?;
        let after = key(patient).await?;
        ensure!(after != before, "{patient}: the key is not replaced");
        patient.run(&asked, &isolated).await?;
        ensure!(key(patient).await? == after, "{patient}: the key is replaced twice");
        // And the CA knows us by it.
        let first = isolated.bucket.current(&patient.name).await?;
        ensure!(!patient.run(&forced(&patient.name), &isolated).await?);
        let second = isolated.bucket.verified(&patient.name, &pebble).await?;
        ensure!(
            Some(&second) != first.as_ref()
                && second.facts.issuer.account == first.context("a first")?.facts.issuer.account
        );
        Ok(())
    })
    .await?;
    let (accounts, expected) = (pebble.accounts()?, patients.len() + 1);
    ensure!(accounts == expected, "{accounts} accounts for {expected} issuers");
    println!(
        "an account key replaced, killed at each of {} steps: {accounts} accounts",
        patients.len()
    );
    Ok(())
}

/// An ACME server, and who vouches for the proxies in front of it.
async fn ca(isolated: &Isolated<'_>) -> Result<(Pebble, Authority)> {
    let (pebble, _) = isolated.issuer("killed").await?;
    let authority = Authority::new()?;
    let roots = format!("{}{}", authority.root(), pebble.issuing_root);
    isolated.bucket.put("ca/killed.pem", &roots).await?;
    Ok((pebble, authority))
}

/// A few at once: all else in this suite goes on beside it.
async fn each(patients: &[Patient], work: impl AsyncFn(&Patient) -> Result<()>) -> Result<()> {
    let all = stream::iter(patients).map(|patient| work(patient)).buffer_unordered(4);
    all.try_collect::<()>().await
}

impl Patient {
    async fn new(
        name: &str,
        domain: &'static str,
        step: Option<(Step, Fate)>,
        isolated: &Isolated<'_>,
        pebble: &Pebble,
        authority: &Authority,
    ) -> Result<Self> {
        let (armed, seen) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<Vec<Step>>>::default());
        let fate = {
            let (armed, seen, step) = (armed.clone(), seen.clone(), step.clone());
            let (name, bucket) = (name.to_owned(), isolated.bucket.name().to_owned());
            move |line: &String| {
                let mut seen = seen.lock().unwrap();
                let what = plain(line, &bucket, &name);
                let before = seen.iter().filter(|step| step.0 == what).count();
                seen.push((what, before + 1));
                match &step {
                    Some((step, fate)) if armed.load(Ordering::Relaxed) && seen.last() == Some(step) => fate.clone(),
                    _ => Fate::Pass,
                }
            }
        };
        let leaf = authority.leaf("127.0.0.1", Timestamp::now() + time::Duration::days(60))?;
        let ca = pebble.directory.trim_end_matches("/dir");
        Ok(Self {
            aws: Proxy::start(isolated.lab.stack.endpoint(), fate.clone()).await?,
            ca: Proxy::start_tls(ca, &pebble.listening_root, &leaf, fate).await?,
            name: name.to_owned(),
            domain,
            step,
            armed,
            seen,
        })
    }

    fn entry(&self) -> String {
        let (name, directory) = (&self.name, format!("{}/dir", self.ca.endpoint));
        let certificate = certificate(name, &[&self.host()], name);
        format!("{certificate}[issuer.{name}]\ndirectory = {directory:?}\nca = \"ca/killed.pem\"\n")
    }

    fn host(&self) -> String {
        format!("{}.{}", self.name, self.domain)
    }

    /// Runs the built renewer on what the probe asks; whether it was killed.
    async fn renew(&self, isolated: &Isolated<'_>) -> Result<bool> {
        self.run(&request(&self.name), isolated).await
    }

    /// Likewise, on any request.
    async fn run(&self, request: &Request, isolated: &Isolated<'_>) -> Result<bool> {
        let done = tokio::select! {
            () = self.aws.held() => return Ok(true),
            () = self.ca.held() => return Ok(true),
            done = isolated.run_through(&self.aws.endpoint, request) => done?,
            () = tokio::time::sleep(LONG) => bail!("{self}: the renewer does not answer"),
        };
        ensure!(done, "{self}: the renewer failed:\n{}", isolated.log(&self.name)?);
        Ok(false)
    }

    /// What changed something, in order; reading is harmless, and how often it polls is chance.
    fn steps(&self) -> Vec<Step> {
        let seen = self.seen.lock().unwrap();
        let changes = seen.iter().filter(|(what, _)| {
            let reads = ["GET", "HEAD", "POST /my-order", "POST /authZ", "POST /my-account"];
            !reads.iter().any(|reads| what.starts_with(reads))
        });
        changes.cloned().collect()
    }

    /// Counts steps anew.
    fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    fn count(&self, what: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|step| step.0 == what).count()
    }

    async fn remains(&self, isolated: &Isolated<'_>, zone: &str) -> Result<Remains> {
        let record = isolated.bucket.get(&format!("orders/{}.json", self.name)).await?;
        let owner = format!("_acme-challenge.{}", self.host());
        let txt = isolated.lab.stack.txt(zone).await?;
        Ok(Remains {
            record: record.map(|text| serde_json::from_str(&text)).transpose()?,
            txt: txt.iter().filter(|(name, _)| *name == owner).count(),
            files: isolated
                .bucket
                .versions(&self.name)
                .await?
                .iter()
                .map(|version| version.1)
                .sum(),
            published: isolated.bucket.current(&self.name).await?.is_some(),
        })
    }
}

impl Remains {
    fn leased_until(&self) -> Option<Timestamp> {
        let text = self.record.as_ref()?["leased_until"].as_str()?;
        text.parse().ok()
    }
}

impl std::fmt::Display for Patient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = match &self.step {
            None => self.name.clone(),
            Some(((what, time), fate)) => {
                let when = if *fate == Fate::Stop { "before" } else { "after" };
                format!("{when:<6} {what} ({time})")
            }
        };
        f.pad(&said)
    }
}

impl std::fmt::Display for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut left = Vec::new();
        if let Some(record) = &self.record {
            let attempt = &record["attempt"];
            left.push(match (attempt.is_object(), attempt["order"].is_string()) {
                (true, true) => "an order".to_owned(),
                (true, false) => "an attempt".to_owned(),
                (false, _) => "a lease".to_owned(),
            });
        }
        for (count, what) in [(self.txt, "TXT"), (self.files, "files")] {
            if count > 0 {
                left.push(format!("{count} {what}"));
            }
        }
        if self.published {
            left.push("current.json".to_owned());
        }
        if left.is_empty() {
            left.push("nothing".to_owned());
        }
        f.pad(&left.join(", "))
    }
}

/// A request without what differs from one certificate to the next.
fn plain(line: &str, bucket: &str, name: &str) -> String {
    let (method, path) = line.split_once(' ').unwrap_or((line, ""));
    let path = path.trim_start_matches('/');
    if let Some(key) = path.strip_prefix(bucket) {
        let key = key.trim_start_matches('/');
        let parts: Vec<_> = key.split('/').collect();
        let shown: BTreeMap<_, _> = [(name.to_owned(), "NAME"), (format!("{name}.json"), "NAME.json")].into();
        let mut shown: Vec<_> = parts
            .iter()
            .map(|part| shown.get(*part).copied().unwrap_or(part))
            .collect();
        if let Some(at) = shown.iter().position(|part| *part == "versions")
            && shown.len() > at + 1
        {
            shown[at + 1] = "VERSION";
        }
        return format!("{method} {}", shown.join("/"));
    }
    if path.ends_with("/rrset/") || path.ends_with("/rrset") {
        return format!("{method} TXT records");
    }
    format!("{method} /{}", path.split('/').next().unwrap_or_default())
}

const DOMAIN: &str = "killed.test";
const REKEYED: &str = "rekeyed.test";
/// Pebble's keyChange.
pub(crate) const ROLLOVER: &str = "POST /rollover-account-key";
const LONG: Duration = Duration::from_secs(180);
