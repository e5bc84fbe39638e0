//! What people should hear of after a run, and what to remember once they have.

use std::collections::{BTreeMap, BTreeSet};

use time::Duration;

use super::fate::{Fate, fate};
use super::found::{self, Found};
use super::incident::{CONFIRMED, Incident, Place};
use super::inhibit::{collapse_instances, collapse_outage};
use super::memory::{Memory, State};
use super::news::{Change, News, Notice};
use super::run_index::RunIndex;
use super::watchlist::Watchlist;
use crate::finding::{Code, Severity};
use crate::report::Report;
use crate::timestamp::Timestamp;

/// What there is to decide on.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What the run saw, or why it could not probe anything.
    pub outcome: Result<&'a Report, &'a str>,
    /// What the inventory says about the places.
    pub watchlist: &'a Watchlist,
    /// Whether to say once a week that everything is fine.
    pub weekly: bool,
}

/// Decides what people should hear of after a run, and what to remember once they have.
///
/// An incident is reported when it appears or is worse than it was, again after a day (a week, if
/// it is a warning), and once when it is over. One that comes back with the same certificate within
/// a week may be that of one server of several behind an address: it is over when five runs in a
/// row have seen nothing of it. A network failure is reported when two runs in a row have seen it,
/// unless so many endpoints fail together that the probe's own network is the likely cause: those
/// are one incident, and reported at once.
pub fn decide(run: &Run<'_>, memory: &Memory, now: Timestamp) -> (News, State) {
    let before = memory.state();
    let seen = run.outcome.ok().map(RunIndex::of);

    // What is wrong, as so many incidents as people should hear of.
    let mut found = found::everything(run.outcome, run.watchlist);
    let lost = memory.problem();
    let is_lost = lost.is_some();
    if let Some(problem) = lost {
        let lost = Found::new(Place::Probe, Code::MemoryLost, Severity::Warning, problem);
        found.insert(lost.id.clone(), lost);
    }
    let outage = seen
        .as_ref()
        .map(|seen| collapse_outage(seen, &before, &mut found))
        .unwrap_or_default();
    collapse_instances(&before, &mut found);
    let troubled = troubled(&found);

    let mut draft = Draft::new(&before, now);
    for (id, found) in found {
        let known = before.incidents.get(&id);
        let incident = found.incident(known, seen.as_ref(), now);
        let absence = before.absent.get(&id).filter(|_| known.is_none());
        let incident = incident.returned(absence, now);
        // One run alone may have seen its own network fail. Without a memory nothing can be
        // confirmed, and it is better to say too much.
        let is_confirmed = is_lost || incident.runs >= CONFIRMED;
        let waits = incident.code.is_network() && (outage.contains(&id) || !is_confirmed);
        draft.add_found(id, incident, waits);
    }
    for (id, incident) in before.incidents {
        if draft.state.incidents.contains_key(&id) {
            continue;
        }
        let fate = if run.watchlist.is_quiet(&incident.place) {
            Fate::Silenced
        } else {
            fate(seen.as_ref(), incident.clone(), &troubled)
        };
        draft.add_missing(id, incident, fate, seen.is_some());
    }
    if run.weekly {
        draft.add_all_fine();
    }

    let lacks_ipv6 = seen.as_ref().map_or(before.ipv6_noted, RunIndex::lacks_ipv6);
    draft.add_lack_of_ipv6(lacks_ipv6, before.ipv6_noted);

    let Draft { mut news, state, .. } = draft;
    news.sort();
    (news, state)
}

/// The instances that a run found something about, each with its place.
fn troubled(found: &BTreeMap<String, Found>) -> BTreeSet<(Place, String)> {
    let mut troubled = BTreeSet::new();
    for found in found.values() {
        for instance in &found.instances {
            troubled.insert((found.place.clone(), instance.clone()));
        }
    }
    troubled
}

/// What is decided so far: the news, and the state to remember.
struct Draft {
    news: News,
    state: State,
    now: Timestamp,
}

impl Draft {
    fn new(before: &State, now: Timestamp) -> Self {
        Self {
            news: News::default(),
            state: State {
                fine_at: before.fine_at,
                missed: before.missed.clone(),
                unclosed: (before.unclosed.iter())
                    .filter(|(_, ended)| !is_given_up(ended, now))
                    .map(|(key, ended)| (key.clone(), ended.clone()))
                    .collect(),
                absent: (before.absent.iter())
                    .filter(|(_, absence)| absence.is_recent(now))
                    .map(|(id, absence)| (id.clone(), *absence))
                    .collect(),
                ..State::default()
            },
            now,
        }
    }

    /// Adds an incident that the run found. If it `waits`, people hear of it later, unless they
    /// know it already.
    fn add_found(&mut self, id: String, incident: Incident, waits: bool) {
        let is_known = incident.notified.is_some();
        let change = if waits && !is_known {
            None
        } else {
            due(&incident, self.now)
        };

        let incident = match change {
            Some(change) => {
                let incident = incident.notified_at(self.now);
                self.notify(&id, change, incident.clone());
                incident
            }
            None if is_known => {
                self.add_open(&id, incident.clone());
                incident.eased()
            }
            None => incident,
        };
        self.state.absent.remove(&id);
        self.state.incidents.insert(id, incident);
    }

