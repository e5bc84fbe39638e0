//! Lines for a person and for the journal, with a priority where systemd reads them (sd-daemon(3)).

use std::io::{Write, stderr, stdout};

/// Where lines go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journal {
    to_systemd: bool,
}

impl Journal {
    pub(crate) fn open() -> Self {
        Self {
            to_systemd: std::env::var_os("JOURNAL_STREAM").is_some(),
        }
    }

    /// What was done.
    pub(crate) fn info(self, line: &str) {
        let _ = writeln!(stdout(), "{}{line}", self.priority("<6>"));
    }

    /// What was not done, while the installed version goes on working.
    pub(crate) fn warning(self, line: &str) {
        let _ = writeln!(stderr(), "{}warning: {line}", self.priority("<4>"));
    }

    /// What to set or to run about the line before.
    pub(crate) fn hint(self, line: &str) {
        let _ = writeln!(stderr(), "{}hint: {line}", self.priority("<4>"));
    }

    /// What needs a person.
    pub(crate) fn error(self, line: &str) {
        let _ = writeln!(stderr(), "{}error: {line}", self.priority("<3>"));
    }

    fn priority(self, priority: &'static str) -> &'static str {
        if self.to_systemd { priority } else { "" }
    }
}
