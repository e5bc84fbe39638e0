//! Where targets come from: arguments, a file read line by line, or an inventory.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use neverlapse::endpoint::Endpoint;
use neverlapse::inventory::Inventory;
use neverlapse::probe::{Target, Thresholds};
use neverlapse::roots::Roots;
use neverlapse::store::{INVENTORY, Store};

use crate::check::Arguments;

/// Everything there is to look at.
pub(crate) struct Source {
    pub(crate) targets: Targets,
    /// How many, where that is known before the end.
    pub(crate) expected: Option<u64>,
    /// What of an inventory could not be understood.
    pub(crate) mistakes: Vec<String>,
}

/// Targets, read as they are needed: a file of any length takes no more memory than a line.
pub(crate) struct Targets {
    pub(crate) iterator: Box<dyn Iterator<Item = Target>>,
    /// Lines of the file that are no endpoint; each has been reported when it was met.
    pub(crate) skipped: Arc<AtomicU64>,
}

impl Source {
    pub(crate) async fn open(arguments: &Arguments, roots: Roots) -> Result<Self> {
        let thresholds = arguments.thresholds(Thresholds::default());
        let shared = Arc::new(roots.clone());
        let mut targets: Vec<_> = arguments
            .endpoints
            .iter()
            .map(|endpoint| plain(endpoint.clone(), &shared, thresholds))
            .collect();
        let mut mistakes = Vec::new();
        if let Some(place) = &arguments.inventory {
            let (listed, wrong) = inventory(place, arguments, &roots).await?;
            if listed.is_empty() && wrong.is_empty() {
                bail!("the inventory {place} has nothing to look at (expected [[endpoint]] or [[certificate]])");
            }
            targets.extend(listed);
            mistakes = wrong;
        }
        let skipped = Arc::new(AtomicU64::new(0));
        let Some(path) = &arguments.file else {
            let expected = Some(targets.len() as u64);
            return Ok(Self {
                targets: Targets {
                    iterator: Box::new(targets.into_iter()),
                    skipped,
                },
                expected,
                mistakes,
            });
        };
        let (reader, lines) = open(path)?;
        let expected = lines.map(|lines| lines + targets.len() as u64);
        let read = endpoints(reader, path.display().to_string(), skipped.clone());
        let iterator = Box::new(
            targets
                .into_iter()
                .chain(read.map(move |read| plain(read, &shared, thresholds))),
        );
        Ok(Self {
            targets: Targets { iterator, skipped },
            expected,
            mistakes,
        })
    }
}

fn plain(endpoint: Endpoint, roots: &Arc<Roots>, thresholds: Thresholds) -> Target {
    Target {
        endpoint,
        sni: None,
        addresses: Vec::new(),
        roots: roots.clone(),
        thresholds,
    }
}

/// The file, and its number of lines unless it can be read only once.
fn open(path: &Path) -> Result<(Box<dyn BufRead>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(stdin())), None));
    }
    let open = || {
        File::open(path)
            .map(BufReader::new)
            .with_context(|| format!("cannot read --file {}", path.display()))
    };
    let lines = open()?.split(b'\n').count() as u64;
    Ok((Box::new(open()?), Some(lines)))
}

/// One endpoint a line. A bad line is reported with its number, and stops nothing.
fn endpoints(reader: Box<dyn BufRead>, name: String, skipped: Arc<AtomicU64>) -> impl Iterator<Item = Endpoint> {
    reader.split(b'\n').enumerate().filter_map(move |(index, line)| {
        let complain = |problem: &str| {
            eprintln!("error: {name} line {}: {problem}", index + 1);
            skipped.fetch_add(1, Ordering::Relaxed);
            None
        };
        let line = match line {
            Ok(line) => line,
            Err(error) => return complain(&error.to_string()),
        };
        let Ok(line) = std::str::from_utf8(&line) else {
            return complain("not UTF-8");
        };
        let text = line.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            return None;
        }
        text.parse().map_or_else(
            |error: neverlapse::endpoint::ParseError| complain(&error.to_string()),
            Some,
        )
    })
}

async fn inventory(place: &str, arguments: &Arguments, roots: &Roots) -> Result<(Vec<Target>, Vec<String>)> {
    let (text, store) = read(place).await?;
    let mut inventory = Inventory::parse(&text);
    for watched in &mut inventory.watched {
        watched.thresholds = arguments.thresholds(watched.thresholds);
    }
    let beside = Path::new(place).parent().map(Path::to_owned).unwrap_or_default();
    let load = async |ca: &str| match &store {
        Some(store) => {
            let pem = store.object(ca).await.map_err(|error| error.to_string())?;
            pem.ok_or_else(|| "no such object in the bucket (expected a PEM file)".to_owned())
        }
        None => local(&beside, ca),
    };
    let (targets, unusable) = inventory.targets(roots, load).await;
    let mistakes = inventory.mistakes.iter().chain(&unusable);
    Ok((targets, mistakes.map(|mistake| format!("{place} {mistake}")).collect()))
}

async fn read(place: &str) -> Result<(String, Option<Store>)> {
    let Some(rest) = place.strip_prefix("s3://") else {
        let text = std::fs::read_to_string(place).with_context(|| format!("cannot read --inventory {place}"))?;
        return Ok((text, None));
    };
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let key = if key.is_empty() { INVENTORY } else { key };
    let store = Store::new(aws_sdk_s3::Client::new(&neverlapse::client::config().await), bucket);
    match store.text(key).await? {
        Some(text) => Ok((text, Some(store))),
        None => bail!("there is no s3://{bucket}/{key}"),
    }
}

fn local(beside: &Path, ca: &str) -> Result<Vec<u8>, String> {
    let path: PathBuf = beside.join(ca);
    std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
