//! An incident: one thing that is wrong at one place, from the run that first sees it until it is
//! over.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
