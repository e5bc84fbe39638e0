//! Where targets come from: arguments, a file read line by line, or an inventory.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write, stderr, stdin};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use neverlapse::bucket::store::{INVENTORY, Store};
use neverlapse::chain::roots::Roots;
use neverlapse::endpoint::{Endpoint, ParseError};
use neverlapse::finding::Thresholds;
use neverlapse::inventory::Inventory;
use neverlapse::probe::Target;
use neverlapse::text::printable;

use crate::check::Arguments;

/// Everything there is to look at.
pub(crate) struct Source {
    /// Read as they are needed: a file of any length takes no more memory than a line.
    pub(crate) targets: Box<dyn Iterator<Item = Target> + Send>,
    /// How many, where that is known before the end.
    pub(crate) expected: Option<u64>,
}

/// What could not be understood: said at once, counted, and the first of it kept for the report.
pub(crate) struct Mistakes {
    progress: ProgressBar,
    count: AtomicU64,
    first: Mutex<Vec<String>>,
}

impl Mistakes {
    pub(crate) fn new(progress: ProgressBar) -> Arc<Self> {
        Arc::new(Self {
            progress,
            count: AtomicU64::new(0),
            first: Mutex::new(Vec::new()),
        })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn first(&self) -> Vec<String> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, mistake: String) {
        let line = format!("error: {mistake}\n");
        // Nobody left to tell is no reason to stop.
        let _ = self.progress.suspend(|| stderr().write_all(line.as_bytes()));
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < KEPT {
            first.push(mistake);
        }
        self.count.fetch_add(1, Ordering::Release);
    }
}

impl Source {
    pub(crate) async fn open(arguments: &Arguments, roots: Roots, mistakes: &Arc<Mistakes>) -> Result<Self> {
        let thresholds = arguments.thresholds(Thresholds::default());
        let shared = Arc::new(roots.clone());
        let mut targets: Vec<_> = arguments
            .endpoints
            .iter()
            .map(|endpoint| plain(endpoint.clone(), &shared, thresholds))
            .collect();
        if let Some(place) = &arguments.inventory {
            targets.extend(inventory(place, arguments, &roots, mistakes).await?);
        }
        let listed = targets.len() as u64;
        let targets = targets.into_iter();
        let Some(path) = &arguments.file else {
            return Ok(Self {
                targets: Box::new(targets),
                expected: Some(listed),
            });
        };
        let (reader, lines) = open(path).with_context(|| format!("cannot read --file {}", path.display()))?;
        let name = match path.to_str() {
            Some("-") => "standard input".to_owned(),
            _ => path.display().to_string(),
        };
        let endpoints = endpoints(reader, name, mistakes.clone());
        Ok(Self {
            targets: Box::new(targets.chain(endpoints.map(move |endpoint| plain(endpoint, &shared, thresholds)))),
            expected: lines.map(|lines| lines + listed),
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

/// The file, and how many lines it has unless it can be read only once, as a pipe.
fn open(path: &Path) -> io::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(stdin())), None));
    }
    let lines = if fs::metadata(path)?.is_file() {
        Some(count_lines(File::open(path)?)?)
    } else {
        None
    };
    Ok((Box::new(BufReader::new(File::open(path)?)), lines))
}

fn count_lines(mut file: File) -> io::Result<u64> {
    let (mut block, mut count) = (vec![0; 1 << 16], 0);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(count),
            read => count += block[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}

/// One endpoint a line. A bad line is reported with its number, and stops nothing.
fn endpoints(reader: impl BufRead, name: String, mistakes: Arc<Mistakes>) -> impl Iterator<Item = Endpoint> {
    let lines = Lines { reader, over: false };
    lines.zip(1_u64..).filter_map(move |(line, number)| {
        let endpoint = line.and_then(|line| parse(&line));
        endpoint
            .map_err(|problem| mistakes.add(format!("{name} line {number}: {problem}")))
            .ok()?
    })
}

/// The endpoint on a line, if there is one beside white space and a comment.
fn parse(line: &[u8]) -> Result<Option<Endpoint>, String> {
    let text = std::str::from_utf8(line).map_err(|_| format!("not UTF-8 (expected {EXPECTED})"))?;
    let text = text.trim_start_matches(BYTE_ORDER_MARK);
    match text.split('#').next().unwrap_or_default().trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|error: ParseError| error.to_string()),
    }
}

