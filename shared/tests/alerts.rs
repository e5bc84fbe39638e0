//! What arrives by each channel: valid, small enough, harmless, and something to act on.

use std::net::SocketAddr;

use neverlapse::alert::{
    Change, Digest, Memory, News, Place, Run, Sender, State, Watchlist, amazon_q, decide, digest, slack, sns,
};
use neverlapse::finding::{Finding, Kind, LifetimeRule, Phase, Severity};
use neverlapse::inventory::Inventory;
use neverlapse::observation::Observation;
use neverlapse::report::{CertificateReport, EndpointReport, Report};
use neverlapse::timestamp;
use neverlapse::timestamp::Timestamp;
use serde_json::Value;
use time::Duration;

const NOW: Timestamp = timestamp!(2026-11-24 06:00 UTC);

#[test]
fn every_body_keeps_to_its_schema_and_all_to_the_limit_even_with_5000_findings() {
    let custom = schema(include_str!("schemas/custom-notification.json"));
    let blocks = schema(include_str!("schemas/block-kit.json"));
    for digest in digests() {
        let bodies = sns::bodies(&digest, &sender());
        assert!(bodies.len() <= sns::LIMIT, "{} bytes", bodies.len());
        let bodies: Value = serde_json::from_str(&bodies).unwrap();
        let names: Vec<_> = bodies.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["default", "email", "https", "lambda", "sms", "sqs"]);
        let parsed = |name: &str| serde_json::from_str::<Value>(bodies[name].as_str().unwrap()).unwrap();
        valid(&custom, &parsed("https"));
        valid(&blocks, &slack::message(&digest, &sender()));
        let machine = parsed("sqs");
        assert_eq!(machine["schema"], "neverlapse.alert/1");
        for part in ["123456789012", "eu-central-1", "stack prod"] {
            assert!(bodies["email"].as_str().unwrap().contains(part), "{part}");
        }
        assert!(digest.subject.len() < 100 && digest.subject.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
    }
}

#[test]
fn the_worst_of_5000_come_first_and_the_rest_is_counted() {
    let digest = many();
    assert!(digest.subject.ends_with(" (+4999 more)"), "{}", digest.subject);
    let text = digest.text(&sender(), 20_000);
    assert!(text.len() <= 20_000);
    let (shown, omitted) = text.split_once("\n+").expect("not all fit");
    let omitted: usize = omitted.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(shown.matches("\nCRITICAL  ").count() + omitted, 5_000);
    assert!(text.contains("s3://bucket/reports/latest.html has them all"), "{text}");
    let notification = amazon_q::custom_notification(&digest, &sender()).to_string();
    assert!(notification.contains(" more; s3://bucket/reports/latest.html has them all"));
}

