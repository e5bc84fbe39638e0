//! What was said when, and so what is to be said now: `state/alerts.json`, from one run to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::json;
use time::Duration;

use crate::finding::{Code, Finding, Kind, Severity};
use crate::inventory::Inventory;
use crate::report::{AddressStage, CertificateReport, EndpointReport, Report, Stage};
use crate::text::{instance_name, sha256, some_of};
use crate::timestamp::Timestamp;

/// Name and version of the format.
pub const SCHEMA: &str = "neverlapse.alerts/1";
/// Where it is kept.
pub const KEY: &str = "state/alerts.json";

/// Everything that was wrong at the end of the last run, and what people were told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// By what is wrong and where, so that the same matter is known again in the next run.
    #[serde(default)]
    pub matters: BTreeMap<String, Matter>,
    /// When it was last said that everything is fine, for who wants to hear that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_at: Option<Timestamp>,
    /// Slack missed a message, and is owed everything that is open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slack_missed: bool,
}

/// One thing that is wrong at one place, however often it is seen and at however many addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matter {
    /// Where.
    pub place: Place,
    /// The finding's code; the worst of them, if several belong together.
    pub code: Code,
    /// How bad it is now.
    pub severity: Severity,
    /// In words, as of the run that saw it last.
    pub message: String,
    /// Where exactly, as far as is known: where it was seen, and not seen mended since. None if it is about the place as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<SocketAddr>,
    /// Those of the addresses that the name no longer has, and in how many runs in a row it had them no more.
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
    /// When people were last told, and how bad it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
}

/// How many endpoints fail together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// So many cannot be reached.
    pub unreachable: usize,
    /// Of so many.
    pub endpoints: usize,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unreachable, endpoints } = self;
        write!(f, "{unreachable} of {endpoints} endpoints cannot be reached together")
    }
}

/// What people were told of a matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
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

/// What a matter is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// What is known of the runs before this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing: it is the first run.
    Blank,
    /// All of it.
    Known(State),
    /// There is something, but it cannot be read or makes no sense.
    Lost {
        /// Why.
        reason: String,
    },
    /// A later version of neverlapse wrote it, and will want it back.
    Future {
        /// What it says that it is.
        schema: String,
    },
}

impl Memory {
    /// Understands what is at [`KEY`].
    pub fn read(json: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Header {
            schema: String,
        }
        let lost = |error: serde_json::Error| Self::Lost {
            reason: format!("it is not a state of alerts: {error}"),
        };
        match serde_json::from_slice::<Header>(json) {
            Ok(Header { schema }) if schema != SCHEMA => Self::Future { schema },
            Ok(_) => serde_json::from_slice(json).map_or_else(lost, Self::Known),
            Err(error) => lost(error),
        }
    }

    fn state(&self) -> State {
        match self {
            Self::Known(state) => state.clone(),
            _ => State::default(),
        }
    }

    /// What is wrong with the memory itself.
    fn matter(&self) -> Option<Found> {
        let problem = match self {
            Self::Blank | Self::Known(_) => return None,
            Self::Lost { reason } => {
                format!(
                    "the record of earlier alerts cannot be read ({reason}), so everything that is open is reported again"
                )
            }
            Self::Future { schema } => format!(
                "the record of earlier alerts is in a format of a later version ({schema}); it is left as it is, so everything that is open is reported again in every run"
            ),
        };
        Some(Found::new(Place::Probe, Code::MemoryLost, Severity::Warning, problem))
    }
}

/// What a run looked at, for whom, and what it saw.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What it saw, or why it could not look at anything.
    pub outcome: Result<&'a Report, &'a str>,
    /// What the inventory says of the places.
    pub circle: &'a Circle,
    /// Whether to say once a week that everything is fine.
    pub weekly: bool,
}

/// What an inventory says of its places that matters for alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circle {
    quiet: BTreeSet<Place>,
    certificates: BTreeMap<String, String>,
}

