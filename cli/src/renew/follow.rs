//! Follows a request: the renewer notes in the certificate's record how far it is.

use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use neverlapse::bucket::store::{self, Store};
use neverlapse::delivery;
use neverlapse::inventory::Managed;
use neverlapse::renewal::request::Request;
use neverlapse::renewal::{Renewal, RequestProgress, RequestStage};
use neverlapse::text::printable;
use neverlapse::timestamp::Timestamp;
use tokio::signal::ctrl_c;
use tokio::time::{Instant, sleep, timeout};

use super::answer::Answer;

/// Prints each step as it comes, until the request is answered, `timeout` is over, or Ctrl-C.
pub(super) async fn follow(
    store: &Store,
    certificate: &Managed,
    request: &Request,
    longest: Duration,
) -> Result<Answer> {
    eprintln!("requested; waiting for the renewer (Ctrl-C ends the waiting, not the renewal)");
    let mut last = None;
    let answered = async {
        let mut interrupt = pin!(ctrl_c());
        loop {
            tokio::select! {
                _ = &mut interrupt => return Ok(Answer::Interrupted),
                () = sleep(POLL) => {}
            }
            match look(store, request).await? {
                Seen::Nothing => {}
                Seen::Other(at) => return Ok(Answer::Overtaken { at }),
                Seen::Step(step) => {
                    if last.as_ref() != Some(&step) {
                        eprintln!("{}", printable(&step));
                        last = Some(step);
                    }
                }
                Seen::End(progress) => {
                    let is_published = progress.stage == RequestStage::Done && !request.dry_run;
                    let pulled = if is_published {
                        pulled(store, certificate).await
                    } else {
                        None
                    };
                    return Ok(Answer::Renewer { progress, pulled });
                }
            }
        }
    };

    match timeout(longest, answered).await {
        Ok(answer) => answer,
        Err(_) => Ok(Answer::Nothing { last }),
    }
}

/// What the record says of a request.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Step(String),
    End(RequestProgress),
    /// A later request has taken its place.
    Other(Timestamp),
}

async fn look(store: &Store, request: &Request) -> Result<Seen, store::Error> {
    let record = store.document::<Renewal>(&Renewal::key(&request.name)).await?;
    Ok(seen(record.and_then(|record| record.value.request), request.at))
}

fn seen(progress: Option<RequestProgress>, at: Timestamp) -> Seen {
    match progress {
        None => Seen::Nothing,
        Some(progress) if progress.at < at => Seen::Nothing,
        Some(progress) if progress.at > at => Seen::Other(progress.at),
        Some(progress) if progress.stage == RequestStage::UnderWay => Seen::Step(progress.text),
        Some(progress) => Seen::End(progress),
    }
}

/// How many of the instances that are known have the current version. Nothing if that cannot be
/// read: the certificate is issued all the same.
async fn pulled(store: &Store, certificate: &Managed) -> Option<String> {
    let certificates = std::slice::from_ref(certificate);
    let stored = delivery::read(store, certificates, &[], Instant::now() + READ).await;
    let reports = delivery::reports(certificates, &stored, &[], Timestamp::now());
    let report = reports.first()?;
    let have = report
        .instances
        .iter()
        .filter(|instance| instance.version.as_deref() == report.version());
    Some(format!(
        "pulled by {} of {} instances",
        have.count(),
        report.instances.len()
    ))
}

const POLL: Duration = Duration::from_secs(1);
const READ: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use neverlapse::timestamp;

    #[test]
    fn only_its_own_request_is_followed() {
        let at = timestamp!(2026-11-26 12:00 UTC);
        let progress = |seconds, stage| {
            Some(RequestProgress {
                at: at + time::Duration::seconds(seconds),
                noted_at: at,
                stage,
                text: "x".to_owned(),
            })
        };
        assert_eq!(seen(None, at), Seen::Nothing);
        assert_eq!(seen(progress(-1, RequestStage::Done), at), Seen::Nothing);
        assert_eq!(
            seen(progress(0, RequestStage::UnderWay), at),
            Seen::Step("x".to_owned())
        );
        assert!(matches!(seen(progress(0, RequestStage::Failed), at), Seen::End(_)));
        assert!(matches!(seen(progress(1, RequestStage::UnderWay), at), Seen::Other(_)));
    }
}
