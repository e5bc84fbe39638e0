//! News become a digest: which places it names, in which order, and what it says about each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::net::SocketAddr;

use super::message::{Digest, Entry, NAME, REMOVED, Section, ascii};
use super::room::excerpt;
use super::wording::{Managed, advice, in_short, resolution, sentence};
use crate::alert::incident::{Incident, Place};
use crate::alert::news::{Change, News, Notice};
use crate::alert::run_index::RunIndex;
use crate::alert::sender::{SUBJECT_LENGTH, Sender};
use crate::alert::watchlist::Watchlist;
use crate::certificate::common_name;
use crate::finding::{Code, Severity, Span};
use crate::report::{CertificateReport, Counts, EndpointReport, InstanceStage, Left, Report};
use crate::text::some_of;
use crate::timestamp::Timestamp;

/// Puts the news of a run into words, if there are any. A run that failed has no report.
pub fn digest(
    news: &News,
    report: Option<&Report>,
    watchlist: &Watchlist,
    sender: &Sender,
    now: Timestamp,
) -> Option<Digest> {
    if news.is_empty() {
        return None;
    }

    let words = Words {
        seen: report.map(RunIndex::of),
        watchlist,
        sender,
        now,
    };

    let worst = news.notices.first();
    let subject = match worst {
        Some(worst) => words.headline(worst, &others(worst, &news.notices)),
        None => words.all_fine(),
    };

    let ipv6 = words.seen.as_ref().filter(|_| news.lacks_ipv6).map(lack_of_ipv6);
    Some(Digest {
        subject: ascii(&subject),
        severity: worst.map_or(Severity::Ok, severity),
        summary: words.summary(news),
        sections: words.sections(&news.notices),
        open: news.open.iter().map(|notice| line(&notice.incident)).collect(),
        notes: ipv6.into_iter().collect(),
        thread: worst.map_or_else(|| "all-fine".to_owned(), |notice| notice.incident.thread()),
        at: now,
    })
}

/// Incidents that ended, for services that were notified of each when it began. Nobody else reads this:
/// it was in an earlier message, or the incident goes on as part of another one.
pub fn closing(unclosed: &BTreeMap<String, Incident>) -> Vec<Entry> {
    let entries = unclosed.iter().map(|(key, incident)| {
        let place = excerpt(&incident.place.to_string(), NAME);
        Entry {
            change: Change::Resolved,
            place: incident.place.clone(),
            code: incident.code.clone(),
            severity: incident.severity,
            message: format!("no longer open; it was: {}", excerpt(&sentence(incident), MESSAGE)),
            addresses: Vec::new(),
            more_addresses: 0,
            since: incident.since,
            not_after: incident.not_after,
            renewed_until: None,
            next_step: None,
            incident: key.clone(),
            history: format!("open since {}", incident.since),
            subject: ascii(&format!("OK: {place}, no longer open")),
        }
    });
    entries.collect()
}

/// What words depend on besides the news.
struct Words<'a> {
    seen: Option<RunIndex<'a>>,
    watchlist: &'a Watchlist,
    sender: &'a Sender,
    now: Timestamp,
}