impl Circle {
    /// That of an inventory.
    pub fn of(inventory: &Inventory) -> Self {
        let loud: BTreeSet<_> = (inventory.watched.iter().filter(|watched| !watched.quiet))
            .map(|watched| watched.endpoint.to_string())
            .collect();
        let endpoints = inventory.watched.iter().map(|watched| watched.endpoint.to_string());
        let quiet_endpoints = endpoints
            .filter(|endpoint| !loud.contains(endpoint))
            .map(Place::Endpoint);
        let quiet_certificates = (inventory.certificates.iter())
            .filter(|certificate| certificate.quiet)
            .map(|certificate| Place::Certificate(certificate.name.clone()));
        let served = inventory.certificates.iter().flat_map(|certificate| {
            let name = &certificate.name;
            (certificate.served_at.iter()).map(move |endpoint| (endpoint.to_string(), name.clone()))
        });
        Self {
            quiet: quiet_endpoints.chain(quiet_certificates).collect(),
            certificates: served.collect(),
        }
    }

    /// The managed certificate that an endpoint is to serve.
    pub fn certificate_at(&self, endpoint: &str) -> Option<&str> {
        self.certificates.get(endpoint).map(String::as_str)
    }

    /// Whether nobody wants to hear about a place.
    pub fn is_quiet(&self, place: &Place) -> bool {
        self.quiet.contains(place)
    }
}

/// Something to say about a matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened to it.
    pub change: Change,
    /// The matter, as it is or as it was last.
    pub matter: Matter,
}

/// What happened to a matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Appeared,
    /// It is worse than when it was last said.
    Worsened,
    /// It is as bad as before, and should not be forgotten.
    Reminder,
    /// It is over.
    Over,
    /// Nobody watches the place any more.
    NoLongerWatched,
}

impl Change {
    /// Whether there is something to do.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Appeared | Self::Worsened | Self::Reminder)
    }
}

/// What is to be said after a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Worst first, what is over last.
    pub notices: Vec<Notice>,
    /// What is still open, was said before, and needs no reminder today; worst first.
    pub open: Vec<Matter>,
    /// It is time to say that everything is fine, and it is.
    pub all_fine: bool,
}

impl News {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.notices.is_empty() && !self.all_fine
    }

    /// For who missed what was said: everything that is open is a reminder.
    pub fn with_everything_open(mut self) -> Self {
        let open = self.open.drain(..).map(|matter| Notice {
            change: Change::Reminder,
            matter,
        });
        self.notices.extend(open);
        self.notices.sort_by(Notice::worst_first);
        self
    }
}

impl Notice {
    fn worst_first(&self, other: &Self) -> std::cmp::Ordering {
        (other.change.is_open().cmp(&self.change.is_open()))
            .then_with(|| other.matter.level().cmp(&self.matter.level()))
            .then_with(|| self.matter.expiry().cmp(&other.matter.expiry()))
            .then_with(|| self.change.cmp(&other.change))
            // What is not issued cannot be installed.
            .then_with(|| (other.matter.code == Code::RenewalFailed).cmp(&(self.matter.code == Code::RenewalFailed)))
            .then_with(|| self.matter.place.cmp(&other.matter.place))
    }
}

