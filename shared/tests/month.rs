//! A month of alerts, day by day: what the world looks like, and which message arrives.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use neverlapse::alert::{Digest, Memory, Run, Sender, Watchlist, decide, digest};
use neverlapse::bucket::receipt::{self, Receipt};
use neverlapse::bucket::version::{self, Current, Facts, IssuedBy};
use neverlapse::certificate::{Certificate, Role};
use neverlapse::delivery::{Known, Stored, StoredReceipt, join};
use neverlapse::finding::{Finding, Kind, Severity};
use neverlapse::inventory::{Inventory, KeyType};
use neverlapse::observation::Observation;
use neverlapse::renewal::{Renewal, RenewalFailure};
use neverlapse::report::{EndpointIndex, EndpointReport, Report, StoredVersion};
use neverlapse::text::sha256;
use neverlapse::timestamp;
use neverlapse::timestamp::Timestamp;
use time::Duration;

/// `day | what changes | the subject that arrives, or - for none`.
///
/// A day begins at midnight, and the probe looks within half an hour of 06:00. Endpoints are e01 to
/// e20, and shop, whose certificate neverlapse renews and two instances install, web-1 and web-2.
/// `until 80` is what they serve, until day 80; all certificates are for 90 days. `issued until
/// 110` is a new version in the bucket.
const MONTH: &str = "
 1 | e01..e20 until 80; issued until 22; web-1..web-2 serve it; shop until 22 | -
 2 | e05 dark                                | -
 3 | e05 back                                | WARNING: certificate shop.example, renewal overdue
 4 | e07 dark                                | -
 5 |                                         | UNKNOWN: e07.example:443, no connection
 6 | renewal fails                           | UNKNOWN: e07.example:443, no connection (+1 more)
 7 | e07 back                                | OK: e07.example:443, can be reached again
 8 |                                         | WARNING: shop.example:443, 13 d 17 h left
 9 |                                         | -
10 | e01 until 20                            | WARNING: e01.example:443, 9 d 18 h left
11 |                                         | -
12 | e01 until 95                            | OK: e01.example:443, valid until 1971-04-06
13 | e03 for other.example                   | CRITICAL: e03.example:443, wrong name (+1 more)
14 |                                         | CRITICAL: e03.example:443, wrong name
15 | e03 for e03.example                     | WARNING: shop.example:443, 6 d 18 h left
16 | e10..e20 dark                           | CRITICAL: 11 of 21 endpoints cannot be reached together
17 |                                         | CRITICAL: 11 of 21 endpoints cannot be reached together
18 | e10..e18 back                           | UNKNOWN: e19.example:443, no connection (+1 more)
19 | e19..e20 back                           | CRITICAL: shop.example:443, 2 d 18 h left (+1 more)
20 | renewal works; issued until 110; web-1 serves it; web-2 fails | CRITICAL: shop.example:443, 1 d 17 h left (+1 more)
21 | web-2 serves it; shop until 110         | OK: shop.example:443, valid until 1971-04-21 (+1 more)
22 | e02 until 23                            | CRITICAL: e02.example:443, 17 h 45 min left
23 |                                         | CRITICAL: e02.example:443, expired 5 h 51 min ago
24 | e02 dark                                | CRITICAL: e02.example:443, expired 1 d 5 h ago
25 | e02 back                                | CRITICAL: e02.example:443, expired 2 d 6 h ago
26 | e02 until 120                           | OK: e02.example:443, valid until 1971-05-01
27 | e09 hushed; e09 until 29; issued until 115; web-1 serves it | -
28 | inventory has a mistake                 | UNKNOWN: the inventory has errors (+1 more)
29 | inventory is corrected                  | OK: an error in the inventory is corrected
30 | e04 for other.example; web-2 serves it; shop until 115 | CRITICAL: e04.example:443, wrong name
31 | e04 gone                                | REMOVED: e04.example:443, no longer watched
32 | issued until 116; web-1 serves it; shop until 116 | -
33 |                                         | WARNING: certificate shop.example, an instance has not installed it
34 | issued until 117; web-1 serves it; shop until 117 | -
35 |                                         | CRITICAL: certificate shop.example, an instance has not installed it
36 | issued until 118; web-1 serves it; shop until 118 | CRITICAL: certificate shop.example, an instance has not installed it
37 | web-2 serves it                         | OK: certificate shop.example, valid until 1971-04-29
";

