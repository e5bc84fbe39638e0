//! What people should hear of after a run.

use std::cmp::Ordering;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::incident::Incident;
use crate::finding::Code;
use crate::text::sha256;
use crate::timestamp::Timestamp;

/// Everything that people should hear of after a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Worst first, what is resolved last.
    pub notices: Vec<Notice>,
    /// What is still open, was reported before, and needs no reminder today; worst first. Each is
    /// the reminder for a reader who missed earlier messages.
    pub open: Vec<Notice>,
    /// It is time to say that everything is fine, and it is.
    pub all_fine: bool,
    /// Addresses are left out for lack of IPv6, and people have not heard of that.
    pub lacks_ipv6: bool,
}

/// One incident with what happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Names the incident from run to run.
    pub id: String,
    /// What happened to it.
    pub change: Change,
    /// The incident, as it is or as it was last.
    pub incident: Incident,
}

/// What happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Appeared,
    /// It is worse than when people were last notified.
    Worsened,
    /// It is as bad as before, and should not be forgotten.
    Reminder,
    /// It is over.
    #[serde(rename = "over")]
    Resolved,
    /// Nobody watches the place any more.
    NoLongerWatched,
}

impl News {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.notices.is_empty() && !self.all_fine
    }

    /// The same for a reader who missed earlier messages: everything that is open is a reminder.
    pub fn with_everything_open(mut self) -> Self {
        self.notices.append(&mut self.open);
        self.sort();
        self
    }

    /// Puts the worst first.
    pub(super) fn sort(&mut self) {
        self.notices.sort_by(Notice::worst_first);
        self.open.sort_by(|a, b| {
            let (a, b) = (&a.incident, &b.incident);
            b.level().cmp(&a.level()).then_with(|| a.place.cmp(&b.place))
        });
    }
}

impl Notice {
    pub(super) fn new(id: &str, change: Change, incident: Incident) -> Self {
        Self {
            id: id.to_owned(),
            change,
            incident,
        }
    }

    /// What a service outside calls the incident: the same from its first message to its last,
    /// another when it happens again, and its own among several at one place.
    pub fn key(&self) -> String {
        let since = self.incident.since.unix();
        sha256(format!("{} {since}", self.id).as_bytes())[..16].to_owned()
    }

    fn worst_first(&self, other: &Self) -> Ordering {
        let (ours, theirs) = (&self.incident, &other.incident);
        (other.change.is_firing().cmp(&self.change.is_firing()))
            .then_with(|| theirs.level().cmp(&ours.level()))
            .then_with(|| expiry(ours).cmp(&expiry(theirs)))
            .then_with(|| self.change.cmp(&other.change))
            // A certificate that is not issued cannot be installed.
            .then_with(|| (theirs.code == Code::RenewalFailed).cmp(&(ours.code == Code::RenewalFailed)))
            .then_with(|| ours.place.cmp(&theirs.place))
    }
}

/// Incidents about expiry come first, the nearest before the others.
fn expiry(incident: &Incident) -> (bool, Option<Timestamp>) {
    if incident.is_about_expiry() {
        (false, incident.not_after)
    } else {
        (true, None)
    }
}

impl Change {
    /// Whether there is something to do.
    pub fn is_firing(self) -> bool {
        match self {
            Self::Appeared | Self::Worsened | Self::Reminder => true,
            Self::Resolved | Self::NoLongerWatched => false,
        }
    }
}

/// As the log names it.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Appeared => "Appeared",
            Self::Worsened => "Worsened",
            Self::Reminder => "Reminder",
            Self::Resolved => "Over",
            Self::NoLongerWatched => "NoLongerWatched",
        })
    }
}
