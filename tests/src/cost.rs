//! What a process takes of the processor and of memory.

use std::io::{Read as _, Seek as _};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// What a process took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// User and system time together.
    pub cpu: Duration,
    /// Of memory, in KiB.
    pub peak: u64,
}

impl Cost {
    /// Of a command that succeeds.
    pub async fn of(mut command: Command) -> Result<Self> {
        let mut errors = tempfile::tempfile()?;
        let mut child = command.stdout(Stdio::null()).stderr(errors.try_clone()?).spawn()?;
        let mut last = Self::so_far(child.id().context("it has ended")?)?;
        // What a process took is gone with it, so the last look counts. Its rest is small.
        while let Some(id) = child.id().filter(|_| matches!(child.try_wait(), Ok(None))) {
            last = Self::so_far(id).unwrap_or(last);
            tokio::time::sleep(OFTEN).await;
        }
        let status = child.wait().await?;
        if !status.success() {
            let mut said = String::new();
            errors.rewind()?;
            errors.read_to_string(&mut said)?;
            bail!("{command:?} ended with {status}:\n{said}");
        }
        Ok(last)
    }

    /// Of a running process: proc(5).
    pub fn so_far(id: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("there is no name in /proc/…/stat")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;

        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.context("a zombie")?.trim().trim_end_matches(" kB").parse()?;
        Ok(Self {
            cpu: Duration::from_millis(ticks * TICK),
            peak,
        })
    }
}

/// In milliseconds, on every Linux.
const TICK: u64 = 10;
const OFTEN: Duration = Duration::from_millis(2);