/// One long reason, or a name with many addresses, took the place of all that was found elsewhere,
/// and nobody was notified of that again.
#[test]
fn one_huge_place_hid_all_others() {
    let custom = schema(include_str!("schemas/custom-notification.json"));
    let blocks = schema(include_str!("schemas/block-kit.json"));
    let places: Vec<_> = (1..=9).map(|n| format!("small-{n}.example:443")).collect();
    let mut endpoints = vec![huge("a-huge.example:443")];
    endpoints.extend(places.iter().map(|place| endpoint(place, vec![invalid("it is short")])));
    let today = report(endpoints);

    // The huge one is new too, and the worst; or it is open since the day before.
    let yesterday = report(vec![huge("a-huge.example:443")]);
    let run = Run {
        outcome: Ok(&yesterday),
        watchlist: &Watchlist::default(),
        weekly: false,
    };
    let (_, state) = decide(&run, &Memory::Blank, NOW - Duration::hours(10));
    for (memory, first, count) in [
        (Memory::Blank, "a-huge.example:443", 10),
        (Memory::Known(state), "small-1.example:443", 9),
    ] {
        let (news, _) = turn(&today, &memory);
        assert_eq!(news.notices[0].incident.place, Place::Endpoint(first.into()));
        assert_eq!(news.notices.len(), count);
        let digest = digest(&news, Some(&today), &Watchlist::default(), &sender(), NOW).unwrap();

        let bodies = sns::bodies(&digest, &sender());
        assert!(bodies.len() <= sns::LIMIT, "{} bytes", bodies.len());
        let bodies: Value = serde_json::from_str(&bodies).unwrap();
        let parsed = |name: &str| serde_json::from_str::<Value>(bodies[name].as_str().unwrap()).unwrap();
        let (notification, posted, machine) = (parsed("https"), slack::message(&digest, &sender()), parsed("sqs"));
        valid(&custom, &notification);
        valid(&blocks, &posted);
        assert_eq!(machine["notices"].as_array().unwrap().len(), count);
        assert_eq!(machine["omitted"], 0);

        // A service that takes 8,000 bytes gets the same text as a mail.
        let short = digest.text(&sender(), 8_000);
        assert!(short.len() <= 8_000, "{} bytes", short.len());
        for text in [
            bodies["email"].as_str().unwrap().to_owned(),
            short,
            posted["blocks"].to_string(),
            notification["content"]["description"].to_string(),
        ] {
            let unnamed: Vec<_> = places.iter().filter(|place| !text.contains(*place)).collect();
            assert!(unnamed.is_empty(), "{unnamed:?} in {text}");
            assert!(
                text.contains("a-huge.example:443") && !text.contains("more; "),
                "{text}"
            );
            assert_eq!(text.contains(" and 2990 more)"), count == 10, "{text}");
            assert_eq!(text.contains("Also open"), count == 9, "{text}");
            // What a message ends with is not cut off.
            assert!(text.contains("and that is all"), "{text}");
        }
        for place in &places {
            assert!(machine["notices"].to_string().contains(place), "{place}");
        }
    }
}

/// Ten of them shorten each other, and none is left out as long as there is room for all.
#[test]
fn huge_places_share_the_room() {
    let places: Vec<_> = (1..=10).map(|n| format!("huge-{n}.example:443")).collect();
    let endpoints = places.iter().map(|place| endpoint(place, vec![invalid(&endless())]));
    let digest = said(&report(endpoints.collect()), &Watchlist::default()).unwrap();
    for text in [
        digest.text(&sender(), 10_000),
        slack::message(&digest, &sender()).to_string(),
    ] {
        let unnamed: Vec<_> = places.iter().filter(|place| !text.contains(*place)).collect();
        assert!(unnamed.is_empty(), "{unnamed:?} in {text}");
    }
    let text = digest.text(&sender(), 4_000);
    let (shown, omitted) = text.split_once("\n+").expect("not all fit");
    let omitted: usize = omitted.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(shown.matches("\nCRITICAL  ").count() + omitted, 10);
}

/// A place with 3,000 addresses of 3,001 at which something is wrong, for a reason of 100 KB.
fn huge(name: &str) -> EndpointReport {
    let mut observations = vec![observation(1, Vec::new())];
    for n in 0..3_000_u32 {
        let reason = if n == 0 { endless() } else { "it is short".to_owned() };
        observations.push(Observation {
            address: SocketAddr::from(([10, 0, (n / 256) as u8, n as u8], 443)),
            ..observation(1, vec![invalid(&reason)])
        });
    }
    EndpointReport {
        observations,
        ..endpoint(name, vec![invalid("it is short")])
    }
}

/// Control characters, each of which is written as five.
fn endless() -> String {
    format!("{}, and that is all", "\u{1}".repeat(100_000))
}

fn invalid(reason: &str) -> Finding {
    let reason = reason.to_owned();
    Finding::new(Kind::InvalidChain { reason }, Severity::Critical, NOW)
}

#[test]
fn a_certificate_cannot_mention_link_or_move_the_cursor() {
    let subject = "CN=<!channel> <https://evil.example|log in> \u{1b}[2J\u{202e}&";
    let kind = Kind::SelfSigned {
        subject: subject.into(),
    };
    let found = report(vec![endpoint(
        "a.example:443",
        vec![Finding::new(kind, Severity::Critical, NOW)],
    )]);
    // A place is in the subject and in titles, and somebody may have written it into the report.
    let mut certificate = stuck_certificate(NOW);
    certificate.name = subject.into();
    let mut placed = report(Vec::new());
    placed.certificates = vec![certificate];

    for report in [found, placed] {
        let digest = said(&report, &Watchlist::default()).unwrap();
        let chats = [
            amazon_q::custom_notification(&digest, &sender()),
            slack::message(&digest, &sender()),
        ];
        for text in chats.map(|chat| chat.to_string()) {
            assert!(!text.contains("<!") && !text.contains("<http"), "{text}");
            assert!(text.contains("&lt;!channel&gt;"), "{text}");
        }
        let text = digest.text(&sender(), sns::LIMIT);
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }
}

