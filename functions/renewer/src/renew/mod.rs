//! One request, from the question whether anything is due to the version that is published.

mod dry_run;
#[cfg(test)]
mod herd;
pub(crate) mod job;
mod leftovers;
mod revoke;
mod task;

use aws_config::SdkConfig;
use lambda_runtime::tracing::{info, warn};
use neverlapse::alert::{Sender, Topic};
use neverlapse::bucket::store::{LONGEST_FILE, Store, Tagged};
use neverlapse::bucket::version::Current;
use neverlapse::inventory::Inventory;
use neverlapse::renewal::request::{Action, Request, RequestedBy};
use neverlapse::renewal::{Decision, Reason, Renewal, decide, goes_on, is_early};
use neverlapse::timestamp::Timestamp;
use tokio::time::Instant;

use self::job::{Job, Ordered};
use self::task::Task;
use crate::acme::http::Http;
use crate::acme::renewal_info;
use crate::bucket::attempt::Attempt;
use crate::bucket::issued::Issued;
use crate::bucket::lease::{self, Lease};
use crate::bucket::{publish, version};
use crate::error::Error;
use crate::history::History;
use crate::notify::Notifier;
use crate::outcome::{Outcome, Published};
use crate::services::Services;
use crate::settings::Settings;

/// Everything that outlives one request.
pub(crate) struct Renewer {
    stack: String,
    operator_topic: String,
    services: Services,
    history: History,
    notifier: Notifier,
}

impl Renewer {
    pub(crate) fn new(settings: Settings, config: SdkConfig) -> Self {
        let store = Store::new(aws_sdk_s3::Client::new(&config), settings.bucket.clone());
        let history = History { store: store.clone() };

        Self {
            notifier: Notifier {
                history: history.clone(),
                topic: Topic::new(aws_sdk_sns::Client::new(&config), &settings.alert_topic),
                sender: Sender::of(&settings.stack, &settings.alert_topic, &settings.bucket),
            },
            history,
            services: Services {
                store,
                kms_key: settings.secrets_key,
                config,
                nameserver: settings.nameserver,
            },
            stack: settings.stack,
            operator_topic: settings.operator_topic,
        }
    }

    /// The stack that it belongs to.
    pub(crate) fn stack(&self) -> &str {
        &self.stack
    }

    /// ARN of the topic of people's requests.
    pub(crate) fn operator_topic(&self) -> &str {
        &self.operator_topic
    }

    /// Does what is requested, if it is due. An error means: deliver the request again.
    pub(crate) async fn handle(&self, request: &Request, deliveries: u32, deadline: Instant) -> Result<Outcome, Error> {
        if request.action == Action::ReplaceAccountKey {
            let result = self.replace_account_key(request).await;
            return self.notifier.conclude_once(request, deliveries, result).await;
        }
        if request.dry_run {
            let result = self.dry_run(request, deadline).await;
            return self.notifier.conclude_once(request, deliveries, result).await;
        }

        let result = self.renew(request, deadline).await;
        self.notifier.conclude(request, deliveries, result).await
    }

    async fn replace_account_key(&self, request: &Request) -> Result<Outcome, Error> {
        let name = &request.name;
        let inventory = self.inventory().await?;
        let Some(issuer) = inventory.issuers.get(name) else {
            return Err(Error::Internal(format!("the inventory has no [issuer.{name}]")));
        };

        let http = Http::of(issuer, &self.services.store).await?;
        let accounts = self.services.accounts();
        accounts.replace_key(issuer, request.at, &http).await?;
        Ok(Outcome::AccountKeyReplaced)
    }

    async fn dry_run(&self, request: &Request, deadline: Instant) -> Result<Outcome, Error> {
        let inventory = self.inventory().await?;
        match self.task(&inventory, request, deadline) {
            Some(task) => dry_run::dry_run(task).await,
            None => Ok(unknown(&inventory, request)),
        }
    }

