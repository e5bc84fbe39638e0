//! The probe function: an event names what to look at, the answer is the report, and SNS hears what is wrong.

mod alerts;
mod archive;
mod event;
mod metrics;
mod renew;
mod run;
mod settings;

use lambda_runtime::{LambdaEvent, service_fn, tracing};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing::init_default_subscriber();
    let settings = settings::Settings::from_environment(|name| std::env::var(name).ok())?;
    let run = run::Run::new(settings, &neverlapse::aws::config().await)?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| run.handle(event))).await
}
