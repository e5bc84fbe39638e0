//! Every document that a run reads, damaged in hundreds of ways: a run reports all the rest each
//! time, as if the damaged one were not there.

mod sibling;

use std::collections::BTreeSet;

use neverlapse::alert::{Change, Composed, Memory, Place, Run, Sender, State, Watchlist, closing, compose};
use neverlapse::bucket::document::{self, Document};
use neverlapse::bucket::receipt::Receipt;
use neverlapse::bucket::version::{Current, Manifest};
use neverlapse::delivery::{Stored, StoredReceipt, reports};
use neverlapse::finding::{Code, Finding, Kind, Severity};
use neverlapse::inventory::Inventory;
use neverlapse::renewal::{Renewal, RenewalFailure, planned};
use neverlapse::report::page::page;
use neverlapse::report::{EndpointReport, Report, StoredVersion};
use neverlapse::timestamp;
use neverlapse::timestamp::Timestamp;
use serde_json::{Value, json};
use time::Duration;

use sibling::siblings;

const NOW: Timestamp = timestamp!(2026-11-24 06:00 UTC);
const INVENTORY: &str = r#"
[[certificate]]
identifiers = ["shop.test"]
served_at = ["shop.test"]
deliver_within_hours = 12

[[certificate]]
identifiers = ["other.test"]
"#;

#[test]
fn a_receipt() {
    for (what, json) in siblings(&json!(receipt())) {
        let mut world = World::default();
        world.shop.receipts = Ok(vec![StoredReceipt {
            instance: "i-1".into(),
            receipt: Receipt::read("shop.test", "i-1", &json),
        }]);
        world.alerts_about_the_rest(&what);
    }
}

#[test]
fn the_current_pointer() {
    for (what, json) in siblings(&json!(current())) {
        let mut world = World::default();
        world.shop.current = read(&json);
        world.alerts_about_the_rest(&what);
    }
}

#[test]
fn a_manifest() {
    let manifest = json!({"schema": Manifest::SCHEMA, "files": {"cert.pem": {"sha256": "ab", "bytes": 1}}});
    let mut manifest_of_current = json!(current());
    manifest_of_current
        .as_object_mut()
        .unwrap()
        .extend(manifest.as_object().unwrap().clone());
    for (what, json) in siblings(&manifest_of_current) {
        let mut world = World::default();
        world.shop.history = read::<Manifest>(&json).map(|manifest| {
            let version = |manifest: Manifest| StoredVersion {
                facts: (&manifest.facts).into(),
                current: false,
            };
            manifest.into_iter().map(version).collect()
        });
        world.alerts_about_the_rest(&what);
    }
}

#[test]
fn a_renewal_record() {
    let mut renewal = json!(renewal());
    renewal["advice"] = json!({"version": "v", "start": NOW, "end": NOW + Duration::DAY, "renew_at": NOW,
        "explanation_url": "https://ca.test", "ask_again_at": NOW});
    renewal["waits"] = json!([{"issuer": "letsencrypt", "until": NOW}]);
    for (what, json) in siblings(&renewal) {
        let mut world = World::default();
        world.shop.renewal = read(&json);
        if let Ok(Some(renewal)) = &world.shop.renewal {
            planned(&current(), Some(renewal));
            RenewalFailure::next(renewal.failure.as_ref(), String::new(), None, NOW);
            renewal.wait_for("letsencrypt", NOW);
        }
        world.alerts_about_the_rest(&what);
    }
}

#[test]
fn the_memory_of_alerts() {
    let before = World {
        endpoints: vec![endpoint("shop.test:443", &["192.0.2.1:443", "192.0.2.2:443"])],
        others: false,
        ..World::default()
    };
    let Composed { state, .. } = before.run(&Memory::Blank);
    let mut state = json!(state);
    state["fine_at"] = json!(NOW);
    state["missed"] = json!(["Slack", "pager"]);
    for incident in state["matters"].as_object_mut().unwrap().values_mut() {
        incident["gone"] = json!({"192.0.2.2:443": 1});
        incident["outage"] = json!({"unreachable": 1, "endpoints": 3});
    }
    state["unclosed"] = json!({"0123456789abcdef": state["matters"].as_object().unwrap().values().next().unwrap()});

    for (what, json) in siblings(&state) {
        let world = World {
            memory: Memory::read(&json),
            ..World::default()
        };
        world.alerts_about_the_rest(&what);
        // What another run wrote meanwhile is merged.
        if let Memory::Known(other) = world.memory {
            closing(&other.unclosed);
            let _ = State::default().merged(other);
        }
    }
}

