//! The renewer function: a request names a certificate; if it is due, the renewer orders it by ACME, proves control by TXT records
//! in Route 53, and publishes what comes of it in the bucket.
//!
//! [`renew`] tells the story of one request. A [`record`] is lease and resume point, an [`account`] is what a CA knows us by, an
//! [`order`] goes from identifiers to a chain, a [`zone`] holds the TXT values that [`lookup`] sees through DNS, and [`publish`]
//! looks at the chain before anybody serves it. [`advice`] comes from the CA, a [`revocation`] or a [`rehearsal`] from a person. A
//! [`fault`] says whose it is; [`memory`] keeps it, and people hear of it through [`tell`].

mod acme;
mod bucket;
mod dns;
mod error;
mod event;
mod history;
mod key;
mod notify;
mod outcome;
mod renew;
mod settings;

use aws_lambda_events::sqs::SqsEvent;
use lambda_runtime::{LambdaEvent, service_fn, tracing};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing::init_default_subscriber();
    let settings = settings::Settings::from_environment(|name| std::env::var(name).ok())?;
    let renewer = renew::Renewer::new(settings, neverlapse::aws::config().await);
    lambda_runtime::run(service_fn(|event: LambdaEvent<SqsEvent>| {
        event::handle(&renewer, event)
    }))
    .await
}
