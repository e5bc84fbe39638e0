//! `inventory.toml`: every problem has a line of its own, and what is understood is consistent.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use neverlapse::alert::Watchlist;
use neverlapse::inventory::Inventory;

fuzz_target!(|text: &str| {
    let inventory = Inventory::parse(text);
    Watchlist::of(&inventory);

    let lines = text.lines().count() + 1;
    for problem in &inventory.problems {
        let words = problem.to_string();
        assert!(!words.contains('\n'), "{words:?}");
        assert!(
            problem.line.is_none_or(|line| (1..=lines).contains(&line)),
            "{problem:?}"
        );
    }
    let mut names = HashSet::new();
    for certificate in &inventory.certificates {
        assert!(names.insert(&certificate.name), "{} is there twice", certificate.name);
        assert!(neverlapse::name::is_folder(&certificate.name));
        assert!(certificate.thresholds.critical_days <= certificate.thresholds.warn_days);
    }
    for watched in &inventory.watched {
        assert!(watched.thresholds.critical_days <= watched.thresholds.warn_days);
    }
});
