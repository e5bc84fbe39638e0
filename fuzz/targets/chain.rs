//! Chains as servers send them: what is signed may be hostile too, so the target is a CA itself,
//! and signs what the fuzzer wants in its certificates.

#![no_main]

mod hostile;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use neverlapse::chain::{Criteria, KeyUse, Verdict, judge};
use neverlapse::finding::{Severity, Thresholds};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

fuzz_target!(|data: &[u8]| {
    let mut wish = Unstructured::new(data);
    let chain = if wish.arbitrary().unwrap_or(false) {
        hostile::chain(&mut wish).unwrap_or_default()
    } else {
        wish.take_rest()
            .chunks(1_500)
            .map(|der| CertificateDer::from(der.to_vec()))
            .collect()
    };
    let verdict = judged(&chain);

    // What is trusted, or has nothing wrong with it, has a leaf.
    assert!(!verdict.trusted || verdict.leaf.is_some());
    if verdict.leaf.is_none() {
        assert!(chain.is_empty() || !verdict.findings.is_empty());
    }
    let is_fine = verdict
        .findings
        .iter()
        .all(|finding| finding.severity < Severity::Critical);
    assert!(chain.is_empty() || verdict.trusted || !is_fine, "{verdict:?}");
    for finding in &verdict.findings {
        let json = serde_json::to_string(finding).expect("a finding is JSON");
        serde_json::from_str::<neverlapse::finding::Finding>(&json).expect("and is read back");
    }
});

fn judged(chain: &[CertificateDer<'_>]) -> Verdict {
    judge(
        chain,
        &Criteria {
            name: &ServerName::try_from("a.test").expect("a name"),
            roots: hostile::roots(),
            thresholds: Thresholds::default(),
            now: hostile::NOW,
            key_use: KeyUse::Signs,
            has_staple: None,
        },
    )
}
