//! Versioned JSON as the bucket holds it, and what a run does with it: the report, the page, the
//! memory of alerts, and what each channel makes of them.
//!
//! An input is a few documents, one per line. Bytes are changed by libFuzzer, and values by the
//! same table that the library's own tests use.

#![no_main]

#[path = "../../shared/tests/sibling/mod.rs"]
mod sibling;

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};
use neverlapse::alert::{Composed, Memory, Run, Sender, Watchlist, amazon_q, compose, slack, sns};
use neverlapse::bucket::document::{self, Document};
use neverlapse::bucket::receipt::Receipt;
use neverlapse::bucket::version::{Current, Manifest, made_at};
use neverlapse::delivery::{Stored, StoredReceipt, not_renewed, reports};
use neverlapse::finding::Code;
use neverlapse::inventory::Inventory;
use neverlapse::renewal::{Renewal, RenewalFailure, decide};
use neverlapse::report::page::page;
use neverlapse::report::{Report, StoredVersion};
use neverlapse::timestamp;
use neverlapse::timestamp::Timestamp;
use serde_json::Value;

const NOW: Timestamp = timestamp!(2026-11-24 06:00 UTC);
const INVENTORY: &str = "[[certificate]]\nidentifiers = [\"shop.test\"]\nserved_at = [\"shop.test\"]\n";

fuzz_target!(|data: &[u8]| -> Corpus {
    let mut stored = Stored {
        current: Ok(None),
        renewal: Ok(None),
        receipts: Ok(Vec::new()),
        history: Ok(Vec::new()),
    };
    let mut report = Report::new(NOW, NOW, Vec::new());
    let mut memory = Memory::Blank;
    let mut is_any = false;
    for line in data.split(|byte| *byte == b'\n').take(16) {
        let Some(schema) = schema(line) else { continue };
        is_any = true;
        match schema.as_str() {
            Current::SCHEMA => stored.current = read(line),
            Renewal::SCHEMA => stored.renewal = read(line),
            Manifest::SCHEMA => {
                let version = |manifest: Manifest| StoredVersion {
                    facts: (&manifest.facts).into(),
                    current: false,
                };
                let manifest = read::<Manifest>(line);
                stored.history = manifest.map(|manifest| manifest.into_iter().map(version).collect());
            }
            Receipt::SCHEMA => {
                let instance = format!("AROA:i-{}", stored.receipts.as_ref().map_or(0, Vec::len));
                let receipt = Receipt::read("shop.test", &instance, line);
                if let Ok(receipts) = &mut stored.receipts {
                    receipts.push(StoredReceipt { instance, receipt });
                }
            }
            neverlapse::report::SCHEMA => report = document::read(line).unwrap_or(report),
            _ => memory = Memory::read(line),
        }
    }
    if !is_any {
        return Corpus::Reject;
    }

    let inventory = Inventory::parse(INVENTORY);
    let certificate = &inventory.certificates[0];
    let current = stored.current.as_ref().ok().and_then(Option::as_ref);
    let renewal = stored.renewal.as_ref().ok().and_then(Option::as_ref);
    let decision = decide(&inventory.issuers, certificate, current, renewal, None, NOW);
    let _ = decision.to_string();
    if let Some(current) = current {
        made_at(&current.facts.version);
        report.certificates.push(not_renewed(&current.facts, false, NOW));
    }
    if let Some(renewal) = renewal {
        let again = RenewalFailure::next(renewal.failure.as_ref(), String::new(), None, NOW);
        assert!(again.next_try > NOW);
    }

    report
        .certificates
        .extend(reports(&inventory.certificates, &[stored], &report.endpoints, NOW));
    page(&report, Some("prod")).expect("a page");
    let sender = Sender::of("prod", "arn:aws:sns:eu-central-1:123456789012:alerts", "bucket");
    for hour in 0..3 {
        let run = Run {
            outcome: Ok(&report),
            watchlist: &Watchlist::of(&inventory),
            weekly: true,
        };
        let now = NOW + time::Duration::hours(hour * 12);
        let Composed {
            news, state, digest, ..
        } = compose(&run, &memory, &sender, now);
        // Isolation hides a panic from the run, and must not hide it here.
        let mut codes = news.notices.iter().map(|notice| &notice.incident.code);
        assert!(codes.all(|code| *code != Code::NotJudged));
        if let Some(digest) = digest {
            assert!(!digest.subject.contains("cannot say what it found"));
            assert!(digest.subject.len() < 100 && !digest.subject.is_empty());
            assert!(
                digest
                    .subject
                    .bytes()
                    .all(|byte| byte == b' ' || byte.is_ascii_graphic())
            );
            let text = digest.text(&sender, 60_000);
            assert!(
                !text.contains("neverlapse itself failed") && text.len() <= 60_000,
                "{text}"
            );
            assert!(sns::bodies(&digest, &sender).len() <= sns::LIMIT);
            amazon_q::custom_notification(&digest, &sender);
            for block in slack::message(&digest, &sender)["blocks"].as_array().expect("blocks") {
                let text = block["text"]["text"].as_str().unwrap_or_default();
                assert!(
                    text.encode_utf16().count() <= 3_000 && !text.contains(['<', '>']),
                    "{text}"
                );
            }
        }
        let written = serde_json::to_vec(&state).expect("a state is JSON");
        memory = Memory::read(&written);
        assert!(matches!(&memory, Memory::Known(read) if *read == state));
    }
    Corpus::Keep
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // Now and then a value of one document becomes one of the table.
    let lines: Vec<_> = data[..size].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let line = seed as usize / 2 % lines.len().max(1);
    if seed.is_multiple_of(2)
        && let Ok(document) = serde_json::from_slice::<Value>(&lines[line])
    {
        let mut siblings = sibling::siblings(&document);
        let (_, sibling) = siblings.swap_remove((seed >> 8) as usize % siblings.len());
        let mut lines = lines;
        lines[line] = sibling;
        let mutated = lines.join(&b'\n');
        if mutated.len() <= max_size && mutated.len() <= data.len() {
            data[..mutated.len()].copy_from_slice(&mutated);
            return mutated.len();
        }
    }
    fuzzer_mutate(data, size, max_size)
});

fn schema(line: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(line).ok()?;
    document["schema"].as_str().map(str::to_owned)
}

fn read<T: Document>(json: &[u8]) -> Result<Option<T>, String> {
    document::read(json).map(Some).map_err(|error| error.to_string())
}
