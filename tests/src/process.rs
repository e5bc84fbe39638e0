//! Child processes that end with the value that started them, and all of their children too.

use std::net::TcpListener;
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

/// A process group, killed on drop.
#[derive(Debug)]
pub struct Group {
    child: Child,
}

impl Group {
    /// Starts a command as the leader of its own process group, so that Ctrl-C reaches us and not it.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).process_group(0).kill_on_drop(true).spawn();
        Ok(Self {
            child: child.with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?,
        })
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.child.id() {
            let group = format!("-{id}");
            let _ = std::process::Command::new("kill")
                .args(["-KILL", "--", &group])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Runs a command to its end; its output is the error's text when it fails.
pub async fn run(command: &mut Command) -> Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot start {program}"))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    anyhow::ensure!(output.status.success(), "{program} failed ({}):\n{text}", output.status);
    Ok(text)
}

/// A loopback port that nothing listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