impl Words<'_> {
    /// A notice in a line that a subject has room for, with what follows it there.
    fn headline(&self, notice: &Notice, more: &str) -> String {
        let severity = match notice.change {
            Change::NoLongerWatched => REMOVED.to_owned(),
            _ => severity(notice).to_string().to_uppercase(),
        };
        let place = &notice.incident.place;
        let state = if notice.change.is_firing() {
            self.state(&notice.incident)
        } else {
            self.end(notice)
        };
        match place {
            Place::Endpoint(_) | Place::Certificate(_) => {
                let room = SUBJECT_LENGTH.saturating_sub(severity.len() + state.len() + more.len() + ": , ".len());
                let place: String = place.to_string().chars().take(room).collect();
                format!("{severity}: {place}, {state}{more}")
            }
            // The state of these says where it is.
            Place::Inventory | Place::Probe => format!("{severity}: {state}{more}"),
        }
    }

    /// The state of a place in a few words.
    fn state(&self, incident: &Incident) -> String {
        let left = incident.not_after.filter(|_| incident.is_about_expiry());
        match (left.map(|end| end - self.now), &incident.code) {
            (Some(left), _) => Left(left).to_string(),
            (None, Code::NotReached) => {
                let count = self.report().map_or(0, |report| report.not_reached.len());
                format!("{count} {}", in_short(incident))
            }
            (None, _) => in_short(incident).into_owned(),
        }
    }

    /// How it ended, in a few words.
    fn end(&self, notice: &Notice) -> String {
        let Notice { change, incident, .. } = notice;
        if matches!(incident.place, Place::Inventory | Place::Probe) {
            return resolution(incident).into_owned();
        }
        match self.renewed(incident) {
            _ if *change == Change::NoLongerWatched => "no longer watched".to_owned(),
            Some(end) => format!("valid until {}", end.utc().date()),
            None => resolution(incident).into_owned(),
        }
    }

    fn all_fine(&self) -> String {
        let soonest = match self.soonest() {
            Some((endpoint, end)) => format!("; the next to expire is {endpoint} in {}", Span(end - self.now)),
            None => String::new(),
        };
        let total = self.report().map_or(0, |report| report.counts.total());
        format!("OK: all {total} endpoints are fine{soonest}")
    }

    fn summary(&self, news: &News) -> String {
        let Some(report) = self.report() else {
            return "neverlapse could not check anything. Until this is fixed, no endpoint is watched.".to_owned();
        };
        let mut summary = in_words(report.counts);
        match report.problems.len() {
            0 => {}
            1 => summary.push_str(" The inventory has 1 error."),
            errors => {
                let _ = write!(summary, " The inventory has {errors} errors.");
            }
        }

        if news.all_fine
            && let Some((endpoint, end)) = self.soonest()
        {
            let left = Span(end - self.now);
            let endpoint = excerpt(endpoint, NAME);
            let _ = write!(summary, "\n\nThe next to expire is {endpoint}, in {left}, on {end}.");
        }
        summary
    }

    /// One section for what is firing at a place, and one for what is resolved there.
    fn sections(&self, notices: &[Notice]) -> Vec<Section> {
        let mut sections = Vec::<Section>::new();
        let mut of_place = HashMap::new();
        for notice in notices {
            let place = &notice.incident.place;
            let index = *of_place.entry((notice.change.is_firing(), place)).or_insert_with(|| {
                sections.push(Section {
                    title: self.title(place),
                    severity: severity(notice),
                    entries: Vec::new(),
                    facts: self.facts(notice),
                });
                sections.len() - 1
            });

            sections[index].entries.push(self.entry(notice));
        }
        sections
    }

    fn title(&self, place: &Place) -> String {
        let unicode = self.endpoint(place).and_then(|endpoint| endpoint.unicode.as_deref());
        match unicode {
            Some(unicode) => format!("{} ({})", excerpt(&place.to_string(), NAME), excerpt(unicode, NAME)),
            None => excerpt(&place.to_string(), NAME),
        }
    }

    fn entry(&self, notice: &Notice) -> Entry {
        let Notice { change, incident, .. } = notice;
        let renewed = self.renewed(incident);
        let addresses = self.addresses(incident);
        let message = excerpt(&sentence(incident), MESSAGE);
        let message = match (change, renewed) {
            (Change::Appeared | Change::Worsened | Change::Reminder, _) => message,
            (Change::NoLongerWatched, _) => format!("no longer watched; this was open: {message}"),
            (Change::Resolved, Some(_)) => format!("resolved: a new certificate is served; it was: {message}"),
            (Change::Resolved, None) => format!("resolved: {}; it was: {message}", resolution(incident)),
        };

        Entry {
            change: *change,
            place: incident.place.clone(),
            code: incident.code.clone(),
            severity: incident.severity,
            message,
            addresses: addresses.iter().take(ADDRESSES).map(ToString::to_string).collect(),
            more_addresses: addresses.len().saturating_sub(ADDRESSES),
            since: incident.since,
            not_after: incident.not_after,
            renewed_until: renewed.filter(|_| *change == Change::Resolved),
            next_step: change.is_firing().then(|| excerpt(&self.next_step(incident), MESSAGE)),
            incident: notice.key(),
            history: self.history(notice),
            subject: ascii(&self.headline(notice, "")),
        }
    }

    fn history(&self, notice: &Notice) -> String {
        let since = notice.incident.since;
        let lasted = Span(self.now - since);
        match notice.change {
            Change::Appeared if since == self.now => "new: first seen in this run".to_owned(),
            Change::Appeared => format!("new: first seen on {since}, and again in this run"),
            Change::Worsened => format!("worse than last reported; open for {lasted}, since {since}"),
            Change::Reminder => format!("a reminder: open for {lasted}, since {since}"),
            Change::Resolved | Change::NoLongerWatched => format!("open for {lasted}, since {since}"),
        }
    }

    /// Where exactly, unless it is everywhere.
    fn addresses<'i>(&self, incident: &'i Incident) -> &'i [SocketAddr] {
        let count = incident.addresses.len();
        // What is wrong with a managed certificate at an address names that itself.
        if count == 1 && matches!(incident.place, Place::Certificate(_)) {
            return &[];
        }
        let all = self
            .endpoint(&incident.place)
            .map_or(0, |endpoint| endpoint.observations.len());
        if all > 1 && count == all {
            return &[];
        }
        &incident.addresses
    }

    /// Until when the certificate is valid that is served now instead of the one that the incident
    /// is about.
    fn renewed(&self, incident: &Incident) -> Option<Timestamp> {
        let now = match &incident.place {
            // That it is published says nothing about what clients get.
            Place::Certificate(name) => self.certificate(name).filter(|found| found.is_served())?.not_after()?,
            place => self.endpoint(place)?.not_after?,
        };
        // The certificate that was late is the very one that is served now.
        let was_late = matches!(
            incident.code,
            Code::NotPulled | Code::InstallFailed | Code::WrongCertificate
        );
        let is_newer = incident.not_after.is_some_and(|before| now > before);
        (was_late || is_newer).then_some(now)
    }

    /// What else is known about a place.
    fn facts(&self, notice: &Notice) -> Vec<String> {
        let Notice { change, incident, .. } = notice;
        let mut facts = Vec::new();

        if let Some(endpoint) = self.endpoint(&incident.place) {
            facts.extend(served(endpoint, incident.is_about_expiry() && change.is_firing()));
            let managed = self.watchlist.certificate_at(&endpoint.endpoint);
            let managed = managed.filter(|_| change.is_firing());
            facts.extend(managed.map(|name| self.renewal(name, endpoint)));
        }

        if let Place::Certificate(name) = &incident.place {
            let certificate = self.certificate(name);
            facts.extend(certificate.map(|certificate| self.delivery_summary(certificate)));
        }
        facts.iter().map(|fact| excerpt(fact, MESSAGE)).collect()
    }

    /// How long the current version of a managed certificate lasts, and how far it is.
    fn delivery_summary(&self, certificate: &CertificateReport) -> String {
        let Some(end) = certificate.not_after() else {
            return "There is no certificate in the bucket yet.".to_owned();
        };
        let left = Left(end - self.now);
        let has = if left.0.is_negative() { "" } else { "has " };

        let instances = &certificate.instances;
        let served = (instances.iter())
            .filter(|instance| instance.stage == InstanceStage::Served)
            .count();
        let served = match instances.len() {
            0 => String::new(),
            1 => format!("; {served} of 1 instance serves it"),
            all => format!("; {served} of {all} instances serve it"),
        };
        format!("The current version is valid until {end}, and {has}{left}{served}.")
    }

    /// What the renewer does about a certificate.
    fn renewal(&self, name: &str, endpoint: &EndpointReport) -> String {
        let Some(certificate) = self.certificate(name) else {
            return format!("neverlapse renews it (as certificate {name}) when it is due, and reports if that fails.");
        };

        // The cause and what to do about it are said once, at the certificate.
        if certificate.renewal.failure.is_some() {
            return format!("neverlapse renews it (as certificate {name}), but the last try failed.");
        }

        match (certificate.not_after(), certificate.renewal.planned) {
            (Some(new), _) if is_renewed(certificate, endpoint) => format!(
                "neverlapse has renewed it (as certificate {name}): the new version is valid until {new}, but is not served here yet."
            ),
            (_, Some(planned)) if planned > self.now => {
                format!("neverlapse will renew it (as certificate {name}) on {planned}.")
            }
            _ => format!("neverlapse is about to renew it (as certificate {name})."),
        }
    }

    fn next_step(&self, incident: &Incident) -> String {
        let managed = match &incident.place {
            Place::Certificate(name) => Some(name.as_str()),
            Place::Endpoint(endpoint) => self.watchlist.certificate_at(endpoint),
            Place::Inventory | Place::Probe => None,
        };
        let cause = managed.filter(|name| {
            let is_of_endpoint = matches!(incident.place, Place::Endpoint(_));
            is_of_endpoint
                && self
                    .certificate(name)
                    .is_some_and(|found| is_cause(found, &incident.code))
        });
        if let Some(name) = cause {
            return format!("see what is reported of certificate {name}: that is the cause");
        }

        let managed = managed.map(|name| Managed {
            name,
            step: self.managed_step(name, self.endpoint(&incident.place)),
            wait_until: self
                .certificate(name)
                .and_then(|found| found.renewal.failure.as_ref()?.wait_until),
        });
        advice(incident, managed, self.watchlist.source(), self.sender)
    }

    /// What to do about a certificate that expires although neverlapse renews it and nothing else
    /// is wrong with it.
    fn managed_step(&self, name: &str, endpoint: Option<&EndpointReport>) -> String {
        let is_renewed = self
            .certificate(name)
            .zip(endpoint)
            .is_some_and(|(certificate, endpoint)| is_renewed(certificate, endpoint));
        if is_renewed {
            format!(
                "run `neverlapse pull --now` on the servers behind this name; `neverlapse status {name}` shows which of them still serve the old one"
            )
        } else {
            format!(
                "nothing yet: neverlapse renews it; `neverlapse status {name}` shows the progress, `neverlapse renew {name}` starts it now"
            )
        }
    }

    /// The endpoint that expires next.
    fn soonest(&self) -> Option<(&str, Timestamp)> {
        let endpoints = self.report()?.endpoints.iter();
        let ends = endpoints.filter_map(|endpoint| Some((endpoint.endpoint.as_str(), endpoint.not_after?)));
        ends.min_by_key(|(_, end)| *end)
    }

    fn report(&self) -> Option<&Report> {
        Some(self.seen.as_ref()?.report)
    }

    fn endpoint(&self, place: &Place) -> Option<&EndpointReport> {
        let Place::Endpoint(name) = place else { return None };
        self.seen.as_ref()?.endpoint(name).first().copied()
    }

    fn certificate(&self, name: &str) -> Option<&CertificateReport> {
        self.seen.as_ref()?.certificate(name)
    }
}