#[test]
fn a_report() {
    let report = World::default().report();
    for (what, json) in siblings(&json!(report)) {
        if let Ok(report) = document::read::<Report>(&json) {
            page(&report, Some("prod")).unwrap();
            let run = Run {
                outcome: Ok(&report),
                watchlist: &Watchlist::default(),
                weekly: true,
            };
            let composed = compose(&run, &Memory::Blank, &sender(), NOW);
            let codes = composed.news.notices.iter().map(|notice| &notice.incident.code);
            assert!(codes.clone().all(|code| *code != Code::NotJudged), "{what}");
            let _ = report.fitting(10_000);
        }
    }
}

/// Whatever one entry says, the others are watched, or somebody hears of it.
#[test]
fn an_entry_of_the_inventory() {
    let entry = json!({"identifiers": ["shop.test"], "served_at": ["shop.test"], "deliver_within_hours": 12,
        "issuers": ["letsencrypt"], "key_type": "rsa-2048", "warn_days": 3, "critical_days": 2, "profile": "x",
        "name": "shop.test", "ca": "ca/x.pem", "quiet": true, "reuse_key": false});
    let endpoint = json!({"endpoint": "shop.test:8443", "sni": "x.test", "addresses": ["192.0.2.1"],
        "timeout_seconds": 10, "ehlo": "x.test", "warn_days": 1});
    for (table, entry) in [("certificate", entry), ("endpoint", endpoint)] {
        for (what, json) in siblings(&entry) {
            let Ok(Value::Object(members)) = serde_json::from_slice(&json) else {
                continue;
            };
            let lines: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{name} = {value}"))
                .collect();
            let text = format!(
                "[[{table}]]\n{}\n\n[[endpoint]]\nendpoint = \"other.test\"\n",
                lines.join("\n")
            );
            let inventory = Inventory::parse(&text);
            let watched = inventory
                .watched
                .iter()
                .any(|watched| watched.endpoint.to_string() == "other.test:443");
            assert!(watched || !inventory.problems.is_empty(), "{what}: {text}");
            for problem in &inventory.problems {
                assert!(problem.to_string().lines().count() == 1, "{what}: {problem}");
            }
        }
    }
    for (what, text) in sibling::damaged(INVENTORY) {
        let inventory = Inventory::parse(&String::from_utf8_lossy(&text));
        let is_whole = inventory
            .certificates
            .iter()
            .any(|certificate| certificate.name == "other.test");
        let is_empty = text.is_empty() || what.starts_with("cut");
        assert!(is_whole || is_empty || !inventory.problems.is_empty(), "{what}");
    }
}

/// What a run sees: a certificate whose documents may be damaged, another one, and an endpoint,
/// each of which has something wrong with it.
struct World {
    shop: Stored,
    endpoints: Vec<EndpointReport>,
    memory: Memory,
    others: bool,
}

impl Default for World {
    fn default() -> Self {
        Self {
            shop: Stored {
                current: Ok(Some(current())),
                renewal: Ok(Some(renewal())),
                receipts: Ok(vec![StoredReceipt {
                    instance: "i-1".into(),
                    receipt: Ok(receipt()),
                }]),
                history: Ok(Vec::new()),
            },
            endpoints: vec![
                endpoint("shop.test:443", &["192.0.2.1:443"]),
                endpoint("rest.test:443", &["192.0.2.9:443"]),
            ],
            memory: Memory::Blank,
            others: true,
        }
    }
}

impl World {
    fn report(&self) -> Report {
        let mut certificates = Inventory::parse(INVENTORY).certificates;
        let other = Stored {
            renewal: Ok(Some(renewal())),
            ..Stored::unread("never asked for")
        };
        let mut stored = vec![self.shop.clone(), other];
        if !self.others {
            certificates.truncate(1);
            stored.truncate(1);
        }
        let mut report = Report::new(NOW, NOW, self.endpoints.clone());
        report.certificates = reports(&certificates, &stored, &report.endpoints, NOW);
        report
    }

