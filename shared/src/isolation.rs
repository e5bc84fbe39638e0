//! Isolation: an error of our own costs the unit of work in which it happens, and nothing else.
//!
//! What strangers write is parsed and judged in units: an endpoint, a certificate, a receipt, a
//! place in an alert. Should our own code panic in one of them, the run goes on with the others,
//! and reports what it lost like anything else that it could not judge.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt as _;
use thiserror::Error;

use crate::text::{cut, printable};

/// A unit of work has no result, because our own code panicked in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("neverlapse itself failed here ({0}), which is an error in it; everything else was done as usual")]
pub struct Panicked(String);

/// Does a unit of work.
///
/// Nothing of a unit that panicked is used afterwards but what it only read, so a value that it
/// left half changed cannot do harm.
pub fn isolated<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked::with(&*payload))
}

/// Does a unit of work that waits for others.
pub async fn isolated_async<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|payload| Panicked::with(&*payload))
}

impl Panicked {
    /// With the panic's own words, which may quote what the unit worked on.
    fn with(payload: &(dyn Any + Send)) -> Self {
        let words = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(words), _) => words,
            (None, Some(words)) => words.as_str(),
            (None, None) => "without a word",
        };
        Self(printable(&cut(words, LONGEST)))
    }
}

/// Of a panic's words, in characters.
const LONGEST: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_result_with_its_words() {
        let panicked = isolated(|| -> u8 { panic!("odd \u{202e}{}", "x".repeat(900)) }).unwrap_err();
        let words = panicked.to_string();
        assert!(words.contains("odd \\u{202e}xxx") && words.len() < 400, "{words}");

        assert_eq!(isolated(|| 7), Ok(7));
        assert_eq!(isolated_async(async { 7 }).await, Ok(7));
        assert!(
            isolated_async(async { panic!("static") })
                .await
                .is_err_and(|error: Panicked| error.0 == "static")
        );
    }
}