    /// Adds an incident that the run did not find, as it was before and as it is now.
    fn add_missing(&mut self, id: String, before: Incident, fate: Fate, has_probed: bool) {
        let is_known = before.notified.is_some();
        let incident = match fate {
            Fate::Open(incident) => *incident,
            Fate::Resolved(change) => match before.absent(self.now).filter(|_| change == Change::Resolved) {
                Some(incident) => incident,
                None => {
                    self.add_resolved(id, before, change);
                    return;
                }
            },
            Fate::Silenced => {
                if is_known {
                    self.state.add_unclosed(Notice::new(&id, Change::Resolved, before));
                }
                return;
            }
        };

        // A run that probed nothing has one thing to say, and it is not this.
        let is_reminder_possible = is_known && has_probed;
        let incident = match due(&incident, self.now).filter(|_| is_reminder_possible) {
            Some(change) => {
                let incident = incident.notified_at(self.now);
                self.notify(&id, change, out_of_sight(incident.clone()));
                incident
            }
            None => {
                if is_known {
                    self.add_open(&id, incident.clone());
                }
                incident
            }
        };
        self.state.incidents.insert(id, incident);
    }

    /// Adds that an incident is over.
    fn add_resolved(&mut self, id: String, incident: Incident, change: Change) {
        if incident.notified.is_none() {
            return;
        }
        if let Some(absence) = incident.absence(self.now).filter(|_| change == Change::Resolved) {
            self.state.absent.insert(id.clone(), absence);
        }
        self.notify(&id, change, incident);
    }

    /// Adds that everything is fine, if it is and a week has passed.
    fn add_all_fine(&mut self) {
        let is_due = self.state.fine_at.is_none_or(|at| has_passed(WEEKLY, at, self.now));
        if is_due && self.state.incidents.is_empty() && self.news.is_empty() {
            self.news.all_fine = true;
            self.state.fine_at = Some(self.now);
        }
    }

    /// Adds to whatever else there is to say that IPv6 is not checked, once for as long as it
    /// lasts.
    fn add_lack_of_ipv6(&mut self, lacks_ipv6: bool, is_noted: bool) {
        self.news.lacks_ipv6 = lacks_ipv6 && !is_noted && !self.news.is_empty();
        self.state.ipv6_noted = lacks_ipv6 && (is_noted || self.news.lacks_ipv6);
    }

    fn add_open(&mut self, id: &str, incident: Incident) {
        self.news.open.push(Notice::new(id, Change::Reminder, incident));
    }

    fn notify(&mut self, id: &str, change: Change, incident: Incident) {
        self.news.notices.push(Notice::new(id, change, incident));
    }
}

/// What people should be notified of about an open incident today, if anything.
fn due(incident: &Incident, now: Timestamp) -> Option<Change> {
    let Some(notified) = &incident.notified else {
        return Some(Change::Appeared);
    };

    let is_at_many_more =
        notified.instances > 0 && incident.instances.len() > notified.instances.saturating_mul(MANY_MORE);
    // An instance that was late has tried, and cannot: that is another thing to do.
    let has_failed = incident.code == Code::InstallFailed && notified.code != Code::InstallFailed;
    if incident.level() > notified.level() || is_at_many_more || has_failed {
        return Some(Change::Worsened);
    }

    let again = if incident.severity <= Severity::Warning {
        WEEKLY
    } else {
        DAILY
    };
    has_passed(again, notified.at, now).then_some(Change::Reminder)
}

/// Whether services are no longer notified that it ended: by then, a person has closed it there.
fn is_given_up(ended: &Incident, now: Timestamp) -> bool {
    let notified = ended.notified.as_ref();
    notified.is_none_or(|notified| has_passed(UNCLOSED, notified.at, now))
}

/// Whether so much time has passed since then. A time that is still to come is from a clock that
/// was wrong, and would be waited for.
fn has_passed(time: Duration, since: Timestamp, now: Timestamp) -> bool {
    !(-CLOCKS_DIFFER..time).contains(&(now - since))
}

/// As it was last, and not seen since.
fn out_of_sight(incident: Incident) -> Incident {
    let message = format!("{} (nothing shows that it is over)", incident.message);
    Incident { message, ..incident }
}

/// A run starts some time within the schedule's window, so a day's reminder must be due a little
/// before the day is over.
const DAILY: Duration = Duration::hours(20);
const WEEKLY: Duration = Duration::hours(7 * 24 - 4);
/// How long an end is kept for services that do not take it.
const UNCLOSED: Duration = Duration::days(30);
/// By less than this, the clocks of two runs may differ.
const CLOCKS_DIFFER: Duration = Duration::HOUR;
/// At more than this many times as many instances, an incident is worse than before.
const MANY_MORE: usize = 2;
