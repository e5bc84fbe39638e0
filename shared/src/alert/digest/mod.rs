//! News in words: what, where, since when, by when, and what to do next.

mod wording;

use std::fmt::Write;

use serde::Serialize;

use self::wording::{advice, in_short, over, sentence};
use super::state::{Change, Circle, Matter, News, Notice, Place};
use super::{SUBJECT_LENGTH, Sender};
use crate::certificate::common_name;
use crate::finding::{Code, Severity, Span};
use crate::report::{CertificateReport, Counts, EndpointReport, InstanceReport, Report, Stage};
use crate::text::{cut_bytes, printable};
use crate::timestamp::Timestamp;

/// One message, before it takes the form that a channel wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    /// Printable ASCII, under 100 characters, led by the severity and the worst place.
    pub subject: String,
    /// The worst that it says; ok if everything it tells of is over.
    pub severity: Severity,
    /// What stands above the sections.
    pub summary: String,
    /// One a place, worst first.
    pub sections: Vec<Section>,
    /// What stands under them.
    pub notes: Vec<String>,
    /// Names the incident: messages with the same one belong together.
    pub thread: String,
    /// As of when.
    pub at: Timestamp,
}

/// What is to be said of one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Where, in a form that a person recognises.
    pub title: String,
    /// The worst of it.
    pub severity: Severity,
    /// What happened, worst first.
    pub entries: Vec<Entry>,
    /// What else is known: until when the certificate is valid, who issued it, what the renewer does about it.
    pub facts: Vec<String>,
    /// What to do.
    pub next: Vec<String>,
}

/// One thing that happened at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What happened to it.
    pub change: Change,
    /// What it is about.
    pub place: Place,
    /// The finding's code.
    pub code: Code,
    /// How bad it is, or was.
    pub severity: Severity,
    /// In words.
    pub message: String,
    /// Where exactly; none if it is all of the place.
    pub addresses: Vec<String>,
    /// First seen.
    pub since: Timestamp,
    /// The end of the certificate that is, or was, about to lapse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The end of the one that is served instead, once it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed_until: Option<Timestamp>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
    /// The same from an incident's first message to its last.
    pub incident: String,
    #[serde(skip)]
    history: String,
}

/// Puts the news of a run into words, if there are any. A run that failed has no report.
pub fn digest(
    news: &News,
    report: Option<&Report>,
    circle: &Circle,
    sender: &Sender,
    now: Timestamp,
) -> Option<Digest> {
    if news.is_empty() {
        return None;
    }
    let words = Words {
        report,
        circle,
        sender,
        now,
    };
    let subject = match news.notices.first() {
        Some(worst) => words.headline(worst, &news.notices),
        None => words.all_fine(),
    };
    let worst = news.notices.first();
    Some(Digest {
        subject: ascii(&subject),
        severity: worst.map_or(Severity::Ok, severity),
        summary: words.summary(news),
        sections: words.sections(&news.notices),
        notes: words.notes(news),
        thread: worst.map_or_else(|| "all-fine".to_owned(), |notice| notice.matter.thread()),
        at: now,
    })
}

impl Digest {
    /// A message of a single paragraph or more, for what is not a finding of a run.
    pub fn plain(subject: &str, text: &str, severity: Severity, now: Timestamp) -> Self {
        let subject = ascii(subject);
        Self {
            thread: crate::text::sha256(subject.as_bytes())[..16].to_owned(),
            subject,
            severity,
            summary: text.trim_end().to_owned(),
            sections: Vec::new(),
            notes: Vec::new(),
            at: now,
        }
    }

