//! Notifies people of a request's result: that a renewal failed, and that it works again.

use std::fmt::Write;

use lambda_runtime::tracing::{error, info};
use neverlapse::alert::{Digest, Sender, Topic, webhook};
use neverlapse::bucket::version::Current;
use neverlapse::finding::{Severity, Span};
use neverlapse::renewal::Failure;
use neverlapse::renewal::request::{Request, RequestedBy};
use neverlapse::text::counted;
use neverlapse::timestamp::Timestamp;

use crate::dns::change::Removal;
use crate::dns::record::ZoneRecord;
use crate::error::Error;
use crate::history::History;
use crate::outcome::Outcome;

/// Remembers how each request ended, and sends the alerts that follow from it to Slack and to the
/// topic.
pub(crate) struct Notifier {
    pub(crate) history: History,
    pub(crate) topic: Topic,
    pub(crate) sender: Sender,
}

impl Notifier {
    /// Remembers the result of a renewal, and notifies people if it is news. `deliveries` says how
    /// often the request was delivered.
    pub(crate) async fn conclude(
        &self,
        request: &Request,
        deliveries: u32,
        result: Result<Outcome, Error>,
    ) -> Result<Outcome, Error> {
        let name = &request.name;
        let by_probe = request.requested_by == RequestedBy::Probe;

        match result {
            Ok(Outcome::Published(current)) => {
                self.succeeded(name, &current).await?;
                Ok(Outcome::Published(current))
            }
            Ok(Outcome::NotDue { next }) => {
                // A run that was killed right after it had published could not report it.
                if self.history.renewal(name).await?.failure.is_some()
                    && let Some(current) = self.history.current(name).await?
                {
                    self.succeeded(name, &current.value).await?;
                }
                Ok(Outcome::NotDue { next })
            }
            // Whoever has the lease renews it; but a person may have asked for more than that.
            Err(Error::LeaseLost) if by_probe => Ok(Outcome::Busy),
            Err(error) => {
                if error.should_notify(by_probe, deliveries) {
                    self.failed(name, by_probe, &error).await;
                }
                Err(error)
            }
            other => other,
        }
    }

    /// The result of what only a person can ask for. Its failure is sent to people and not back to
    /// the queue: a person reads it and asks again, the queue must not.
    pub(crate) async fn conclude_once(&self, name: &str, result: Result<Outcome, Error>) -> Result<Outcome, Error> {
        match result {
            Err(error @ (Error::OutOfTime(_) | Error::LeaseLost)) => Err(error),
            Err(error) => {
                self.refused(name, &error.to_string()).await;
                Ok(Outcome::Refused)
            }
            done => done,
        }
    }

    /// A dry run succeeded.
    pub(crate) async fn dry_run(&self, name: &str, issuer: &str) {
        let subject = format!("OK: dry run for {name} succeeded");
        let text = format!(
            "{issuer}'s staging directory issued a certificate for {name}. It was discarded; nothing was published.\n"
        );
        self.send(Severity::Ok, &subject, &text).await;
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

    /// A person's request cannot be fulfilled.
    pub(crate) async fn refused(&self, name: &str, problem: &str) {
        let subject = format!("WARNING: the request for {name} failed");
        let text = format!("The request for {name} cannot be fulfilled. Nothing was changed.\n\n{problem}\n");
        self.send(Severity::Warning, &subject, &text).await;
    }

    async fn succeeded(&self, name: &str, current: &Current) -> Result<(), Error> {
        let before = self
            .history
            .remember(name, |renewal| {
                renewal.issued_at = Some(current.published_at);
                renewal.failure.take()
            })
            .await?;

        if let Some(failure) = before
            && failure.since < current.published_at
        {
            let facts = &current.facts;
            let subject = format!("OK: {} is renewed until {}", facts.name, facts.not_after);
            self.send(Severity::Ok, &subject, &recovery_text(current, &failure))
                .await;
        }
        Ok(())
    }

    /// People are notified of the first failure at once; the probe's digest reports that it lasts.
    async fn failed(&self, name: &str, by_probe: bool, error: &Error) {
        let now = Timestamp::now();
        let retry_after = match error {
            Error::CaUnavailable { retry_after, .. } => *retry_after,
            _ => None,
        };
        let next = |before: Option<&Failure>| Failure::next(before, error.to_string(), retry_after, now);

        let remembered = self
            .history
            .remember(name, |renewal| {
                let failure = next(renewal.failure.as_ref());
                renewal.failure = Some(failure.clone());
                failure
            })
            .await;
        let failure = match remembered {
            Ok(failure) => failure,
            // Each try of each certificate would send an alert, because none would know of the one
            // before. The queue gives the request up, and an alarm reports that once.
            Err(unnoted) if by_probe => {
                error!(name, fault = %error, %unnoted, "a renewal failed, and that cannot be remembered");
                return;
            }
            Err(_) => next(None),
        };

        if failure.count == 1 {
            let current = self.history.current(name).await;
            let current = current.as_ref().map(|found| found.as_ref().map(|found| &found.value));
            let state = remaining(current, now);
            let subject = format!("WARNING: renewal of {name} failed, {state}");
            let text = failure_text(name, &failure, current, &state);
            self.send(Severity::Warning, &subject, &text).await;
        }
    }

    /// Sends an alert to Slack, if there is a webhook, and to the topic. A failure must not undo a
    /// renewal: it is logged, and the probe's next run reports the certificate's state.
    async fn send(&self, severity: Severity, subject: &str, text: &str) {
        let mut digest = Digest::plain(subject, text, severity, Timestamp::now());
        let subject = digest.subject.clone();

        if let Err(failed) = webhook::notify(&self.history.store, &digest, &self.sender).await {
            let problem = failed.to_string();
            error!(subject, problem, "a webhook was not notified");
            digest.notes.push(format!("{problem}."));
        }

        match self.topic.publish(&digest, &self.sender).await {
            Ok(message_id) => info!(subject, message_id, "alert published"),
            Err(failed) => error!(subject, problem = %failed, "the alert could not be published"),
        }
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
fn failure_text(name: &str, failure: &Failure, current: Result<Option<&Current>, &Error>, state: &str) -> String {
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
        "This was try {} since {}. The next try is on {}; `neverlapse renew {name} --force` tries at once.",
        failure.count, failure.since, failure.next_try
    );
    text
}

fn recovery_text(current: &Current, failure: &Failure) -> String {
    let facts = &current.facts;
    format!(
        "The certificate {} is renewed, after {} since {}.\n\nThe new version is {}, valid until {}, issued by {}.\n",
        facts.name,
        counted(failure.count.into(), "failed try", "failed tries"),
        failure.since,
        facts.version,
        facts.not_after,
        facts.issuer.name
    )
}
