//! A command of the server's: it runs under a time limit, and what it writes is kept.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

/// Program and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) words: Vec<String>,
}

/// What a command finds in its environment.
pub(crate) type Variables = BTreeMap<&'static str, String>;

/// Why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandFailure {
    /// In words, with what it wrote.
    pub(crate) reason: String,
    /// Whether it had to be ended.
    pub(crate) timed_out: bool,
}

impl Program {
    /// Runs it to its end, with these variables. The error quotes what it wrote.
    pub(crate) async fn run(&self, variables: &Variables, limit: Duration) -> Result<(), CommandFailure> {
        let output = in_memory().map_err(|error| self.cannot_run(&error))?;
        let stdout = output.try_clone().map_err(|error| self.cannot_run(&error))?;
        let child = self.spawn(variables, Stdio::null(), stdout, &output);
        self.end(child, limit, &output).await
    }

    /// Runs it with something to read, as `/dev/stdin`, and answers with what it wrote. Neither
    /// touches a disk, and the error never quotes them.
    pub(crate) async fn filter(&self, input: &[u8], limit: Duration) -> Result<Vec<u8>, String> {
        let written = self.filtered(input, limit).await;
        written.map_err(|failure| failure.reason)
    }

    async fn filtered(&self, input: &[u8], limit: Duration) -> Result<Vec<u8>, CommandFailure> {
        let stdin = holding(input).map_err(|error| self.cannot_run(&error))?;
        let mut output = in_memory().map_err(|error| self.cannot_run(&error))?;
        let stdout = output.try_clone().map_err(|error| self.cannot_run(&error))?;
        let errors = in_memory().map_err(|error| self.cannot_run(&error))?;
        let child = self.spawn(&Variables::new(), stdin.into(), stdout, &errors);
        self.end(child, limit, &errors).await?;

        let mut written = Vec::new();
        output
            .rewind()
            .and_then(|()| output.read_to_end(&mut written))
            .map_err(|error| self.cannot_run(&error))?;
        Ok(written)
    }

    /// Waits for its end, or kills it with everything that it started. The error quotes `errors`.
    async fn end(&self, child: io::Result<Child>, limit: Duration, errors: &File) -> Result<(), CommandFailure> {
        let mut child = child.map_err(|error| self.cannot_run(&error))?;
        let ended = tokio::select! {
            ended = end_within(limit, &mut child) => ended,
            never = forget_the_middle(errors) => match never {},
        };
        seal(errors);

        let status = match ended {
            Ok(status) => status.map_err(|error| self.cannot_run(&error))?,
            Err(Overdue { is_ended }) => {
                let and = if is_ended { "" } else { ", and could not be ended" };
                return Err(CommandFailure {
                    reason: format!(
                        "{self} took longer than {} s{and}{}",
                        limit.as_secs().max(1),
                        words(errors)
                    ),
                    timed_out: true,
                });
            }
        };
        if status.success() {
            return Ok(());
        }

        let reason = match status.code() {
            Some(code) => format!("{self} ended with {code}{}", words(errors)),
            None => format!(
                "{self} was ended by signal {}{}",
                status.signal().unwrap_or(0),
                words(errors)
            ),
        };
        Err(CommandFailure {
            reason,
            timed_out: false,
        })
    }

    /// Starts it in a process group of its own, without our secrets: a server that it starts would
    /// show them to whoever may see its environment. The other variables of AWS are no secrets, and
    /// a command that uses the AWS CLI needs them.
    fn spawn(&self, variables: &Variables, stdin: Stdio, stdout: File, stderr: &File) -> io::Result<Child> {
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr.try_clone()?)
            .process_group(0);

