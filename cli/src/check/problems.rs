//! What could not be understood in files and inventories.

use std::io::{Write, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::ProgressBar;

/// Reports each problem at once, counts it, and keeps the first thousand for the report.
///
/// Targets are read on a thread of their own while others are probed, so it is shared by both.
pub(super) struct Problems {
    progress: ProgressBar,
    count: AtomicU64,
    first: Mutex<Vec<String>>,
}

impl Problems {
    /// None so far. What is printed goes above the progress bar.
    pub(super) fn new(progress: ProgressBar) -> Arc<Self> {
        Arc::new(Self {
            progress,
            count: AtomicU64::new(0),
            first: Mutex::new(Vec::new()),
        })
    }

    pub(super) fn add(&self, problem: String) {
        let line = format!("error: {problem}\n");
        // A closed standard error is no reason to stop.
        let _ = self.progress.suspend(|| stderr().write_all(line.as_bytes()));

        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < KEPT {
            first.push(problem);
        }
        self.count.fetch_add(1, Ordering::Release);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The first thousand, in the order in which they were found.
    pub(super) fn first(&self) -> Vec<String> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

const KEPT: usize = 1_000;