/// An incident that is open, and was reported before.
fn line(incident: &Incident) -> String {
    let severity = incident.severity.to_string().to_uppercase();
    let place = excerpt(&incident.place.to_string(), NAME);
    let message = excerpt(&sentence(incident), SHORT);
    format!(
        "{severity}  {place}: {message} [{}]",
        excerpt(incident.code.as_str(), NAME)
    )
}

/// How many places besides the worst one's are alike: firing, or resolved.
fn others(worst: &Notice, all: &[Notice]) -> String {
    let is_alike = |notice: &&Notice| notice.change.is_firing() == worst.change.is_firing();
    let places: BTreeSet<_> = (all.iter().filter(is_alike))
        .map(|notice| &notice.incident.place)
        .collect();
    match places.len() - 1 {
        0 => String::new(),
        more => format!(" (+{more} more)"),
    }
}

/// How bad the news is; what is resolved is fine.
fn severity(notice: &Notice) -> Severity {
    if notice.change.is_firing() {
        notice.incident.severity
    } else {
        Severity::Ok
    }
}

/// What an endpoint serves: until when it is valid, unless the entries say that, and who issued it.
fn served(endpoint: &EndpointReport, says_end: bool) -> Option<String> {
    let end = endpoint.not_after.filter(|_| !says_end);
    let end = end.map(|end| format!("valid until {end}"));
    let issuer = endpoint.leaf().map(|leaf| common_name(&leaf.issuer));
    let issuer = issuer.map(|issuer| format!("issued by {issuer}"));

    let known: Vec<_> = [end, issuer].into_iter().flatten().collect();
    (!known.is_empty()).then(|| format!("The certificate is {}.", known.join(", ")))
}

