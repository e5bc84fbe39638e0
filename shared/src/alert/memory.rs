//! What is remembered of alerts from one run to the next: `state/alerts.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use super::channel::{slack, webhook};
use super::incident::{Absence, Incident, Notified};
use super::news::Notice;
use crate::bucket::document::{self, Document, Error};
use crate::timestamp::Timestamp;

/// Name and version of the format.
pub const SCHEMA: &str = "neverlapse.alerts/1";
/// Where it is kept.
pub const KEY: &str = "state/alerts.json";

/// Everything that was wrong at the end of the last run, and what people were notified of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// By what is wrong and where, so that the next run knows the same incident again.
    #[serde(default, rename = "matters")]
    pub incidents: BTreeMap<String, Incident>,
    /// Incidents that were over in one of the last days, by the same names: they may come back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub absent: BTreeMap<String, Absence>,
    /// When people were last notified that everything is fine, if they want to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_at: Option<Timestamp>,
    /// The names of webhooks that missed a message, and are owed everything that is open.
    /// [`webhook::KEY`] stands for all that the file describes.
    #[serde(
        default,
        alias = "slack_missed",
        deserialize_with = "missed",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub missed: BTreeSet<String>,
    /// Incidents that ended, of which services that keep a record of each were not notified; by what
    /// those call them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unclosed: BTreeMap<String, Incident>,
    /// People were notified that addresses are left out for lack of IPv6, and they still are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6_noted: bool,
}

impl Document for State {
    const SCHEMA: &'static str = SCHEMA;
    const LONGEST: u64 = 128 << 20;
}

/// What is known of the runs before this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing: it is the first run.
    Blank,
    /// All of it.
    Known(State),
    /// There is something, but it cannot be read.
    Lost {
        /// Why.
        reason: String,
    },
    /// A later version of neverlapse wrote it, and will want it back.
    Future {
        /// The format that it names.
        schema: String,
    },
}

impl Memory {
    /// Reads what is at [`KEY`].
    pub fn read(json: &[u8]) -> Self {
        match document::read(json) {
            Ok(state) => Self::Known(state),
            Err(Error::OtherFormat { found, .. }) => Self::Future { schema: found },
            Err(Error::Malformed(position)) => Self::Lost {
                reason: format!("it is not a state of alerts: {position}"),
            },
        }
    }

    /// What it knows; nothing, if it cannot be read.
    pub(super) fn state(&self) -> State {
        match self {
            Self::Known(state) => state.clone(),
            Self::Blank | Self::Lost { .. } | Self::Future { .. } => State::default(),
        }
    }

    /// What is wrong with the memory itself, and what follows from that.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::Blank | Self::Known(_) => None,
            Self::Lost { reason } => Some(format!(
                "the record of earlier alerts cannot be read ({reason}), so everything that is open is reported again"
            )),
            Self::Future { schema } => Some(format!(
                "the record of earlier alerts is in a format of a later version ({schema}); it is left as it is, so everything that is open is reported again in every run"
            )),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            incidents: BTreeMap::new(),
            absent: BTreeMap::new(),
            fine_at: None,
            missed: BTreeSet::new(),
            unclosed: BTreeMap::new(),
            ipv6_noted: false,
        }
    }
}

impl State {
    /// Remembers an incident that ended until the services that keep a record of it are
    /// notified.
    pub fn add_unclosed(&mut self, ended: Notice) {
        self.unclosed.insert(ended.key(), ended.incident);
    }

    /// Takes in what another run wrote meanwhile. Each notification of either run stays; an
    /// incident that only one of them knows stays too, and the next run will see what became of it.
    pub fn merged(mut self, other: Self) -> Self {
        for (id, theirs) in other.incidents {
            match self.incidents.get_mut(&id) {
                Some(ours) => merge(ours, theirs),
                None => drop(self.incidents.insert(id, theirs)),
            }
        }
        for (id, theirs) in other.absent {
            let ours = self.absent.entry(id).or_insert(theirs);
            if theirs.since > ours.since {
                *ours = theirs;
            }
        }
        self.fine_at = self.fine_at.max(other.fine_at);
        self.missed.extend(other.missed);
        self.unclosed.extend(other.unclosed);
        self.ipv6_noted |= other.ipv6_noted;
        self
    }
}

/// As `slack_missed`, it was once one bit for all webhooks.
fn missed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Missed {
        Any(bool),
        Named(BTreeSet<String>),
    }

    Ok(match Missed::deserialize(deserializer)? {
        Missed::Any(true) => [slack::NAME, webhook::KEY].map(str::to_owned).into(),
        Missed::Any(false) => BTreeSet::new(),
        Missed::Named(names) => names,
    })
}

fn merge(ours: &mut Incident, theirs: Incident) {
    ours.since = ours.since.min(theirs.since);
    ours.runs = ours.runs.max(theirs.runs);
    for address in theirs.addresses {
        if !ours.addresses.contains(&address) {
            ours.addresses.push(address);
        }
    }

    let flapping = [theirs.flapping, ours.flapping].into_iter().flatten();
    ours.flapping = flapping.max_by_key(|flapping| flapping.absent_at);
    ours.notified = later(ours.notified.take(), theirs.notified);
}

fn later(ours: Option<Notified>, theirs: Option<Notified>) -> Option<Notified> {
    [theirs, ours].into_iter().flatten().max_by_key(|notified| notified.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_missed_something() {
        for (member, missed) in [
            ("", vec![]),
            (r#", "slack_missed": false"#, vec![]),
            (r#", "slack_missed": true"#, vec!["Slack", "secrets/webhooks.toml"]),
            (r#", "missed": ["pager", "Teams"]"#, vec!["Teams", "pager"]),
        ] {
            let json = format!(r#"{{"schema": "neverlapse.alerts/1"{member}}}"#);
            let Memory::Known(state) = Memory::read(json.as_bytes()) else {
                panic!("{json}");
            };
            assert_eq!(Vec::from_iter(&state.missed), missed, "{json}");

            let other = State {
                missed: ["ntfy".to_owned()].into(),
                ..State::default()
            };
            let merged = other.merged(state);
            assert_eq!(merged.missed.len(), missed.len() + 1, "{json}");
        }
    }
}