    /// As plain text of at most `bytes`, worst first; what does not fit is counted.
    pub fn text(&self, sender: &Sender, bytes: usize) -> String {
        let mut tail = String::new();
        for note in &self.notes {
            let _ = write!(tail, "\n{note}\n");
        }
        let _ = write!(tail, "\n{}", sender.signature());
        let mut text = format!("{}\n", cut_bytes(&self.summary, bytes / 2));
        for (index, section) in self.sections.iter().enumerate() {
            let section = section.text();
            if text.len() + section.len() + tail.len() + RESERVE > bytes {
                let _ = write!(
                    text,
                    "\n+{} more; {}\n",
                    self.sections.len() - index,
                    sender.elsewhere()
                );
                break;
            }
            text.push_str(&section);
        }
        text.push_str(cut_bytes(&tail, bytes / 2));
        text
    }
}

impl Section {
    /// As plain text, with an empty line before it.
    fn text(&self) -> String {
        let mut text = format!("\n{}  {}\n", self.severity.to_string().to_uppercase(), self.title);
        for entry in &self.entries {
            let _ = writeln!(text, "  - {}\n    {}", entry.words(), entry.history);
        }
        for fact in &self.facts {
            let _ = writeln!(text, "  {fact}");
        }
        for next in &self.next {
            let _ = writeln!(text, "  What to do: {next}");
        }
        text
    }
}

impl Entry {
    /// What is wrong, and where.
    pub fn words(&self) -> String {
        match self.addresses.as_slice() {
            [] => self.message.clone(),
            addresses => format!("{} (at {})", self.message, addresses.join(", ")),
        }
    }

    /// Since when, and whether that is news.
    pub fn history(&self) -> &str {
        &self.history
    }
}

struct Words<'a> {
    report: Option<&'a Report>,
    circle: &'a Circle,
    sender: &'a Sender,
    now: Timestamp,
}

