//! Notifies people of a request's result: that a renewal failed, and that it works again.

use std::fmt::Write;

use lambda_runtime::tracing::{error, info};
use neverlapse::alert::webhook::{Webhooks, listed};
use neverlapse::alert::{Digest, Sender, Topic};
use neverlapse::bucket::version::Current;
use neverlapse::finding::{Code, Severity, Span};
use neverlapse::renewal::request::{Request, RequestedBy};
use neverlapse::renewal::{LONGEST_PROBLEM, Renewal, RenewalFailure, RequestStage};
use neverlapse::text::{counted, cut, sha256};
use neverlapse::timestamp::Timestamp;

use crate::dns::change::Removal;
use crate::dns::record::ZoneRecord;
use crate::error::Error;
use crate::history::History;
use crate::outcome::{Miss, Outcome, Published};
use crate::progress::{Progress, is_followed, progress_of};

/// Remembers how each request ended, and sends the alerts that follow from it to Slack and to the
/// topic.
pub(crate) struct Notifier {
    pub(crate) history: History,
    pub(crate) topic: Topic,
    pub(crate) sender: Sender,
}

impl Notifier {
    /// Remembers the result of a renewal, and notifies people if it is news or if a person asked.
    /// `deliveries` says how often the request was delivered.
    pub(crate) async fn conclude(
        &self,
        request: &Request,
        deliveries: u32,
        result: Result<Outcome, Error>,
    ) -> Result<Outcome, Error> {
        let name = &request.name;
        let by_probe = request.requested_by == RequestedBy::Probe;

        match &result {
            Ok(Outcome::Published(published)) => self.published(request, published).await?,
            Ok(Outcome::NotDue { next }) => {
                self.not_due(request).await?;
                let text = format!("{name} is not due before {next}; `neverlapse renew {name} --force` orders anyway");
                self.answer(request, Severity::Ok, RequestStage::NotDue, &text).await;
            }
            Ok(Outcome::Waiting { until }) => {
                let text = format!(
                    "{name} is due, but after a failure it is not tried before {until}; `neverlapse renew {name} --force` tries at once"
                );
                self.answer(request, Severity::Warning, RequestStage::Waiting, &text)
                    .await;
            }
            Ok(Outcome::Refused { problem }) => self.refused(request, problem).await,
            Ok(Outcome::DryRun { issuer }) => {
                let text = format!(
                    "dry run for {name} succeeded: {issuer}'s staging directory issued a certificate. It was thrown away; nothing was published"
                );
                self.answer(request, Severity::Ok, RequestStage::Done, &text).await;
            }
            Ok(Outcome::AccountKeyReplaced) => {
                let text = format!("our account at {name} has a new key");
                self.answer(request, Severity::Ok, RequestStage::Done, &text).await;
            }
            Ok(Outcome::Gone | Outcome::Busy) => {}
            // Whoever has the lease renews it; but a person may have asked for more than that.
            Err(Error::LeaseLost) if by_probe => return Ok(Outcome::Busy),
            Err(error) if error.should_notify(by_probe, deliveries) => {
                self.failed(request, deliveries, error).await;
            }
            Err(error) => {
                let progress = Progress {
                    history: &self.history,
                    request,
                };
                progress.step(error.to_string()).await;
            }
        }
        result
    }

    /// The result of what only a person can ask for. Its failure is sent to people and not back to
    /// the queue: a person reads it and asks again, the queue must not.
    pub(crate) async fn conclude_once(
        &self,
        request: &Request,
        deliveries: u32,
        result: Result<Outcome, Error>,
    ) -> Result<Outcome, Error> {
        let result = match result {
            Err(error @ (Error::OutOfTime(_) | Error::LeaseLost)) => Err(error),
            Err(error) => Ok(Outcome::Refused {
                problem: error.to_string(),
            }),
            done => done,
        };
        self.conclude(request, deliveries, result).await
    }

    /// A version is published, but TXT records of its order cannot be removed.
    pub(crate) async fn leftovers(&self, name: &str, removal: &Removal) {
        let subject = format!("WARNING: TXT records of {name} are left in DNS");
        let left: String = removal
            .left
            .iter()
            .map(|record| {
                let ZoneRecord { zone, record } = record;
                format!("  - {} TXT {:?} in hosted zone {zone}\n", record.name, record.value)
            })
            .collect();
        let text = format!(
            "The certificate {name} is published, but these records of its order could not be removed:\n\n{left}\n{}\n\n\
             They do no harm. Each later run tries to remove them again; you may also remove them by hand.\n",
            removal.problems.join("\n")
        );
        self.send(Severity::Warning, &subject, &text).await;
    }