/// What to say after a run, and what to remember once it has been said.
///
/// A matter is said when it appears or is worse than it was, again after a day (a week, if it is a warning), and once when it is
/// over. What is wrong with the network is said when two runs in a row have seen it, unless so many endpoints fail together
/// that the probe's own network is the likely cause: that is one matter, and said at once.
pub fn next(run: &Run<'_>, memory: &Memory, now: Timestamp) -> (News, State) {
    let before = memory.state();
    let mut found = found(run);
    if let Some(matter) = memory.matter() {
        found.insert(matter.id.clone(), matter);
    }
    // Without memory nothing can be confirmed: better to say too much.
    let confirmed_by = if memory.matter().is_some() { 1 } else { CONFIRMED };
    let muted = mute_storm(run, &before, &mut found);
    gather_instances(&before, &mut found);
    let troubled: BTreeSet<_> = (found.values())
        .flat_map(|found| {
            found
                .instances
                .iter()
                .map(|instance| (found.place.clone(), instance.clone()))
        })
        .collect();
    let mut state = State {
        fine_at: before.fine_at,
        slack_missed: before.slack_missed,
        ..State::default()
    };
    let mut news = News::default();
    for (id, found) in found {
        let matter = found.remembered(before.matters.get(&id), run, now);
        let waits = found.network && (matter.runs < confirmed_by || muted);
        let change = if waits && matter.said.is_none() {
            None
        } else {
            matter.due(now)
        };
        let matter = match change {
            Some(change) => {
                let matter = matter.told(now);
                news.notices.push(Notice {
                    change,
                    matter: matter.clone(),
                });
                matter
            }
            None if matter.said.is_some() => {
                news.open.push(matter.clone());
                matter.eased()
            }
            None => matter,
        };
        state.matters.insert(id, matter);
    }
    for (id, matter) in before.matters {
        if state.matters.contains_key(&id) || run.circle.is_quiet(&matter.place) {
            continue;
        }
        match fate(run, &matter, &troubled) {
            Fate::Open(matter) => {
                let matter = *matter;
                let again = matter.due(now).filter(|_| matter.said.is_some() && run.outcome.is_ok());
                let matter = match again {
                    Some(change) => {
                        let matter = matter.told(now);
                        news.notices.push(Notice {
                            change,
                            matter: matter.clone().out_of_sight(),
                        });
                        matter
                    }
                    None => {
                        news.open.extend(matter.said.is_some().then(|| matter.clone()));
                        matter
                    }
                };
                state.matters.insert(id, matter);
            }
            Fate::Over(change) if matter.said.is_some() => news.notices.push(Notice { change, matter }),
            Fate::Over(_) | Fate::Elsewhere => {}
        }
    }
    let since_fine = before.fine_at.map(|at| now - at);
    if run.weekly && state.matters.is_empty() && since_fine.is_none_or(|since| since >= WEEKLY) && news.is_empty() {
        (news.all_fine, state.fine_at) = (true, Some(now));
    }
    news.notices.sort_by(Notice::worst_first);
    news.open
        .sort_by(|a, b| b.level().cmp(&a.level()).then_with(|| a.place.cmp(&b.place)));
    (news, state)
}

/// What a run saw of one matter.
#[derive(Clone, Debug)]
struct Found {
    id: String,
    place: Place,
    code: Code,
    severity: Severity,
    message: String,
    addresses: Vec<SocketAddr>,
    instances: Vec<String>,
    not_after: Option<Timestamp>,
    outage: Option<Outage>,
    network: bool,
}

impl Found {
    fn new(place: Place, code: Code, severity: Severity, message: String) -> Self {
        Self {
            id: id(&place, code.as_str(), ""),
            place,
            code,
            severity,
            message,
            addresses: Vec::new(),
            instances: Vec::new(),
            not_after: None,
            outage: None,
            network: false,
        }
    }

    fn of(place: Place, finding: &Finding, address: Option<SocketAddr>, not_after: Option<Timestamp>) -> Self {
        let code = finding.kind.code();
        let id = id(&place, code.family().as_str(), &facts(&finding.kind));
        let addresses = match address {
            Some(address) => vec![address],
            None => addresses(&finding.kind),
        };
        Self {
            id,
            addresses,
            instances: instance(&finding.kind).into_iter().collect(),
            not_after,
            network: finding.is_network(),
            ..Self::new(place, code.clone(), finding.severity, finding.message.clone())
        }
    }

    /// The same matter at another address: one matter, as bad as the worst of them.
    fn merge(&mut self, other: Self) {
        if self.level() < other.level() {
            let addresses = std::mem::take(&mut self.addresses);
            *self = Self {
                addresses,
                ..other.clone()
            };
        }
        let new: Vec<_> = (other.addresses.into_iter())
            .filter(|address| !self.addresses.contains(address))
            .collect();
        self.addresses.extend(new);
    }

    fn level(&self) -> (Severity, bool) {
        level(self.severity, &self.code)
    }

