//! A thousand certificates that become due on one day, by the decisions that the renewer makes, at
//! a CA with Let's Encrypt's limit of new orders: what it is asked, and when the last one is done.

use std::collections::BTreeMap;

use neverlapse::bucket::version::{Current, Facts, IssuedBy};
use neverlapse::inventory::{Inventory, KeyType, Managed};
use neverlapse::renewal::{Decision, Renewal, RenewalFailure, RenewalInfo, Wait, bounded, decide, planned};
use neverlapse::timestamp;
use neverlapse::timestamp::Timestamp;
use time::Duration;

use crate::bucket::trouble::Trouble;

/// Without renewal information, all of them are due on the same day, and the CA refuses the 301st
/// order of three hours. Renewal information spreads them, and Let's Encrypt then counts none.
#[test]
fn a_thousand_due_on_one_day_are_renewed_in_time_and_without_a_stampede() {
    for (days, window, renewed_within, refused_per_hour) in [
        (90, None, Duration::hours(37), 6),
        (6, None, Duration::hours(37), 6),
        (90, Some(Duration::days(2)), Duration::hours(61), 0),
    ] {
        let mut world = World::new(days, window);
        let first_due = world.first_due();
        while world.renewed() < MANY {
            world.run();
            assert!(
                world.now < BORN + Duration::days(days),
                "{days} d: {} of {MANY}",
                world.renewed()
            );
        }

        let took = world.last_renewed() - first_due;
        assert!(took <= renewed_within, "{days} d, {window:?}: {took}");
        for (hour, asked) in &world.ca.asked {
            assert!(asked.issued <= LIMIT + LIMIT / 3, "{hour}: {} issued", asked.issued);
            assert!(asked.refused <= refused_per_hour, "{hour}: {} refused", asked.refused);
        }
        println!(
            "{days} d, window {window:?}: all renewed {took} after the first was due, by {} runs; {} orders refused",
            world.runs,
            world.ca.asked.values().map(|asked| asked.refused).sum::<u32>()
        );
    }
}

/// What the bucket and the CA know.
struct World {
    now: Timestamp,
    runs: u32,
    inventory: Inventory,
    kept: Vec<Kept>,
    /// `state/issuers/letsencrypt.json`.
    trouble: Option<Trouble>,
    ca: Ca,
}

/// What is kept of one certificate.
struct Kept {
    current: Current,
    renewal: Renewal,
}

/// A bucket of tokens, which is full at 300 and gets one each 36 seconds.
struct Ca {
    /// Whether an order that says what it replaces counts.
    is_exempt: bool,
    tokens: u32,
    refilled: Timestamp,
    /// By the hour.
    asked: BTreeMap<Timestamp, Asked>,
}

#[derive(Default)]
struct Asked {
    issued: u32,
    refused: u32,
}

impl World {
    fn new(days: i64, window: Option<Duration>) -> Self {
        let entries = (0..MANY).map(|number| format!("[[certificate]]\nidentifiers = [\"c{number}.test\"]\n"));
        let inventory = Inventory::parse(&entries.collect::<String>());
        let kept = inventory.certificates.iter().zip(0..).map(|(certificate, number)| {
            let current = issued(certificate, BORN, days);
            let mut renewal = Renewal::new(&certificate.name);
            renewal.renewal_info = window.and_then(|window| {
                let start = BORN + Duration::days(days) * 2 / 3 - window;
                let draw = f64::from(number) / MANY as f64;
                RenewalInfo::of(&current.facts.version, (start, start + window), None, BORN, None, draw)
            });
            Kept { current, renewal }
        });
        Self {
            now: BORN + FIRST_RUN,
            runs: 0,
            kept: kept.collect(),
            inventory,
            trouble: None,
            ca: Ca {
                is_exempt: window.is_some(),
                tokens: LIMIT,
                refilled: BORN,
                asked: BTreeMap::new(),
            },
        }
    }

    fn first_due(&self) -> Timestamp {
        let planned = self.kept.iter().map(|kept| planned(&kept.current, Some(&kept.renewal)));
        planned.min().unwrap_or(self.now)
    }

    fn last_renewed(&self) -> Timestamp {
        let published = self.kept.iter().map(|kept| kept.current.published_at);
        published.max().unwrap_or(self.now)
    }

    fn renewed(&self) -> usize {
        self.kept.iter().filter(|kept| kept.current.sequence > 1).count()
    }

