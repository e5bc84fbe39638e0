//! A file for node_exporter's textfile collector: how far each certificate is on this host.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use neverlapse::bucket::receipt::Receipt;
use neverlapse::finding::Severity;
use neverlapse::timestamp::Timestamp;

use super::folder::read_file;
use super::guard::NOFOLLOW;
use crate::check::prometheus::{describe, sample};

/// How a run ended for one certificate.
pub(crate) struct Ending {
    pub(crate) severity: Severity,
    /// What it reports, sent or not; none before it has ever seen a version.
    pub(crate) receipt: Option<Receipt>,
}

/// Writes the file so that a reader finds the old or the new one.
pub(crate) fn write(path: &Path, endings: &[Ending], now: Timestamp) -> Result<()> {
    let before = read_file(path, LONGEST).unwrap_or_default();
    let before = successes(&String::from_utf8_lossy(&before));
    let mut text = Vec::new();
    print(&mut text, endings, &before, now)
        .and_then(|()| replace(path, &text))
        .with_context(|| format!("cannot write metrics_file = {:?}", path.display().to_string()))
}

fn print(out: &mut impl Write, endings: &[Ending], before: &BTreeMap<String, i64>, now: Timestamp) -> io::Result<()> {
    let receipts: Vec<_> = (endings.iter()).filter_map(|ending| ending.receipt.as_ref()).collect();

    let name = "neverlapse_pull_certificate";
    describe(
        out,
        name,
        "The version that the bucket shows, and how far it is on this host.",
    )?;
    for receipt in &receipts {
        let stage = receipt.stage.to_string();
        let labels: [(_, &dyn std::fmt::Display); 3] = [
            ("certificate", &receipt.name),
            ("version", &receipt.version),
            ("stage", &stage),
        ];
        sample(out, name, &labels, 1)?;
    }

    let name = "neverlapse_pull_not_after_timestamp_seconds";
    describe(out, name, "When the certificate that is installed here ends.")?;
    for receipt in &receipts {
        if let Some(not_after) = receipt.not_after {
            sample(out, name, &[("certificate", &receipt.name)], not_after.unix())?;
        }
    }

    describe(
        out,
        SUCCESS,
        "When a run last found or left this certificate as it is to be.",
    )?;
    for ending in endings {
        let Some(receipt) = &ending.receipt else { continue };
        let succeeded = match ending.severity {
            Severity::Ok => Some(now.unix()),
            Severity::Warning | Severity::Unknown | Severity::Critical => before.get(&receipt.name).copied(),
        };
        if let Some(succeeded) = succeeded {
            sample(out, SUCCESS, &[("certificate", &receipt.name)], succeeded)?;
        }
    }

    let name = "neverlapse_pull_run_timestamp_seconds";
    describe(out, name, "When the last run ended.")?;
    sample(out, name, &[], now.unix())
}

/// When each certificate's last success was, as an earlier run wrote it.
fn successes(text: &str) -> BTreeMap<String, i64> {
    let start = format!("{SUCCESS}{{certificate=\"");
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(&start)?.split_once("\"} "));
    lines
        .filter_map(|(certificate, at)| Some((certificate.to_owned(), at.parse().ok()?)))
        .collect()
}

/// Everybody may read it: the exporter is not root. It reads only names that end in `.prom`.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);

    // Somebody else may own the folder.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .custom_flags(NOFOLLOW)
        .open(&new)?;
    // The unit's umask is 077.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(content)?;

    fs::rename(new, path)
}

const SUCCESS: &str = "neverlapse_pull_success_timestamp_seconds";
/// For a certificate it has some hundred bytes.
const LONGEST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::thread;

    use neverlapse::bucket::receipt::Stage;
    use neverlapse::timestamp;
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    const NOON: Timestamp = timestamp!(2026-10-01 12:00 UTC);

    fn receipt(name: &str, stage: Stage) -> Receipt {
        Receipt {
            schema: Receipt::SCHEMA.to_owned(),
            name: name.to_owned(),
            instance: "web-1".to_owned(),
            host: "web".to_owned(),
            agent: "0".to_owned(),
            version: "v2".to_owned(),
            fingerprint: String::new(),
            stage,
            reason: None,
            installed: None,
            sequence: Some(2),
            not_after: Some(NOON),
            since: NOON,
            at: NOON,
            next_by: NOON,
        }
    }

    #[test]
    fn a_success_is_remembered_while_runs_fail() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("neverlapse.prom");
        let write = |severity, stage, now| {
            let endings = ["a", "b"].map(|name| Ending {
                severity: if name == "a" { severity } else { Severity::Warning },
                receipt: Some(receipt(name, stage)),
            });
            super::write(&file, &endings, now).unwrap();
            fs::read_to_string(&file).unwrap()
        };

        let first = write(Severity::Ok, Stage::Served, NOON);
        let later = write(Severity::Critical, Stage::Failed, NOON + time::Duration::HOUR);
        let success = format!("{SUCCESS}{{certificate=\"a\"}} {}", NOON.unix());
        for text in [&first, &later] {
            assert!(
                text.contains(&success) && !text.contains(&format!("{SUCCESS}{{certificate=\"b\"")),
                "{text}"
            );
        }
        assert!(
            later.contains("neverlapse_pull_certificate{certificate=\"a\",version=\"v2\",stage=\"failed\"} 1"),
            "{later}"
        );
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_in_its_place_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, file] = ["pipe", "neverlapse.prom"].map(|name| folder.path().join(name));
        mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        symlink(&pipe, &file).unwrap();
        let line = format!("{SUCCESS}{{certificate=\"a\"}} 5\n");
        // It waits for a reader, who would wait for ever without it.
        thread::spawn(move || fs::write(pipe, line));

        let endings = [Ending {
            severity: Severity::Warning,
            receipt: Some(receipt("a", Stage::Failed)),
        }];
        super::write(&file, &endings, NOON).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("stage=\"failed\"") && !text.contains("} 5\n"), "{text}");
    }
}