    /// It may still be where it was, at addresses that this run did not see.
    fn remembered(&self, before: Option<&Matter>, run: &Run<'_>, now: Timestamp) -> Matter {
        let left = before.map_or_else(Vec::new, |before| before.addresses_left(run));
        let left = left
            .into_iter()
            .filter(|(address, _)| !self.addresses.contains(address));
        let left: Vec<_> = left.collect();
        let addresses = self.addresses.iter().copied();
        Matter {
            place: self.place.clone(),
            code: self.code.clone(),
            severity: self.severity,
            message: self.message.clone(),
            addresses: addresses.chain(left.iter().map(|(address, _)| *address)).collect(),
            gone: gone(&left),
            instances: self.instances.clone(),
            not_after: self.not_after,
            outage: self.outage,
            since: before.map_or(now, |before| before.since),
            runs: before.map_or(1, |before| (before.runs + 1).min(CONFIRMED)),
            said: before.and_then(|before| before.said.clone()),
        }
    }
}

/// Everything that is wrong and that somebody wants to hear about.
fn found(run: &Run<'_>) -> BTreeMap<String, Found> {
    let mut all = BTreeMap::<String, Found>::new();
    let mut add = |found: Found| match all.get_mut(&found.id) {
        Some(same) => same.merge(found),
        None if run.circle.is_quiet(&found.place) => {}
        None => drop(all.insert(found.id.clone(), found)),
    };
    let report = match run.outcome {
        Ok(report) => report,
        Err(reason) => {
            let message = format!("could not look at anything: {reason}");
            add(Found::new(Place::Probe, Code::RunFailed, Severity::Critical, message));
            return all;
        }
    };
    for endpoint in &report.endpoints {
        for (address, finding) in endpoint.all_findings() {
            let place = Place::Endpoint(endpoint.endpoint.clone());
            add(Found::of(place, finding, address, endpoint.not_after));
        }
    }
    for certificate in &report.certificates {
        for finding in &certificate.findings {
            let place = Place::Certificate(certificate.name.clone());
            add(Found::of(place, finding, None, certificate.not_after()));
        }
    }
    for problem in &report.mistakes {
        let code = Code::InventoryProblem;
        // Lines above it may come and go.
        let id = id(&Place::Inventory, code.as_str(), &problem.message);
        let found = Found::new(Place::Inventory, code, Severity::Unknown, problem.to_string());
        add(Found { id, ..found });
    }
    if !report.not_reached.is_empty() {
        let message = format!(
            "the run's deadline left no time for {} endpoints: {}",
            report.not_reached.len(),
            some_of(&report.not_reached, NAMED)
        );
        add(Found::new(Place::Probe, Code::NotReached, Severity::Unknown, message));
    }
    all
}

/// Whether so many endpoints fail on the network together that it is one matter, and not one each: more than a tenth of all, and at
/// least three. Those that were already told of, each for itself, do not count: they fail for reasons of their own.
fn mute_storm(run: &Run<'_>, before: &State, found: &mut BTreeMap<String, Found>) -> bool {
    let Ok(report) = run.outcome else { return false };
    let is_told = |id: &String| before.matters.get(id).is_some_and(|matter| matter.said.is_some());
    let dark: Vec<_> = (found.values())
        .filter(|found| found.network && !is_told(&found.id))
        .map(|found| found.place.to_string())
        .collect();
    let all: BTreeSet<_> = report.endpoints.iter().map(|endpoint| &endpoint.endpoint).collect();
    if dark.len() < STORM || dark.len() * STORM_SHARE <= all.len() {
        return false;
    }
    let outage = Outage {
        unreachable: dark.len(),
        endpoints: all.len(),
    };
    let message = format!("{outage}: {}", some_of(&dark, NAMED));
    let storm = Found {
        outage: Some(outage),
        ..Found::new(Place::Probe, Code::ManyUnreachable, Severity::Critical, message)
    };
    found.insert(storm.id.clone(), storm);
    true
}

