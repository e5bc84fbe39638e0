//! Trouble with an issuer that every certificate meets there, such as a limit of our account:
//! `state/issuers/{name}.json`. One renewal finds it, and the others wait and stay quiet.

use lambda_runtime::tracing::{info, warn};
use neverlapse::bucket::document::Document;
use neverlapse::bucket::store::{self, Expecting, Object, Store, Tagged};
use neverlapse::inventory::Issuer;
use neverlapse::renewal;
use neverlapse::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use time::Duration;

use crate::error::Error;

/// What is recorded of issuers in the bucket.
pub(crate) struct Troubles<'a> {
    pub(crate) store: &'a Store,
}

/// What an issuer answers whatever is ordered there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    pub(crate) problem: String,
    /// Whether it refuses, and does so until a person changes something.
    pub(crate) is_declined: bool,
    /// When it last answered so.
    pub(crate) at: Timestamp,
    /// Until when it asked to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    schema: String,
    /// The issuer of that name may be another CA by now.
    directory: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trouble: Option<Trouble>,
}

impl Document for Record {
    const SCHEMA: &'static str = SCHEMA;
}

impl Trouble {
    /// Until when another certificate leaves the issuer alone. `not_after` is the end of its
    /// current version.
    ///
    /// Whether a limit is the account's or one name's is our guess. So one certificate asks again
    /// every three hours; if the issuer takes its order, the trouble is over for all.
    pub(crate) fn wait(&self, not_after: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let until = self.until?.min(self.at + LONGEST);
        let until = not_after.map_or(until, |not_after| renewal::bounded(until, not_after, self.at));
        renewal::goes_on(until, now).then_some(until)
    }

    /// Whether people were notified of the same not long before `next`.
    fn is_like(&self, next: &Trouble) -> bool {
        self.is_declined == next.is_declined && (next.at - self.at).abs() < FORGOTTEN
    }
}

impl Troubles<'_> {
    /// The trouble with an issuer, if any is known. A record that cannot be read stops no renewal.
    pub(crate) async fn of(&self, issuer: &Issuer) -> Option<Trouble> {
        match self.read(issuer).await {
            Ok(found) => found?.value.trouble,
            Err(error) => {
                warn!(issuer = issuer.name, fault = %error, "it is not known whether the issuer is in trouble");
                None
            }
        }
    }

    /// Records trouble, and answers whether it is news: people are notified once, and not for each
    /// certificate. Trouble that cannot be recorded counts as news.
    pub(crate) async fn meet(&self, issuer: &Issuer, trouble: &Trouble) -> bool {
        let mut is_news = true;
        let recorded = self
            .change(issuer, |before| {
                is_news = !before.is_some_and(|before| before.is_like(trouble));
                Some(trouble.clone())
            })
            .await;
        if let Err(error) = recorded {
            warn!(issuer = issuer.name, fault = %error, "the issuer's trouble cannot be recorded");
            return true;
        }
        is_news
    }

    /// Records that the issuer takes orders again.
    pub(crate) async fn over(&self, issuer: &Issuer) {
        match self.change(issuer, |_| None).await {
            Ok(()) => info!(issuer = issuer.name, "the issuer's trouble is over"),
            // It is forgotten by itself.
            Err(error) => warn!(issuer = issuer.name, fault = %error, "the end of its trouble cannot be recorded"),
        }
    }

    async fn change(
        &self,
        issuer: &Issuer,
        mut change: impl FnMut(Option<&Trouble>) -> Option<Trouble>,
    ) -> Result<(), Error> {
        loop {
            let found = self.read(issuer).await?;
            let before = found.as_ref().and_then(|found| found.value.trouble.as_ref());
            let record = Record {
                schema: SCHEMA.to_owned(),
                directory: issuer.directory.clone(),
                trouble: change(before),
            };

            let expecting = Expecting::unchanged(found.as_ref());
            match self.store.put(&key(issuer), Object::json(&record)?, expecting).await {
                Ok(_) => return Ok(()),
                Err(store::Error::Changed { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn read(&self, issuer: &Issuer) -> Result<Option<Tagged<Record>>, Error> {
        let mut found = self.store.document::<Record>(&key(issuer)).await?;
        if let Some(Tagged { value, .. }) = &mut found
            && value.directory != issuer.directory
        {
            value.trouble = None;
        }
        Ok(found)
    }
}

fn key(issuer: &Issuer) -> String {
    format!("state/issuers/{}.json", issuer.name)
}

const SCHEMA: &str = "neverlapse.issuer/1";
/// How long one certificate waits because of what another one met: Let's Encrypt's limit of orders
/// per account is over three hours.
const LONGEST: Duration = Duration::hours(3);
/// After a day people are notified of the same once more.
const FORGOTTEN: Duration = Duration::DAY;

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::timestamp;

    const NOW: Timestamp = timestamp!(2026-10-01 00:00 UTC);

    fn trouble(hours: Option<i64>) -> Trouble {
        Trouble {
            problem: "too many new orders".to_owned(),
            is_declined: false,
            at: NOW,
            until: hours.map(|hours| NOW + Duration::hours(hours)),
        }
    }

    #[test]
    fn others_wait_for_three_hours_at_most_and_never_for_half_of_what_is_left() {
        let in_minutes = |minutes| NOW + Duration::minutes(minutes);
        for (until, not_after, expected) in [
            (None, None, None),
            (Some(-1), None, None),
            (Some(1), None, Some(in_minutes(60))),
            (Some(72), None, Some(in_minutes(180))),
            (Some(72), Some(in_minutes(80)), Some(in_minutes(40))),
        ] {
            assert_eq!(trouble(until).wait(not_after, NOW), expected, "{until:?} {not_after:?}");
        }
        assert_eq!(trouble(Some(72)).wait(None, in_minutes(181)), None, "one asks again");
    }

    #[test]
    fn the_same_within_a_day_is_no_news() {
        let first = trouble(Some(3));
        let later = |hours| Trouble {
            at: NOW + Duration::hours(hours),
            ..first.clone()
        };
        assert!(first.is_like(&later(3)));
        assert!(!first.is_like(&later(24)));
        assert!(!later(24 * 365).is_like(&first), "the record is from the future");
        assert!(!first.is_like(&Trouble {
            is_declined: true,
            ..later(3)
        }));
    }
}
