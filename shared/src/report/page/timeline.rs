//! The timeline: when certificates expire in the coming hundred days, and where each of them is in
//! its life.

use std::collections::{BTreeMap, HashMap};

use time::Duration;

use super::{cut, day, day_and_month, number, percent, plural};
use crate::finding::{Finding, Kind, Severity};
use crate::renewal::last_share;
use crate::report::{CertificateReport, EndpointReport, Left, Report};
use crate::timestamp::Timestamp;

/// A chart: endpoints by the day on which their certificate ends, and a lane for each of the
/// soonest certificates.
pub(super) struct Timeline {
    pub(super) summary: String,
    pub(super) ticks: Vec<Tick>,
    pub(super) bars: Vec<Bar>,
    /// The highest bar, in words.
    pub(super) peak: String,
    pub(super) lanes: Vec<Lane>,
    pub(super) more: Option<String>,
    pub(super) has_plans: bool,
    /// Where today is, in percent.
    pub(super) today: String,
    /// How wide a day is, in percent.
    pub(super) day: String,
}

pub(super) struct Tick {
    pub(super) class: &'static str,
    pub(super) x: String,
    pub(super) date: String,
    pub(super) days: String,
}

pub(super) struct Bar {
    pub(super) class: &'static str,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) height: String,
    pub(super) title: String,
}

/// One certificate.
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) more: Option<String>,
    /// Whether it is a managed certificate rather than what an endpoint serves.
    pub(super) is_managed: bool,
    pub(super) status: Severity,
    pub(super) words: String,
    pub(super) parts: Vec<Part>,
    pub(super) end: Option<String>,
    pub(super) planned: Option<String>,
    pub(super) left: String,
}

/// A stretch of a life.
pub(super) struct Part {
    pub(super) class: &'static str,
    pub(super) x: String,
    pub(super) width: String,
}

/// A certificate that an endpoint serves, or that is stored to be served.
struct Life<'a> {
    name: &'a str,
    endpoints: u64,
    begin: Timestamp,
    end: Timestamp,
    status: Severity,
    planned: Option<Timestamp>,
    /// Whether neverlapse renews it, and the name is the certificate's.
    is_managed: bool,
}

impl Timeline {
    /// The timeline as of `now`; none if no certificate was seen.
    pub(super) fn of(report: &Report, now: Timestamp) -> Option<Self> {
        let mut lives = lives(report);
        lives.sort_by_key(|life| (life.end, life.name));
        let last = lives.last()?;

        let view = View { now };
        let soon: Vec<_> = report
            .endpoints
            .iter()
            .filter_map(|endpoint| Some((endpoint, endpoint.not_after?)))
            .filter(|(_, end)| (now..view.end()).contains(end))
            .collect();
        let (bars, peak) = bars(&soon, &view);
        let later = lives.len().saturating_sub(LANES) as u64;

        Some(Self {
            summary: summary(soon.len() as u64, report, now),
            ticks: view.ticks(),
            bars,
            peak: format!("up to {} per day", number(peak)),
            more: (later > 0).then(|| {
                let next = lives.get(LANES).unwrap_or(last);
                format!("and {}, from {} on", plural(later, "more certificate"), day(next.end))
            }),
            has_plans: lives.iter().take(LANES).any(|life| life.planned.is_some()),
            lanes: lives.iter().take(LANES).map(|life| view.lane(life)).collect(),
            today: percent(view.x(now)),
            day: percent(100.0 / (BEFORE + AHEAD) as f64),
        })
    }
}

fn summary(soon: u64, report: &Report, now: Timestamp) -> String {
    let expired = report
        .endpoints
        .iter()
        .filter(|one| one.not_after.is_some_and(|end| end < now))
        .count() as u64;
    let seen = report.endpoints.iter().filter(|one| one.not_after.is_some()).count() as u64;

    let mut parts = Vec::new();
    if expired > 0 {
        parts.push(format!("{} expired already", plural(expired, "endpoint")));
    }
    parts.push(format!(
        "{} of {} expire by then",
        number(soon),
        plural(seen - expired, "endpoint")
    ));
    parts.join("; ")
}

/// Every certificate once: by its fingerprint, with the first endpoint that serves it.
fn lives(report: &Report) -> Vec<Life<'_>> {
    let mut lives: HashMap<&str, Life<'_>> = HashMap::new();

    for endpoint in &report.endpoints {
        let leaves: BTreeMap<_, _> = (endpoint.observations.iter())
            .flat_map(|seen| seen.leaves().map(move |leaf| (leaf, &seen.findings)))
            .map(|(leaf, findings)| (leaf.fingerprint.as_str(), (leaf, findings)))
            .collect();
        for (fingerprint, (leaf, findings)) in leaves {
            let life = lives.entry(fingerprint).or_insert(Life {
                name: &endpoint.endpoint,
                endpoints: 0,
                begin: leaf.not_before,
                end: leaf.not_after,
                status: Severity::Ok,
                planned: None,
                is_managed: false,
            });
            life.endpoints += 1;
            life.status = life.status.max(urgency(findings));
        }
    }

    for certificate in &report.certificates {
        add_managed(&mut lives, certificate);
    }
    lives.into_values().collect()
}

