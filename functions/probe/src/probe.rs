//! The probe: everything that outlives one event, and what it does with each of them.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use lambda_runtime::LambdaEvent;
use lambda_runtime::tracing::{error, info, warn};
use neverlapse::alert::{Digest, Sender, Topic, Watchlist};
use neverlapse::bucket::store::Store;
use neverlapse::delivery;
use neverlapse::finding::Severity;
use neverlapse::inventory::{Inventory, Problem};
use neverlapse::probe::{Options, Prober};
use neverlapse::report::Report;
use neverlapse::timestamp::Timestamp;
use serde_json::Value;
use tokio::join;
use tokio::time::Instant;

use crate::alerts::Alerts;
use crate::archive;
use crate::error::Error;
use crate::event::Event;
use crate::metrics;
use crate::requests;
use crate::scope::Scope;
use crate::settings::Settings;

/// Settings and clients, which are made once, before the first event.
pub(crate) struct Probe {
    settings: Settings,
    store: Store,
    sns: aws_sdk_sns::Client,
    alerts: Alerts,
}

impl Probe {
    pub(crate) fn new(settings: Settings, config: &SdkConfig) -> Self {
        let store = Store::new(aws_sdk_s3::Client::new(config), settings.bucket.clone());
        let sns = aws_sdk_sns::Client::new(config);
        let alerts = Alerts {
            store: store.clone(),
            topic: Topic::new(sns.clone(), &settings.alert_topic),
            sender: Sender::of(&settings.stack, &settings.alert_topic, &settings.bucket),
            weekly: settings.weekly,
        };
        Self {
            settings,
            store,
            sns,
            alerts,
        }
    }

    /// Observes, notifies, requests renewals and archives the report, which is also the answer.
    ///
    /// A run over a few endpoints sends no alert, remembers nothing and archives nothing: whoever
    /// requested it has the answer. A run over the whole inventory that could observe nothing sends
    /// an alert before it fails.
    pub(crate) async fn handle(&self, event: LambdaEvent<Value>) -> Result<Value, Error> {
        let deadline = Instant::now() + time_for_probing(event.context.deadline());
        let event = Event::read(&event.payload).map_err(Error::InvalidEvent)?;
        let is_whole = event == Event::Everything;

        let (report, inventory) = match self.observe(event, deadline).await {
            Ok(observed) => observed,
            Err(failed) => {
                error!(error = %failed, "the run could not look at anything");
                if is_whole {
                    let reason = failed.to_string();
                    let nothing = Watchlist::default();
                    self.alerts.notify(Err(&reason), &nothing, Timestamp::now()).await?;
                }
                return Err(failed);
            }
        };
        log(&report);
        if is_whole {
            // Before anything that could fail: a run that is not counted raises an alarm.
            self.print_metrics(&report);
        }

        // An alert that cannot be sent stops no renewal, and neither of them stops the report.
        let now = Timestamp::now();
        let notified = if is_whole {
            self.alerts.notify(Ok(&report), &Watchlist::of(&inventory), now).await
        } else {
            Ok(())
        };
        let requested = self.request(&inventory, &report, now).await;
        let archived = if is_whole {
            self.archive(&report, now).await
        } else {
            Ok(())
        };

        notified?;
        requested?;
        archived?;
        Ok(serde_json::to_value(report.fitting(RESPONSE_BYTES))?)
    }

    /// Probes the endpoints, and meanwhile reads what the bucket knows of managed certificates.
    async fn observe(&self, event: Event, deadline: Instant) -> Result<(Report, Inventory), Error> {
        let is_whole = event == Event::Everything;
        let scope = Scope::read(event, &self.store, &self.settings).await?;
        let certificates = &scope.inventory.certificates;

        // Each run has its own prober: caches of addresses and revocation lists must not outlive it.
        let prober = Prober::new(Options {
            nameserver: self.settings.nameserver,
            revocation: self.settings.revocation,
            ..Options::default()
        })?;
        let stored = async {
            let before = if certificates.is_empty() {
                Vec::new()
            } else {
                archive::certificates(&self.store).await
            };
            delivery::read(&self.store, certificates, &before, deadline).await
        };
        let left_out = async {
            // A certificate that is missing from an inventory with problems may be one of them.
            if is_whole && scope.inventory.problems.is_empty() {
                delivery::left_out(&self.store, certificates, deadline).await
            } else {
                (Vec::new(), Vec::new())
            }
        };
        let (mut report, stored, (left_out, unreadable)) =
            join!(prober.report(scope.targets, deadline), stored, left_out);

        let now = Timestamp::now();
        report.certificates = delivery::reports(certificates, &stored, &report.endpoints, now);
        report.certificates.extend(
            left_out
                .iter()
                .map(|current| delivery::not_renewed(current, !scope.is_written, now)),
        );
        report.mistakes = scope.problems;
        report.mistakes.extend(unreadable.into_iter().map(Problem::new));
        Ok((report, scope.inventory))
    }

    /// Prints the metrics to the log, where CloudWatch finds them.
    fn print_metrics(&self, report: &Report) {
        let lines = metrics::lines(
            report,
            &self.settings.stack,
            self.settings.thresholds.critical_days,
            self.settings.endpoint_metrics,
        );
        for line in lines {
            println!("{line}");
        }
    }

    /// Sends the renewer what was observed, if there is a renewer.
    async fn request(&self, inventory: &Inventory, report: &Report, now: Timestamp) -> Result<(), Error> {
        let Some(topic) = &self.settings.renewal_topic else {
            return Ok(());
        };
        let requests = requests::requests(&inventory.certificates, report, now);
        requests::publish(&self.sns, topic, requests)
            .await
            .map_err(Error::RenewalNotRequested)
    }

    /// Writes the report to the bucket, or sends an alert that it could not be written.
    async fn archive(&self, report: &Report, now: Timestamp) -> Result<(), Error> {
        let sender = &self.alerts.sender;
        let place = format!("{} in {}", sender.stack, sender.region);
        let Err(problem) = archive::write(&self.store, report, &place).await else {
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
}

/// One line per finding and problem, none for what is well, and one with the counts.
fn log(report: &Report) {
    for endpoint in &report.endpoints {
        for (address, finding) in endpoint.all_findings() {
            let address = address.map(|address| address.to_string());
            let code = finding.kind.code().as_str();
            let severity = finding.severity.to_string();
            warn!(endpoint = %endpoint.endpoint, address, code, severity, message = %finding.message);
        }
    }
    for certificate in &report.certificates {
        for finding in &certificate.findings {
            let code = finding.kind.code().as_str();
            let severity = finding.severity.to_string();
            warn!(certificate = %certificate.name, code, severity, message = %finding.message);
        }
    }
    for mistake in &report.mistakes {
        warn!(mistake = mistake.to_string(), "the inventory has a mistake");
    }

    let counts = report.counts;
    info!(
        ok = counts.ok,
        warning = counts.warning,
        critical = counts.critical,
        unknown = counts.unknown,
        not_reached = report.not_reached.len(),
        "run finished"
    );
}

/// The time that Lambda leaves, less what alerts, requests and the archive take.
fn time_for_probing(deadline: SystemTime) -> Duration {
    let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
    left.saturating_sub(AFTER_PROBING.min(left / 3))
}

const AFTER_PROBING: Duration = Duration::from_secs(15);
/// Lambda's limit for an answer is 6 MB.
const RESPONSE_BYTES: usize = 4_500_000;
