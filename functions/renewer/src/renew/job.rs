//! The order of one certificate: from one issuer after the other, until one of them issues.

use std::collections::VecDeque;
use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier};
use lambda_runtime::tracing::warn;
use neverlapse::bucket::version::{Current, PRIVKEY, file_key};
use neverlapse::inventory::Issuer;
use neverlapse::isolation::isolated_async;
use neverlapse::renewal::{self, LONGEST_PROBLEM, Reason, Renewal, Wait};
use neverlapse::text::cut;
use neverlapse::timestamp::Timestamp;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::task::Task;
use crate::acme::http::{self, Http};
use crate::acme::order::Issuance;
use crate::bucket::attempt::Attempt;
use crate::bucket::issued::{Expected, Issued};
use crate::bucket::lease::Lease;
use crate::bucket::trouble::Trouble;
use crate::bucket::version;
use crate::error::{Error, IssuerError};
use crate::history::History;
use crate::key::PrivateKey;
use crate::outcome::{Miss, TroubleNews};

/// A certificate that is due, and everything that its order depends on.
pub(crate) struct Job<'a> {
    pub(crate) task: Task<'a>,
    pub(crate) lease: &'a Lease<'a>,
    /// In the order in which to try them.
    pub(crate) issuers: Vec<&'a Issuer>,
    /// The version to replace.
    pub(crate) current: Option<&'a Current>,
    pub(crate) reason: &'a Reason,
    pub(crate) renewal: &'a Renewal,
    /// Where to remember that an issuer is left alone; a dry run remembers nothing.
    pub(crate) history: Option<&'a History>,
}

/// What came of asking the issuers.
pub(crate) struct Ordered {
    pub(crate) issued: Issued,
    /// The issuers before the one that issued.
    pub(crate) missed: Vec<Miss>,
}

/// One issuer's turn: a new order, or one that an earlier renewer began.
struct Turn<'a> {
    issuer: &'a Issuer,
    resumed: Option<Attempt>,
}

impl<'a> Job<'a> {
    /// Orders from one issuer after the other, until one issues or the failure is not an issuer's.
    /// `under_way` are the attempts that earlier renewers began, the last one first.
    pub(crate) async fn order(&self, under_way: Vec<Attempt>) -> Result<Ordered, Error> {
        let mut turns = self.turns(under_way);
        let mut missed = Vec::new();

        while let Some(turn) = turns.pop_front() {
            let issuer = turn.issuer;
            let trouble = self.trouble(issuer).await;
            if let Some(miss) = self.not_asked(&turn, trouble.as_ref()) {
                missed.push(miss);
                continue;
            }

            let begins = if turn.resumed.is_some() {
                "going on with the order at"
            } else {
                "ordering from"
            };
            self.task.progress().step(format!("{begins} {}", issuer.name)).await;
            let was_under_way = turn.resumed.as_ref().is_some_and(|attempt| !attempt.given_up);
            let is_followed = turns.iter().any(|turn| self.not_asked(turn, None).is_none());
            // What this issuer says may be what our own code, or the library, cannot cope with.
            let ordered = isolated_async(self.order_from(issuer, turn.resumed, is_followed)).await;
            let ordered = ordered.unwrap_or_else(|panicked| Err(Error::unavailable(panicked.to_string()).into()));
            let miss = match ordered {
                Ok(issued) => {
                    if trouble.is_some() {
                        self.task.services.troubles().over(issuer).await;
                    }
                    return Ok(Ordered { issued, missed });
                }
                Err(failed) => self.miss(issuer, failed).await?,
            };

            // An order that was given up is made anew, after all others were asked.
            let is_given_up = self.lease.attempts().await.first().is_some_and(|last| last.given_up);
            if was_under_way && is_given_up && !miss.is_declined {
                turns.push_back(Turn { issuer, resumed: None });
            }
            missed.push(miss);
        }
        Err(nobody_issued(&missed))
    }

    /// The trouble that other certificates met at this issuer. A dry run goes to another directory.
    async fn trouble(&self, issuer: &Issuer) -> Option<Trouble> {
        self.history?;
        self.task.services.troubles().of(issuer).await
    }

    /// The miss of an issuer that is left alone for some time. What waits for all
    /// certificates is new orders; one that is under way goes on.
    fn not_asked(&self, turn: &Turn<'_>, trouble: Option<&Trouble>) -> Option<Miss> {
        if self.task.request.is_urgent() {
            return None;
        }

        let now = Timestamp::now();
        let issuer = &turn.issuer.name;
        let (until, problem, is_declined, trouble) =
            if let Some(&Wait { until, is_unfit, .. }) = self.renewal.wait_for(issuer, now) {
                let problem = if is_unfit {
                    format!("not asked before {until}; what it issued last cannot be served")
                } else {
                    format!("not asked; it said to wait until {until}")
                };
                (until, problem, is_unfit, None)
            } else {
                let is_begun = turn.resumed.as_ref().is_some_and(|attempt| attempt.order.is_some());
                let trouble = trouble.filter(|_| !is_begun)?;
                let not_after = self.current.map(|current| current.facts.not_after);
                let until = trouble.wait(not_after, now)?;
                let answer = &trouble.problem;
                let problem = format!("not asked before {until}; it answered another certificate: {answer}");
                (until, problem, false, Some(TroubleNews::Known))
            };

        Some(Miss {
            issuer: issuer.clone(),
            problem,
            retry_after: Some(until),
            is_declined,
            trouble,
        })
    }

