//! Sends what has to be reported after a run, and remembers that it was sent.

use std::fmt::Display;

use lambda_runtime::tracing::{error, info, warn};
use neverlapse::alert::webhook::{NotNotified, Webhooks, listed};
use neverlapse::alert::{
    Composed, Digest, KEY, Memory, News, Notice, Run, Sender, State, Topic, Watchlist, closing, compose, sns,
};
use neverlapse::bucket::document::Document;
use neverlapse::bucket::store::{self, Expecting, Object, Store, Tagged};
use neverlapse::report::Report;
use neverlapse::timestamp::Timestamp;
use thiserror::Error;
use tokio::join;

/// Where alerts go, and where the memory of them is kept.
pub(crate) struct Alerts {
    pub(crate) store: Store,
    pub(crate) topic: Topic,
    pub(crate) sender: Sender,
    /// Whether to report once a week that everything is fine.
    pub(crate) weekly: bool,
}

/// Why an alert was not sent everywhere or not remembered. Nothing is lost by it: the next run
/// sends it.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(transparent)]
    NotSent(#[from] sns::Error),
    #[error("the alert was sent, but that cannot be remembered, so it will be repeated: {0}")]
    NotRemembered(String),
    #[error("the alert was sent to the topic, but {0}")]
    WebhookNotNotified(String),
}

/// The memory as it was read.
struct Recalled {
    memory: Memory,
    /// The object's ETag; none if there is no object, or S3 did not give it out.
    tag: Option<String>,
}

impl Recalled {
    fn of(read: Result<Option<Tagged<Vec<u8>>>, store::Error>) -> Self {
        match read {
            Ok(None) => Self {
                memory: Memory::Blank,
                tag: None,
            },
            Ok(Some(object)) => Self {
                memory: Memory::read(&object.value),
                tag: Some(object.tag),
            },
            Err(error) => {
                let reason = error.to_string();
                Self {
                    memory: Memory::Lost { reason },
                    // What is too long is no more of use than what is no state of alerts.
                    tag: match error {
                        store::Error::TooLong { tag, .. } => Some(tag),
                        _ => None,
                    },
                }
            }
        }
    }

    /// An object that could not be read, or that a later version wrote, stays as it is.
    fn is_writable(&self) -> bool {
        match self.memory {
            Memory::Blank | Memory::Known(_) => true,
            Memory::Lost { .. } => self.tag.is_some(),
            Memory::Future { .. } => false,
        }
    }
}

impl Alerts {
    /// Reports a run, or why it could observe nothing, and then remembers that.
    ///
    /// In this order, a crash repeats a message and never loses one.
    pub(crate) async fn notify(
        &self,
        outcome: Result<&Report, &str>,
        watchlist: &Watchlist,
        now: Timestamp,
    ) -> Result<(), Error> {
        let recalled = self.recall().await;
        let run = Run {
            outcome,
            watchlist,
            weekly: self.weekly,
        };
        let Composed {
            news,
            mut state,
            digest,
            everything,
        } = compose(&run, &recalled.memory, &self.sender, now);
        log(&news);

        // Webhooks come first, because the topic's message says when one could not be reached.
        let failed = self
            .post(digest.as_ref(), everything.as_ref(), &state, &recalled.memory, now)
            .await;
        let problem = listed(&failed);
        state.missed = failed.into_iter().map(|failed| failed.name).collect();
        let all_notified = state.missed.is_empty();
        if all_notified {
            state.unclosed.clear();
        } else {
            // A service that was not notified of an end would keep its own record open for ever.
            let ended = news.notices.into_iter().filter(|notice| !notice.change.is_firing());
            ended.for_each(|notice| state.add_unclosed(notice));
        }

        if let Some(mut digest) = digest {
            if !all_notified {
                digest.notes.push(format!(
                    "{problem}. The next run tries again, with everything that is open."
                ));
            }
            self.publish(&digest).await?;
        }

        self.remember(state, recalled).await?;
        if all_notified {
            Ok(())
        } else {
            Err(Error::WebhookNotNotified(problem))
        }
    }

    async fn recall(&self) -> Recalled {
        let recalled = Recalled::of(self.store.tagged(KEY, State::LONGEST).await);
        if let Memory::Lost { reason } | Memory::Future { schema: reason } = &recalled.memory {
            let writable = recalled.is_writable();
            error!(
                key = KEY,
                reason, writable, "the record of earlier alerts cannot be understood"
            );
        }
        recalled
    }