/// Whether what is wrong with a managed certificate is why an endpoint that serves it has a
/// finding.
fn is_cause(certificate: &CertificateReport, code: &Code) -> bool {
    use Code::{
        AddressesDisagree, Expired, ExpiresSoon, IncompleteChain, InvalidChain, IssuerExpired, IssuerExpiresSoon,
        IssuerNotYetValid, KeyUsage, NameMismatch, NotYetValid, Revoked, SelfSigned, SomeClientsRefuse, UntrustedRoot,
        WeakKey, WeakSignature,
    };
    let mut findings = certificate.findings.iter().map(|finding| finding.kind.code());
    match code {
        Expired | ExpiresSoon | AddressesDisagree => findings.next().is_some(),
        // The current version may be better, and is not served there.
        NotYetValid | NameMismatch | SelfSigned | UntrustedRoot | IncompleteChain | InvalidChain | IssuerExpired
        | IssuerExpiresSoon | IssuerNotYetValid | SomeClientsRefuse | KeyUsage | WeakKey | WeakSignature | Revoked => {
            findings.any(|found| matches!(found, Code::WrongCertificate | Code::NotPulled | Code::InstallFailed))
        }
        _ => false,
    }
}

/// Whether there is a newer one than what an endpoint serves.
fn is_renewed(certificate: &CertificateReport, endpoint: &EndpointReport) -> bool {
    (certificate.not_after().zip(endpoint.not_after)).is_some_and(|(new, served)| served < new)
}

