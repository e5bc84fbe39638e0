//! Child processes that end with the value that started them, or with us, however we end; their
//! children too.

use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep};
use tokio::try_join;

/// A command to give to [`Group::start`] or [`run`]: the program, tied to us by a pipe.
///
/// Nobody runs `drop` when a signal ends us, but the system closes our end of the pipe, and that
/// ends the group.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", TETHERED]).arg(program);
    command.stdin(Stdio::piped()).process_group(0).kill_on_drop(true);
    command
}

/// A process group, killed on drop.
#[derive(Debug)]
pub struct Group {
    child: Child,
    id: Option<Pid>,
    _tether: Option<ChildStdin>,
}

impl Group {
    /// Starts a [`command`] as a process group of its own, so that Ctrl-C reaches us and not it.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.spawn().context("cannot start sh")?;
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let tether = child.stdin.take();
        Ok(Self {
            child,
            id,
            _tether: tether,
        })
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The process of the program itself: the last child of the shell that ties it to us.
    pub fn program(&self) -> Result<u32> {
        let shell = self.child.id().context("it has ended")?;
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        let last = children.split_whitespace().last().context("it has not begun")?;
        Ok(last.parse()?)
    }
}

impl Drop for Group {
    /// The tether alone would do; this way they are gone before their folders are.
    fn drop(&mut self) {
        if let Some(id) = self.id.filter(|_| self.is_running()) {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Runs a [`command`] to its end; its output is the error's text when it fails.
pub async fn run(command: &mut Command) -> Result<String> {
    let program = command.as_std().get_args().nth(2).unwrap_or_default();
    let program = program.to_string_lossy().into_owned();
    let (status, text) = outcome(command).await?;
    anyhow::ensure!(status.success(), "{program} failed ({status}):\n{text}");
    Ok(text)
}

/// Runs a [`command`] to its end, for who wants to know how it failed: its status, and its output
/// with its errors after it.
pub async fn outcome(command: &mut Command) -> Result<(ExitStatus, String)> {
    // A group, so that giving up ends it before its folders are removed.
    let mut group = Group::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
    let (status, stdout, stderr) = try_join!(group.child.wait(), all_of(stdout), all_of(stderr))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    Ok((status, text))
}

/// Gives a command its standard input, waits for its end, and returns everything that it printed.
///
/// The command is the program itself, killed with the value that waits for it.
pub async fn output(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input closes it.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    child.wait_with_output().await
}

/// What a command printed. It panics where that is not UTF-8.
pub fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(bytes)),
    }
}

async fn all_of(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// A port that nothing listens on, at any address, and that no other call returns while this
/// process lives.
///
/// The servers that get these ports bind them later, and bind them again when they restart. A port
/// from the system's own range could be given to somebody else in between, as a client's local port
/// for example.
pub fn free_port() -> Result<u16> {
    for port in PORTS {
        let claim = SocketAddr::from_abstract_name(format!("neverlapse-tests-port-{port}"))?;
        let Ok(claim) = UnixListener::bind_addr(&claim) else {
            continue;
        };

        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            // An abstract socket leaves no file behind, and the system closes it when this process
            // ends.
            std::mem::forget(claim);
            return Ok(port);
        }
    }
    bail!("no port from {} to {} is free", PORTS.start(), PORTS.end())
}

/// Polls until `find` finds something, and fails after a minute: longer than anything takes on a
/// busy machine.
pub async fn eventually<T>(what: &str, find: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    eventually_within(A_MINUTE, what, find).await
}

/// Likewise, for what may take longer.
pub async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut find: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let until = Instant::now() + limit;
    let mut pause = SHORTEST;
    loop {
        if let Some(found) = find().await? {
            return Ok(found);
        }
        if Instant::now() > until {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        sleep(pause).await;
        // What has taken long may take some more. Looking costs the time of those who work on it.
        pause = (pause * 5 / 4).min(LONGEST);
    }
}

/// Below the range that systems give to clients and to listeners without a port of their own (on
/// Linux from 32768).
const PORTS: RangeInclusive<u16> = 20_000..=29_999;
const A_MINUTE: Duration = Duration::from_secs(60);
/// Between two looks.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(400);

/// Runs `$0 "$@"` and ends with its status; kills the whole group once standard input is closed.
const TETHERED: &str = r#"
exec 3<&0 </dev/null
(read -r _ <&3; kill -s KILL 0) >/dev/null 2>&1 &
"$0" "$@" 3<&-
status=$?
kill -s KILL $! 2>/dev/null
exit $status
"#;

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with a child of its own, whose process id it writes to `file`.
    fn parent(file: &std::path::Path) -> Command {
        let mut parent = command("sh");
        parent.args(["-c", "sleep 600 & echo $! > \"$0\"; wait"]).arg(file);
        parent
    }

    async fn grandchild(file: &std::path::Path) -> String {
        let started = eventually("the grandchild's start", async || {
            let id = std::fs::read_to_string(file).unwrap_or_default();
            Ok(id.ends_with('\n').then(|| id.trim().to_owned()))
        });
        started.await.unwrap()
    }

    async fn ends(id: &str) {
        let ended = eventually("the grandchild's end", async || {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
        });
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn dropping_a_group_ends_its_grandchildren() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let group = Group::start(&mut parent(&file)).unwrap();
        let id = grandchild(&file).await;
        drop(group);
        ends(&id).await;
    }

    #[tokio::test]
    async fn the_end_of_the_pipe_ends_the_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let mut group = Group::start(&mut parent(&file)).unwrap();
        let id = grandchild(&file).await;
        // What the system does for us when a signal ends us.
        drop(group._tether.take());
        ends(&id).await;
    }

    #[tokio::test]
    async fn giving_up_on_a_run_ends_its_grandchildren() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let mut command = parent(&file);
        let id = tokio::select! {
            _ = run(&mut command) => panic!("it sleeps"),
            id = grandchild(&file) => id,
        };
        ends(&id).await;
    }

    #[tokio::test]
    async fn a_run_returns_output_or_the_reason() {
        let output = run(command("sh").args(["-c", "echo out; echo err >&2"])).await.unwrap();
        assert_eq!(output, "out\nerr\n");
        let error = run(command("sh").args(["-c", "echo because; exit 7"]))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("exit status: 7"), "{error}");
        assert!(error.to_string().contains("because"), "{error}");
        let mut ended = Group::start(&mut command("true")).unwrap();
        let ends = eventually("true's end", async || Ok((!ended.is_running()).then_some(())));
        ends.await.unwrap();
    }

    #[test]
    fn a_free_port_is_returned_once_and_is_free_at_every_address() {
        let taken = free_port().unwrap();
        let _server = TcpListener::bind(("127.0.0.9", taken)).unwrap();

        let ports: Vec<_> = (0..50).map(|_| free_port().unwrap()).collect();

        assert!(ports.is_sorted_by(|one, next| one < next), "{ports:?}");
        assert!(!ports.contains(&taken));
    }
}