/// Lines of a file of which nothing is known: none is longer in memory than [`LONGEST`], and the first error is the last.
struct Lines<R> {
    reader: R,
    over: bool,
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Vec<u8>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let mut line = Vec::new();
        let mut read = self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        let whole = line.ends_with(b"\n") || (line.len() as u64) < LONGEST;
        if read.is_ok() && !whole {
            read = self.reader.skip_until(b'\n');
        }
        match read {
            Ok(_) if line.is_empty() => None,
            Ok(_) if whole => Some(Ok(line)),
            Ok(_) => Some(Err(format!("longer than {LONGEST} bytes (expected {EXPECTED})"))),
            Err(error) => {
                self.over = true;
                Some(Err(format!("cannot read on: {error}")))
            }
        }
    }
}

async fn inventory(place: &str, arguments: &Arguments, roots: &Roots, mistakes: &Mistakes) -> Result<Vec<Target>> {
    let (text, store) = read(place).await?;
    let mut inventory = Inventory::parse(&text);
    for watched in &mut inventory.watched {
        watched.thresholds = arguments.thresholds(watched.thresholds);
    }
    let beside = Path::new(place).parent().unwrap_or(Path::new(""));
    let load = async |ca: &str| match &store {
        Some(store) => {
            let pem = store.object(ca).await.map_err(|error| error.to_string())?;
            pem.ok_or_else(|| "no such object in the bucket (expected a PEM file)".to_owned())
        }
        None => {
            let path = beside.join(ca);
            fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        }
    };
    let (targets, unusable) = Target::all(&inventory, roots, load).await;
    for mistake in inventory.problems.iter().chain(&unusable) {
        mistakes.add(format!("{place} {}", printable(&mistake.to_string())));
    }
    if targets.is_empty() && mistakes.count() == 0 {
        bail!("the inventory {place} has nothing to look at (expected [[endpoint]] or [[certificate]])");
    }
    Ok(targets)
}

/// An inventory's text, and the bucket that it came from.
pub(crate) async fn read(place: &str) -> Result<(String, Option<Store>)> {
    let cannot_read = || format!("cannot read {place}");
    let Some(rest) = place.strip_prefix("s3://") else {
        let text = match place {
            "-" => io::read_to_string(stdin()),
            _ => fs::read_to_string(place),
        };
        return Ok((text.with_context(cannot_read)?, None));
    };
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        bail!("invalid inventory {place:?}: the bucket is missing (expected s3://bucket[/key])");
    }
    let key = if key.is_empty() { INVENTORY } else { key };
    let store = Store::new(aws_sdk_s3::Client::new(&neverlapse::aws::config().await), bucket);
    match store.text(key).await? {
        Some(text) => Ok((text, Some(store))),
        None => bail!("there is no object s3://{bucket}/{key} (expected an inventory)"),
    }
}

const KEPT: usize = 1_000;
const LONGEST: u64 = 4_096;
const BYTE_ORDER_MARK: char = '\u{feff}';
const EXPECTED: &str = "one endpoint a line";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> (Vec<String>, Vec<String>) {
        let mistakes = Mistakes::new(ProgressBar::hidden());
        let endpoints = endpoints(text, "names.txt".to_owned(), mistakes.clone());
        let endpoints = endpoints.map(|endpoint| endpoint.to_string()).collect();
        (endpoints, mistakes.first())
    }

    #[test]
    fn a_file_as_people_and_spreadsheets_write_it() {
        let text = "\u{feff}a.example\r\n\n# all of them\n  b.example:8443\t# the second\r\nsmtp://c.example";
        let (endpoints, mistakes) = read(text.as_bytes());
        assert_eq!(endpoints, ["a.example:443", "b.example:8443", "smtp://c.example:25"]);
        assert_eq!(mistakes, Vec::<String>::new());
    }

    #[test]
    fn bad_lines_are_told_and_stop_nothing() {
        let long = "x".repeat(10_000);
        let text = [
            b"a..b\n".as_slice(),
            b"\xff\xfe\n",
            long.as_bytes(),
            b"\nfine.example\n",
        ]
        .concat();
        let (endpoints, mistakes) = read(&text);
        assert_eq!(endpoints, ["fine.example:443"]);
        assert_eq!(
            mistakes,
            [
                "names.txt line 1: invalid endpoint \"a..b\": \"a..b\" is not a domain name \
                 (expected host[:port], [v6]:port or smtp://host[:port])",
                "names.txt line 2: not UTF-8 (expected one endpoint a line)",
                "names.txt line 3: longer than 4096 bytes (expected one endpoint a line)",
            ]
        );
    }

    #[test]
    fn the_first_error_is_the_last() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("is a directory"))
            }
        }
        let mistakes = Mistakes::new(ProgressBar::hidden());
        let found = endpoints(BufReader::new(Broken), "x".to_owned(), mistakes.clone()).count();
        assert_eq!(
            (found, mistakes.first()),
            (0, vec!["x line 1: cannot read on: is a directory".to_owned()])
        );
    }
}