/// Instances of a certificate that are in the same trouble are one matter once they are more than a few, and stay one until none is
/// left: an Auto Scaling group that loses fifty must not be fifty alerts.
fn gather_instances(before: &State, found: &mut BTreeMap<String, Found>) {
    let mut alike = BTreeMap::<(Place, Code), Vec<String>>::new();
    for found in found.values().filter(|found| !found.instances.is_empty()) {
        let same = (found.place.clone(), found.code.clone());
        alike.entry(same).or_default().push(found.id.clone());
    }
    for ((place, code), ids) in alike {
        let id = id(&place, INSTANCES, code.as_str());
        if ids.len() <= FEW && !before.matters.contains_key(&id) {
            continue;
        }
        let mut all: Vec<_> = ids.iter().filter_map(|id| found.remove(id)).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.severity));
        let instances: Vec<_> = all.iter().flat_map(|one| one.instances.clone()).collect();
        let Some(worst) = all.into_iter().next() else { continue };
        let message = match &instances[1..] {
            [] => worst.message,
            more => format!(
                "{}; and likewise {} more: {}",
                worst.message,
                more.len(),
                some_of(more.iter().map(|instance| instance_name(instance)), NAMED)
            ),
        };
        let all = Found {
            id: id.clone(),
            message,
            instances,
            ..worst
        };
        found.insert(id, all);
    }
}

/// What became of a matter that a run did not find.
#[derive(Debug)]
enum Fate {
    /// Nobody can say that it is over.
    Open(Box<Matter>),
    /// It is over, or nobody looks any more.
    Over(Change),
    /// It goes on as part of another matter.
    Elsewhere,
}

/// What became of a matter that this run did not find. `troubled` are the instances that it found something about.
fn fate(run: &Run<'_>, matter: &Matter, troubled: &BTreeSet<(Place, String)>) -> Fate {
    let open = || Fate::Open(matter.clone().into());
    let Ok(report) = run.outcome else { return open() };
    let watched = match &matter.place {
        Place::Inventory | Place::Probe => return Fate::Over(Change::Over),
        Place::Endpoint(name) if report.not_reached.contains(name) => return open(),
        Place::Endpoint(name) => report.endpoints.iter().any(|endpoint| endpoint.endpoint == *name),
        Place::Certificate(name) => match certificate(report, name) {
            Some(found) if found.is_left_out() => matter.code == Code::NotRenewed,
            Some(found) if !is_readable(found) && matter.code != Code::CertificateUnreadable => return open(),
            Some(found) => return fate_of_certificate(run, found, matter, troubled),
            None => false,
        },
    };
    match watched {
        true if !matter.addresses.is_empty() => fate_at_addresses(run, matter),
        true if looks(report, &matter.place).iter().any(|look| is_dark(look)) => open(),
        true => Fate::Over(Change::Over),
        // An entry with a mistake in it is missing, but not because anybody took it out.
        false if report.mistakes.is_empty() => Fate::Over(Change::NoLongerWatched),
        false => open(),
    }
}

fn fate_of_certificate(
    run: &Run<'_>,
    found: &CertificateReport,
    matter: &Matter,
    troubled: &BTreeSet<(Place, String)>,
) -> Fate {
    if !matter.addresses.is_empty() {
        let is_unseen = found.addresses.iter().any(|seen| seen.stage == AddressStage::Unseen);
        return match fate_at_addresses(run, matter) {
            Fate::Over(_) if is_unseen => Fate::Open(matter.clone().into()),
            fate => fate,
        };
    }
    if matter.is_unseen() {
        return match found.is_seen() {
            true => Fate::Over(Change::Over),
            false => Fate::Open(matter.clone().into()),
        };
    }
    let elsewhere = |instance: &String| troubled.contains(&(matter.place.clone(), instance.clone()));
    let left: Vec<_> = (matter.instances.iter().filter(|one| !elsewhere(one)))
        .cloned()
        .collect();
    if left.is_empty() && !matter.instances.is_empty() {
        return Fate::Elsewhere;
    }
    // A newer version may have given it more time; that is no reason to say that it has caught up.
    let is_behind = |one: &String| {
        let mut all = found.instances.iter();
        all.any(|seen| seen.instance == *one && seen.stage < Stage::Installed)
    };
    let instances: Vec<_> = left.into_iter().filter(is_behind).collect();
    match instances.is_empty() {
        true => Fate::Over(Change::Over),
        false => Fate::Open(Box::new(Matter {
            instances,
            ..matter.clone()
        })),
    }
}