    /// A version is published whose issuers expire before it does.
    pub(crate) async fn ends_early(&self, name: &str, problem: &str) {
        let subject = format!("WARNING: the chain of {name} expires before its certificate");
        let text = format!(
            "The certificate {name} is published, but {problem}.\n\n\
             Clients refuse it from then on, so neverlapse treats that as its expiry and renews it in time. If the next certificate has the \
             same issuer, ask the CA for another chain, or use another CA.\n"
        );
        self.send(Severity::Warning, &subject, &text).await;
    }

    /// Answers a person, by an alert and where `neverlapse renew` reads it. Nobody else waits for
    /// an answer.
    async fn answer(&self, request: &Request, severity: Severity, stage: RequestStage, text: &str) {
        if request.requested_by != RequestedBy::Person {
            return;
        }

        self.note(request, stage, text).await;
        let severity_name = if severity == Severity::Ok { "OK" } else { "WARNING" };
        let subject = format!("{severity_name}: {text}");
        self.send(
            severity,
            &subject,
            &format!("{text}.\n\nSomebody asked for it at {}.\n", request.at),
        )
        .await;
    }

    /// Notes the answer to a person's request; an alert says the same, so nothing is lost if it
    /// cannot be noted.
    async fn note(&self, request: &Request, stage: RequestStage, text: &str) {
        if !is_followed(request) {
            return;
        }
        let progress = progress_of(request, stage, text.to_owned());
        let noted = self
            .history
            .remember(&request.name, |renewal| renewal.request = Some(progress.clone()));
        if let Err(error) = noted.await {
            error!(name = request.name, fault = %error, "the answer cannot be noted");
        }
    }

    /// A request cannot be fulfilled.
    async fn refused(&self, request: &Request, problem: &str) {
        let name = &request.name;
        // A name that the inventory does not have gets no record.
        if self
            .history
            .renewal(name)
            .await
            .is_ok_and(|renewal| renewal != Renewal::new(name))
            || request.dry_run
        {
            self.note(request, RequestStage::Refused, problem).await;
        }
        let subject = format!("WARNING: the request for {name} failed");
        let problem = cut(problem, LONGEST_PROBLEM);
        let text = format!("The request for {name} cannot be fulfilled. Nothing was changed.\n\n{problem}\n");
        self.send(Severity::Warning, &subject, &text).await;
    }

    async fn published(&self, request: &Request, published: &Published) -> Result<(), Error> {
        let Published {
            current,
            missed,
            is_early,
        } = published;
        let facts = &current.facts;
        let name = &facts.name;
        let text = format!(
            "{name} is renewed until {}: issued by {}, version {}",
            facts.not_after, facts.issuer.name, facts.version
        );
        let answer = is_followed(request).then(|| progress_of(request, RequestStage::Done, text.clone()));

        let before = self
            .history
            .remember(name, |renewal| {
                renewal.issued_at = Some(current.published_at);
                renewal.replaced_early = if *is_early {
                    renewal.replaced_early.saturating_add(1)
                } else {
                    0
                };
                renewal.request = answer.clone().or_else(|| renewal.request.take());
                renewal.failure.take()
            })
            .await?;
        // Nobody was notified of a failure that another certificate had met before.
        let failure = before.filter(|failure| failure.since < current.published_at && !failure.is_known);
        if failure.is_none() && missed.iter().all(Miss::is_known) && answer.is_none() {
            return Ok(());
        }

        let is_declined = missed.iter().any(|miss| miss.is_declined);
        let (severity, subject) = if is_declined {
            let subject = format!(
                "WARNING: {name} is renewed by {}, because another issuer declined",
                facts.issuer.name
            );
            (Severity::Warning, subject)
        } else {
            (Severity::Ok, format!("OK: {name} is renewed until {}", facts.not_after))
        };
        let text = published_text(&text, failure.as_ref(), missed);
        self.send_about(name, severity, &subject, &text).await;
        Ok(())
    }

    /// A run that was killed right after it had published could not report it.
    async fn not_due(&self, request: &Request) -> Result<(), Error> {
        let name = &request.name;
        if self.history.renewal(name).await?.failure.is_none() {
            return Ok(());
        }
        let Some(current) = self.history.current(name).await? else {
            return Ok(());
        };

        let published = Published {
            current: current.value,
            missed: Vec::new(),
            is_early: false,
        };
        let by_probe = Request::new(name, RequestedBy::Probe, request.at);
        self.published(&by_probe, &published).await
    }