/// The whole e-mail, as whoever is woken by it reads it.
#[test]
fn an_email_says_what_where_since_when_by_when_and_what_to_do() {
    let inventory = Inventory::parse("[[certificate]]\nidentifiers = [\"shop.example\"]\n");
    let watchlist = Watchlist::of(&inventory);
    let run = |outcome| Run {
        outcome: Ok(outcome),
        watchlist: &watchlist,
        weekly: false,
    };
    let (before, now) = (NOW - Duration::hours(30), NOW);
    let yesterday = report(vec![
        lapsing("old.example:443", before, Duration::days(2)),
        lapsing("blog.example:443", before, Duration::days(11)),
    ]);
    let (_, state) = decide(&run(&yesterday), &Memory::Blank, before);

    let wrong = Kind::NameMismatch {
        expected: "api.example".into(),
        names: vec!["www.example".into(), "example".into()],
    };
    let mut api = endpoint("api.example:443", vec![Finding::new(wrong, Severity::Critical, now)]);
    api.observations.push(observation(2, Vec::new()));
    let mut today = report(vec![
        lapsing("mail.example:443", now, -Duration::HOUR),
        api,
        lapsing("shop.example:443", now, Duration::days(8)),
        lapsing("old.example:443", now, Duration::days(90)),
        lapsing("blog.example:443", now, Duration::days(9)),
    ]);
    today.certificates = vec![stuck_certificate(now)];
    let (news, _) = decide(&run(&today), &Memory::Known(state), now);
    let digest = digest(&news, Some(&today), &watchlist, &sender(), now).unwrap();
    assert_eq!(digest.subject, "CRITICAL: mail.example:443, expired 1 h ago (+3 more)");
    let text = digest.text(&sender(), sns::LIMIT);
    assert_eq!(text, EMAIL);
}

/// An endpoint whose certificate has so long left.
fn lapsing(name: &str, now: Timestamp, left: Duration) -> EndpointReport {
    let not_after = now + left;
    let (threshold_seconds, severity) = match left {
        left if left < Duration::days(3) => (259_200, Severity::Critical),
        _ => (1_209_600, Severity::Warning),
    };
    let soon = Kind::ExpiresSoon {
        not_after,
        threshold_seconds,
    };
    let finding = match left {
        left if left.is_negative() => Some(Finding::new(Kind::Expired { not_after }, Severity::Critical, now)),
        left if left < Duration::days(14) => Some(Finding::new(soon, severity, now)),
        _ => None,
    };
    EndpointReport {
        not_after: Some(not_after),
        seconds_left: Some(left.whole_seconds()),
        ..endpoint(name, finding.into_iter().collect())
    }
}

/// One that its issuer refuses to renew, and that one of its instances cannot install.
fn stuck_certificate(now: Timestamp) -> CertificateReport {
    let refused = "letsencrypt: CAA record for shop.example prevents issuance (urn:ietf:params:acme:error:caa)";
    let (since, next_try, not_after) = (
        now - Duration::hours(26),
        now + Duration::hours(6),
        now + Duration::days(8),
    );
    let version = "20260903T060112Z-5f0c11d2";
    let failed = Kind::RenewalFailed {
        name: "shop.example".into(),
        problem: refused.into(),
        tries: 7,
        since,
        next_try,
    };
    let not_installed = Kind::InstallFailed {
        instance: "i-0a1b2c3d4e5f60713".into(),
        host: "web-3".into(),
        version: version.into(),
        fingerprint: "5f".repeat(32),
        not_after,
        reason: "`nginx -t` failed: cannot load certificate key: permission denied".into(),
        since,
    };
    let findings = [failed, not_installed].map(|kind| Finding::new(kind, Severity::Warning, now));
    serde_json::from_value(serde_json::json!({
        "name": "shop.example", "status": "warning", "identifiers": ["shop.example"], "issuer": "letsencrypt",
        "version": version, "fingerprint": "5f".repeat(32), "not_before": since.rfc3339(), "not_after": not_after.rfc3339(), "findings": findings,
        "renewal": {"problem": refused, "next_try": next_try.rfc3339()},
        "instances": [
            {"instance": "i-0a1b2c3d4e5f60712", "stage": "served"}, {"instance": "i-0a1b2c3d4e5f60713", "stage": "failed"},
        ],
    }))
    .unwrap()
}

