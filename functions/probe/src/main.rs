//! The probe function: an event names what to probe, the answer is the report, and SNS gets what is
//! wrong.

mod alerts;
mod archive;
mod error;
mod event;
mod metrics;
mod probe;
mod requests;
mod scope;
mod settings;

use lambda_runtime::{LambdaEvent, service_fn, tracing};
use serde_json::Value;

use self::probe::Probe;
use self::settings::Settings;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing::init_default_subscriber();
    let settings = Settings::from_environment(|name| std::env::var(name).ok())?;
    let probe = Probe::new(settings, &neverlapse::aws::config().await?);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| probe.handle(event))).await
}