    /// People are notified of the first failure at once, and whoever asked of theirs; the probe's
    /// digest reports that it lasts. Trouble of all issuers is notified by the certificate that met
    /// it first.
    async fn failed(&self, request: &Request, deliveries: u32, error: &Error) {
        let name = &request.name;
        let by_probe = request.requested_by == RequestedBy::Probe;
        let now = Timestamp::now();
        let current = self.history.current(name).await;
        let current = current.as_ref().map(|found| found.as_ref().map(|found| &found.value));
        let is_known = matches!(error, Error::IssuersInTrouble { .. });
        let remembered = self
            .history
            .remember(name, |renewal| {
                let is_first = renewal.failure.as_ref().is_none_or(|before| before.is_known);
                let failure = failure(renewal.failure.as_ref(), error, current.ok().flatten(), now);
                renewal.failure = Some(failure.clone());
                if is_followed(request) {
                    renewal.request = Some(progress_of(request, RequestStage::Failed, error.to_string()));
                }
                (failure, is_first)
            })
            .await;
        let (failure, is_first) = match remembered {
            Ok(remembered) => remembered,
            // Each try of each certificate would send an alert, because none would know of the one
            // before. The queue gives the request up, and an alarm reports that once.
            Err(unnoted) if by_probe => {
                error!(name, fault = %error, %unnoted, "a renewal failed, and that cannot be remembered");
                return;
            }
            Err(_) => (failure(None, error, current.ok().flatten(), now), true),
        };

        if (is_first && !is_known) || (!by_probe && deliveries == 1) {
            let state = remaining(current, now);
            let subject = format!("WARNING: renewal of {name} failed, {state}");
            let mut text = failure_text(name, &failure, current, &state);
            text.push_str(&next_step(name, error));
            let _ = writeln!(text, "\nMore on this: {}", Code::RenewalFailed.entry());
            self.send_about(name, Severity::Warning, &subject, &text).await;
        }
    }

    /// Sends an alert about how the renewal of a certificate goes: that it works again ends for a
    /// service what began with its failure.
    async fn send_about(&self, name: &str, severity: Severity, subject: &str, text: &str) {
        let Sender {
            stack, region, account, ..
        } = &self.sender;
        let thread = sha256(format!("renewal {name} {stack} {region} {account}").as_bytes());
        let digest = Digest::plain(subject, text, severity, Timestamp::now());
        self.send_digest(Digest {
            thread: thread[..16].to_owned(),
            ..digest
        })
        .await;
    }

    async fn send(&self, severity: Severity, subject: &str, text: &str) {
        self.send_digest(Digest::plain(subject, text, severity, Timestamp::now()))
            .await;
    }

    /// Sends an alert to the webhooks, if there are any, and to the topic. A failure must not undo
    /// a renewal: it is logged, and the probe's next run reports the certificate's state.
    async fn send_digest(&self, mut digest: Digest) {
        let subject = digest.subject.clone();

        let webhooks = Webhooks::read(&self.history.store).await;
        let posted = webhooks.notify(&[], Some(&digest), &self.sender, digest.at).await;
        let failed: Vec<_> = posted.into_iter().filter_map(Result::err).collect();
        if !failed.is_empty() {
            let problem = listed(&failed);
            error!(subject, problem, "a webhook was not notified");
            digest.notes.push(format!("{problem}."));
        }

        match self.topic.publish(&digest, &self.sender).await {
            Ok(message_id) => info!(subject, message_id, "alert published"),
            Err(failed) => error!(subject, problem = %failed, "the alert could not be published"),
        }
    }
}

/// The failure to remember, after one that was remembered before. It is tried again before the
/// current certificate expires.
fn failure(
    before: Option<&RenewalFailure>,
    error: &Error,
    current: Option<&Current>,
    now: Timestamp,
) -> RenewalFailure {
    let is_known = matches!(error, Error::IssuersInTrouble { .. });
    let failure = RenewalFailure {
        is_known: is_known && before.is_none_or(|before| before.is_known),
        ..RenewalFailure::next(before, error.to_string(), error.retry_after(), now)
    };
    match current {
        Some(current) => failure.before_the_end(current.facts.not_after, now),
        None => failure,
    }
}