impl Words<'_> {
    fn headline(&self, worst: &Notice, all: &[Notice]) -> String {
        // What is over is no trouble more.
        let alike = all
            .iter()
            .filter(|notice| notice.change.is_open() == worst.change.is_open());
        let mut places: Vec<_> = alike.map(|notice| &notice.matter.place).collect();
        places.sort();
        places.dedup();
        let more = match places.len() - 1 {
            0 => String::new(),
            more => format!(" (+{more} more)"),
        };
        let severity = severity(worst).to_string().to_uppercase();
        let (place, state) = match (&worst.matter.place, worst.change.is_open()) {
            (Place::Endpoint(_) | Place::Certificate(_), true) => {
                (worst.matter.place.to_string(), self.state(&worst.matter))
            }
            (Place::Endpoint(_) | Place::Certificate(_), false) => (worst.matter.place.to_string(), self.end(worst)),
            (_, true) => return format!("{severity}: {}{more}", self.about_us(&worst.matter)),
            (_, false) => return format!("OK: {}{more}", over(&worst.matter)),
        };
        let room = SUBJECT_LENGTH.saturating_sub(severity.len() + state.len() + more.len() + ": , ".len());
        let place: String = place.chars().take(room).collect();
        format!("{severity}: {place}, {state}{more}")
    }

    /// The state of a place in a few words.
    fn state(&self, matter: &Matter) -> String {
        match matter.not_after.map(|end| end - self.now) {
            Some(left) if matter.is_about_expiry() && left.is_negative() => format!("expired {} ago", Span(-left)),
            Some(left) if matter.is_about_expiry() => format!("{} left", Span(left)),
            _ => in_short(matter).into_owned(),
        }
    }

    fn end(&self, notice: &Notice) -> String {
        match (notice.change, self.renewed(&notice.matter)) {
            (Change::NoLongerWatched, _) => "no longer watched".to_owned(),
            (_, Some(end)) => format!("valid until {}", end.utc().date()),
            (_, None) => over(&notice.matter).into_owned(),
        }
    }

    /// What is wrong with the inventory or with the probe itself.
    fn about_us(&self, matter: &Matter) -> String {
        match matter.code {
            Code::NotReached => format!(
                "{} {}",
                self.report.map_or(0, |report| report.not_reached.len()),
                in_short(matter)
            ),
            _ => in_short(matter).into_owned(),
        }
    }

    fn all_fine(&self) -> String {
        let soonest = self.report.and_then(soonest);
        let soonest = soonest.map_or_else(String::new, |(endpoint, end)| {
            format!("; the next to expire is {endpoint} in {}", Span(end - self.now))
        });
        format!(
            "OK: all {} endpoints are fine{soonest}",
            self.report.map_or(0, |report| report.counts.total())
        )
    }

    fn summary(&self, news: &News) -> String {
        let Some(report) = self.report else {
            return "neverlapse could not look at anything. Until this is mended, nobody watches these certificates."
                .to_owned();
        };
        let mut summary = in_words(report.counts);
        if let (true, Some((endpoint, end))) = (news.all_fine, soonest(report)) {
            let _ = write!(
                summary,
                "\n\nThe next to expire is {endpoint}, in {}, on {}.",
                Span(end - self.now),
                end
            );
        }
        summary
    }

    fn sections(&self, notices: &[Notice]) -> Vec<Section> {
        let mut sections = Vec::<(bool, &Place, Section)>::new();
        for notice in notices {
            let (open, place) = (notice.change.is_open(), &notice.matter.place);
            let entry = self.entry(notice);
            match sections.iter_mut().find(|(same, at, _)| *same == open && *at == place) {
                Some((.., section)) => section.entries.push(entry),
                None => {
                    let section = Section {
                        title: self.title(place),
                        severity: severity(notice),
                        entries: vec![entry],
                        facts: self.facts(notice),
                        next: Vec::new(),
                    };
                    sections.push((open, place, section));
                }
            }
        }
        let with_steps = |(.., mut section): (bool, &Place, Section)| {
            for step in section.entries.iter().filter_map(|entry| entry.next_step.clone()) {
                if !section.next.contains(&step) {
                    section.next.push(step);
                }
            }
            section
        };
        sections.into_iter().map(with_steps).collect()
    }

    fn title(&self, place: &Place) -> String {
        let unicode = self.endpoint(place).and_then(|endpoint| endpoint.unicode.as_deref());
        match unicode {
            Some(unicode) => format!("{} ({})", printable(&place.to_string()), printable(unicode)),
            None => printable(&place.to_string()),
        }
    }

    fn entry(&self, notice: &Notice) -> Entry {
        let Notice { change, matter } = notice;
        let message = printable(&sentence(matter));
        let message = match change {
            Change::NoLongerWatched => format!("no longer watched; what was open: {message}"),
            Change::Over => match self.renewed(matter) {
                Some(_) => format!("over, a new certificate is served; before: {message}"),
                None => format!("{}; before: {message}", over(matter)),
            },
            _ => message,
        };
        Entry {
            change: *change,
            place: matter.place.clone(),
            code: matter.code.clone(),
            severity: matter.severity,
            message,
            addresses: self.addresses(matter),
            since: matter.since,
            not_after: matter.not_after,
            renewed_until: self.renewed(matter).filter(|_| *change == Change::Over),
            next_step: change.is_open().then(|| self.next_step(matter)),
            incident: matter.thread(),
            history: self.history(notice),
        }
    }

    fn history(&self, notice: &Notice) -> String {
        let since = notice.matter.since;
        let (on, lasted) = (since, Span(self.now - since));
        match notice.change {
            Change::Appeared if since == self.now => "new: first seen in this run".to_owned(),
            Change::Appeared => format!("new: first seen on {on}, and again now"),
            Change::Worsened => format!("worse than when last reported; known for {lasted}, since {on}"),
            Change::Reminder => format!("a reminder: known for {lasted}, since {on}"),
            Change::Over | Change::NoLongerWatched => format!("it lasted for {lasted}, since {on}"),
        }
    }

    /// Where exactly, unless it is everywhere.
    fn addresses(&self, matter: &Matter) -> Vec<String> {
        // What is wrong with a managed certificate at an address names that itself.
        if matter.addresses.len() == 1 && matches!(matter.place, Place::Certificate(_)) {
            return Vec::new();
        }
        let all = self
            .endpoint(&matter.place)
            .map_or(0, |endpoint| endpoint.observations.len());
        if all > 1 && matter.addresses.len() == all {
            return Vec::new();
        }
        matter.addresses.iter().map(ToString::to_string).collect()
    }

    /// Until when the certificate is valid that is served now instead of the one that the matter is about.
    fn renewed(&self, matter: &Matter) -> Option<Timestamp> {
        let now = match &matter.place {
            // That it is published says nothing of what clients get.
            Place::Certificate(name) => self.certificate(name).filter(|found| found.is_served())?.not_after(),
            place => self.endpoint(place)?.not_after,
        };
        // What was late is the very certificate that is served now.
        let delivered = matches!(
            matter.code,
            Code::NotPulled | Code::InstallFailed | Code::WrongCertificate
        );
        now.filter(|now| delivered || matter.not_after.is_some_and(|before| *now > before))
    }

    fn facts(&self, notice: &Notice) -> Vec<String> {
        let mut facts = Vec::new();
        if let Some(endpoint) = self.endpoint(&notice.matter.place) {
            let issuer = endpoint.leaf().map(|leaf| common_name(&leaf.issuer));
            let issuer = issuer.map(|issuer| format!("issued by {}", printable(&issuer)));
            // Whatever is about the end says it.
            let says_end = notice.matter.is_about_expiry() && notice.change.is_open();
            let end = endpoint.not_after.filter(|_| !says_end);
            let end = end.map(|end| format!("valid until {}", end));
            let known: Vec<_> = [end, issuer].into_iter().flatten().collect();
            if !known.is_empty() {
                facts.push(format!("The certificate is {}.", known.join(", ")));
            }
            let managed = self.circle.certificate_at(&endpoint.endpoint);
            let managed = managed.filter(|_| notice.change.is_open());
            facts.extend(managed.map(|name| self.renewer(name, endpoint)));
        }
        if let Place::Certificate(name) = &notice.matter.place {
            facts.extend(self.certificate(name).map(|certificate| self.way(certificate)));
        }
        facts
    }

    /// How long the current version of a managed certificate lasts, and how far it is.
    fn way(&self, certificate: &CertificateReport) -> String {
        let Some(end) = certificate.not_after() else {
            return "There is no certificate in the bucket yet.".to_owned();
        };
        let (all, served) = (&certificate.instances, |one: &&InstanceReport| {
            one.stage == Stage::Served
        });
        let served = match all.len() {
            0 => String::new(),
            all_of => format!("; {} of {all_of} instances serve it", all.iter().filter(served).count()),
        };
        let left = match end - self.now {
            left if left.is_negative() => format!("expired {} ago", Span(-left)),
            left => format!("has {} left", Span(left)),
        };
        format!("The current version is valid until {}, and {left}{served}.", end)
    }

    /// What the renewer does about a certificate.
    fn renewer(&self, name: &str, endpoint: &EndpointReport) -> String {
        let Some(certificate) = self.certificate(name) else {
            return format!("neverlapse renews it (as {name}) when it is due, and says so if that fails.");
        };
        let renewal = &certificate.renewal;
        if let Some(problem) = &renewal.problem {
            let next = renewal
                .next_try
                .map_or_else(String::new, |next| format!(" The next try is not before {}.", next));
            let problem = printable(problem);
            return format!(
                "neverlapse renews it (as {name}), and the last try failed: {}.{next}",
                problem.trim_end_matches('.')
            );
        }
        match (certificate.not_after(), renewal.planned) {
            (Some(new), _) if is_renewed(certificate, endpoint) => format!(
                "neverlapse has renewed it (as {name}): the new one is valid until {}, but is not served here yet.",
                new
            ),
            (_, Some(planned)) if planned > self.now => {
                format!("neverlapse will renew it (as {name}) on {}.", planned)
            }
            _ => format!("neverlapse is about to renew it (as {name})."),
        }
    }

    fn next_step(&self, matter: &Matter) -> String {
        let managed = match &matter.place {
            Place::Certificate(name) => Some((name.as_str(), name.as_str())),
            Place::Endpoint(endpoint) => self
                .circle
                .certificate_at(endpoint)
                .map(|name| (name, endpoint.as_str())),
            Place::Inventory | Place::Probe => None,
        };
        let managed = managed.filter(|_| matter.is_about_expiry());
        let managed = managed.map(|(name, endpoint)| self.managed_step(name, endpoint));
        advice(matter, managed, self.sender)
    }

    /// What to do about a certificate that lapses although neverlapse renews it: whatever keeps it from being renewed or served.
    fn managed_step(&self, name: &str, endpoint: &str) -> String {
        let certificate = self.certificate(name);
        let endpoint = self.endpoint(&Place::Endpoint(endpoint.to_owned()));
        let renewed = certificate.zip(endpoint);
        if certificate.is_some_and(|certificate| certificate.renewal.problem.is_some()) {
            format!("correct what the last try says, then `neverlapse renew {name} --force` tries at once")
        } else if renewed.is_some_and(|(certificate, endpoint)| is_renewed(certificate, endpoint)) {
            "run `neverlapse pull --now` on the servers behind this name; `neverlapse status` shows which of them is behind"
                .to_owned()
        } else {
            format!(
                "wait for the renewal; `neverlapse status` shows how far it is, `neverlapse renew {name}` asks for it now"
            )
        }
    }

    fn notes(&self, news: &News) -> Vec<String> {
        if news.open.is_empty() {
            return Vec::new();
        }
        let shown = news.open.iter().take(ALSO_OPEN).map(|matter| {
            format!(
                "\n  {}  {}: {}",
                matter.severity.to_string().to_uppercase(),
                matter.place,
                printable(&sentence(matter))
            )
        });
        let shown: String = shown.collect();
        let more = match news.open.len().saturating_sub(ALSO_OPEN) {
            0 => String::new(),
            more => format!("\n  +{more} more; {}", self.sender.elsewhere()),
        };
        vec![format!("Also open, and reported before:{shown}{more}")]
    }

    fn endpoint(&self, place: &Place) -> Option<&EndpointReport> {
        let Place::Endpoint(name) = place else { return None };
        self.report?
            .endpoints
            .iter()
            .find(|endpoint| endpoint.endpoint == *name)
    }

    fn certificate(&self, name: &str) -> Option<&CertificateReport> {
        self.report?
            .certificates
            .iter()
            .find(|certificate| certificate.name == name)
    }
}

