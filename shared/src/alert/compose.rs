//! From a run to its message, whatever is in it: a place at which our own code fails is reported as
//! such, and all others as usual.

use super::channel::{slack, sns};
use super::decide::{Run, decide};
use super::digest::{Digest, digest};
use super::memory::{Memory, State};
use super::news::News;
use super::sender::Sender;
use crate::finding::{Finding, Severity};
use crate::isolation::{Panicked, isolated};
use crate::report::{CertificateReport, Report};
use crate::timestamp::Timestamp;

/// What people should hear of after a run, in words, and what to remember once they have.
#[derive(Clone, Debug)]
pub struct Composed {
    /// What is news, and what is open besides.
    pub news: News,
    /// What to remember.
    pub state: State,
    /// The news in words, if there are any.
    pub digest: Option<Digest>,
    /// The same for a reader who missed earlier messages: everything that is open.
    pub everything: Option<Digest>,
}

/// Decides what people should hear of after a run, and puts it into words.
pub fn compose(run: &Run<'_>, memory: &Memory, sender: &Sender, now: Timestamp) -> Composed {
    match attempt(run, memory, sender, now) {
        Ok(composed) => composed,
        Err(panicked) => compose_what_can_be(run, memory, sender, now, &panicked),
    }
}

/// The same for a run of which something cannot be put into words. What that is, is found out by
/// trying each place alone, and then without the memory of earlier alerts.
fn compose_what_can_be(
    run: &Run<'_>,
    memory: &Memory,
    sender: &Sender,
    now: Timestamp,
    panicked: &Panicked,
) -> Composed {
    let report = run.outcome.ok().map(|report| {
        without_what_breaks(report, |part| {
            let part = Run {
                outcome: Ok(part),
                ..*run
            };
            attempt(&part, &Memory::Blank, sender, now).map(drop)
        })
    });
    let run = Run {
        outcome: report.as_ref().ok_or(run.outcome.err().unwrap_or_default()),
        ..*run
    };

    let lost = Memory::Lost {
        reason: panicked.to_string(),
    };
    attempt(&run, memory, sender, now)
        .or_else(|_| attempt(&run, &lost, sender, now))
        .unwrap_or_else(|panicked| Composed::without_words(&panicked, memory, now))
}

fn attempt(run: &Run<'_>, memory: &Memory, sender: &Sender, now: Timestamp) -> Result<Composed, Panicked> {
    isolated(|| {
        let (news, state) = decide(run, memory, now);
        Composed {
            digest: put_into_words(&news, run, sender, now),
            everything: put_into_words(&news.clone().with_everything_open(), run, sender, now),
            news,
            state,
        }
    })
}

fn put_into_words(news: &News, run: &Run<'_>, sender: &Sender, now: Timestamp) -> Option<Digest> {
    let digest = digest(news, run.outcome.ok(), run.watchlist, sender, now)?;
    // No channel may fail at it later, when nothing can be left out any more.
    sns::bodies(&digest, sender);
    slack::message(&digest, sender);
    Some(digest)
}

impl Composed {
    /// A message that there is none. Nothing is forgotten and nothing remembered, so the next run
    /// reports everything that this one could not.
    fn without_words(panicked: &Panicked, memory: &Memory, now: Timestamp) -> Self {
        let text = format!(
            "What this run found cannot be put into words: {panicked}.\n\n\
             The full report has all of it. Update neverlapse, or report this with the function's log."
        );
        let digest = Digest::plain(
            "CRITICAL: neverlapse cannot say what it found",
            &text,
            Severity::Critical,
            now,
        );
        Self {
            news: News::default(),
            state: memory.state(),
            everything: Some(digest.clone()),
            digest: Some(digest),
        }
    }
}

/// The report, with each place that `works` alone as it is, and a finding in place of each other.
fn without_what_breaks(report: &Report, works: impl Fn(&Report) -> Result<(), Panicked>) -> Report {
    let nothing = Report::new(report.started_at, report.finished_at, Vec::new());
    let mut readable = report.clone();

    for endpoint in &mut readable.endpoints {
        let alone = Report {
            endpoints: vec![endpoint.clone()],
            ..nothing.clone()
        };
        if let Err(panicked) = works(&alone) {
            endpoint.lose(Finding::not_judged(&panicked));
        }
    }
    for certificate in &mut readable.certificates {
        let alone = Report {
            certificates: vec![certificate.clone()],
            ..nothing.clone()
        };
        if let Err(panicked) = works(&alone) {
            let findings = vec![Finding::not_judged(&panicked)];
            *certificate = CertificateReport::new(&certificate.name, &certificate.identifiers, None, findings);
        }
    }
    readable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Watchlist;
    use crate::finding::{Code, Kind};
    use crate::report::EndpointReport;
    use crate::timestamp;

    const NOW: Timestamp = timestamp!(2026-11-24 06:00 UTC);

    fn endpoint(name: &str) -> EndpointReport {
        let finding = Finding::new(Kind::Expired { not_after: NOW }, Severity::Critical, NOW);
        serde_json::from_value(serde_json::json!({
            "endpoint": name, "status": "critical", "observations": [], "findings": [finding]
        }))
        .unwrap()
    }

    #[test]
    fn a_place_at_which_we_fail_hides_no_other() {
        let mut report = Report::new(NOW, NOW, ["a:443", "b:443", "c:443"].map(endpoint).into());
        let certificate = |name| CertificateReport::new(name, &[], None, Vec::new());
        report.certificates = ["a", "b"].map(certificate).into();

        let readable = without_what_breaks(&report, |part| {
            isolated(|| {
                assert!(part.endpoints.iter().all(|endpoint| endpoint.endpoint != "b:443"));
                assert!(part.certificates.iter().all(|certificate| certificate.name != "a"));
            })
        });
        let run = Run {
            outcome: Ok(&readable),
            watchlist: &Watchlist::default(),
            weekly: false,
        };
        let (news, _) = decide(&run, &Memory::Blank, NOW);
        let notices: Vec<_> = (news.notices.iter())
            .map(|notice| (notice.incident.place.to_string(), notice.incident.code.clone()))
            .collect();
        let expected = [
            ("a:443", Code::Expired),
            ("c:443", Code::Expired),
            ("b:443", Code::NotJudged),
            ("certificate a", Code::NotJudged),
        ];
        assert_eq!(notices, expected.map(|(place, code)| (place.to_owned(), code)));
    }

    #[test]
    fn without_any_words_there_is_a_message_still() {
        let memory = Memory::Known(State {
            fine_at: Some(NOW),
            ..State::default()
        });
        let panicked = isolated(|| panic!("the words are lost")).unwrap_err();
        let composed = Composed::without_words(&panicked, &memory, NOW);
        assert_eq!(Memory::Known(composed.state), memory);
        assert!(composed.digest.unwrap().summary.contains("the words are lost"));
    }
}