const EMAIL: &str = "\
5 endpoints: 2 critical, 2 warning, 1 ok.

CRITICAL  mail.example:443
  - the certificate expired 1 h ago, on 2026-11-24 05:00 UTC (at 192.0.2.1:443) [expired]
    new: first seen in this run
    What to do: renew it with its issuer now, install it at each of these addresses, and reload the server

CRITICAL  api.example:443
  - the certificate is not for api.example, only for www.example, example (at 192.0.2.1:443) [name_mismatch]
    new: first seen in this run
    What to do: install a certificate for this name. If the server has several, check which one it serves for this name (SNI). If the name is no longer used, remove it from the inventory

WARNING  shop.example:443
  - the certificate expires in 8 d, on 2026-12-02 06:00 UTC (at 192.0.2.1:443) [expires_soon]
    new: first seen in this run
    What to do: see what is reported of certificate shop.example: that is the cause
  neverlapse renews it (as certificate shop.example), but the last try failed.

WARNING  certificate shop.example
  - the renewal has failed 7 times since 2026-11-23 04:00 UTC: letsencrypt: CAA record for shop.example prevents issuance (urn:ietf:params:acme:error:caa) (next try: 2026-11-24 12:00 UTC) [renewal_failed]
    new: first seen in this run
    What to do: fix the cause named above; `neverlapse renew shop.example --force` then tries at once
  - i-0a1b2c3d4e5f60713 (web-3) has failed to install version 20260903T060112Z-5f0c11d2 since 2026-11-23 04:00 UTC: `nginx -t` failed: cannot load certificate key: permission denied [install_failed]
    new: first seen in this run
    What to do: fix the cause named above, and run `neverlapse pull --now` on the instance. If the server no longer reads the files of neverlapse, point its configuration at them again, or remove the certificate from pull.toml
  The current version is valid until 2026-12-02 06:00 UTC, and has 8 d left; 1 of 2 instances serve it.

OK  old.example:443
  - resolved: a new certificate is served; it was: the certificate expires in 2 d, on 2026-11-25 00:00 UTC (at 192.0.2.1:443) [expires_soon]
    open for 1 d 6 h, since 2026-11-23 00:00 UTC
  The certificate is valid until 2027-02-22 06:00 UTC.

Also open, and reported before:
  WARNING  blog.example:443: the certificate expires in 9 d, on 2026-12-03 06:00 UTC [expires_soon]

-- 
More on a code in brackets: `neverlapse explain expired`, or docs/findings.md
The full report: s3://bucket/reports/latest.html (`neverlapse report` fetches it)
neverlapse, stack prod in eu-central-1, account 123456789012
";

/// With a rate limit, the advice was to try again with --force.
#[test]
fn a_rate_limit_is_waited_for() {
    let inventory = Inventory::parse("[[certificate]]\nidentifiers = [\"shop.example\"]\n");
    let mut certificate = stuck_certificate(NOW);
    let failure = certificate.renewal.failure.as_mut().unwrap();
    failure.wait_until = Some(timestamp!(2026-11-24 18:30 UTC));
    let mut report = report(vec![lapsing("shop.example:443", NOW, Duration::days(8))]);
    report.certificates = vec![certificate];

    let text = said(&report, &Watchlist::of(&inventory))
        .unwrap()
        .text(&sender(), sns::LIMIT);
    let wait = "What to do: wait until 2026-11-24 18:30 UTC: the CA takes no order before";
    assert!(text.contains(wait), "{text}");
    assert!(!text.contains("--force"), "{text}");
}

#[test]
fn what_is_for_information_is_no_alert() {
    let kind = Kind::LongLifetime {
        days: 398,
        most_days: 200,
        rule: LifetimeRule::CaBrowserForum,
        since: timestamp!(2026-03-15 00:00 UTC),
    };
    let note = Finding::new(kind, Severity::Ok, NOW);
    let report = report(vec![endpoint("a.example:443", vec![note])]);
    let (news, state) = turn(&report, &Memory::Blank);
    assert!(news.is_empty() && state.incidents.is_empty(), "{news:?}");
}