/// Over when each of its addresses was seen without it, or is an address of the name no more.
fn fate_at_addresses(run: &Run<'_>, matter: &Matter) -> Fate {
    let left = matter.addresses_left(run);
    match left.is_empty() {
        true => Fate::Over(Change::Over),
        false => Fate::Open(Box::new(Matter {
            addresses: left.iter().map(|(address, _)| *address).collect(),
            gone: gone(&left),
            ..matter.clone()
        })),
    }
}

/// What a run knows of an address where something was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// It was seen, and this is not wrong there any more.
    Mended,
    /// The name does not have it. Some name servers give out a part of their addresses at a time.
    Gone,
    /// It was not seen.
    Unknown,
}

fn sight(report: &Report, matter: &Matter, address: SocketAddr) -> Sight {
    if let Place::Certificate(name) = &matter.place {
        let found = certificate(report, name);
        let shown = found.map_or(&[][..], |found| &found.addresses);
        let mut stages = shown.iter().filter(|seen| seen.address == Some(address)).peekable();
        if stages.peek().is_some() {
            return match stages.all(|seen| seen.stage == AddressStage::Served) {
                true => Sight::Mended,
                false => Sight::Unknown,
            };
        }
    }
    let looks = looks(report, &matter.place);
    let mut seen = (looks.iter().flat_map(|look| &look.observations))
        .filter(|seen| seen.address == address)
        .peekable();
    if seen.peek().is_some() {
        return match seen.any(|seen| seen.findings.iter().any(Finding::is_network)) {
            true => Sight::Unknown,
            false => Sight::Mended,
        };
    }
    let is_skipped = |look: &&EndpointReport| look.skipped.iter().any(|skipped| skipped.address == address.ip());
    match looks.iter().any(is_skipped) {
        // That it cannot be reached from here is why it was left out.
        true if matter.code.is_network() => Sight::Mended,
        true => Sight::Unknown,
        false if looks.is_empty() || looks.iter().any(|look| look.observations.is_empty()) => Sight::Unknown,
        false => Sight::Gone,
    }
}

/// What was seen of a place; nothing if not all of it was reached.
fn looks<'r>(report: &'r Report, place: &Place) -> Vec<&'r EndpointReport> {
    let is_place = |look: &&EndpointReport| match place {
        Place::Endpoint(name) => look.endpoint == *name,
        Place::Certificate(name) => certificate(report, name).is_some_and(|found| {
            look.sni.is_none() && found.addresses.iter().any(|seen| seen.endpoint == look.endpoint)
        }),
        Place::Inventory | Place::Probe => false,
    };
    let looks: Vec<_> = report.endpoints.iter().filter(is_place).collect();
    match looks.iter().any(|look| report.not_reached.contains(&look.endpoint)) {
        true => Vec::new(),
        false => looks,
    }
}

fn certificate<'r>(report: &'r Report, name: &str) -> Option<&'r CertificateReport> {
    report.certificates.iter().find(|certificate| certificate.name == name)
}

/// Without its history alone, a certificate can be judged.
fn is_readable(certificate: &CertificateReport) -> bool {
    let unread = |finding: &Finding| {
        *finding.kind.code() == Code::CertificateUnreadable && finding.severity == Severity::Unknown
    };
    !certificate.findings.iter().any(unread)
}

fn is_dark(look: &EndpointReport) -> bool {
    look.all_findings().any(|(_, finding)| finding.is_network())
}

fn gone(left: &[(SocketAddr, u32)]) -> BTreeMap<SocketAddr, u32> {
    left.iter().filter(|(_, runs)| *runs > 0).copied().collect()
}