/// Where IPv6 is not checked, and what to do if it should be.
fn lack_of_ipv6(seen: &RunIndex<'_>) -> String {
    let endpoints = some_of(seen.without_ipv6(), WITHOUT_IPV6);
    format!(
        "IPv6 is not checked at {}: this network has none. If the functions are to use IPv6, give them subnets that have \
         it (parameters SubnetIds and Ipv6InSubnets). This is said once.",
        excerpt(&endpoints, MESSAGE)
    )
}

/// Those of the counts that are not zero.
fn in_words(counts: Counts) -> String {
    let parts: Vec<_> = (counts.by_status().iter())
        .filter(|(_, count)| *count > 0)
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    match (parts.as_slice(), counts.total()) {
        ([], _) => "No endpoint was checked.".to_owned(),
        (parts, 1) => format!("1 endpoint: {}.", parts.join(", ")),
        (parts, total) => format!("{total} endpoints: {}.", parts.join(", ")),
    }
}

/// How many characters of a message are written.
const MESSAGE: usize = 1_000;
/// The same of one that was reported before.
const SHORT: usize = 300;
/// How many addresses of an incident are named.
const ADDRESSES: usize = 10;
/// How many endpoints are named whose IPv6 is not checked.
const WITHOUT_IPV6: usize = 10;
