//! The probe function: an event names what to probe, the answer is the report, and SNS gets what is
//! wrong.
//!
//! An [`event`] comes from a schedule or a person, and [`scope`] reads from the inventory what it
//! covers. [`probe`] tells the story of one run: it probes the targets, reads from the bucket how
//! far each managed certificate is, prints [`metrics`], sends [`alerts`], [`requests`] renewals,
//! and keeps the report in the [`archive`]. A run that could observe nothing sends an alert, and
//! ends with an [`error`].

mod alerts;
mod archive;
mod error;
mod event;
mod metrics;
mod probe;
mod requests;
mod scope;
mod settings;

use lambda_runtime::tracing::subscriber::filter::{EnvFilter, LevelFilter};
use lambda_runtime::tracing::subscriber::fmt;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;

use self::probe::Probe;
use self::settings::Settings;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    // The runtime's own subscriber leaves the time out, and without one Lambda takes every line for
    // INFO.
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    fmt()
        .json()
        .with_target(false)
        .with_env_filter(filter.from_env_lossy())
        .init();

    let settings = Settings::from_environment(|name| std::env::var(name).ok())?;
    let probe = Probe::new(settings, &neverlapse::aws::config().await?);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| probe.handle(event))).await
}