impl Matter {
    /// What is to be said of it.
    fn due(&self, now: Timestamp) -> Option<Change> {
        let Some(said) = &self.said else {
            return Some(Change::Appeared);
        };
        let again = if self.severity <= Severity::Warning {
            WEEKLY
        } else {
            DAILY
        };
        let more = said.instances > 0 && self.instances.len() > said.instances * MANY_MORE;
        let tried = self.code == Code::InstallFailed && said.code != Code::InstallFailed;
        if self.level() > level(said.severity, &said.code) || more || tried {
            Some(Change::Worsened)
        } else {
            (now - said.at >= again).then_some(Change::Reminder)
        }
    }

    /// Said now, as bad as it is.
    fn told(self, now: Timestamp) -> Self {
        let said = Said {
            at: now,
            severity: self.severity,
            code: self.code.clone(),
            instances: self.instances.len(),
        };
        Self {
            said: Some(said),
            ..self
        }
    }

    /// As it was last, and not seen since.
    fn out_of_sight(self) -> Self {
        let message = format!("{} (nothing shows that it is over)", self.message);
        Self { message, ..self }
    }

    /// The addresses at which it may still be, and in how many runs in a row the name had them no more.
    fn addresses_left(&self, run: &Run<'_>) -> Vec<(SocketAddr, u32)> {
        let Ok(report) = run.outcome else {
            return self
                .addresses
                .iter()
                .map(|address| (*address, self.gone_for(*address)))
                .collect();
        };
        let left = self.addresses.iter().filter_map(|address| {
            let runs = match sight(report, self, *address) {
                Sight::Mended => return None,
                Sight::Gone => self.gone_for(*address) + 1,
                Sight::Unknown => 0,
            };
            (runs < CONFIRMED).then_some((*address, runs))
        });
        left.collect()
    }

    fn gone_for(&self, address: SocketAddr) -> u32 {
        self.gone.get(&address).copied().unwrap_or(0)
    }

    /// It may have become milder: should it get worse again, that is to be said.
    fn eased(mut self) -> Self {
        let (severity, code, now) = (self.severity, self.code.clone(), self.instances.len());
        self.said = self.said.map(|said| Said {
            severity,
            code,
            instances: said.instances.min(now),
            ..said
        });
        self
    }

    fn level(&self) -> (Severity, bool) {
        level(self.severity, &self.code)
    }

    /// Those about expiry come first, the nearest before the others.
    fn expiry(&self) -> (bool, Option<Timestamp>) {
        match self.is_about_expiry() {
            true => (false, self.not_after),
            false => (true, None),
        }
    }

    /// Whether it is that nobody has seen a certificate served, rather than that somebody does not have it.
    pub fn is_unseen(&self) -> bool {
        self.code == Code::NotPulled && self.instances.is_empty()
    }

    /// Whether it is about the certificate's end, past or near.
    pub fn is_about_expiry(&self) -> bool {
        self.code.is_about_expiry()
    }

    /// Names the incident: the same from its first message to its last, another one when it happens again.
    pub fn thread(&self) -> String {
        let place = serde_json::to_string(&self.place).unwrap_or_default();
        sha256(format!("{place} {}", self.since.unix()).as_bytes())[..16].to_owned()
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            matters: BTreeMap::new(),
            fine_at: None,
            slack_missed: false,
        }
    }
}

impl State {
    /// Takes in what another run wrote meanwhile. What either was told stays told; what only one knows stays known, and the next
    /// run will see what became of it.
    pub fn merged(mut self, other: Self) -> Self {
        for (id, theirs) in other.matters {
            let Some(ours) = self.matters.get_mut(&id) else {
                self.matters.insert(id, theirs);
                continue;
            };
            ours.since = ours.since.min(theirs.since);
            ours.runs = ours.runs.max(theirs.runs);
            let unknown = theirs
                .addresses
                .iter()
                .filter(|address| !ours.addresses.contains(address));
            ours.addresses.extend(unknown.copied().collect::<Vec<_>>());
            let later = |said: &Said| ours.said.as_ref().is_none_or(|ours| ours.at < said.at);
            if theirs.said.as_ref().is_some_and(later) {
                ours.said = theirs.said;
            }
        }
        self.fine_at = self.fine_at.max(other.fine_at);
        self.slack_missed |= other.slack_missed;
        self
    }
}

