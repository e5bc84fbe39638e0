//! How many endpoints are probed at the same time.

use std::fs;

/// The number that was requested, or the usual one, unless the limit on open files allows fewer.
///
/// Without files enough, a connection that cannot be opened would look like a server that does
/// not answer.
pub(super) fn concurrency(requested: Option<u32>) -> usize {
    let wanted = requested.unwrap_or(USUAL) as usize;
    let Some(files) = open_files() else {
        return wanted;
    };
    let possible = possible(files);
    if wanted <= possible {
        return wanted;
    }

    let possible = possible.max(1);
    if let Some(requested) = requested {
        eprintln!(
            "warning: --concurrency {requested} is lowered to {possible}, because only {files} files may be open\n\
             hint: run `ulimit -n {}` first",
            wanted * FILES_PER_ENDPOINT + OTHER_FILES
        );
    }
    possible
}

fn possible(files: usize) -> usize {
    files.saturating_sub(OTHER_FILES) / FILES_PER_ENDPOINT
}

/// The limit on open files, where the system has it in a file.
fn open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    soft.split_whitespace().next()?.parse().ok()
}

const USUAL: u32 = 200;
/// One each for its A and AAAA look-ups, later one for its connection.
const FILES_PER_ENDPOINT: usize = 2;
/// Standard streams, the runtime, name servers, revocation lists.
const OTHER_FILES: usize = 64;