    fn run(&self, memory: &Memory) -> Composed {
        let report = self.report();
        page(&report, Some("prod")).unwrap();
        let run = Run {
            outcome: Ok(&report),
            watchlist: &Watchlist::default(),
            weekly: true,
        };
        compose(&run, memory, &sender(), NOW)
    }

    fn alerts_about_the_rest(&self, what: &str) {
        let Composed {
            news, state, digest, ..
        } = self.run(&self.memory);
        let said: BTreeSet<_> = (news.notices.iter())
            .filter(|notice| notice.change == Change::Appeared)
            .map(|notice| (notice.incident.place.clone(), notice.incident.code.as_str().to_owned()))
            .collect();

        for (place, code) in [
            (Place::Endpoint("rest.test:443".into()), "expired"),
            (Place::Certificate("other.test".into()), "renewal_failed"),
        ] {
            assert!(said.contains(&(place, code.to_owned())), "{what}: {said:?}");
        }
        // No sibling reaches an error of ours.
        assert!(said.iter().all(|(_, code)| code != "not_judged"), "{what}: {said:?}");
        let text = digest.unwrap().text(&sender(), 60_000);
        assert!(!text.contains("neverlapse itself failed"), "{what}: {text}");
        assert!(
            matches!(Memory::read(json!(state).to_string().as_bytes()), Memory::Known(_)),
            "{what}"
        );
    }
}

fn read<T: Document>(json: &[u8]) -> Result<Option<T>, String> {
    document::read(json).map(Some).map_err(|error| error.to_string())
}

fn endpoint(name: &str, addresses: &[&str]) -> EndpointReport {
    let not_after = NOW - Duration::HOUR;
    let expired = Finding::new(Kind::Expired { not_after }, Severity::Critical, NOW);
    let leaf = json!({"subject": "", "issuer": "CN=x", "serial": "1", "fingerprint": "bb", "names": ["a.test"],
        "not_before": "2026-08-01T00:00:00Z", "not_after": not_after, "key": "ecdsa-p256",
        "signature": "ecdsa-sha256", "role": "leaf"});
    let observation =
        |address: &&str| json!({"address": address, "elapsed_ms": 1, "tries": 1, "findings": [expired], "leaf": leaf});
    let observations: Vec<_> = addresses.iter().map(observation).collect();
    serde_json::from_value(json!({"endpoint": name, "status": "critical", "not_after": not_after,
        "seconds_left": -3_600, "observations": observations, "findings": []}))
    .unwrap()
}

fn current() -> Current {
    let published = NOW - Duration::days(2);
    serde_json::from_value(json!({"schema": Current::SCHEMA, "sequence": 7, "name": "shop.test",
        "version": "20261001T000000Z-00000000", "fingerprint": "aa", "serial": "1f", "not_before": published,
        "not_after": NOW + Duration::days(88), "identifiers": ["shop.test"], "key": "ecdsa-p256",
        "manifest_sha256": "cd", "published_at": published, "rolled_back": false,
        "issuer": {"name": "letsencrypt", "directory": "https://ca.test/directory", "account": "https://ca.test/1",
            "profile": "x", "staging": false}}))
    .unwrap()
}

fn renewal() -> Renewal {
    Renewal {
        failure: Some(RenewalFailure::next(
            None,
            "the CA says no".into(),
            None,
            NOW - Duration::HOUR,
        )),
        ..Renewal::new("shop.test")
    }
}

fn receipt() -> Receipt {
    Receipt {
        schema: Receipt::SCHEMA.into(),
        name: "shop.test".into(),
        instance: "i-1".into(),
        host: "web-1".into(),
        agent: "0".into(),
        version: current().facts.version,
        fingerprint: "aa".into(),
        stage: neverlapse::bucket::receipt::Stage::Failed,
        reason: Some("the test failed".into()),
        installed: Some("20260901T000000Z-00000000".into()),
        sequence: Some(6),
        not_after: Some(NOW + Duration::DAY),
        since: NOW - Duration::DAY,
        at: NOW - Duration::HOUR,
        next_by: NOW + Duration::HOUR,
    }
}

fn sender() -> Sender {
    Sender::of("prod", "arn:aws:sns:eu-central-1:123456789012:alerts", "bucket")
}
