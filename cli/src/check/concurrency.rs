//! How many endpoints are probed at the same time.

use rustix::process::{Resource, getrlimit};

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

/// The limit on open files, if there is one.
fn open_files() -> Option<usize> {
    getrlimit(Resource::Nofile).current?.try_into().ok()
}

const USUAL: u32 = 200;
/// One each for its A and AAAA look-ups, later one for its connection.
const FILES_PER_ENDPOINT: usize = 2;
/// Standard streams, the runtime, name servers, revocation lists.
const OTHER_FILES: usize = 64;