        for secret in SECRETS {
            command.env_remove(secret);
        }
        command.env("PATH", with_servers(std::env::var_os("PATH")));
        command.envs(variables);
        command.spawn()
    }

    fn cannot_run(&self, error: &io::Error) -> CommandFailure {
        CommandFailure {
            reason: format!("cannot run {self}: {error}"),
            timed_out: false,
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

/// The path to look for programs in, with the folders of servers' programs, which cron leaves out.
fn with_servers(path: Option<OsString>) -> OsString {
    let path = path.unwrap_or_default();
    // An empty one would be the folder that this runs in.
    let mut folders: Vec<_> = env::split_paths(&path)
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect();
    for folder in PATH.map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    // One that cannot be joined is as it was.
    env::join_paths(folders).unwrap_or(path)
}

/// A command that took too long, and was killed.
struct Overdue {
    is_ended: bool,
}

/// Waits for the end of a command, or kills it with everything that it started.
async fn end_within(limit: Duration, child: &mut Child) -> Result<io::Result<ExitStatus>, Overdue> {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Ok(status) = timeout(limit, child.wait()).await {
        return Ok(status);
    }

    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    // One that hangs in the kernel, or that `sudo` runs as another user, does not end.
    let is_ended = timeout(DEATH, child.wait()).await.is_ok();
    Err(Overdue { is_ended })
}

/// A file in memory: a disk may be full, and a pipe would be kept open by a daemon that the command
/// starts.
fn in_memory() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(File::from(memfd_create("neverlapse", flags)?))
}

/// A file in memory that holds something to read.
fn holding(content: &[u8]) -> io::Result<File> {
    let mut file = in_memory()?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Frees the memory of what a command writes, except for its beginning and end, while it runs: one
/// that never stops would fill the memory.
///
/// The command is not slowed down, and no write of it fails, for that could make a server do half
/// of a reload.
async fn forget_the_middle(output: &File) -> Infallible {
    let mut ticks = interval(TICK);
    let mut forgotten = KEPT;

    loop {
        ticks.tick().await;
        let end = length(output).saturating_sub(KEPT);
        if end > forgotten {
            let _ = fallocate(
                output,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                forgotten,
                end - forgotten,
            );
            forgotten = end;
        }
    }
}

/// Has every further write to a command's output fail: a daemon that it leaves behind would fill
/// the memory with what nobody reads.
fn seal(output: &File) {
    // The second one is refused while a process has the file in its address space for writing.
    for seal in [SealFlags::GROW, SealFlags::WRITE] {
        let _ = fcntl_add_seals(output, seal);
    }
}

/// What a command wrote, in one line after a colon: beginning and end.
fn words(output: &File) -> String {
    let length = length(output);
    let text = if length <= 2 * KEPT {
        part(output, 0, length)
    } else {
        format!("{} … {}", part(output, 0, KEPT), part(output, length - KEPT, length))
    };

    if text.is_empty() {
        text
    } else {
        format!(": {}", neverlapse::text::printable(&text))
    }
}

/// The lines between two offsets, in one.
fn part(output: &File, from: u64, to: u64) -> String {
    let mut part = vec![0; usize::try_from(to - from).unwrap_or_default()];
    if output.read_exact_at(&mut part, from).is_err() {
        part.clear();
    }

    let text = String::from_utf8_lossy(&part);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

fn length(output: &File) -> u64 {
    output.metadata().map_or(0, |found| found.len())
}

const PATH: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
const SECRETS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    // The SDK reads it where the one before is missing.
    "SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];
/// A process that can be killed ends in much less.
const DEATH: Duration = Duration::from_secs(5);
/// Of beginning and end each, in bytes.
const KEPT: u64 = 1_000;
/// No more is ever held than a processor writes in this time.
const TICK: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn shell(line: &str) -> Program {
        Program {
            words: vec!["/bin/sh".into(), "-c".into(), line.into()],
        }
    }

    #[tokio::test]
    async fn the_end_of_a_program_in_words() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("exit 0").run(&Variables::new(), long).await, Ok(()));
        let variables = Variables::from([("RENEWED_DOMAINS", "a b".to_owned())]);
        let found = shell("[ \"$RENEWED_DOMAINS\" = 'a b' ]").run(&variables, long).await;
        assert_eq!(found, Ok(()));
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
            assert_eq!(program.run(&Variables::new(), long).await.unwrap_err().reason, expected);
        }
    }

    #[test]
    fn under_cron_the_programs_of_servers_were_not_found() {
        for (path, expected) in [
            (Some("/usr/bin:/bin"), "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"),
            (
                Some("/usr/sbin:/usr/bin"),
                "/usr/sbin:/usr/bin:/usr/local/sbin:/sbin:/bin",
            ),
            (None, "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"),
        ] {
            assert_eq!(with_servers(path.map(OsString::from)), expected);
        }
    }

    #[tokio::test]
    async fn what_goes_through_a_program_is_never_quoted() {
        let long = Duration::from_secs(60);
        // Read twice from its beginning, as a file can be and a pipe cannot.
        let twice = shell("cat /dev/stdin; echo said >&2; cat /dev/stdin");
        assert_eq!(twice.filter(b"in\0put", long).await.unwrap(), b"in\0putin\0put");
        let error = shell("cat; echo said >&2; exit 1").filter(b"secret", long).await;
        assert_eq!(error.unwrap_err(), "`cat; echo said >&2; exit 1` ended with 1: said");
    }

    #[tokio::test]
    async fn a_program_that_never_ends_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let program = shell(&format!("sleep 600 & echo $! > {}; wait", file.display()));
        let error = program
            .run(&Variables::new(), Duration::from_secs(1))
            .await
            .unwrap_err();
        assert!(
            error.timed_out && error.reason.contains("took longer than 1 s"),
            "{error:?}"
        );
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
    async fn one_that_cannot_be_killed_held_the_lock_for_ever() {
        // Without a process group of its own, no signal reaches it.
        let child = Command::new("sleep").arg("600").kill_on_drop(true).spawn();
        let ended = timeout(
            Duration::from_secs(60),
            shell("sleep 600").end(child, Duration::ZERO, &in_memory().unwrap()),
        )
        .await;
        let error = ended.expect("it waits no longer").unwrap_err();
        assert!(error.timed_out);
        assert_eq!(error.reason, "`sleep 600` took longer than 1 s, and could not be ended");
    }

    #[tokio::test]
    async fn what_a_daemon_wrote_after_the_command_filled_the_memory() {
        let program = shell("echo said; exit 1");
        let mut output = in_memory().unwrap();
        let stdout = output.try_clone().unwrap();
        let child = program.spawn(&Variables::new(), Stdio::null(), stdout, &output);
        let error = program.end(child, Duration::from_secs(60), &output).await.unwrap_err();
        assert_eq!(error.reason, "`echo said; exit 1` ended with 1: said");
        // What the daemon has is the same file.
        let error = output.write(b"more").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[tokio::test]
    async fn one_that_never_stops_talking_took_all_memory() {
        let said = File::from(memfd_create("neverlapse", MemfdFlags::CLOEXEC).unwrap());
        let mut talk = std::process::Command::new("yes")
            .stdout(said.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut most = 0;
        let watch = async {
            for _ in 0..200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                most = most.max(said.metadata().unwrap().blocks() * 512);
            }
        };
        tokio::select! {
            () = watch => {}
            never = forget_the_middle(&said) => match never {},
        }
        talk.kill().unwrap();
        talk.wait().unwrap();
        let said_all = length(&said);
        assert!(
            said_all > 4 * most && most < 256 << 20,
            "{most} of {said_all} bytes were held"
        );
        let error = words(&said);
        assert!(
            error.starts_with(": y; y; ") && error.contains(" … ") && error.len() < 7_000,
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_daemon_that_it_leaves_behind_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let program = shell(&format!("sleep 600 & echo $! > {}", file.display()));
        assert_eq!(program.run(&Variables::new(), Duration::from_secs(60)).await, Ok(()));
        let child = std::fs::read_to_string(file).unwrap();
        let ended = std::process::Command::new("kill").arg(child.trim()).status().unwrap();
        assert!(ended.success(), "it was still there");
    }
}