#[test]
fn the_messages_of_a_month_are_exactly_these() {
    let mut world = World::default();
    let mut arrived = String::from("\n");
    for line in MONTH.lines().filter(|line| !line.is_empty()) {
        let [day, changes, _] = line.splitn(3, '|').collect::<Vec<_>>().try_into().unwrap();
        let number = day.trim().parse().unwrap();
        world.change(number, changes);
        let subject = world.run(number).map(|digest| digest.subject);
        arrived.push_str(&format!("{day}|{changes}| {}\n", subject.as_deref().unwrap_or("-")));
    }
    assert!(arrived == MONTH, "what arrived:\n{arrived}");
}

/// What an hourly schedule changes: nothing but when things are noticed.
#[test]
fn hourly_runs_say_the_same_thing_no_more_often() {
    let mut world = World::default();
    world.change(0, "e01..e20 until 80; e01 until 10; e02 for other.example; e03 dark");
    let mut said = BTreeMap::<String, u32>::new();
    for hour in 0..24 * 7 {
        let now = DAY_0 + Duration::hours(hour);
        for section in world.run_at(now).into_iter().flat_map(|digest| digest.sections) {
            *said.entry(section.title).or_default() += 1;
        }
    }
    let expected = [("e01.example:443", 2), ("e02.example:443", 9), ("e03.example:443", 9)];
    assert_eq!(said, expected.map(|(place, times)| (place.to_owned(), times)).into());
}

#[derive(Default)]
struct World {
    endpoints: BTreeMap<String, Site>,
    /// What the bucket says of shop's certificate.
    current: Option<Current>,
    /// Newest first.
    history: Vec<StoredVersion>,
    receipts: BTreeMap<String, Receipt>,
    renewal_fails: bool,
    failure: Option<RenewalFailure>,
    mistake: bool,
    /// `state/alerts.json`, as it is kept from one run to the next.
    kept: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Site {
    until: i64,
    name: String,
    dark: bool,
    hushed: bool,
}

impl World {
    /// What happens on a day before the probe looks.
    fn change(&mut self, day: i64, changes: &str) {
        let now = DAY_0 + Duration::days(day);
        for change in changes.split(';').map(str::trim).filter(|change| !change.is_empty()) {
            match change.split(' ').collect::<Vec<_>>()[..] {
                ["renewal", how] => self.renewal_fails = how == "fails",
                ["inventory", "has", ..] => self.mistake = true,
                ["inventory", "is", ..] => self.mistake = false,
                ["issued", "until", until] => self.issue(until.parse().unwrap(), now),
                [who, ref what @ ..] if who.starts_with("web-") => {
                    names(who).iter().for_each(|name| self.instance(name, what, now))
                }
                [who, "gone"] => drop(self.endpoints.remove(who)),
                [who, ref what @ ..] => names(who).iter().for_each(|name| self.site(name, what)),
                [] => unreachable!(),
            }
        }
    }

    fn site(&mut self, name: &str, what: &[&str]) {
        let fresh = Site {
            until: 0,
            name: format!("{name}.example"),
            dark: false,
            hushed: false,
        };
        let site = self.endpoints.entry(name.to_owned()).or_insert(fresh);
        match *what {
            ["until", day] => site.until = day.parse().unwrap(),
            ["for", name] => site.name = name.to_owned(),
            ["dark"] => site.dark = true,
            ["back"] => site.dark = false,
            ["hushed"] => site.hushed = true,
            _ => panic!("{what:?} is not something that happens to a site"),
        }
    }

