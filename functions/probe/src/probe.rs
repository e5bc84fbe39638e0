//! The probe: everything that outlives one event, and what it does with each of them.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use lambda_runtime::LambdaEvent;
use lambda_runtime::tracing::{error, info, warn};
use neverlapse::alert::{Digest, Sender, Topic, Watchlist};
use neverlapse::bucket::store::Store;
use neverlapse::delivery;
use neverlapse::endpoint::Endpoint;
use neverlapse::finding::Severity;
use neverlapse::inventory::{Inventory, Problem, Source};
use neverlapse::isolation::{Panicked, isolated, isolated_async};
use neverlapse::probe::{Options, Prober, Target};
use neverlapse::report::{EndpointReport, Report};
use neverlapse::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::join;
use tokio::time::Instant;

use crate::alerts::Alerts;
use crate::archive;
use crate::error::Error;
use crate::event::Event;
use crate::metrics;
use crate::requests;
use crate::scope::{self, Scope};
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

    /// Observes what the event means, and answers with the report.
    pub(crate) async fn handle(&self, event: LambdaEvent<Value>) -> Result<Value, Error> {
        let deadline = Instant::now() + time_for_probing(event.context.deadline());
        let report = match Event::read(&event.payload).map_err(Error::InvalidEvent)? {
            Event::Renewals => return self.request_alone().await,
            Event::Everything => self.run(deadline).await?,
            Event::Endpoints(endpoints) => self.answer(endpoints, deadline).await?,
        };
        Ok(serde_json::to_value(report.fitting(RESPONSE_BYTES))?)
    }

    /// A run over the whole inventory: observes, notifies, requests renewals and archives the
    /// report. One that could observe nothing sends an alert before it fails.
    async fn run(&self, deadline: Instant) -> Result<Report, Error> {
        let observed = isolated_async(self.observe_everything(deadline)).await;
        let observed = observed.unwrap_or_else(|panicked| Err(panic_in("probe", panicked)));
        let (report, inventory) = match observed {
            Ok(observed) => observed,
            Err(failed) => {
                log_failure(&failed);
                let reason = failed.to_string();
                let nothing = Watchlist::default();
                self.alerts.notify(Err(&reason), &nothing, Timestamp::now()).await?;
                return Err(failed);
            }
        };
        // Before anything that could fail: a run that is not counted raises an alarm.
        let counted = isolated(|| self.print_metrics(&report));
        let logged = isolated(|| log(&report));

        // An alert that cannot be sent stops no renewal, and neither of them stops the report.
        let now = Timestamp::now();
        let watchlist = Watchlist::of(&inventory);
        let notified = isolated_async(self.alerts.notify(Ok(&report), &watchlist, now)).await;
        let requested = isolated_async(self.request(&inventory, &report.endpoints, now)).await;
        let archived = isolated_async(self.archive(&report, now)).await;

        notified.map_err(|panicked| panic_in("send the alert", panicked))??;
        requested.map_err(|panicked| panic_in("request renewals", panicked))??;
        archived.map_err(|panicked| panic_in("write the report", panicked))??;
        counted.map_err(|panicked| panic_in("count the run", panicked))?;
        logged.map_err(|panicked| panic_in("log the run", panicked))?;
        Ok(report)
    }

    /// A run over a few endpoints. It sends no alert, remembers nothing and archives nothing:
    /// whoever requested it has the answer.
    async fn answer(&self, endpoints: Vec<Result<Endpoint, String>>, deadline: Instant) -> Result<Report, Error> {
        let observed = async {
            let scope = Scope::of(endpoints, &self.store, &self.settings).await?;
            let mut report = self.observe(scope.targets, &scope.inventory, deadline).await?;
            report.problems = scope.problems;
            Ok((report, scope.inventory))
        };
        let (report, inventory) = observed.await.inspect_err(log_failure)?;
        log(&report);

        self.request(&inventory, &report.endpoints, Timestamp::now()).await?;
        Ok(report)
    }

    /// Requests renewals without observing anything, between two runs: the renewer then asks the CA
    /// for its renewal information. What is wrong with the inventory, the next run reports.
    async fn request_alone(&self) -> Result<Value, Error> {
        let inventory = scope::inventory(&self.store, &self.settings).await?;
        self.request(&inventory, &[], Timestamp::now()).await?;
        Ok(json!({ "requested": inventory.certificates.len() }))
    }

    /// Observes what is in the inventory, and what was taken out of it.
    async fn observe_everything(&self, deadline: Instant) -> Result<(Report, Inventory), Error> {
        let Scope {
            targets,
            problems,
            inventory,
        } = Scope::read(&self.store, &self.settings).await?;
        let left_out = async {
            // A certificate that is missing from an inventory with problems may be one of them.
            if inventory.problems.is_empty() {
                delivery::left_out(&self.store, &inventory.certificates, deadline).await
            } else {
                (Vec::new(), Vec::new())
            }
        };
        let (report, (left_out, unreadable)) = join!(self.observe(targets, &inventory, deadline), left_out);

        let now = Timestamp::now();
        let mut report = report?;
        for facts in &left_out {
            let is_missing = inventory.source == Source::Domains;
            let left_out = delivery::not_renewed(facts, is_missing, now);
            report.certificates.push(left_out);
        }
        report.problems = problems;
        report.problems.extend(unreadable.into_iter().map(Problem::new));
        Ok((report, inventory))
    }

    /// Probes the targets, and meanwhile reads what the bucket knows of managed certificates.
    async fn observe(&self, targets: Vec<Target>, inventory: &Inventory, deadline: Instant) -> Result<Report, Error> {
        // Each run has its own prober: caches of addresses and revocation lists must not outlive
        // it.
        let prober = Prober::new(Options {
            nameserver: self.settings.nameserver,
            sockets: self.settings.sockets,
            revocation: self.settings.revocation,
            ..Options::default()
        })?;
        let certificates = &inventory.certificates;
        let stored = async {
            let before = if certificates.is_empty() {
                Vec::new()
            } else {
                archive::certificates(&self.store).await
            };
            delivery::read(&self.store, certificates, &before, deadline).await
        };
        let (mut report, stored) = join!(prober.report(targets, deadline), stored);

        report.certificates = delivery::reports(certificates, &stored, &report.endpoints, Timestamp::now());
        Ok(report)
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
    async fn request(&self, inventory: &Inventory, observed: &[EndpointReport], now: Timestamp) -> Result<(), Error> {
        let Some(topic) = &self.settings.renewal_topic else {
            return Ok(());
        };
        let requests = requests::requests(&inventory.certificates, observed, now);
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
            "neverlapse checked everything, but could not write its report: {problem}\n\n\
             The reports in the bucket, under reports/, are older. Other alerts are not affected."
        );
        let subject = "WARNING: neverlapse cannot write its report";
        let digest = Digest::plain(subject, &text, Severity::Warning, now);
        self.alerts.publish(&digest).await?;
        Err(Error::ReportNotWritten(problem))
    }
}

fn panic_in(what: &'static str, panicked: Panicked) -> Error {
    Error::Panicked { what, panicked }
}

fn log_failure(failed: &Error) {
    error!(error = %failed, "the run could not check anything");
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
    for problem in &report.problems {
        warn!(problem = problem.to_string(), "the inventory has an error");
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

/// Webhooks take 30 of them at most, and the alert has to go out still.
const AFTER_PROBING: Duration = Duration::from_secs(45);
/// Lambda's limit for an answer is 6 MB.
const RESPONSE_BYTES: usize = 4_500_000;
