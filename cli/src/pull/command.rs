//! The server's own commands: run under a time limit, their words kept.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::timeout;

/// Program and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) words: Vec<String>,
}

impl Program {
    /// Runs it to its end; the error says what it said.
    pub(crate) async fn run(&self, limit: Duration) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot run {self}: {error}");
        // A file in memory: a disk may be full, and a pipe would stay open in the hands of a daemon that it starts.
        let mut said =
            File::from(memfd_create("neverlapse", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?);
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::null()).process_group(0);
        command
            .stdout(said.try_clone().map_err(failed)?)
            .stderr(said.try_clone().map_err(failed)?);
        for (variable, _) in std::env::vars_os().filter(|(name, _)| is_ours(&name.to_string_lossy())) {
            command.env_remove(variable);
        }
        let mut child = command.spawn().map_err(failed)?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let ended = timeout(limit, child.wait()).await;
        let status = match ended {
            Ok(status) => status.map_err(failed)?,
            Err(_) => {
                if let Some(group) = group {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait().await;
                return Err(format!(
                    "{self} took longer than {} s{}",
                    limit.as_secs(),
                    words(&mut said)
                ));
            }
        };
        match (status.success(), status.code(), status.signal()) {
            (true, ..) => Ok(()),
            (_, Some(code), _) => Err(format!("{self} ended with {code}{}", words(&mut said))),
            (_, _, signal) => Err(format!(
                "{self} was ended by signal {}{}",
                signal.unwrap_or(0),
                words(&mut said)
            )),
        }
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.words[..] {
            [shell, flag, line] if shell == "/bin/sh" && flag == "-c" => write!(f, "`{line}`"),
            words => write!(f, "`{}`", words.join(" ")),
        }
    }
}

/// The end of what it said, in one line.
fn words(said: &mut File) -> String {
    let length = said.seek(SeekFrom::End(0)).unwrap_or(0);
    let mut end = Vec::new();
    let _ = said.seek(SeekFrom::Start(length.saturating_sub(KEPT)));
    let _ = said.take(KEPT).read_to_end(&mut end);
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.join("; ") {
        nothing if nothing.is_empty() => nothing,
        lines => format!(": {}", neverlapse::text::printable(&lines)),
    }
}

/// Our credentials are none of a server's business.
fn is_ours(variable: &str) -> bool {
    variable.starts_with("AWS_")
}

const KEPT: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Program {
        Program {
            words: vec!["/bin/sh".into(), "-c".into(), line.into()],
        }
    }

    #[tokio::test]
    async fn the_end_of_a_program_in_words() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("exit 0").run(long).await, Ok(()));
        for (program, expected) in [
            (
                shell("echo out; echo; echo err >&2; exit 7"),
                "`echo out; echo; echo err >&2; exit 7` ended with 7: out; err",
            ),
            (shell("kill -TERM $$"), "`kill -TERM $$` was ended by signal 15"),
            (
                Program {
                    words: vec!["/no/such/program".into()],
                },
                "cannot run `/no/such/program`: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(program.run(long).await, Err(expected.to_owned()));
        }
    }

    #[tokio::test]
    async fn a_program_that_never_ends_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let program = shell(&format!("sleep 600 & echo $! > {}; wait", file.display()));
        let error = program.run(Duration::from_secs(1)).await.unwrap_err();
        assert!(error.contains("took longer than 1 s"), "{error}");
        let child = std::fs::read_to_string(file).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        for _ in 0..300 {
            if stat().is_empty() || stat().contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("its child lives");
    }

    #[tokio::test]
    async fn a_daemon_that_it_leaves_behind_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let program = shell(&format!("sleep 600 & echo $! > {}", file.display()));
        assert_eq!(program.run(Duration::from_secs(60)).await, Ok(()));
        let child = std::fs::read_to_string(file).unwrap();
        let ended = std::process::Command::new("kill").arg(child.trim()).status().unwrap();
        assert!(ended.success(), "it was still there");
    }
}