/// How bad something is: its severity, and among the critical ones whether it has happened or is still to come.
fn level(severity: Severity, code: &Code) -> (Severity, bool) {
    (severity, code.has_happened())
}

fn id(place: &Place, family: &str, facts: &str) -> String {
    let place = match place {
        Place::Endpoint(name) => format!("endpoint {name}"),
        Place::Certificate(name) => format!("certificate {name}"),
        Place::Inventory => "inventory".to_owned(),
        Place::Probe => "probe".to_owned(),
    };
    match facts {
        "" => format!("{place} {family}"),
        facts => format!("{place} {family} {}", &sha256(facts.as_bytes())[..12]),
    }
}

/// Those of a finding's facts that tell it from another of the same family; not times, addresses and
/// reasons, which change from run to run.
fn facts(kind: &Kind) -> String {
    let facts = match kind {
        Kind::SelfSigned { subject }
        | Kind::IssuerExpired { subject, .. }
        | Kind::IssuerExpiresSoon { subject, .. }
        | Kind::WeakKey { subject, .. }
        | Kind::WeakSignature { subject, .. } => vec![("subject", subject)],
        Kind::Revoked { subject, serial, .. } => vec![("subject", subject), ("serial", serial)],
        Kind::IncompleteChain { missing } => vec![("missing", missing)],
        Kind::UntrustedRoot { root, .. } => vec![("root", root)],
        Kind::NotPulled {
            instance: Some(instance),
            ..
        }
        | Kind::InstallFailed { instance, .. }
        | Kind::SilentInstance { instance, .. }
        | Kind::ReceiptUnreadable { instance, .. } => vec![("instance", instance)],
        Kind::Expired { .. }
        | Kind::ExpiresSoon { .. }
        | Kind::NotYetValid { .. }
        | Kind::NameMismatch { .. }
        | Kind::InvalidChain { .. }
        | Kind::LegacyTls { .. }
        | Kind::AddressesDisagree { .. }
        | Kind::DnsFailed { .. }
        | Kind::ConnectFailed { .. }
        | Kind::StarttlsFailed { .. }
        | Kind::HandshakeFailed { .. }
        | Kind::TimedOut { .. }
        | Kind::RenewalFailed { .. }
        | Kind::NotPulled { instance: None, .. }
        | Kind::NotRenewed { .. }
        | Kind::WrongCertificate { .. }
        | Kind::CertificateUnreadable { .. } => Vec::new(),
    };
    let facts = facts.into_iter().map(|(name, fact)| format!("{name}={}", json!(fact)));
    facts.collect::<Vec<_>>().join(" ")
}

/// Where a finding is, when it is one of a place as a whole.
fn addresses(kind: &Kind) -> Vec<SocketAddr> {
    match kind {
        Kind::WrongCertificate { address, .. } => vec![*address],
        Kind::AddressesDisagree { certificates } => certificates
            .iter()
            .flat_map(|served| served.addresses.clone())
            .collect(),
        _ => Vec::new(),
    }
}

/// The instance that a finding is about.
fn instance(kind: &Kind) -> Option<String> {
    match kind {
        Kind::NotPulled { instance, .. } => instance.clone(),
        Kind::InstallFailed { instance, .. }
        | Kind::SilentInstance { instance, .. }
        | Kind::ReceiptUnreadable { instance, .. } => Some(instance.clone()),
        _ => None,
    }
}

/// In how many runs in a row a network finding must be seen before it is said, and an address must be gone before it is believed.
pub const CONFIRMED: u32 = 2;
/// A run starts some time within the schedule's window, so a day's reminder must be due a little before the day is over.
const DAILY: Duration = Duration::hours(20);
const WEEKLY: Duration = Duration::hours(7 * 24 - 4);
const STORM: usize = 3;
const STORM_SHARE: usize = 10;
const NAMED: usize = 20;
/// So many instances in the same trouble are a matter each.
const FEW: usize = 3;
/// So many times as many instances are worse than before.
const MANY_MORE: usize = 2;
const INSTANCES: &str = "instances";
