//! How a command prints its result: one set of formats for what is watched, and a smaller one for
//! what a person asks now and then.

use clap::ValueEnum;

/// What endpoints and certificates look like: `check`, `run` and `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people, worst first
    Table,
    /// One neverlapse.report/1 document
    Json,
    /// One endpoint or certificate per line
    Jsonl,
    /// For the textfile collector of node_exporter
    Prometheus,
    /// For Nagios and other users of monitoring plugins
    #[value(alias = "nagios")]
    Plugin,
    /// One self-contained web page
    Html,
}

/// What `plan` and `doctor` find. They have no format for monitoring systems: those ask `status`,
/// which has the state of the renewals too, and calls no service but S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    /// For people
    #[value(alias = "text")]
    Table,
    /// One document
    Json,
    /// One certificate or check per line
    Jsonl,
}