    /// Writes the new state, unless it is the old one. Where another run was faster, both are
    /// merged.
    async fn remember(&self, mut state: State, mut recalled: Recalled) -> Result<(), Error> {
        if !recalled.is_writable() || matches!(&recalled.memory, Memory::Known(before) if *before == state) {
            return Ok(());
        }

        for _ in 0..RACES {
            let object = Object::json(&state).map_err(not_remembered)?;
            let expecting = recalled.tag.as_deref().map_or(Expecting::Nothing, Expecting::Tag);
            match self.store.put(KEY, object, expecting).await {
                Ok(_) => return Ok(()),
                Err(store::Error::Changed { .. }) => warn!(key = KEY, "another run was faster; merging its record"),
                Err(error) => return Err(not_remembered(error)),
            }

            recalled = self.recall().await;
            match &recalled.memory {
                Memory::Known(other) => state = state.merged(other.clone()),
                _ if !recalled.is_writable() => break,
                _ => {}
            }
        }
        Err(not_remembered("other runs were faster, again and again"))
    }

    /// Publishes to the topic.
    pub(crate) async fn publish(&self, digest: &Digest) -> Result<(), Error> {
        let message_id = self.topic.publish(digest, &self.sender).await?;
        info!(subject = %digest.subject, message_id, "alert published");
        Ok(())
    }

    /// Posts to the webhooks, if there are any and something to report: to each the ends of
    /// incidents that no message reports, and then the digest; to those that missed something, all
    /// the ends that they missed, and everything that is open. Answers with those that were not
    /// notified.
    async fn post(
        &self,
        digest: Option<&Digest>,
        everything: Option<&Digest>,
        state: &State,
        before: &Memory,
        now: Timestamp,
    ) -> Vec<NotNotified> {
        let everything = everything.filter(|_| !state.missed.is_empty());
        if digest.is_none() && everything.is_none() && state.unclosed.is_empty() {
            return Vec::new();
        }

        // What ended before this run is unclosed only for those that missed it.
        let mut silenced = state.unclosed.clone();
        if let Memory::Known(before) = before {
            silenced.retain(|key, _| !before.unclosed.contains_key(key));
        }

        let (behind, others) = Webhooks::read(&self.store).await.split(&state.missed);
        let (unclosed, silenced) = (closing(&state.unclosed), closing(&silenced));
        let (behind, others) = join!(
            behind.notify(&unclosed, everything, &self.sender, now),
            others.notify(&silenced, digest, &self.sender, now),
        );
        let failed: Vec<_> = behind.into_iter().chain(others).filter_map(Result::err).collect();
        for problem in &failed {
            error!(%problem, "a webhook was not notified");
        }
        failed
    }
}

fn not_remembered(problem: impl Display) -> Error {
    Error::NotRemembered(problem.to_string())
}

/// One line per decision.
fn log(news: &News) {
    for notice in &news.notices {
        let incident = &notice.incident;
        let change = notice.change.to_string();
        info!(place = %incident.place, code = incident.code.as_str(), severity = %incident.severity, change, what = incident.message, "to be reported");
    }
    for Notice { incident, .. } in &news.open {
        info!(place = %incident.place, code = incident.code.as_str(), severity = %incident.severity, "open, and reported before");
    }
}

const RACES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of some gigabytes ended the function before any alert, in every run.
    #[test]
    fn a_record_that_is_too_long_is_lost_and_replaced() {
        let too_long = store::Error::TooLong {
            bucket: "b".into(),
            key: KEY.into(),
            bytes: Some(5 << 30),
            limit: State::LONGEST,
            tag: "\"1\"".into(),
        };
        let recalled = Recalled::of(Err(too_long));
        let reason =
            "s3://b/state/alerts.json is not what it should be: it has 5368709120 bytes (expected at most 134217728)";
        assert_eq!(recalled.memory, Memory::Lost { reason: reason.into() });
        assert_eq!((recalled.is_writable(), recalled.tag.as_deref()), (true, Some("\"1\"")));

        let denied = store::Error::Failed {
            what: "read",
            bucket: "b".into(),
            key: KEY.into(),
            reason: "AccessDenied".into(),
            denied: true,
        };
        assert!(!Recalled::of(Err(denied)).is_writable());
    }
}
