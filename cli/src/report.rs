//! `neverlapse report`: the last run's report from the stack's bucket, or a report's JSON as a web
//! page.

use std::fs;
use std::io::{self, Write, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use neverlapse::aws;
use neverlapse::bucket::document::{self, Document};
use neverlapse::bucket::store::{LATEST_JSON, LATEST_PAGE, Store};
use neverlapse::report::page::page;
use neverlapse::report::{Report, SCHEMA};

use crate::stack::{Stack, StackName};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Make the page of a report's JSON instead of fetching one; - for standard input
    #[arg(value_name = "FILE.json", conflicts_with = "bucket")]
    file: Option<PathBuf>,
    /// Fetch from this bucket instead of the stack's
    #[arg(long, value_name = "BUCKET")]
    bucket: Option<String>,
    #[command(flatten)]
    stack: StackName,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Html)]
    format: Format,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The web page
    Html,
    /// The neverlapse.report/1 document
    Json,
}

/// Writes the page or the document. The exit code says nothing about the endpoints in it.
pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let text = match &arguments.file {
        Some(path) => convert(path, arguments.format)?,
        None => fetch(arguments).await?,
    };

    match &arguments.output {
        Some(path) => fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?,
        None => io::stdout().write_all(&text)?,
    }
    Ok(0)
}

/// The page or document of a report in a file, or on standard input for `-`.
fn convert(path: &Path, format: Format) -> Result<Vec<u8>> {
    let (name, text) = if path == Path::new("-") {
        ("standard input".to_owned(), io::read_to_string(stdin()))
    } else {
        (path.display().to_string(), fs::read_to_string(path))
    };
    let text = text.with_context(|| format!("cannot read {name}"))?;

    let report: Report = document::read(text.as_bytes()).with_context(|| {
        format!("{name} is not a report (expected {SCHEMA}, as `neverlapse check --format json` writes it)")
    })?;

    Ok(match format {
        Format::Html => page(&report, None)?.into_bytes(),
        Format::Json => text.into_bytes(),
    })
}

/// The page or document that the probe wrote last.
async fn fetch(arguments: &Arguments) -> Result<Vec<u8>> {
    let store = match &arguments.bucket {
        Some(bucket) => Store::new(aws_sdk_s3::Client::new(&aws::config().await?), bucket),
        None => Stack::find(&arguments.stack).await?.store,
    };

    let key = match arguments.format {
        Format::Html => LATEST_PAGE,
        Format::Json => LATEST_JSON,
    };

    match store.object(key, Report::LONGEST).await? {
        Some(object) => Ok(object),
        None => bail!(
            "there is no s3://{}/{key} yet; the probe writes it at the end of a run over the whole inventory",
            store.bucket()
        ),
    }
}

const EXAMPLES: &str = "\
Examples:
  neverlapse report > report.html
  neverlapse report --stack neverlapse-staging --format json | jq .counts
  neverlapse check --inventory inventory.toml --format json | neverlapse report - --output report.html";