/// A managed certificate has a lane under its own name, even if no endpoint serves it.
fn add_managed<'a>(lives: &mut HashMap<&'a str, Life<'a>>, certificate: &'a CertificateReport) {
    let Some(current) = &certificate.current else {
        return;
    };

    let life = lives.entry(&current.fingerprint).or_insert(Life {
        name: &certificate.name,
        endpoints: 0,
        begin: current.not_before,
        end: current.not_after,
        status: Severity::Ok,
        planned: None,
        is_managed: true,
    });
    life.is_managed = true;
    life.name = &certificate.name;
    life.planned = certificate.renewal.planned;
}

/// The severity of the remaining time alone, whatever else is wrong.
fn urgency<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Severity {
    findings
        .into_iter()
        .filter(|finding| matches!(finding.kind, Kind::Expired { .. } | Kind::ExpiresSoon { .. }))
        .map(|finding| finding.severity)
        .max()
        .unwrap_or(Severity::Ok)
}

/// Endpoints by day, with those that expire too soon at the bottom, and how many there are on the
/// fullest day.
fn bars(soon: &[(&EndpointReport, Timestamp)], view: &View) -> (Vec<Bar>, u64) {
    let mut days: BTreeMap<i64, BTreeMap<std::cmp::Reverse<Severity>, u64>> = BTreeMap::new();
    for (endpoint, end) in soon {
        let day = (*end - view.now).whole_days();
        let severity = std::cmp::Reverse(urgency(endpoint.all_findings().map(|(_, finding)| finding)));
        *days.entry(day).or_default().entry(severity).or_default() += 1;
    }
    let peak = days.values().map(|day| day.values().sum::<u64>()).max().unwrap_or(0);

    let mut bars = Vec::new();
    for (day, counts) in &days {
        let mut top = 100.0;
        for (severity, count) in counts {
            let height = *count as f64 / peak as f64 * 92.0;
            top -= height;
            let date = self::day(view.day(*day));
            bars.push(Bar {
                class: match severity.0 {
                    Severity::Critical => "critical",
                    Severity::Warning => "warning",
                    _ => "later",
                },
                x: percent(view.x(view.day(*day))),
                y: percent(top),
                height: percent(height),
                title: format!("{} within a day from {date}", plural(*count, "endpoint")),
            });
        }
    }
    (bars, peak)
}

/// The stretch of time that is shown.
struct View {
    now: Timestamp,
}

impl View {
    fn begin(&self) -> Timestamp {
        self.now - Duration::days(BEFORE)
    }

    fn end(&self) -> Timestamp {
        self.day(AHEAD)
    }

    /// This many days from now.
    fn day(&self, days: i64) -> Timestamp {
        self.now + Duration::days(days)
    }

    /// In percent of the width; what is outside is at the edge.
    fn x(&self, at: Timestamp) -> f64 {
        let share = (at - self.begin()) / (self.end() - self.begin());
        (share * 100.0).clamp(0.0, 100.0)
    }

    fn ticks(&self) -> Vec<Tick> {
        (0..=AHEAD).step_by(10).map(|days| self.tick(days)).collect()
    }

    fn tick(&self, days: i64) -> Tick {
        let (date, distance) = match days {
            0 => ("today".to_owned(), day_and_month(self.now)),
            _ => (day_and_month(self.day(days)), format!("{days} d")),
        };
        Tick {
            class: match days {
                AHEAD => "last",
                10 | 30 | 50 | 70 | 90 => "half",
                _ => "",
            },
            x: percent(self.x(self.day(days))),
            date,
            days: distance,
        }
    }

    /// A stretch of a lane, if any of it is in the picture.
    fn part(&self, class: &'static str, from: Timestamp, to: Timestamp) -> Option<Part> {
        let from = self.x(from);
        let width = self.x(to) - from;
        (width > 0.0).then(|| Part {
            class,
            x: percent(from),
            width: percent(width),
        })
    }

    fn lane(&self, life: &Life<'_>) -> Lane {
        let due = life.end - last_share(life.end - life.begin);
        let others = life.endpoints.saturating_sub(1);
        Lane {
            name: cut(life.name),
            more: (others > 0).then(|| format!("+{}", number(others))),
            is_managed: life.is_managed,
            status: life.status,
            words: self.words(life),
            parts: [self.part("life", life.begin, due), self.part("due", due, life.end)]
                .into_iter()
                .flatten()
                .collect(),
            end: (life.end <= self.end()).then(|| percent(self.x(life.end))),
            planned: life
                .planned
                .filter(|at| *at <= self.end())
                .map(|at| percent(self.x(at))),
            left: format!("{:#}", Left(life.end - self.now)),
        }
    }

    fn words(&self, life: &Life<'_>) -> String {
        let lifetime = (life.end - life.begin).whole_days();
        let planned = life.planned.map(|at| format!(", renewal planned on {at}"));
        let served = match life.endpoints {
            0 => ", served by no endpoint".to_owned(),
            1 => String::new(),
            many => format!(", served by {}", plural(many, "endpoint")),
        };
        format!(
            "{}: valid from {} until {}, {lifetime} days{served}{}",
            cut(life.name),
            day(life.begin),
            life.end,
            planned.unwrap_or_default()
        )
    }
}

/// Days to the left of now.
const BEFORE: i64 = 8;
/// Days to its right.
const AHEAD: i64 = 100;
const LANES: usize = 24;