    fn issue(&mut self, until: i64, now: Timestamp) {
        let not_after = DAY_0 + Duration::days(until);
        let facts = Facts {
            name: "shop.example".into(),
            version: version::id(now, 7),
            fingerprint: fingerprint(not_after),
            serial: "1f".into(),
            not_before: not_after - Duration::days(90),
            not_after,
            identifiers: vec!["shop.example".into()],
            key: KeyType::EcdsaP256,
            issuer: IssuedBy {
                name: "letsencrypt".into(),
                directory: "https://acme.example/directory".into(),
                account: "https://acme.example/acct/1".into(),
                profile: None,
                staging: false,
            },
        };
        let stored = StoredVersion {
            facts: (&facts).into(),
            current: true,
        };
        self.history.insert(0, stored);
        self.current = Some(Current {
            schema: Current::SCHEMA.into(),
            sequence: self.current.as_ref().map_or(1, |current| current.sequence + 1),
            facts,
            manifest_sha256: "cd".repeat(32),
            published_at: now,
            rolled_back: false,
        });
    }

    /// An instance's client runs; what it last did stays until it does something else.
    fn instance(&mut self, name: &str, what: &[&str], now: Timestamp) {
        let current = self.current.as_ref().expect("something is issued");
        let facts = &current.facts;
        let stage = match what {
            ["serves" | "serve", "it"] => receipt::Stage::Served,
            ["fails"] => receipt::Stage::Failed,
            _ => panic!("{what:?} is not something that happens to an instance"),
        };
        let receipt = Receipt {
            schema: Receipt::SCHEMA.into(),
            name: "shop.example".into(),
            instance: name.into(),
            host: format!("{name}.internal"),
            agent: "0.1.0".into(),
            version: facts.version.clone(),
            fingerprint: facts.fingerprint.clone(),
            stage,
            reason: (stage == receipt::Stage::Failed).then(|| "`nginx -t` failed".into()),
            installed: None,
            sequence: (stage == receipt::Stage::Served).then_some(current.sequence),
            not_after: (stage == receipt::Stage::Served).then_some(facts.not_after),
            since: now,
            at: now,
            next_by: now + Duration::days(40),
        };
        self.receipts.insert(name.to_owned(), receipt);
    }

    /// The run of a day, some minutes earlier or later than the one before.
    fn run(&mut self, day: i64) -> Option<Digest> {
        self.run_at(DAY_0 + Duration::days(day) + Duration::hours(6) + Duration::minutes(day * 7 % 31 - 15))
    }

    fn run_at(&mut self, now: Timestamp) -> Option<Digest> {
        // The run before asked for this renewal.
        let problem = "letsencrypt: urn:ietf:params:acme:error:rateLimited: too many certificates";
        let failed = |before: Option<RenewalFailure>| RenewalFailure::next(before.as_ref(), problem.into(), None, now);
        self.failure = self.renewal_fails.then(|| failed(self.failure.take()));
        let inventory = Inventory::parse(&self.inventory());
        let watchlist = Watchlist::of(&inventory);
        let report = self.report(&inventory, now);
        let memory = self.kept.as_deref().map_or(Memory::Blank, Memory::read);
        let run = Run {
            outcome: Ok(&report),
            watchlist: &watchlist,
            weekly: false,
        };
        let (news, state) = decide(&run, &memory, now);
        self.kept = Some(serde_json::to_vec(&state).unwrap());
        digest(&news, Some(&report), &watchlist, &sender(), now)
    }

    fn inventory(&self) -> String {
        let entry = |(name, site): (&String, &Site)| match name.as_str() {
            "shop" => "[[certificate]]\nidentifiers = [\"shop.example\"]\n".to_owned(),
            _ => format!("[[endpoint]]\nhost = \"{name}.example\"\nquiet = {}\n", site.hushed),
        };
        self.endpoints.iter().map(entry).collect()
    }

