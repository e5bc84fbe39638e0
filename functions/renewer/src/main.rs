//! The renewer function: a request names a certificate; if it is due, the renewer orders it by
//! ACME, proves control by TXT records in Route 53, and publishes the result in the bucket.
//!
//! An [`event`] is a batch of [`message`]s, each a request, and [`renew`] tells the story of one of
//! them. It reads a certificate's [`history`] and the CA's renewal information to decide whether it
//! is due, takes the lease in the [`bucket`], orders by [`acme`] with proof in [`dns`], and has the
//! chain checked before it is published. The result is an [`outcome`] or an [`error`], and
//! [`notify`] remembers it and notifies people.

mod acme;
mod bucket;
mod dns;
mod error;
mod event;
mod history;
mod key;
mod message;
mod notify;
mod outcome;
mod progress;
mod renew;
mod services;
mod settings;

use aws_lambda_events::sqs::SqsEvent;
use lambda_runtime::tracing::subscriber::filter::{EnvFilter, LevelFilter};
use lambda_runtime::tracing::subscriber::fmt;
use lambda_runtime::{LambdaEvent, service_fn};

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

    let settings = settings::Settings::from_environment(|name| std::env::var(name).ok())?;
    let renewer = renew::Renewer::new(settings, neverlapse::aws::config().await?);
    lambda_runtime::run(service_fn(|event: LambdaEvent<SqsEvent>| {
        event::handle(&renewer, event)
    }))
    .await
}