    /// The miss of an issuer that failed. A failure that is not the issuer's ends the job.
    async fn miss(&self, issuer: &Issuer, failed: IssuerError) -> Result<Miss, Error> {
        let name = &self.task.wanted.name;
        let (problem, retry_after, is_declined) = match failed.error {
            Error::CaUnavailable { problem, retry_after } => (problem, retry_after, false),
            Error::CaDeclined(problem) => (problem, None, true),
            Error::Unfit { problem, until } => (problem, Some(until), true),
            error => return Err(error),
        };
        let what = if is_declined {
            "the issuer declines"
        } else {
            "the issuer is at fault"
        };
        warn!(name, issuer = issuer.name, said = problem, "{what}");

        let own = retry_after.map(|until| self.bounded(until));
        let mut news = None;
        if let Some(history) = self.history {
            if let Some(until) = own {
                let wait = Wait {
                    issuer: issuer.name.clone(),
                    until,
                    is_unfit: is_declined,
                };
                history.wait(name, wait).await?;
            }
            if failed.is_general {
                let trouble = Trouble {
                    problem: cut(&problem, LONGEST_PROBLEM),
                    is_declined,
                    at: Timestamp::now(),
                    until: retry_after,
                };
                let is_new = self.task.services.troubles().meet(issuer, &trouble).await;
                news = Some(if is_new { TroubleNews::New } else { TroubleNews::Known });
            }
        }
        Ok(Miss {
            issuer: issuer.name.clone(),
            problem,
            retry_after: own,
            is_declined,
            trouble: news,
        })
    }