/// How long the current certificate is still valid.
fn remaining(current: Result<Option<&Current>, &Error>, now: Timestamp) -> String {
    match current.map(|current| current.map(|current| current.facts.not_after - now)) {
        Err(_) => "the time left is not known".to_owned(),
        Ok(None) => "there is no certificate yet".to_owned(),
        Ok(Some(left)) if left.is_negative() => format!("the current one expired {} ago", Span(-left)),
        Ok(Some(left)) => format!("{} left", Span(left)),
    }
}

/// A renewal failed; the certificate before it is untouched.
fn failure_text(
    name: &str,
    failure: &RenewalFailure,
    current: Result<Option<&Current>, &Error>,
    state: &str,
) -> String {
    let mut text = format!(
        "neverlapse could not renew the certificate {name}.\n\n{}\n\n",
        failure.problem
    );

    match current {
        Err(error) => {
            let _ = writeln!(text, "It is not known whether there is a certificate: {error}");
        }
        Ok(None) => text.push_str("There is no certificate in the bucket yet.\n"),
        Ok(Some(current)) => {
            let facts = &current.facts;
            let _ = writeln!(
                text,
                "The current certificate is untouched: version {}, valid until {} ({state}).",
                facts.version, facts.not_after
            );
        }
    }

    let _ = writeln!(
        text,
        "This was try {} since {}. The next try is on {}.",
        failure.count, failure.since, failure.next_try
    );
    text
}

/// What a person can do after a failure. A CA that asked to wait refuses whoever does not.
fn next_step(name: &str, error: &Error) -> String {
    match (error, error.retry_after()) {
        (Error::Unfit { .. }, _) => format!(
            "The CA is not asked again at once, because CAs limit how many certificates they issue for the same names. After you have changed \
             something, `neverlapse renew {name} --force` tries at once.\n"
        ),
        (_, Some(until)) => format!("The CA asked to wait until {until}: there is nothing to do until then.\n"),
        (_, None) => format!("`neverlapse renew {name} --force` tries at once.\n"),
    }
}

/// A version is published, with what was before it.
fn published_text(text: &str, failure: Option<&RenewalFailure>, missed: &[Miss]) -> String {
    let mut text = format!("{text}.\n");
    if let Some(failure) = failure {
        let _ = writeln!(
            text,
            "\nThis was after {} since {}.",
            counted(failure.count.into(), "failed try", "failed tries"),
            failure.since
        );
    }

    if !missed.is_empty() {
        text.push_str("\nIssuers that were to be asked before it did not issue:\n\n");
        for miss in missed {
            let _ = writeln!(text, "{}", cut(&miss.to_string(), LONGEST_PROBLEM));
        }
        if missed.iter().any(|miss| miss.is_declined) {
            text.push_str(
                "\nOne that declines does so until somebody changes what it names; until then the other one issues.\n",
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CA's answer of a megabyte was in the alert, and in a record that none could read then.
    #[test]
    fn an_alert_repeats_only_so_much_of_what_a_ca_says() {
        let long = "x".repeat(1 << 20);
        let failure = failure(None, &Error::CaDeclined(long.clone()), None, Timestamp::UNIX_EPOCH);
        let miss = Miss {
            issuer: "ca".to_owned(),
            problem: long,
            retry_after: None,
            is_declined: true,
            trouble: None,
        };
        for text in [
            failure_text("example.com", &failure, Ok(None), "there is no certificate yet"),
            published_text("example.com is renewed", None, &[miss]),
        ] {
            assert!(text.len() < LONGEST_PROBLEM + 1_000, "{}", text.len());
        }
    }

    /// "The CA asked to wait: there is nothing to do until then", where a root was missing.
    #[test]
    fn only_a_ca_that_asked_to_wait_leaves_nothing_to_do() {
        let until = Timestamp::UNIX_EPOCH;
        let problem = || "a problem".to_owned();
        let busy = Error::CaUnavailable {
            problem: problem(),
            retry_after: Some(until),
        };
        let unfit = Error::Unfit {
            problem: problem(),
            until,
        };
        for (error, expected) in [
            (busy, "there is nothing to do until then"),
            (
                unfit,
                "After you have changed something, `neverlapse renew example.com --force` tries at once",
            ),
            (
                Error::CaDeclined(problem()),
                "`neverlapse renew example.com --force` tries at once",
            ),
        ] {
            let step = next_step("example.com", &error);
            assert!(step.contains(expected), "{step}");
        }
    }
}
