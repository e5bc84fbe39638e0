//! The renewer function: a request names a certificate; if it is due, the renewer orders it by
//! ACME, proves control by TXT records in Route 53, and publishes the result in the bucket.
//!
//! An [`event`] is a batch of requests, and [`renew`] tells the story of one of them. It reads a
//! certificate's [`history`] and the CA's renewal information to decide whether it is due, takes
//! the lease in the [`bucket`], orders by [`acme`] with proof in [`dns`], and has the chain checked
//! before it is published. The result is an [`outcome`] or an [`error`], and [`notify`] remembers
//! it and notifies people.

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
mod services;
mod settings;

use aws_lambda_events::sqs::SqsEvent;
use lambda_runtime::{LambdaEvent, service_fn, tracing};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing::init_default_subscriber();
    let settings = settings::Settings::from_environment(|name| std::env::var(name).ok())?;
    let renewer = renew::Renewer::new(settings, neverlapse::aws::config().await?);
    lambda_runtime::run(service_fn(|event: LambdaEvent<SqsEvent>| {
        event::handle(&renewer, event)
    }))
    .await
}