    async fn renew(&self, request: &Request, deadline: Instant) -> Result<Outcome, Error> {
        let inventory = self.inventory().await?;
        let Some(task) = self.task(&inventory, request, deadline) else {
            return Ok(unknown(&inventory, request));
        };
        let wanted = task.wanted;
        let key = lease::key(&wanted.name);

        // Most requests find nothing to do, and need no lease for that.
        let current = self.history.current(&wanted.name).await;
        let current = current.map_err(Error::bucket_unreadable)?.map(|current| current.value);
        let renewal = self.up_to_date(&task, current.as_ref()).await;
        let renewal = renewal.map_err(Error::bucket_unreadable)?;
        let under_way = self.services.store.object(&key, LONGEST_FILE).await?.is_some();

        let now = Timestamp::now();
        match decide(
            &inventory.issuers,
            wanted,
            current.as_ref(),
            Some(&renewal),
            Some(request),
            now,
        ) {
            Decision::NotDue { next } if !under_way && request.action != Action::Revoke => {
                return Ok(Outcome::NotDue { next });
            }
            Decision::Due {
                next_try: Some(until), ..
            } => return Ok(Outcome::Waiting { until }),
            decision => info!(name = wanted.name, %decision, under_way, "decided"),
        }

        task.hold(key, async |lease| {
            let revoked = match request.action {
                Action::Revoke => revoke::revoke(&task).await,
                Action::Renew | Action::ReplaceAccountKey => Ok(()),
            };
            // A certificate with another key is as urgent if revoking failed.
            let outcome = self.renew_under(lease, &task).await;
            if !matches!(outcome, Err(Error::LeaseLost)) {
                let is_published = matches!(outcome, Ok(Outcome::Published(_)));
                self.tidy(lease, &task, is_published).await;
            }
            let outcome = outcome?;
            revoked.map(|()| outcome)
        })
        .await
    }

    /// Finishes what is under way, and orders and publishes what is due.
    async fn renew_under(&self, lease: &Lease<'_>, task: &Task<'_>) -> Result<Outcome, Error> {
        let wanted = task.wanted;
        let now = Timestamp::now();

        // Read again: whoever had the lease before may have published.
        let before = self.history.current(&wanted.name).await?;
        let current = before.as_ref().map(|before| &before.value);
        let renewal = self.history.renewal(&wanted.name).await?;
        let decision = decide(
            &task.inventory.issuers,
            wanted,
            current,
            Some(&renewal),
            Some(task.request),
            now,
        );
        let under_way = resumable(lease, task, current, &decision).await?;
        let reason = match &decision {
            Decision::Due { reason, .. } => reason,
            Decision::NotDue { next } => return Ok(Outcome::NotDue { next: *next }),
        };

        let job = Job {
            task: *task,
            lease,
            issuers: task.issuers()?,
            current,
            reason,
            renewal: &renewal,
            history: Some(&self.history),
        };
        let Ordered { issued, missed } = job.order(under_way).await?;
        let early_end = issued.early_end.clone();
        let is_early =
            matches!(reason, Reason::Suggested { .. }) && current.is_some_and(|current| is_early(&current.facts, now));
        let published = self.publish(issued, before.as_ref()).await?;

        lease.finish().await?;
        if let Some(problem) = early_end {
            warn!(name = wanted.name, problem, "the chain ends before the certificate");
            self.notifier.ends_early(&wanted.name, &problem).await;
        }
        self.prune(&wanted.name).await;
        Ok(Outcome::Published(Box::new(Published {
            current: published,
            missed,
            is_early,
        })))
    }

    /// Removes TXT records that are left in DNS. A record that cannot be removed is no failure:
    /// people are notified when a version was published, and later runs try again.
    async fn tidy(&self, lease: &Lease<'_>, task: &Task<'_>, is_published: bool) {
        let name = &task.wanted.name;
        match leftovers::remove(lease, task).await {
            Ok(removal) if !removal.left.is_empty() && is_published => {
                self.notifier.leftovers(name, &removal).await;
            }
            Ok(_) => {}
            Err(error) => warn!(name, fault = %error, "the TXT records that are left cannot be noted"),
        }
    }

    async fn publish(&self, issued: Issued, before: Option<&Tagged<Current>>) -> Result<Current, Error> {
        let current = publish::publish(issued, &self.services.store, before, Timestamp::now()).await?;
        let facts = &current.facts;
        info!(
            name = facts.name,
            version = facts.version,
            issuer = facts.issuer.name,
            not_after = %facts.not_after,
            "published"
        );
        Ok(current)
    }

    /// Removes old versions. A failure must not undo the renewal: the next one removes them.
    async fn prune(&self, name: &str) {
        match publish::prune(name, &self.services.store).await {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => info!(name, removed = removed.join(", "), "old versions removed"),
            Err(error) => warn!(name, fault = %error, "old versions could not be removed"),
        }
    }

