//! An incident: one thing that is wrong at one place, from the run that first sees it until it is
//! over.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::Duration;

use crate::finding::{Code, Severity};
use crate::text::sha256;
use crate::timestamp::Timestamp;

/// One thing that is wrong at one place, however often it is seen and at however many addresses.
///
/// It begins with the run that first finds it. From run to run it is kept in `state/alerts.json`,
/// with what people were notified of, until a run shows that it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Where.
    pub place: Place,
    /// The finding's code; the worst of them, if several belong together.
    pub code: Code,
    /// How bad it is now.
    pub severity: Severity,
    /// In words, as of the run that saw it last.
    pub message: String,
    /// The addresses at which it was seen, and not seen healthy since. None if it is about the
    /// place as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<SocketAddr>,
    /// Those of the addresses that the name no longer has, and in how many runs in a row it lacked
    /// them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gone: BTreeMap<SocketAddr, u32>,
    /// Which instances; none if it is not about instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<String>,
    /// The end of the certificate that it is about, or that was served with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// How many endpoints it is, of [`Code::ManyUnreachable`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage: Option<Outage>,
    /// When it was first seen.
    pub since: Timestamp,
    /// In how many runs in a row it was seen, counted to [`CONFIRMED`].
    pub runs: u32,
    /// What people were last notified of, if they were.
    #[serde(default, rename = "said", skip_serializing_if = "Option::is_none")]
    pub notified: Option<Notified>,
    /// That it comes and goes, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flapping: Option<Flapping>,
}

/// An incident that came back with the very same certificate after it had been over: several
/// servers may answer at one address, and a run sees one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flapping {
    /// When a run last saw nothing of it.
    pub absent_at: Timestamp,
    /// In how many runs in a row nothing was seen of it since.
    pub absent_runs: u32,
}

/// An incident that is over, and could come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// Since when.
    pub since: Timestamp,
    /// The end of the certificate that it was about.
    pub not_after: Timestamp,
}

/// What people were notified of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// When.
    pub at: Timestamp,
    /// How bad it was.
    pub severity: Severity,
    /// Under which code.
    pub code: Code,
    /// At how many instances.
    #[serde(default)]
    pub instances: usize,
}

/// How many endpoints cannot be reached, where they fail together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// The number of endpoints that cannot be reached.
    pub unreachable: usize,
    /// The number of all endpoints.
    pub endpoints: usize,
}

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Place {
    /// An endpoint, as reports name it.
    Endpoint(String),
    /// A managed certificate, by its name in the inventory.
    Certificate(String),
    /// The inventory itself.
    Inventory,
    /// The probe itself.
    Probe,
}

impl Incident {
    /// How bad it is: by severity, and among equals what has happened before what is still to come.
    pub(super) fn level(&self) -> (Severity, bool) {
        (self.severity, self.code.has_happened())
    }

    /// The same incident, with people notified of it as it is now.
    pub(super) fn notified_at(self, now: Timestamp) -> Self {
        let notified = Notified {
            at: now,
            severity: self.severity,
            code: self.code.clone(),
            instances: self.instances.len(),
        };
        Self {
            notified: Some(notified),
            ..self
        }
    }

    /// The same incident, which may have become milder without a notification: should it get worse
    /// again, people hear of that.
    pub(super) fn eased(mut self) -> Self {
        if let Some(notified) = &mut self.notified {
            notified.severity = self.severity;
            notified.code = self.code.clone();
            notified.instances = notified.instances.min(self.instances.len());
        }
        self
    }

    /// What is remembered of it once it is over. Failures of the network have causes of their own
    /// each time, and are not remembered.
    pub(super) fn absence(&self, now: Timestamp) -> Option<Absence> {
        let not_after = self.not_after.filter(|_| !self.code.is_network())?;
        Some(Absence { since: now, not_after })
    }

    /// The same incident as a run found it, with an earlier absence if it has come back from that.
    pub(super) fn returned(self, absence: Option<&Absence>, now: Timestamp) -> Self {
        let absence = absence.filter(|absence| absence.is_recent(now) && self.not_after == Some(absence.not_after));
        let absent_at = absence.map(|absence| absence.since);
        let absent_at = absent_at.or(self.flapping.map(|flapping| flapping.absent_at));
        let Some(absent_at) = absent_at else { return self };
        Self {
            message: format!(
                "{}; it comes and goes: the run of {absent_at} saw nothing of it",
                self.message
            ),
            flapping: Some(Flapping {
                absent_at,
                absent_runs: 0,
            }),
            ..self
        }
    }

    /// The same incident after a run that saw nothing of it, if it goes on because it comes and
    /// goes.
    pub(super) fn absent(&self, now: Timestamp) -> Option<Self> {
        let absent_runs = self.flapping?.absent_runs.saturating_add(1);
        let flapping = Some(Flapping {
            absent_at: now,
            absent_runs,
        });
        (absent_runs < STEADY).then(|| Self {
            flapping,
            ..self.clone()
        })
    }

    /// Whether nobody has seen a certificate served, rather than somebody not having it.
    pub fn is_unseen(&self) -> bool {
        self.code == Code::NotPulled && self.instances.is_empty()
    }

    /// Whether it is about the certificate's end, past or near.
    pub fn is_about_expiry(&self) -> bool {
        self.code.is_about_expiry()
    }

    /// Names the incident to the outside: the same from its first message to its last, another when
    /// it happens again.
    pub fn thread(&self) -> String {
        let place = serde_json::to_string(&self.place).unwrap_or_default();
        sha256(format!("{place} {}", self.since.unix()).as_bytes())[..16].to_owned()
    }
}

impl Absence {
    /// Whether what comes back now has not been gone for long.
    pub(super) fn is_recent(&self, now: Timestamp) -> bool {
        (Duration::ZERO..REMEMBERED).contains(&(now - self.since))
    }
}

impl Notified {
    /// As [`Incident::level`].
    pub(super) fn level(&self) -> (Severity, bool) {
        (self.severity, self.code.has_happened())
    }
}

/// Names an incident from run to run, by where it is, what it is, and what tells it from another
/// such one at the same place.
pub(super) fn id(place: &Place, what: &str, facts: &str) -> String {
    let place = match place {
        Place::Endpoint(name) => format!("endpoint {name}"),
        Place::Certificate(name) => format!("certificate {name}"),
        Place::Inventory => "inventory".to_owned(),
        Place::Probe => "probe".to_owned(),
    };
    match facts {
        "" => format!("{place} {what}"),
        facts => format!("{place} {what} {}", &sha256(facts.as_bytes())[..12]),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(name) => f.write_str(name),
            Self::Certificate(name) => write!(f, "certificate {name}"),
            Self::Inventory => f.write_str("the inventory"),
            Self::Probe => f.write_str("the probe"),
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unreachable, endpoints } = self;
        write!(f, "{unreachable} of {endpoints} endpoints cannot be reached together")
    }
}

/// In how many runs in a row a network finding must be seen before people are notified, and an
/// address must be missing before it is believed to be gone.
pub const CONFIRMED: u32 = 2;
/// In how many runs in a row nothing must be seen of what comes and goes until it is over. Of two
/// servers that answer in turn, five looks miss one in a case of 32.
const STEADY: u32 = 5;
/// How long it is remembered that an incident is over.
const REMEMBERED: Duration = Duration::WEEK;
