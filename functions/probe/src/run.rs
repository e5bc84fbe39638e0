//! One run: inventory, probe, digest, report.

use std::time::{Duration, SystemTime};

use lambda_runtime::tracing::{error, info, warn};
use lambda_runtime::{Diagnostic, LambdaEvent};
use neverlapse::alert::state::Circle;
use neverlapse::alert::{Digest, Sender, Topic};
use neverlapse::bucket::store::Store;
use neverlapse::chain::roots::Roots;
use neverlapse::delivery;
use neverlapse::finding::Severity;
use neverlapse::inventory::{Inventory, Problem};
use neverlapse::probe::{Options, Prober, Target};
use neverlapse::report::Report;
use neverlapse::resolve;
use neverlapse::timestamp::Timestamp;
use serde_json::Value;
use thiserror::Error;
use tokio::join;
use tokio::time::Instant;

use crate::alerts::{self, Alerts};
use crate::archive;
use crate::event::Event;
use crate::metrics;
use crate::renew;
use crate::settings::Settings;

/// Everything that outlives one event.
pub(crate) struct Run {
    settings: Settings,
    store: Store,
    sns: aws_sdk_sns::Client,
    alerts: Alerts,
}

/// Why a run failed; the variant is what Lambda shows as `errorType`.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("{0}")]
    InvalidEvent(String),
    #[error("{0}")]
    InventoryUnreadable(String),
    #[error("{0}")]
    InventoryEmpty(String),
    #[error("cannot probe: {0}")]
    ProbeFailed(#[from] resolve::Error),
    #[error(transparent)]
    Alert(#[from] alerts::Error),
    #[error("{0}")]
    RenewalNotRequested(String),
    #[error("cannot write the report: {0}")]
    ReportNotWritten(String),
    #[error("cannot write the report as JSON: {0}")]
    ReportInvalid(#[from] serde_json::Error),
}

/// What a run is to look at.
struct Looking {
    targets: Vec<Target>,
    mistakes: Vec<Problem>,
    inventory: Inventory,
    /// Whether a person wrote it, or it is the template's `Domains`.
    is_written: bool,
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        let error_type = match error {
            Error::InvalidEvent(_) => "InvalidEvent",
            Error::InventoryUnreadable(_) => "InventoryUnreadable",
            Error::InventoryEmpty(_) => "InventoryEmpty",
            Error::ProbeFailed(_) => "ProbeFailed",
            Error::Alert(alerts::Error::NotSent(_)) => "AlertNotSent",
            Error::Alert(alerts::Error::NotRemembered(_)) => "AlertNotRemembered",
            Error::Alert(alerts::Error::SlackNotTold(_)) => "SlackNotTold",
            Error::RenewalNotRequested(_) => "RenewalNotRequested",
            Error::ReportNotWritten(_) => "ReportNotWritten",
            Error::ReportInvalid(_) => "ReportInvalid",
        };
        Self {
            error_type: error_type.to_owned(),
            error_message: error.to_string(),
        }
    }
}

impl Run {
    pub(crate) fn new(settings: Settings, config: &aws_config::SdkConfig) -> Result<Self, Error> {
        let store = Store::new(aws_sdk_s3::Client::new(config), settings.bucket.clone());
        let sns = aws_sdk_sns::Client::new(config);
        let alerts = Alerts {
            store: store.clone(),
            topic: Topic::new(sns.clone(), &settings.alert_topic),
            sender: Sender::of(&settings.stack, &settings.alert_topic, &settings.bucket),
            weekly: settings.weekly,
        };
        Ok(Self {
            store,
            sns,
            alerts,
            settings,
        })
    }

    /// Looks, judges, tells. A run that could not look at anything is told too, and is an error. Who asks for a few endpoints reads
    /// the answer; nobody else is told, and nothing is remembered.
    pub(crate) async fn handle(&self, event: LambdaEvent<Value>) -> Result<Value, Error> {
        let deadline = Instant::now() + time_for_probing(event.context.deadline());
        let event = Event::read(&event.payload).map_err(Error::InvalidEvent)?;
        let is_whole = event == Event::Everything;
        let (report, inventory) = match self.report(event, deadline).await {
            Ok(seen) => seen,
            Err(failed) => {
                error!(error = %failed, "the run could not look at anything");
                if is_whole {
                    let (reason, now) = (failed.to_string(), Timestamp::now());
                    self.alerts.tell(Err(&reason), &Circle::default(), now).await?;
                }
                return Err(failed);
            }
        };
        log(&report);
        // Before anything that could fail: a run that is not counted alarms.
        if is_whole {
            let Settings {
                stack,
                thresholds,
                endpoint_metrics,
                ..
            } = &self.settings;
            let lines = metrics::lines(&report, stack, thresholds.critical_days, *endpoint_metrics);
            lines.iter().for_each(|line| println!("{line}"));
        }
        let now = Timestamp::now();
        let told = match is_whole {
            true => self.alerts.tell(Ok(&report), &Circle::of(&inventory), now).await,
            false => Ok(()),
        };
        // Nobody's renewal waits for an alert that cannot be sent, nor the report for either.
        let requested = match &self.settings.renewal_topic {
            Some(topic) => {
                let requests = renew::requests(&inventory.certificates, &report, now);
                let published = renew::publish(&self.sns, topic, requests).await;
                published.map_err(Error::RenewalNotRequested)
            }
            None => Ok(()),
        };
        let kept = match is_whole {
            true => self.keep(&report, now).await,
            false => Ok(()),
        };
        told?;
        requested.and(kept)?;
        Ok(serde_json::to_value(report.fitting(RESPONSE_BYTES))?)
    }

    /// Writes the report to the bucket, or tells that it cannot.
    async fn keep(&self, report: &Report, now: Timestamp) -> Result<(), Error> {
        let sender = &self.alerts.sender;
        let place = format!("{} in {}", sender.stack, sender.region);
        let Err(problem) = archive::keep(&self.store, report, &place).await else {
            return Ok(());
        };
        error!(problem, "the report could not be written");
        let text = format!(
            "neverlapse looked at everything, but its report could not be written: {problem}\n\n\
             What stands in reports/ in the bucket is older. Other alerts are not affected."
        );
        let subject = "WARNING: neverlapse cannot write its report";
        let digest = Digest::plain(subject, &text, Severity::Warning, now);
        self.alerts.publish(&digest).await?;
        Err(Error::ReportNotWritten(problem))
    }

    async fn report(&self, event: Event, deadline: Instant) -> Result<(Report, Inventory), Error> {
        let is_whole = event == Event::Everything;
        let Looking {
            targets,
            mistakes,
            inventory,
            is_written,
        } = self.targets(event).await?;
        // A prober a run: its caches of addresses and revocation lists must not outlive it.
        let prober = Prober::new(Options {
            nameserver: self.settings.nameserver,
            revocation: self.settings.revocation,
            ..Options::default()
        })?;
        let certificates = &inventory.certificates;
        let stored = async {
            let before = match certificates.is_empty() {
                true => Vec::new(),
                false => archive::certificates(&self.store).await,
            };
            delivery::read(&self.store, certificates, &before, deadline).await
        };
        let left_out = async {
            // What is missing from an inventory with mistakes may be one of them.
            match is_whole && inventory.problems.is_empty() {
                true => delivery::left_out(&self.store, certificates, deadline).await,
                false => (Vec::new(), Vec::new()),
            }
        };
        let (mut report, stored, left_out) = join!(prober.report(targets, deadline), stored, left_out);
        report.mistakes = mistakes;
        let now = Timestamp::now();
        report.certificates = delivery::reports(certificates, &stored, &report.endpoints, now);
        let (left_out, problems) = left_out;
        let left_out = left_out
            .iter()
            .map(|current| delivery::not_renewed(current, !is_written, now));
        report.certificates.extend(left_out);
        report.mistakes.extend(problems.into_iter().map(Problem::new));
        Ok((report, inventory))
    }

    async fn targets(&self, event: Event) -> Result<Looking, Error> {
        let (mut inventory, is_written) = self.inventory().await?;
        if let Event::Some(endpoints) = event {
            inventory = only(inventory, endpoints);
        }
        let roots = self.roots().await?;
        let (targets, unusable) = Target::all(&inventory, &roots, async |key: &str| self.pem(key).await).await;
        let mistakes: Vec<_> = inventory.problems.iter().cloned().chain(unusable).collect();
        if targets.is_empty() && inventory.certificates.is_empty() {
            let mistakes = mistakes
                .iter()
                .map(|mistake| format!("; {mistake}"))
                .collect::<String>();
            let reason = format!(
                "there is nothing to look at. Write an inventory.toml to s3://{} or set the template's Domains.{mistakes}",
                self.settings.bucket
            );
            return Err(Error::InventoryEmpty(reason));
        }
        Ok(Looking {
            targets,
            mistakes,
            inventory,
            is_written,
        })
    }

    /// The bucket's `inventory.toml`, else the template's `Domains`; and whether it is the former.
    async fn inventory(&self) -> Result<(Inventory, bool), Error> {
        let written = self
            .store
            .inventory()
            .await
            .map_err(|error| Error::InventoryUnreadable(error.to_string()))?;
        Ok(match written {
            Some(text) => (Inventory::parse_with(&text, self.settings.thresholds), true),
            None => (
                Inventory::of_endpoints(&self.settings.domains, self.settings.thresholds),
                false,
            ),
        })
    }

    async fn roots(&self) -> Result<Roots, Error> {
        let public = Roots::public();
        let Some(key) = &self.settings.trust_bundle else {
            return Ok(public);
        };
        let unreadable = |problem: String| Error::InventoryUnreadable(format!("trust bundle {key:?}: {problem}"));
        let pem = self.pem(key).await.map_err(unreadable)?;
        public.with_pem(&pem).map_err(|error| unreadable(error.to_string()))
    }

    async fn pem(&self, key: &str) -> Result<Vec<u8>, String> {
        match self.store.object(key).await {
            Ok(Some(pem)) => Ok(pem),
            Ok(None) => Err(format!(
                "no such object in s3://{} (expected a PEM file)",
                self.settings.bucket
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The endpoints that were asked for, with what the inventory says of them.
fn only(inventory: Inventory, endpoints: Vec<Result<neverlapse::endpoint::Endpoint, String>>) -> Inventory {
    let mut asked = Inventory {
        thresholds: inventory.thresholds,
        ..Inventory::default()
    };
    for endpoint in endpoints {
        match endpoint {
            Ok(endpoint) => asked.watch_as_in(&inventory, endpoint),
            Err(problem) => asked.problems.push(Problem::new(problem)),
        }
    }
    asked
}

/// One line a finding, none for what is well.
fn log(report: &Report) {
    for endpoint in &report.endpoints {
        for (address, finding) in endpoint.all_findings() {
            let address = address.map(|address| address.to_string());
            let (code, severity) = (finding.kind.code().as_str(), finding.severity.to_string());
            warn!(endpoint = %endpoint.endpoint, address, code, severity, message = %finding.message);
        }
    }
    for certificate in &report.certificates {
        for finding in &certificate.findings {
            let (code, severity) = (finding.kind.code().as_str(), finding.severity.to_string());
            warn!(certificate = %certificate.name, code, severity, message = %finding.message);
        }
    }
    for mistake in &report.mistakes {
        warn!(mistake = mistake.to_string(), "the inventory has a mistake");
    }
    let counts = report.counts;
    let not_reached = report.not_reached.len();
    info!(
        ok = counts.ok,
        warning = counts.warning,
        critical = counts.critical,
        unknown = counts.unknown,
        not_reached,
        "run finished"
    );
}

/// What Lambda leaves, less what telling takes.
fn time_for_probing(deadline: SystemTime) -> Duration {
    let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
    left.saturating_sub(TELLING.min(left / 3))
}

const TELLING: Duration = Duration::from_secs(15);
/// Lambda's limit for an answer is 6 MB.
const RESPONSE_BYTES: usize = 4_500_000;
