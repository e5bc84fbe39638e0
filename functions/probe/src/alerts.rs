//! Says what is to be said after a run, and remembers that it was said.

use lambda_runtime::tracing::{error, info, warn};
use neverlapse::alert::state::{Circle, KEY, Memory, News, Run, State, next};
use neverlapse::alert::{Digest, Sender, Topic, digest, slack, topic};
use neverlapse::bucket::store::{self, Expecting, Object, Store, Tagged};
use neverlapse::report::Report;
use neverlapse::timestamp::Timestamp;
use thiserror::Error;

/// Where alerts go, and where it is kept what they said.
pub(crate) struct Alerts {
    pub(crate) store: Store,
    pub(crate) topic: Topic,
    pub(crate) sender: Sender,
    /// Whether to say once a week that everything is fine.
    pub(crate) weekly: bool,
}

/// What went wrong with telling. Nothing is lost by it: what was not told or not remembered is told by the next run.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(transparent)]
    NotSent(#[from] topic::Error),
    #[error("the alert was sent, but that cannot be remembered, so it will be repeated: {0}")]
    NotRemembered(String),
    #[error("the alert was sent to the topic, but not to Slack: {0}")]
    SlackNotTold(String),
}

/// The memory as it was read, and whether and how it may be written.
struct Recalled {
    memory: Memory,
    object: Option<Tagged<Vec<u8>>>,
    /// Not if it could not be read, or is for a later version: then it stays as it is.
    writable: bool,
}

impl Alerts {
    /// Tells of a run, or of why it could not look at anything; then remembers it. In this order a crash repeats a message, and never
    /// loses one.
    pub(crate) async fn tell(
        &self,
        outcome: Result<&Report, &str>,
        circle: &Circle,
        now: Timestamp,
    ) -> Result<(), Error> {
        let recalled = self.recall().await;
        let run = Run {
            outcome,
            circle,
            weekly: self.weekly,
        };
        let (news, mut state) = next(&run, &recalled.memory, now);
        log(&news);
        let words = |news: &News| digest::digest(news, outcome.ok(), circle, &self.sender, now);
        let missed = match state.slack_missed {
            true => words(&news.clone().with_everything_open()),
            false => words(&news),
        };
        let slack = self.slack(missed.as_ref()).await;
        state.slack_missed = slack.is_err();
        if let Some(mut digest) = words(&news) {
            if let Err(problem) = &slack {
                let note =
                    format!("Slack was not told: {problem}. The next run tries again, with everything that is open.");
                digest.notes.push(note);
            }
            self.publish(&digest).await?;
        }
        self.remember(state, recalled).await?;
        slack.map_err(Error::SlackNotTold)
    }

    async fn recall(&self) -> Recalled {
        let (memory, object, writable) = match self.store.tagged(KEY).await {
            Ok(None) => (Memory::Blank, None, true),
            Ok(Some(object)) => {
                let memory = Memory::read(&object.value);
                let writable = !matches!(memory, Memory::Future { .. });
                (memory, Some(object), writable)
            }
            Err(failed) => {
                let reason = failed.to_string();
                (Memory::Lost { reason }, None, false)
            }
        };
        if let Memory::Lost { reason } | Memory::Future { schema: reason } = &memory {
            error!(key = KEY, reason, writable, "what was said before cannot be understood");
        }
        Recalled {
            memory,
            object,
            writable,
        }
    }

    async fn remember(&self, mut state: State, mut recalled: Recalled) -> Result<(), Error> {
        let failed = |failed: &dyn std::fmt::Display| Error::NotRemembered(failed.to_string());
        if !recalled.writable || matches!(&recalled.memory, Memory::Known(before) if *before == state) {
            return Ok(());
        }
        for _ in 0..RACES {
            let object = Object::json(&state).map_err(|error| failed(&error))?;
            let expecting = Expecting::unchanged(recalled.object.as_ref());
            match self.store.put(KEY, object, expecting).await {
                Ok(_) => return Ok(()),
                Err(store::Error::Changed { .. }) => warn!(key = KEY, "another run was faster; taking in what it said"),
                Err(error) => return Err(failed(&error)),
            }
            recalled = self.recall().await;
            match &recalled.memory {
                Memory::Known(other) => state = state.merged(other.clone()),
                _ if !recalled.writable => break,
                _ => {}
            }
        }
        Err(failed(&"other runs were faster, again and again"))
    }

    /// Publishes to the topic.
    pub(crate) async fn publish(&self, digest: &Digest) -> Result<(), Error> {
        let message_id = self.topic.publish(digest, &self.sender).await?;
        info!(subject = %digest.subject, message_id, "alert published");
        Ok(())
    }

    /// Posts to the webhook, if there is one and something to say. The error is for people, and without the URL.
    async fn slack(&self, digest: Option<&Digest>) -> Result<(), String> {
        let Some(digest) = digest else { return Ok(()) };
        match slack::tell(&self.store, digest, &self.sender).await {
            Ok(_) => Ok(()),
            Err(failed) => {
                let problem = failed.to_string();
                error!(problem, "Slack was not told");
                Err(problem)
            }
        }
    }
}

/// One line a decision.
fn log(news: &News) {
    for notice in &news.notices {
        let (matter, change) = (&notice.matter, format!("{:?}", notice.change));
        info!(place = %matter.place, code = matter.code.as_str(), severity = %matter.severity, change, what = matter.message, "to be said");
    }
    for matter in &news.open {
        info!(place = %matter.place, code = matter.code.as_str(), severity = %matter.severity, "open, and said before");
    }
}

const RACES: usize = 5;