    /// What the probe asks for at 06:00 and at 18:00, one after the other.
    fn run(&mut self) {
        let ends = self.now + BETWEEN_RUNS;
        self.runs += u32::from(self.now >= self.first_due());
        for number in 0..self.kept.len() {
            self.now = self.now + LOOK;
            self.renew(number);
        }
        assert!(self.now < ends, "a run took longer than the time to the next one");
        self.now = ends;
    }

    /// As `job.rs` does it for one issuer.
    fn renew(&mut self, number: usize) {
        let (certificate, now) = (&self.inventory.certificates[number], self.now);
        let kept = &mut self.kept[number];
        let (current, renewal) = (&kept.current, &kept.renewal);
        let decision = decide(
            &self.inventory.issuers,
            certificate,
            Some(current),
            Some(renewal),
            None,
            now,
        );
        let Decision::Due { next_try: None, .. } = decision else {
            return;
        };

        let not_after = current.facts.not_after;
        let waits = renewal
            .wait_for(ISSUER, now)
            .map(|wait| wait.until)
            .or_else(|| self.trouble.as_ref()?.wait(Some(not_after), now));
        let refused = match waits {
            Some(until) => Err(until),
            None => self.ca.order(now).inspect_err(|&until| {
                kept.renewal.wait(Wait {
                    issuer: ISSUER.to_owned(),
                    until: bounded(until, not_after, now),
                    is_unfit: false,
                });
                self.trouble = Some(Trouble {
                    problem: "too many new orders (300) from this account in the last 3h0m0s".to_owned(),
                    is_declined: false,
                    at: now,
                    until: Some(until),
                });
            }),
        };
        match refused {
            Ok(()) => {
                self.now = self.now + ORDER;
                self.trouble = None;
                let next = issued(
                    certificate,
                    self.now,
                    (not_after - current.facts.not_before).whole_days(),
                );
                let sequence = current.next_sequence();
                kept.current = Current { sequence, ..next };
                kept.renewal = Renewal::new(&certificate.name);
            }
            Err(until) => {
                let before = kept.renewal.failure.as_ref();
                let failure = RenewalFailure::next(before, "refused".to_owned(), Some(until), now);
                kept.renewal.failure = Some(failure.before_the_end(not_after, now));
            }
        }
    }
}

impl Ca {
    /// Takes an order, or says until when to wait.
    fn order(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        while self.refilled + REFILL <= now {
            self.refilled = self.refilled + REFILL;
            self.tokens = (self.tokens + 1).min(LIMIT);
        }

        let hour = (now - BORN).whole_hours();
        let asked = self.asked.entry(BORN + Duration::hours(hour)).or_default();
        if self.is_exempt || self.tokens > 0 {
            self.tokens -= u32::from(!self.is_exempt);
            asked.issued += 1;
            return Ok(());
        }
        asked.refused += 1;
        Err(self.refilled + REFILL)
    }
}

fn issued(certificate: &Managed, now: Timestamp, days: i64) -> Current {
    let name = &certificate.name;
    Current {
        schema: Current::SCHEMA.to_owned(),
        sequence: 1,
        facts: Facts {
            name: name.clone(),
            version: neverlapse::bucket::version::id(now, 0),
            fingerprint: String::new(),
            serial: String::new(),
            not_before: now,
            not_after: now + Duration::days(days),
            identifiers: certificate.identifiers.clone(),
            key: KeyType::EcdsaP256,
            issuer: IssuedBy {
                name: ISSUER.to_owned(),
                directory: Inventory::parse("").issuers[ISSUER].directory.clone(),
                account: String::new(),
                profile: None,
                staging: false,
            },
        },
        manifest_sha256: String::new(),
        published_at: now,
        rolled_back: false,
    }
}

const BORN: Timestamp = timestamp!(2026-10-01 00:00 UTC);
const MANY: usize = 1_000;
const ISSUER: &str = "letsencrypt";
/// New orders per account in three hours.
const LIMIT: u32 = 300;
const REFILL: Duration = Duration::seconds(36);
const FIRST_RUN: Duration = Duration::hours(6);
const BETWEEN_RUNS: Duration = Duration::hours(12);
/// Four renewers at a time: a quarter of what each takes for a look, and for an order.
const LOOK: Duration = Duration::milliseconds(250);
const ORDER: Duration = Duration::seconds(5);
