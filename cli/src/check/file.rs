//! A file of endpoints, one per line.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Read, stdin};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use neverlapse::endpoint::{Endpoint, ParseError};
use neverlapse::text::{from_utf_16, is_utf_16};

use super::problems::Problems;

/// A file that is open, and read as its endpoints are needed: a file of any length takes no more
/// memory than a line.
pub(super) struct EndpointFile {
    reader: Box<dyn BufRead + Send>,
    name: String,
    /// How many lines it has, unless it can be read only once, as a pipe.
    pub(super) line_count: Option<u64>,
}

impl EndpointFile {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self {
                reader: Box::new(BufReader::new(stdin())),
                name: "standard input".to_owned(),
                line_count: None,
            });
        }
        Self::open_path(path).with_context(|| format!("cannot read --file {}", path.display()))
    }

    fn open_path(path: &Path) -> io::Result<Self> {
        let line_count = if fs::metadata(path)?.is_file() {
            Some(count_lines(File::open(path)?)?)
        } else {
            None
        };
        Ok(Self {
            reader: Box::new(BufReader::new(File::open(path)?)),
            name: path.display().to_string(),
            line_count,
        })
    }

    /// Its endpoints. A bad line is reported with its number, and stops nothing.
    pub(super) fn endpoints(self, problems: Arc<Problems>) -> impl Iterator<Item = Endpoint> {
        endpoints(self.reader, self.name, problems)
    }
}

fn endpoints(reader: Box<dyn BufRead + Send>, name: String, problems: Arc<Problems>) -> impl Iterator<Item = Endpoint> {
    let lines = Lines {
        reader,
        has_begun: false,
        failed: false,
    };
    lines.zip(1_u64..).filter_map(move |(line, number)| {
        let endpoint = line.and_then(|line| parse(&line));
        endpoint
            .map_err(|problem| problems.add(format!("{name} line {number}: {problem}")))
            .ok()?
    })
}

/// The endpoint on a line, if there is anything besides white space and a comment.
fn parse(line: &[u8]) -> Result<Option<Endpoint>, String> {
    let text = std::str::from_utf8(line).map_err(|_| format!("not UTF-8 (expected {EXPECTED})"))?;
    let text = text.trim_start_matches(BYTE_ORDER_MARK);
    match text.split('#').next().unwrap_or_default().trim() {
        "" => Ok(None),
        text => with_colon(text)
            .parse()
            .map(Some)
            .map_err(|error: ParseError| error.to_string()),
    }
}

/// `host port` and `host,port`, as the lists of other tools and spreadsheets have it, in our form.
fn with_colon(text: &str) -> Cow<'_, str> {
    match text.split_once([' ', '\t', ',']) {
        Some((host, port)) if port.trim().parse::<u16>().is_ok() => format!("{host}:{}", port.trim()).into(),
        _ => text.into(),
    }
}

/// The lines of a file that may hold anything: no line takes more memory than [`LONGEST`], and
/// after the first read error there are no more.
struct Lines {
    reader: Box<dyn BufRead + Send>,
    has_begun: bool,
    failed: bool,
}

impl Lines {
    /// The next line with its end, or as much of it as is not too long; and whether that is all of
    /// it.
    fn read(&mut self) -> io::Result<(Vec<u8>, bool)> {
        if !self.has_begun {
            self.begin()?;
        }
        let mut line = Vec::new();
        self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
        let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LONGEST;
        if !is_whole {
            self.reader.skip_until(b'\n')?;
        }
        Ok((line, is_whole))
    }

    /// UTF-8 is read as it comes, and UTF-16, as Windows writes lists, whole.
    fn begin(&mut self) -> io::Result<()> {
        self.has_begun = true;
        if !is_utf_16(self.reader.fill_buf()?) {
            return Ok(());
        }
        let mut file = Vec::new();
        self.reader.read_to_end(&mut file)?;
        let text = from_utf_16(&file).unwrap_or_default();
        self.reader = Box::new(Cursor::new(text.into_bytes()));
        Ok(())
    }
}

impl Iterator for Lines {
    type Item = Result<Vec<u8>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }

        match self.read() {
            Ok((line, _)) if line.is_empty() => None,
            Ok((line, true)) => Some(Ok(line)),
            Ok((_, false)) => Some(Err(format!("longer than {LONGEST} bytes (expected {EXPECTED})"))),
            Err(error) => {
                self.failed = true;
                Some(Err(format!("cannot read on: {error}")))
            }
        }
    }
}

fn count_lines(mut file: File) -> io::Result<u64> {
    let mut block = vec![0; 1 << 16];
    let mut count = 0;
    loop {
        match file.read(&mut block)? {
            0 => return Ok(count),
            read => count += block[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}

const LONGEST: u64 = 4_096;
const BYTE_ORDER_MARK: char = '\u{feff}';
const EXPECTED: &str = "one endpoint per line";

#[cfg(test)]
mod tests {
    use indicatif::ProgressBar;

    use super::*;

    fn read(text: &[u8]) -> (Vec<String>, Vec<String>) {
        let problems = Problems::new(ProgressBar::hidden());
        let reader = Box::new(Cursor::new(text.to_vec()));
        let endpoints = endpoints(reader, "names.txt".to_owned(), problems.clone());
        let endpoints = endpoints.map(|endpoint| endpoint.to_string()).collect();
        (endpoints, problems.first())
    }

    #[test]
    fn a_file_as_people_and_spreadsheets_write_it() {
        let text = "\u{feff}a.example\r\n\n# all of them\n  b.example:8443\t# the second\r\nsmtp://c.example\n\
                    d.example 8443\ne.example,\t8443\nhttps://f.example/login\n";
        let (endpoints, problems) = read(text.as_bytes());
        let expected = [
            "a.example:443",
            "b.example:8443",
            "smtp://c.example:25",
            "d.example:8443",
            "e.example:8443",
            "f.example:443",
        ];
        assert_eq!(endpoints, expected);
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn a_file_in_utf_16() {
        let text = "\u{feff}a.example\r\nbücher.example:8443 # ok\r\n";
        for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
            let file: Vec<u8> = text.encode_utf16().flat_map(to_bytes).collect();
            let (endpoints, problems) = read(&file);
            assert_eq!(endpoints, ["a.example:443", "xn--bcher-kva.example:8443"]);
            assert_eq!(problems, Vec::<String>::new());
        }
    }

    #[test]
    fn bad_lines_are_reported_and_stop_nothing() {
        let long = "x".repeat(10_000);
        let text = [
            b"a..b\n".as_slice(),
            b"\xff\xfe\n",
            long.as_bytes(),
            b"\nfine.example\n",
        ]
        .concat();
        let (endpoints, problems) = read(&text);
        assert_eq!(endpoints, ["fine.example:443"]);
        assert_eq!(
            problems,
            [
                "names.txt line 1: invalid endpoint \"a..b\": \"a..b\" is not a domain name \
                 (expected host[:port], [v6]:port, smtp://host[:port] or smtps://host[:port])",
                "names.txt line 2: not UTF-8 (expected one endpoint per line)",
                "names.txt line 3: longer than 4096 bytes (expected one endpoint per line)",
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
        let problems = Problems::new(ProgressBar::hidden());
        let found = endpoints(Box::new(BufReader::new(Broken)), "x".to_owned(), problems.clone()).count();
        assert_eq!(
            (found, problems.first()),
            (0, vec!["x line 1: cannot read on: is a directory".to_owned()])
        );
    }
}
