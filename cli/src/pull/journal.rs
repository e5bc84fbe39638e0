//! Lines for a person and for the journal, with a priority where systemd reads them (sd-daemon(3)).

use std::io::{Write, stderr, stdout};
use std::os::fd::AsFd;

use rustix::fs::fstat;

/// Where lines go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journal {
    out: bool,
    err: bool,
}

impl Journal {
    pub(crate) fn open() -> Self {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        Self {
            out: is_journal(&stream, stdout()),
            err: is_journal(&stream, stderr()),
        }
    }

    /// What was done.
    pub(crate) fn info(self, line: &str) {
        let _ = writeln!(stdout(), "{}{line}", priority(self.out, "<6>"));
    }

    /// What was not done, while the installed version goes on working.
    pub(crate) fn warning(self, line: &str) {
        let _ = writeln!(stderr(), "{}warning: {line}", priority(self.err, "<4>"));
    }

    /// What to set or to run about the line before.
    pub(crate) fn hint(self, line: &str) {
        let _ = writeln!(stderr(), "{}hint: {line}", priority(self.err, "<4>"));
    }

    /// What needs a person.
    pub(crate) fn error(self, line: &str) {
        let _ = writeln!(stderr(), "{}error: {line}", priority(self.err, "<3>"));
    }
}

fn priority(to_journal: bool, priority: &'static str) -> &'static str {
    if to_journal { priority } else { "" }
}

/// Whether a stream is the one that systemd connected to the journal: a process further up may have
/// had one, and its variable is inherited by those whose output goes elsewhere (systemd.exec(5),
/// `$JOURNAL_STREAM`).
fn is_journal(stream: &str, file: impl AsFd) -> bool {
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    fstat(file).is_ok_and(|found| device.parse::<u64>() == Ok(found.st_dev) && inode.parse::<u64>() == Ok(found.st_ino))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_parents_journal_put_priorities_into_files() {
        let file = tempfile::tempfile().unwrap();
        let found = file.metadata().unwrap();
        let (device, inode) = (found.dev(), found.ino());
        for (stream, expected) in [
            (format!("{device}:{inode}"), true),
            (format!("{device}:{}", inode + 1), false),
            (format!("{}:{inode}", device + 1), false),
            (inode.to_string(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_journal(&stream, &file), expected, "{stream:?}");
        }
    }
}