#[test]
fn a_lack_of_ipv6_is_said_once() {
    let mut endpoint = lapsing("a.example:443", NOW, Duration::days(2));
    endpoint.skipped = serde_json::from_str(r#"[{"address": "2001:db8::1", "reason": "", "no_ipv6": true}]"#).unwrap();
    let expiring = report(vec![endpoint.clone()]);
    let fine = report(vec![lapsing("a.example:443", NOW, Duration::days(80))]);
    let mut memory = Memory::Blank;
    for (report, expected) in [(&expiring, true), (&expiring, false), (&fine, false), (&expiring, true)] {
        let (news, state) = turn(report, &memory);
        assert_eq!(news.lacks_ipv6, expected);
        memory = Memory::Known(state);
    }
    let text = said(&expiring, &Watchlist::default())
        .unwrap()
        .text(&sender(), sns::LIMIT);
    assert!(
        text.contains("IPv6 is not checked at a.example:443: this network has none"),
        "{text}"
    );

    // It waits for something else to say.
    endpoint.findings.clear();
    endpoint.observations.iter_mut().for_each(|seen| seen.findings.clear());
    let (news, state) = turn(&report(vec![endpoint]), &Memory::Blank);
    assert!(news.is_empty() && !state.ipv6_noted);
}

#[test]
fn what_an_address_hid_is_not_over() {
    let wrong = || {
        let (expected, names) = ("a.example".to_owned(), vec!["b.example".to_owned()]);
        Finding::new(Kind::NameMismatch { expected, names }, Severity::Critical, NOW)
    };
    let first = report(vec![endpoint("a.example:443", vec![wrong()])]);
    let (_, state) = turn(&first, &Memory::Blank);
    let fine = || observation(2, Vec::new());
    let dark = vec![Finding::network(Kind::ConnectFailed {
        reason: "refused".into(),
    })];
    for (seen, expected) in [
        (vec![observation(1, dark), fine()], vec![]),
        (vec![observation(1, Vec::new()), fine()], vec![Change::Resolved]),
        // Name servers may give out a part of the addresses: once is not gone.
        (vec![fine()], vec![]),
    ] {
        let mut endpoint = endpoint("a.example:443", Vec::new());
        endpoint.observations = seen;
        let (news, _) = turn(&report(vec![endpoint]), &Memory::Known(state.clone()));
        let changes: Vec<_> = news.notices.iter().map(|notice| notice.change).collect();
        assert_eq!(changes, expected);
    }
    let mut nothing = report(Vec::new());
    nothing.not_reached.push("a.example:443".into());
    let (news, after) = turn(&nothing, &Memory::Known(state));
    assert!(
        news.notices.iter().all(|notice| notice.change == Change::Appeared),
        "{news:?}"
    );
    assert_eq!(after.incidents.len(), 2);
}

/// An address was taken for gone although its family could not be looked up, and what was wrong
/// there for over.
#[test]
fn what_dns_did_not_say_is_not_over() {
    let expired = || vec![Finding::new(Kind::Expired { not_after: NOW }, Severity::Critical, NOW)];
    let mut both = endpoint("a.example:443", Vec::new());
    both.observations.push(observation(2, expired()));
    let one = endpoint("a.example:443", Vec::new());
    let unknown = Kind::DnsFailed {
        name: "a.example".to_owned(),
        reason: "its AAAA records: the name server answered SERVFAIL".to_owned(),
        is_answer: false,
    };
    let half = EndpointReport {
        findings: vec![Finding::new(unknown, Severity::Ok, NOW)],
        ..one.clone()
    };

    for (later, expected) in [(half, 0), (one, 1)] {
        let (_, state) = turn(&report(vec![both.clone()]), &Memory::Blank);
        let later = report(vec![later]);
        let (_, state) = turn(&later, &Memory::Known(state));
        let (news, _) = turn(&later, &Memory::Known(state));
        assert_eq!(news.notices.len(), expected);
    }
}

#[test]
fn two_runs_at_once_forget_nothing_of_either() {
    let failing = |name: &str| {
        let kind = Kind::SelfSigned { subject: "CN=x".into() };
        report(vec![endpoint(name, vec![Finding::new(kind, Severity::Critical, NOW)])])
    };
    let (_, ours) = turn(&failing("a.example:443"), &Memory::Blank);
    let (_, theirs) = turn(&failing("b.example:443"), &Memory::Blank);
    let merged = ours.clone().merged(theirs.clone());
    assert_eq!(merged.incidents.len(), 2);
    assert!(merged.incidents.values().all(|incident| incident.notified.is_some()));
    assert_eq!(ours.clone().merged(ours.clone()), ours);
}

#[test]
fn without_memory_even_the_network_is_said_at_once() {
    let dark = vec![Finding::network(Kind::ConnectFailed {
        reason: "refused".into(),
    })];
    let report = report(vec![endpoint("a.example:443", dark)]);
    let lost = Memory::Lost {
        reason: "access denied".into(),
    };
    for (memory, expected) in [
        (Memory::Blank, 0),
        (lost, 2),
        (Memory::Future { schema: "x/2".into() }, 2),
    ] {
        assert_eq!(turn(&report, &memory).0.notices.len(), expected, "{memory:?}");
    }
}

/// Three dead entries out of twenty, each for its own reason, were one outage of the probe's
/// network, without a reason; and a healthy endpoint that failed later joined it in silence.
#[test]
fn a_few_dead_entries_were_an_outage_and_hid_the_next_one() {
    // Each letter is an endpoint: fine, refused, timed out, no such name, not TLS.
    let look = |states: &str| {
        let endpoints = states.chars().enumerate().map(|(number, state)| {
            let kind = match state {
                'f' => None,
                'r' => Some(Kind::ConnectFailed {
                    reason: "connection refused".into(),
                }),
                't' => Some(Kind::TimedOut {
                    phase: Phase::Connect,
                    after_ms: 5_000,
                }),
                'n' => Some(Kind::DnsFailed {
                    name: "x".into(),
                    reason: "no such name (NXDOMAIN)".into(),
                    is_answer: true,
                }),
                _ => Some(Kind::HandshakeFailed {
                    reason: "the server does not speak TLS".into(),
                }),
            };
            let findings = kind.map(Finding::network).into_iter().collect();
            endpoint(&format!("e{number}.example:443"), findings)
        });
        report(endpoints.collect())
    };
    let watchlist = Watchlist::default();

    for (runs, expected) in [
        (vec!["rntffffffffffffffff", "rntffffffffffffffff"], vec!["", "e0 e1 e2"]),
        // Six entries whose servers do not exist yet, and two that speak something else.
        (vec!["nnnnnnhhff", "nnnnnnhhff"], vec!["", "e0 e1 e2 e3 e4 e5 e6 e7"]),
        (vec!["rrrff", "rrrff"], vec!["all", ""]),
        (vec!["rrrfff", "rrrfff"], vec!["", "e0 e1 e2"]),
        (vec!["rrrrff", "rrrrrf", "rrrrrf"], vec!["all", "", "e4"]),
        // Those that are known to fail say nothing about the others.
        (
            vec!["rrfffff", "rrfffff", "rrtttff", "fffffff"],
            vec!["", "e0 e1", "all", "all e0 e1"],
        ),
    ] {
        let mut memory = Memory::Blank;
        let mut said = Vec::new();
        for (day, states) in (0..).zip(&runs) {
            let seen = look(states);
            let run = Run {
                outcome: Ok(&seen),
                watchlist: &watchlist,
                weekly: false,
            };
            let (news, state) = decide(&run, &memory, NOW + Duration::hours(day));
            memory = Memory::Known(state);

            let mut places: Vec<_> = (news.notices.iter())
                .map(|notice| match &notice.incident.place {
                    Place::Endpoint(name) => name.trim_end_matches(".example:443").to_owned(),
                    _ => "all".to_owned(),
                })
                .collect();
            places.sort();
            said.push(places.join(" "));
        }
        assert_eq!(said, expected, "{runs:?}");
    }

    let seen = look("rrttf");
    let news = turn(&seen, &Memory::Blank).0;
    assert_eq!(
        news.notices[0].incident.message,
        "4 of 5 endpoints cannot be reached together: e0.example:443, e1.example:443 (no TCP connection: connection \
         refused); e2.example:443, e3.example:443 (the TCP connection took longer than 5.0 s)"
    );
}

#[test]
fn that_all_is_fine_is_said_once_a_week_and_only_if_it_is_asked_for() {
    let fine = report(vec![endpoint("a.example:443", Vec::new())]);
    let watchlist = Watchlist::default();
    let mut said = 0;
    let mut memory = Memory::Blank;
    for day in 0..21 {
        let run = Run {
            outcome: Ok(&fine),
            watchlist: &watchlist,
            weekly: true,
        };
        let now = NOW + Duration::days(day) - Duration::minutes(day % 2 * 15);
        let (news, state) = decide(&run, &memory, now);
        memory = Memory::Known(state);
        said += digest(&news, Some(&fine), &watchlist, &sender(), now).map_or(0, |digest| {
            assert_eq!(digest.subject, "OK: all 1 endpoints are fine");
            1
        });
    }
    assert_eq!(said, 3);
    assert!(turn(&fine, &Memory::Blank).0.is_empty());
}

fn digests() -> Vec<Digest> {
    let one = report(vec![endpoint("a.example:443", vec![hostile(1)])]);
    let failed = Run {
        outcome: Err("access denied"),
        watchlist: &Watchlist::default(),
        weekly: false,
    };
    let (news, _) = decide(&failed, &Memory::Blank, NOW);
    let plain = Digest::plain("OK: ünïcode\n", &"text ".repeat(100_000), Severity::Ok, NOW);
    let failed = digest(&news, None, &Watchlist::default(), &sender(), NOW);
    vec![
        many(),
        said(&one, &Watchlist::default()).unwrap(),
        failed.unwrap(),
        plain,
    ]
}

fn many() -> Digest {
    let endpoints = (0..5_000).map(|n| endpoint(&format!("host-{n:04}.example:443"), vec![hostile(n)]));
    said(&report(endpoints.collect()), &Watchlist::default()).unwrap()
}

/// All that JSON, markdown and terminals have to escape.
fn hostile(n: u32) -> Finding {
    let subject = format!("CN=\"\\<&>\u{0}\u{1f}{n} 書籍 {}", "\"\\".repeat(50));
    Finding::new(Kind::SelfSigned { subject }, Severity::Critical, NOW)
}

fn turn(report: &Report, memory: &Memory) -> (News, State) {
    let run = Run {
        outcome: Ok(report),
        watchlist: &Watchlist::default(),
        weekly: false,
    };
    decide(&run, memory, NOW)
}

fn said(report: &Report, watchlist: &Watchlist) -> Option<Digest> {
    let run = Run {
        outcome: Ok(report),
        watchlist,
        weekly: false,
    };
    let (news, _) = decide(&run, &Memory::Blank, NOW);
    digest(&news, Some(report), watchlist, &sender(), NOW)
}

fn report(endpoints: Vec<EndpointReport>) -> Report {
    Report::new(NOW, NOW, endpoints)
}

fn endpoint(name: &str, findings: Vec<Finding>) -> EndpointReport {
    let status = findings.iter().map(|finding| finding.severity).max();
    EndpointReport {
        endpoint: name.to_owned(),
        unicode: None,
        sni: None,
        quiet: false,
        status: status.unwrap_or(Severity::Ok),
        not_after: None,
        seconds_left: None,
        observations: vec![observation(1, findings)],
        skipped: Vec::new(),
        findings: Vec::new(),
    }
}

fn observation(last: u8, findings: Vec<Finding>) -> Observation {
    Observation {
        address: SocketAddr::from(([192, 0, 2, last], 443)),
        tls: None,
        leaf: None,
        issuers: Vec::new(),
        revocation: None,
        other: None,
        findings,
        elapsed_ms: 1,
        tries: 1,
    }
}

fn sender() -> Sender {
    Sender::of("prod", "arn:aws:sns:eu-central-1:123456789012:alerts", "bucket")
}

fn schema(text: &str) -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(text).unwrap()).unwrap()
}

fn valid(schema: &jsonschema::Validator, value: &Value) {
    let problems: Vec<_> = schema.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:?}");
}