    /// Orders that were begun come first, because they are finished, whichever issuer would be
    /// asked otherwise. An issuer whose order was given up gets a new one at its own place.
    fn turns(&self, under_way: Vec<Attempt>) -> VecDeque<Turn<'a>> {
        let (begun, mut keys): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|attempt| attempt.order.is_some());

        let busy: Vec<_> = (begun.iter().filter(|attempt| !attempt.given_up))
            .map(|attempt| attempt.issuer.clone())
            .collect();
        let anew: Vec<_> = self
            .issuers
            .iter()
            .filter(|issuer| !busy.contains(&issuer.name))
            .map(|&issuer| Turn {
                issuer,
                resumed: keys
                    .iter()
                    .position(|attempt| attempt.issuer == issuer.name)
                    .map(|at| keys.swap_remove(at)),
            })
            .collect();

        let resumed = begun.into_iter().filter_map(|attempt| {
            Some(Turn {
                issuer: self.issuers.iter().find(|issuer| issuer.name == attempt.issuer)?,
                resumed: Some(attempt),
            })
        });
        resumed.chain(anew).collect()
    }

    /// One order at one issuer. Its attempt stays in the lease until the version is published,
    /// unless the CA would only answer the same again. While others are waiting (`is_followed`), it
    /// may spend half of the time on answering.
    async fn order_from(
        &self,
        issuer: &Issuer,
        resumed: Option<Attempt>,
        is_followed: bool,
    ) -> Result<Issued, IssuerError> {
        let Task { services, wanted, .. } = self.task;
        // What only this issuer needs is no reason to leave out the others.
        let roots = http::roots(issuer, &services.store).await.map_err(Error::of_issuer)?;
        let mut http = Http::new(&roots)?;
        if is_followed {
            http = http.within(self.task.half());
        }
        let account = services.accounts().open(issuer, &http).await;
        let account = account.map_err(|error| IssuerError::general(error.of_issuer()))?;

        let mut attempt = match resumed.filter(|attempt| attempt.is_of(&account)) {
            Some(mut attempt) => {
                attempt.resumed += u32::from(attempt.order.is_some());
                attempt
            }
            None => Attempt::new(issuer, &account, wanted, self.key().await?),
        };
        // Stored with its key before the CA hears of it.
        self.lease.switch_to(&attempt).await?;

        let issuance = Issuance {
            account: &account,
            http: &http,
            lease: self.lease,
            progress: self.task.progress(),
            services,
            written: &self.task.inventory.zones,
            zones: OnceCell::new(),
            deadline: self.task.deadline,
            patience: self.patience(&attempt),
            half: Instant::now() + self.task.half(),
        };
        let replaces = self.replaces(issuer, &account).await;
        let download = match issuance.chain(&mut attempt, replaces).await {
            Err(
                refused @ IssuerError {
                    error: Error::CaDeclined(_),
                    ..
                },
            ) => {
                self.lease.forget().await?;
                return Err(refused);
            }
            download => download?,
        };
        // An attempt that was resumed may have left TXT records behind that its order no longer
        // needs.
        issuance.tidy(&mut attempt).await?;

        let expected = Expected {
            name: &wanted.name,
            attempt: &attempt,
            issuer,
            roots: &roots,
        };
        let now = Timestamp::now();
        let chain = download
            .best(issuer, &account, &http, |chain| expected.worth(chain, now))
            .await;
        if let Some(from) = expected.valid_from(&chain, Timestamp::now()) {
            self.wait_until(from).await?;
        }
        let issued = expected.check(&chain, Timestamp::now());
        if issued.is_err() {
            // Asked again, the CA would hand out the same.
            self.lease.forget().await?;
        }
        Ok(issued?)
    }

    /// Waits for a certificate that the CA's clock dates a little ahead; if it takes longer than we
    /// have, the next delivery fetches it again.
    async fn wait_until(&self, from: Timestamp) -> Result<(), Error> {
        let wait = Duration::try_from(from - Timestamp::now()).unwrap_or_default();
        if Instant::now() + wait > self.task.deadline {
            return Err(Error::out_of_time(format!(
                "the certificate is not valid before {from}"
            )));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// A wait that ends while half of what is left of the current certificate is still left: no
    /// issuer's wish is worth an outage.
    fn bounded(&self, until: Timestamp) -> Timestamp {
        let now = Timestamp::now();
        self.current
            .map_or(until, |current| renewal::bounded(until, current.facts.not_after, now))
    }

    /// Until when an order that was resumed may stay as it is: half of the time, so that the rest
    /// is enough for another one. One that was given up already, or that a person does not want to
    /// wait for, is only looked at.
    fn patience(&self, attempt: &Attempt) -> Option<Instant> {
        if attempt.resumed == 0 {
            return None;
        }

        let now = Instant::now();
        let is_older = attempt.began_at.is_none_or(|began_at| began_at < self.task.request.at);
        if attempt.given_up || (self.task.request.force && is_older) {
            return Some(now + LOOK);
        }
        Some(now + self.task.half())
    }

    /// The current version's key, if the inventory wants to keep it and it is not revoked; else a
    /// new one.
    async fn key(&self) -> Result<PrivateKey, Error> {
        let wanted = self.task.wanted;
        let kept = self.current.filter(|current| {
            wanted.reuse_key && current.facts.key == wanted.key_type && *self.reason != Reason::Revoked
        });
        if let Some(Current { facts, .. }) = kept {
            let found = version::private_key(&self.task.services.store, facts).await?;
            return found.ok_or_else(|| {
                let key = file_key(&facts.name, &facts.version, PRIVKEY);
                Error::Internal(format!("{key} is not there, and reuse_key wants it"))
            });
        }

        // An RSA key takes seconds, and the lease has to be renewed meanwhile.
        let kind = wanted.key_type;
        tokio::task::spawn_blocking(move || PrivateKey::generate(kind))
            .await
            .map_err(|error| Error::Internal(format!("cannot generate a key: {error}")))?
    }

    /// The certificate that the order replaces. It is named only to the issuer and account that it
    /// came from, because all others refuse such an order (RFC 9773, 5).
    async fn replaces(&self, issuer: &Issuer, account: &Account) -> Option<CertificateIdentifier<'static>> {
        let facts = self.current.map(|current| &current.facts)?;
        if facts.issuer.directory != issuer.directory || facts.issuer.account != account.id() {
            return None;
        }

        let leaf = version::leaf(&self.task.services.store, facts).await.ok()?;
        let id = CertificateIdentifier::try_from(&leaf).ok()?;
        Some(id.into_owned())
    }
}

/// None of the issuers issued.
fn nobody_issued(missed: &[Miss]) -> Error {
    let problems: Vec<_> = missed.iter().map(Miss::to_string).collect();
    let problem = problems.join("\n");
    // An issuer that named no time may be asked again sooner than the earliest of the others.
    let retry_after = missed
        .iter()
        .map(|miss| miss.retry_after)
        .collect::<Option<Vec<_>>>()
        .and_then(|waits| waits.into_iter().min());

    if missed.iter().all(Miss::is_known) {
        Error::IssuersInTrouble { problem, retry_after }
    } else if missed.iter().all(|miss| miss.is_declined) {
        match retry_after {
            Some(until) => Error::Unfit { problem, until },
            None => Error::CaDeclined(problem),
        }
    } else {
        Error::CaUnavailable { problem, retry_after }
    }
}

/// How long an order that does not move is looked at once more.
const LOOK: Duration = Duration::from_secs(10);
