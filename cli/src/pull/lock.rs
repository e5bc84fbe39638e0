//! One run at a time: a lock on the state's folder.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};

use super::guard::{NOFOLLOW, guarded};

/// Held as long as it lives. The kernel releases it however the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, and waits up to `limit` for another run to end. Creates the folder if it is
    /// missing. `None` if another run still holds it.
    pub(crate) async fn take(folder: &Path, limit: Duration) -> Result<Option<Self>> {
        let deadline = Instant::now() + limit;
        loop {
            match Self::try_take(folder)? {
                None if Instant::now() < deadline => sleep(PAUSE).await,
                taken => return Ok(taken),
            }
        }
    }

    /// What to say when another run holds it.
    pub(crate) fn is_held(folder: &Path) -> String {
        format!("another run is at work (it holds {})", folder.join(NAME).display())
    }

    /// `None` while another run holds it.
    fn try_take(folder: &Path) -> Result<Option<Self>> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        guarded(folder)?;

        let path = folder.join(NAME);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NOFOLLOW)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;

        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

const NAME: &str = "lock";
const PAUSE: Duration = Duration::from_millis(200);