    fn report(&self, inventory: &Inventory, now: Timestamp) -> Report {
        let endpoints = self
            .endpoints
            .iter()
            .map(|(name, site)| site.report(name, now))
            .collect();
        let mut report = Report::new(now, now, endpoints);
        if self.mistake {
            report
                .problems
                .push("line 7: [[endpoint]] missing field `host`".to_owned().into());
        }
        if let Some(certificate) = inventory.certificates.first() {
            let told = |receipt: &Receipt| StoredReceipt {
                instance: receipt.instance.clone(),
                receipt: Ok(receipt.clone()),
            };
            let stored = Stored {
                current: Ok(self.current.clone()),
                renewal: Ok(Some(Renewal {
                    failure: self.failure.clone(),
                    ..Renewal::new("shop.example")
                })),
                receipts: Ok(self.receipts.values().map(told).collect()),
                history: Ok(self.history.clone()),
            };
            let known = Known {
                certificate,
                stored: &stored,
                endpoints: &EndpointIndex::of(&report.endpoints),
            };
            report.certificates = vec![join(&known, now)];
        }
        report
    }
}

impl Site {
    fn report(&self, name: &str, now: Timestamp) -> EndpointReport {
        let end = DAY_0 + Duration::days(self.until);
        let host = format!("{name}.example");
        let findings = match self.dark {
            true => vec![Finding::network(Kind::ConnectFailed {
                reason: "connection refused".into(),
            })],
            false => self.findings(&host, end, now),
        };
        let status = findings.iter().map(|finding| finding.severity).max();
        EndpointReport {
            endpoint: format!("{host}:443"),
            unicode: None,
            sni: None,
            quiet: false,
            status: status.unwrap_or(Severity::Ok),
            not_after: (!self.dark).then_some(end),
            seconds_left: (!self.dark).then(|| (end - now).whole_seconds()),
            observations: vec![Observation {
                address: SocketAddr::from(([192, 0, 2, 1], 443)),
                tls: None,
                leaf: (!self.dark).then(|| self.leaf(end)),
                issuers: Vec::new(),
                revocation: None,
                other: None,
                findings,
                elapsed_ms: 1,
                tries: 1,
            }],
            skipped: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn findings(&self, host: &str, not_after: Timestamp, now: Timestamp) -> Vec<Finding> {
        let left = not_after - now;
        let mut findings = Vec::new();
        let soon = |severity, days: i64| {
            let threshold_seconds = days * 86_400;
            Finding::new(
                Kind::ExpiresSoon {
                    not_after,
                    threshold_seconds,
                },
                severity,
                now,
            )
        };
        if left.is_negative() {
            findings.push(Finding::new(Kind::Expired { not_after }, Severity::Critical, now));
        } else if left < Duration::days(3) {
            findings.push(soon(Severity::Critical, 3));
        } else if left < Duration::days(14) {
            findings.push(soon(Severity::Warning, 14));
        }
        if self.name != host {
            let (expected, names) = (host.to_owned(), vec![self.name.clone()]);
            findings.push(Finding::new(
                Kind::NameMismatch { expected, names },
                Severity::Critical,
                now,
            ));
        }
        findings
    }

    fn leaf(&self, not_after: Timestamp) -> Certificate {
        Certificate {
            subject: format!("CN={}", self.name),
            issuer: "CN=Example CA".into(),
            serial: "1f".into(),
            fingerprint: fingerprint(not_after),
            not_before: not_after - Duration::days(90),
            not_after,
            names: vec![self.name.clone()],
            key: "ecdsa-p256".into(),
            signature: "ecdsa-sha256".into(),
            role: Role::Leaf,
        }
    }
}

/// `e03..e05` are three.
fn names(who: &str) -> Vec<String> {
    let Some((first, last)) = who.split_once("..") else {
        return vec![who.to_owned()];
    };
    let digits = first.find(|c: char| c.is_ascii_digit()).unwrap();
    let (kind, width) = (&first[..digits], first.len() - digits);
    let number = |name: &str| name[digits..].parse::<u32>().unwrap();
    (number(first)..=number(last))
        .map(|n| format!("{kind}{n:0width$}"))
        .collect()
}

/// Certificates differ by their end.
fn fingerprint(not_after: Timestamp) -> String {
    sha256(not_after.to_string().as_bytes())
}

fn sender() -> Sender {
    Sender::of("neverlapse", "arn:aws:sns:eu-central-1:123456789012:alerts", "bucket")
}

const DAY_0: Timestamp = timestamp!(1971-01-01 00:00 UTC);