fn severity(notice: &Notice) -> Severity {
    match notice.change.is_open() {
        true => notice.matter.severity,
        false => Severity::Ok,
    }
}

/// Whether there is a newer one than what an endpoint serves.
fn is_renewed(certificate: &CertificateReport, endpoint: &EndpointReport) -> bool {
    (certificate.not_after().zip(endpoint.not_after)).is_some_and(|(new, served)| served < new)
}

/// Those of the counts that are not zero.
fn in_words(counts: Counts) -> String {
    let parts = [
        (counts.critical, "critical"),
        (counts.unknown, "could not be looked at"),
        (counts.warning, "to act on soon"),
        (counts.ok, "fine"),
    ];
    let parts: Vec<_> = (parts.iter().filter(|(count, _)| *count > 0))
        .map(|(count, words)| format!("{count} {words}"))
        .collect();
    let s = if counts.total() == 1 { "" } else { "s" };
    match parts.as_slice() {
        [] => "No endpoint was looked at.".to_owned(),
        parts => format!("{} endpoint{s}: {}.", counts.total(), parts.join(", ")),
    }
}

fn soonest(report: &Report) -> Option<(&str, Timestamp)> {
    let ends = report
        .endpoints
        .iter()
        .filter_map(|endpoint| Some((endpoint.endpoint.as_str(), endpoint.not_after?)));
    ends.min_by_key(|(_, end)| *end)
}

/// SNS refuses a subject with anything else than printable ASCII, or of 100 characters.
fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .take(SUBJECT_LENGTH)
        .collect()
}

const RESERVE: usize = 200;
const ALSO_OPEN: usize = 10;
