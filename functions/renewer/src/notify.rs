//! What people hear from the renewer: that a renewal failed, and that it works again.

use std::fmt::Write;

use lambda_runtime::tracing::{error, info};
use neverlapse::alert::{Digest, Sender, Topic, slack};
use neverlapse::bucket::store::Store;
use neverlapse::bucket::version::Current;
use neverlapse::finding::{Severity, Span};
use neverlapse::renewal::Failure;
use neverlapse::timestamp::Timestamp;

use crate::error::Fault;

/// Where alerts go, and in whose name.
pub(crate) struct Teller {
    pub(crate) store: Store,
    pub(crate) topic: Topic,
    pub(crate) sender: Sender,
}

impl Teller {
    /// Tells Slack, if there is a webhook, and the topic. That neither can be told must not undo a renewal: it is logged, and the
    /// probe's next run tells.
    pub(crate) async fn tell(&self, mut digest: Digest) {
        let subject = digest.subject.clone();
        if let Err(failed) = slack::tell(&self.store, &digest, &self.sender).await {
            let problem = failed.to_string();
            error!(subject, problem, "Slack was not told");
            digest.notes.push(format!("Slack was not told: {problem}."));
        }
        match self.topic.publish(&digest, &self.sender).await {
            Ok(message_id) => info!(subject, message_id, "alert published"),
            Err(failed) => error!(subject, problem = %failed, "the alert could not be published"),
        }
    }

    /// A renewal failed; the certificate before it is untouched.
    pub(crate) fn failed(
        &self,
        name: &str,
        failure: &Failure,
        current: Result<Option<&Current>, &Fault>,
        now: Timestamp,
    ) -> Digest {
        let left = current.map(|current| current.map(|current| current.facts.not_after - now));
        let state = match left {
            Err(_) => "what is left cannot be read".to_owned(),
            Ok(None) => "there is no certificate yet".to_owned(),
            Ok(Some(left)) if left.is_negative() => format!("the current one expired {} ago", Span(-left)),
            Ok(Some(left)) => format!("{} left", Span(left)),
        };
        let mut text = format!(
            "neverlapse could not renew the certificate {name}.\n\n{}\n\n",
            failure.problem
        );
        match current {
            Err(fault) => {
                let _ = writeln!(text, "Whether there is a certificate is not known: {fault}");
            }
            Ok(None) => text.push_str("There is no certificate in the bucket yet.\n"),
            Ok(Some(current)) => {
                let until = current.facts.not_after;
                let _ = writeln!(
                    text,
                    "The current certificate is untouched: version {}, valid until {until} ({state}).",
                    current.facts.version
                );
            }
        }
        let _ = writeln!(
            text,
            "This was try {} since {}. The next one is not before {}; with `neverlapse renew {name} --force` it is at once.",
            failure.count, failure.since, failure.next_try
        );
        self.digest(format!("WARNING: renewal of {name} failed, {state}"), text)
    }

    /// It works again.
    pub(crate) fn recovered(&self, current: &Current, failure: &Failure) -> Digest {
        let facts = &current.facts;
        let text = format!(
            "The certificate {} is renewed, after {} failed tries since {}.\n\nThe new one is valid until {}, issued by {}, version {}.\n",
            facts.name, failure.count, failure.since, facts.not_after, facts.issuer.name, facts.version
        );
        self.digest(format!("OK: {} is renewed until {}", facts.name, facts.not_after), text)
    }

    /// A dry run succeeded.
    pub(crate) fn dry_run(&self, name: &str, issuer: &str) -> Digest {
        let text = format!(
            "{issuer}'s staging directory issued a certificate for {name}. It was thrown away; nothing was published.\n"
        );
        self.digest(format!("OK: dry run for {name} succeeded"), text)
    }

    /// What a person asked for cannot be done.
    pub(crate) fn refused(&self, name: &str, problem: &str) -> Digest {
        let text = format!("What was asked for {name} cannot be done. Nothing was changed.\n\n{problem}\n");
        self.digest(format!("WARNING: the request for {name} failed"), text)
    }

    fn digest(&self, subject: String, text: String) -> Digest {
        let severity = match subject.starts_with("OK") {
            true => Severity::Ok,
            false => Severity::Warning,
        };
        Digest::plain(&subject, &text, severity, Timestamp::now())
    }
}