    /// What is remembered of the certificate, with the CA's renewal information brought up to date
    /// if it is time to ask. Trouble with that never keeps a certificate from being renewed.
    async fn up_to_date(&self, task: &Task<'_>, current: Option<&Current>) -> Result<Renewal, Error> {
        let name = &task.wanted.name;
        let now = Timestamp::now();
        let renewal = self.history.renewal(name).await?;
        let Some(facts) = current.map(|current| &current.facts) else {
            return Ok(renewal);
        };
        let before = renewal
            .renewal_info
            .as_ref()
            .filter(|info| info.version == facts.version);
        if before.is_some_and(|info| goes_on(info.ask_again_at, now)) {
            return Ok(renewal);
        }

        let answer = match task.issuer(&facts.issuer.name) {
            Ok(issuer) => renewal_info::fetch(&self.services.store, issuer, facts, before, now).await,
            Err(error) => Err(error),
        };
        let renewal_info = match answer {
            Ok(None) => return Ok(renewal),
            Ok(renewal_info) => renewal_info,
            Err(error) => {
                warn!(name, fault = %error, "the CA's renewal information could not be had");
                return Ok(renewal);
            }
        };

        let remembered = self.history.remember(name, |renewal| {
            renewal.renewal_info = renewal_info.clone();
            renewal.clone()
        });
        remembered.await.or_else(|error| {
            warn!(name, fault = %error, "the CA's renewal information cannot be remembered");
            Ok(Renewal {
                renewal_info,
                ..renewal
            })
        })
    }

    async fn inventory(&self) -> Result<Inventory, Error> {
        let written = self.services.store.inventory().await;
        let written = written.map_err(|error| Error::from(error).bucket_unreadable())?;
        Ok(Inventory::parse(&written.unwrap_or_default()))
    }

    /// The request's task, if the inventory has its certificate.
    fn task<'a>(&'a self, inventory: &'a Inventory, request: &'a Request, deadline: Instant) -> Option<Task<'a>> {
        let wanted = inventory
            .certificates
            .iter()
            .find(|wanted| wanted.name == request.name)?;
        Some(Task {
            services: &self.services,
            history: &self.history,
            inventory,
            wanted,
            request,
            deadline,
        })
    }
}

/// The inventory does not have the certificate. A late request for one that was taken out is no
/// failure; people are notified if one of them asked for it, or if its entry may be one that cannot
/// be read.
fn unknown(inventory: &Inventory, request: &Request) -> Outcome {
    if request.requested_by == RequestedBy::Probe && inventory.problems.is_empty() {
        return Outcome::Gone;
    }

    let names: Vec<_> = inventory
        .certificates
        .iter()
        .map(|certificate| certificate.name.as_str())
        .collect();
    let names = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    let problems: String = inventory
        .problems
        .iter()
        .map(|problem| format!("\n  - {problem}"))
        .collect();
    Outcome::Refused {
        problem: format!(
            "the inventory has no certificate {:?} (it has: {names}){problems}",
            request.name
        ),
    }
}

/// The attempts under way, unless one is published already, nothing is due any more, or the
/// inventory wants something else by now: such attempts are forgotten.
async fn resumable(
    lease: &Lease<'_>,
    task: &Task<'_>,
    current: Option<&Current>,
    decision: &Decision,
) -> Result<Vec<Attempt>, Error> {
    let mut wanted = Vec::new();
    for attempt in lease.attempts().await {
        if is_wanted(&attempt, task, current, decision).await? {
            wanted.push(attempt);
        } else {
            lease.drop(&attempt.version).await?;
        }
    }
    Ok(wanted)
}

async fn is_wanted(
    attempt: &Attempt,
    task: &Task<'_>,
    current: Option<&Current>,
    decision: &Decision,
) -> Result<bool, Error> {
    let Decision::Due { reason, .. } = decision else {
        return Ok(false);
    };

    if let Some(Current { facts, .. }) = current {
        if facts.version == attempt.version {
            return Ok(false);
        }
        // The key of a version that is revoked must not be certified once more.
        if *reason == Reason::Revoked {
            let revoked = version::private_key(&task.services.store, facts).await?;
            if revoked.is_some_and(|key| key == attempt.key) {
                return Ok(false);
            }
        }
    }

    Ok(attempt.fits(task.wanted, task.inventory))
}
