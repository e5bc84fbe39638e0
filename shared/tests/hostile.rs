//! Servers that are broken or malicious, and the reports on them. Each costs its own deadline and
//! nothing else.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use neverlapse::certificate::Role;
use neverlapse::chain::roots::Roots;
use neverlapse::chain::{Criteria, KeyUse, judge};
use neverlapse::finding::Thresholds;
use neverlapse::finding::{Kind, Phase, Severity};
use neverlapse::probe::{Options, Prober, Target, Timeouts};
use neverlapse::report::{EndpointReport, Report};
use neverlapse::timestamp::Timestamp;
use rand::{Rng, RngExt, SeedableRng};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion};

#[tokio::test]
async fn each_hostile_server_costs_its_own_deadline_and_nothing_else() {
    let pki = Pki::new();
    let healthy = pki.serve(pki.leaf(90)).await;
    let (handshake, starttls) = (Some(Phase::Handshake), Some(Phase::Starttls));
    let hello = |bytes: &'static [u8]| move |stream| says_and_holds(stream, vec![bytes]);
    // Bound, and not listening: it refuses, and nobody else is given its port.
    let refusing = TcpSocket::new_v4().unwrap();
    refusing.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = refusing.local_addr().unwrap().port();
    let cases = vec![
        ("silent", "", serve(hello(b"")).await, "timed_out", handshake),
        (
            "silent within a record",
            "",
            serve(hello(b"\x16\x03\x03\x00\x7a\x02")).await,
            "timed_out",
            handshake,
        ),
        (
            "one byte at a time",
            "",
            serve(drips_a_handshake).await,
            "timed_out",
            handshake,
        ),
        ("nobody listens", "", refused, "connect_failed", None),
        (
            "hangs up",
            "",
            serve(|stream| async { drop(stream) }).await,
            "handshake_failed",
            None,
        ),
        (
            "hangs up on hello",
            "",
            serve(hears_and_closes).await,
            "handshake_failed",
            None,
        ),
        ("resets", "", serve(resets).await, "handshake_failed", None),
        (
            "plain HTTP",
            "",
            serve(hello(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await,
            "handshake_failed",
            None,
        ),
        (
            "SSH",
            "",
            serve(hello(b"SSH-2.0-OpenSSH_9.2\r\n")).await,
            "handshake_failed",
            None,
        ),
        ("noise", "", serve(endless_noise).await, "handshake_failed", None),
        (
            "endless hello requests",
            "",
            serve(endless(b"\x16\x03\x03\x00\x04\0\0\0\0")).await,
            "handshake_failed",
            None,
        ),
        (
            "endless empty records",
            "",
            serve(endless(b"\x16\x03\x03\x00\x00")).await,
            "handshake_failed",
            None,
        ),
        (
            "endless warnings",
            "",
            serve(endless(b"\x15\x03\x03\x00\x02\x01\x70")).await,
            "handshake_failed",
            None,
        ),
        (
            "endless ciphers",
            "",
            serve(endless(b"\x14\x03\x03\x00\x01\x01")).await,
            "handshake_failed",
            None,
        ),
        (
            "a message of 16 MB",
            "",
            serve(endless(&record(b"\x02\xff\xff\xff"))).await,
            "handshake_failed",
            None,
        ),
        (
            "an alert",
            "",
            serve(hello(b"\x15\x03\x03\x00\x02\x02\x28")).await,
            "handshake_failed",
            None,
        ),
        ("no greeting", "smtp://", serve(hello(b"")).await, "timed_out", starttls),
        (
            "half a greeting",
            "smtp://",
            serve(hello(b"220-a\r\n220")).await,
            "timed_out",
            starttls,
        ),
        (
            "no answer to EHLO",
            "smtp://",
            serve(hello(b"220 hi\r\n")).await,
            "timed_out",
            starttls,
        ),
        (
            "no answer to STARTTLS",
            "smtp://",
            serve(|stream| says_and_holds(stream, vec![b"220 hi\r\n", b"250 hi\r\n"])).await,
            "timed_out",
            starttls,
        ),
        (
            "no TLS after STARTTLS",
            "smtp://",
            serve(|stream| says_and_holds(stream, vec![b"220 hi\r\n", b"250 hi\r\n", b"220 go\r\n"])).await,
            "timed_out",
            handshake,
        ),
        (
            "plain text slipped in behind STARTTLS",
            "smtp://",
            serve(|stream| says_and_holds(stream, vec![b"220 hi\r\n", b"250 hi\r\n", b"220 go\r\n250 evil\r\n"])).await,
            "handshake_failed",
            None,
        ),
        (
            "an endless line",
            "imap://",
            serve(endless(b"* OK ")).await,
            "starttls_failed",
            None,
        ),
        (
            "endless lines",
            "ftp://",
            serve(endless(b"220-hi\r\n")).await,
            "starttls_failed",
            None,
        ),
        (
            "one letter at a time",
            "pop3://",
            serve(drips_letters).await,
            "timed_out",
            starttls,
        ),
        (
            "noise for LDAP",
            "ldap://",
            serve(endless_noise).await,
            "starttls_failed",
            None,
        ),
        (
            "HTTP for PostgreSQL",
            "postgres://",
            serve(hello(b"HTTP/1.1 400\r\n")).await,
            "starttls_failed",
            None,
        ),
        (
            "silence for MySQL",
            "mysql://",
            serve(hello(b"\x4a\0\0\0\x0a8.0")).await,
            "timed_out",
            starttls,
        ),
    ];
    let mut targets = vec![pki.target("", healthy)];
    targets.extend(cases.iter().map(|(_, scheme, port, ..)| pki.target(scheme, *port)));
    let report = run(targets, 1).await;

    assert_eq!((report.not_reached.len(), report.endpoints.len()), (0, cases.len() + 1));
    let well = of(&report, &format!("shop.example:{healthy}"));
    assert_eq!((well.status, well.observations.len()), (Severity::Ok, 1), "{well:?}");
    assert_eq!(codes(well), [""; 0]);
    for (what, scheme, port, code, phase) in cases {
        let seen = of(&report, &format!("{scheme}shop.example:{port}"));
        assert_eq!(codes(seen), [code], "{what}: {seen:?}");
        assert_eq!(seen.status, Severity::Unknown, "{what}");
        let (_, finding) = seen.all_findings().next().unwrap();
        let found = match finding.kind {
            Kind::TimedOut { phase, .. } => Some(phase),
            _ => None,
        };
        assert_eq!(found, phase, "{what}: {finding:?}");
        assert!(finding.message.len() < 500, "{what}: {}", finding.message);
    }
}

/// A timeout that no clock can add to the present stands for whatever error we may have: no
/// inventory can have one.
#[tokio::test]
async fn where_our_own_code_panics_only_that_endpoint_is_lost() {
    let pki = Pki::new();
    let healthy = pki.target("", pki.serve(pki.leaf(90)).await);
    let broken = Target {
        timeout: Some(Duration::MAX),
        ..pki.target("", pki.serve(pki.leaf(90)).await)
    };
    let (healthy_name, broken_name) = (healthy.endpoint.to_string(), broken.endpoint.to_string());

    let report = run(vec![broken.clone(), healthy, broken], 1).await;
    assert_eq!(codes(of(&report, &healthy_name)), Vec::<&str>::new());
    let lost = of(&report, &broken_name);
    assert_eq!((codes(lost), lost.status), (vec!["not_judged"], Severity::Unknown));
    assert!(
        lost.findings[0].message.contains("neverlapse itself failed"),
        "{lost:?}"
    );
    assert_eq!(report.counts.total(), 3);
}

#[tokio::test]
async fn plain_http_is_said_in_the_servers_words() {
    let pki = Pki::new();
    let port = serve(|stream| says_and_holds(stream, vec![b"HTTP/1.1 400 Bad \x1b[31mRequest\r\n\r\n"])).await;
    let report = run(vec![pki.target("", port)], 1).await;
    let (_, finding) = report.endpoints[0].all_findings().next().unwrap();
    let expected = r#"does not speak TLS: it answered "HTTP/1.1 400 Bad \u{1b}[31mRequest""#;
    assert!(finding.message.contains(expected), "{}", finding.message);
}

/// A healthy server's first flight, cut anywhere: then silence, the end, or noise.
#[tokio::test]
async fn a_flight_can_be_cut_anywhere() {
    let pki = Pki::new();
    for version in [&TLS12, &TLS13] {
        let config = pki.config(pki.leaf(90), &[version], None);
        let length = flight_length(&pki, &config).await;
        assert!(length > 500, "{version:?}: {length} bytes");
        let mut cases = Vec::new();
        // ECDSA signatures differ by some bytes in length, so the very last ones may not be there
        // another time.
        for at in (0..length - 16).step_by(length / 12) {
            for (then, code) in [
                (Then::Hold, "timed_out"),
                (Then::Close, "handshake_failed"),
                (Then::Noise, "handshake_failed"),
            ] {
                let (config, count) = (config.clone(), Arc::new(AtomicUsize::new(0)));
                let port = serve(move |stream| relay(config.clone(), stream, at, then, count.clone())).await;
                cases.push((at, then, code, port));
            }
        }
        let report = run(cases.iter().map(|(.., port)| pki.target("", *port)).collect(), 1).await;
        for (at, then, code, port) in cases {
            let seen = of(&report, &format!("shop.example:{port}"));
            let mut codes = codes(seen);
            if matches!(then, Then::Noise) {
                // Where certificates are in clear, noise within them is what the server shows, and
                // is judged.
                codes.retain(|code| !["invalid_chain", "incomplete_chain", "untrusted_root"].contains(code));
            }
            assert_eq!(codes, [code], "{version:?}, {then:?} after {at} of {length}: {seen:?}");
            // In TLS 1.2 the certificate comes early and in clear.
            if matches!((version.version, then), (ProtocolVersion::TLSv1_2, Then::Close)) && at > length * 9 / 10 {
                assert!(seen.observations[0].leaf.is_some(), "{at} of {length}: {seen:?}");
            }
        }
    }
}

/// A load balancer that drops a connection now and then made a modern server look like a legacy
/// one.
#[tokio::test]
async fn one_lost_connection_is_tried_again_and_not_taken_for_an_old_server() {
    let pki = Pki::new();
    for lost in [1, 2] {
        let (config, count) = (
            pki.config(pki.leaf(90), &[&TLS12, &TLS13], None),
            Arc::new(AtomicUsize::new(0)),
        );
        let port = serve(move |stream| {
            let (config, nth) = (config.clone(), count.fetch_add(1, Ordering::Relaxed));
            async move {
                if nth < lost {
                    resets(stream).await;
                } else if let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await {
                    let _ = stream.read(&mut [0]).await;
                }
            }
        })
        .await;
        let report = run(vec![pki.target("", port)], 3).await;
        let seen = &report.endpoints[0];
        assert_eq!(codes(seen), [""; 0], "{lost} lost: {seen:?}");
        assert_eq!(seen.observations[0].tries, 2, "{lost} lost");
        assert!(
            seen.observations[0]
                .tls
                .as_ref()
                .is_some_and(|tls| tls.key_exchange.is_some())
        );
    }
}

/// Once the certificate had been seen, a connection that broke off was not tried again.
#[tokio::test]
async fn a_connection_lost_after_the_certificate_is_tried_again_and_the_certificate_kept() {
    let pki = Pki::new();
    let config = pki.config(pki.leaf(90), &[&TLS12], None);
    // All of the first flight, and too little of the second.
    let cut = flight_length(&pki, &config).await + 16;
    for (lost, then_silent, expected) in [
        (1, false, &[][..]),
        (9, false, &["handshake_failed"]),
        (1, true, &["handshake_failed"]),
    ] {
        let (config, count) = (config.clone(), Arc::new(AtomicUsize::new(0)));
        let port = serve(move |stream| {
            let (config, nth) = (config.clone(), count.fetch_add(1, Ordering::Relaxed));
            async move {
                if nth < lost {
                    relay(config, stream, cut, Then::Close, Arc::default()).await;
                } else if then_silent {
                    resets(stream).await;
                } else {
                    accept(config, stream).await;
                }
            }
        })
        .await;
        let report = run(vec![pki.target("", port)], 2).await;
        let seen = &report.endpoints[0];
        assert_eq!(codes(seen), expected, "{lost} lost: {seen:?}");
        assert_eq!(seen.observations[0].tries, 2, "{lost} lost");
        assert!(seen.observations[0].leaf.is_some(), "{lost} lost: {seen:?}");
    }
}

/// Look-ups had two sockets for each of the 800 endpoints under way, where Lambda allows 1,024
/// files: with a slow name server two in five endpoints could not be looked at.
#[tokio::test]
async fn look_ups_count_among_the_sockets() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        nameserver: Some(server.local_addr().unwrap()),
        sockets: 10,
        ..Options::default()
    };
    let (pki, prober) = (Pki::new(), Prober::new(options).unwrap());
    let targets = (0..50).map(|number| Target {
        endpoint: format!("h{number}.example").parse().unwrap(),
        addresses: Vec::new(),
        ..pki.target("", 443)
    });
    let targets: Vec<_> = targets.collect();
    let probing = tokio::spawn(async move { prober.report(targets, Instant::now() + Duration::from_secs(60)).await });
    let mut clients = BTreeSet::new();
    // However late the second one comes: a second more shows whether there are too many.
    let mut until = Instant::now() + Duration::from_secs(60);
    let mut query = [0; 512];
    while let Ok(Ok((_, client))) = timeout_at(until, server.recv_from(&mut query)).await {
        if clients.insert(client) && clients.len() == 2 {
            until = Instant::now() + Duration::from_secs(1);
        }
    }
    probing.abort();
    assert!((2..=10).contains(&clients.len()), "{} sockets", clients.len());
}

/// The second connection to a server that is silent did not count, so hundreds of them were more
/// than the files that Lambda allows, and other endpoints could not be looked at.
#[tokio::test]
async fn a_second_look_counts_among_the_sockets() {
    let [open, most] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let highest = most.clone();
    let silent = serve(move |mut stream: TcpStream| {
        let (open, most) = (open.clone(), most.clone());
        async move {
            most.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            while matches!(stream.read(&mut [0; 512]).await, Ok(1..)) {}
            open.fetch_sub(1, Ordering::Relaxed);
        }
    })
    .await;
    let options = Options {
        sockets: 2,
        tries: 1,
        revocation: false,
        ..Options::default()
    };
    let pki = Pki::new();
    let patient = Target {
        timeout: Some(Duration::from_secs(16)),
        ..pki.target("", silent)
    };
    let prober = Prober::new(options).unwrap();
    let report = prober
        .report(vec![patient.clone(), patient], Instant::now() + Duration::from_secs(60))
        .await;
    for seen in &report.endpoints {
        assert_eq!(codes(seen), ["timed_out"], "{seen:?}");
    }
    assert_eq!(highest.load(Ordering::Relaxed), 2);
}

/// Behind something that looks at the first packet only, the usual ClientHello never arrives whole.
/// When it hung, nothing was shown, and the size was not named.
#[tokio::test]
async fn a_large_hello_that_is_lost_is_named_and_a_small_one_shows_the_certificate() {
    let pki = Pki::new();
    for version in [&TLS12, &TLS13] {
        for (what, answer, reason) in [
            ("hangs", None, "no answer within "),
            ("closes", Some(&b""[..]), "the server closed the connection"),
            (
                "alerts",
                Some(b"\x15\x03\x01\x00\x02\x02\x32"),
                "the alert decode_error (50)",
            ),
        ] {
            let config = pki.config(pki.leaf(9), &[version], None);
            let port = serve(move |stream| {
                let config = config.clone();
                async move {
                    let mut hello = vec![0; 1_400];
                    let length = stream.peek(&mut hello).await.unwrap_or(0);
                    if length < hello.len() {
                        return accept(config, stream).await;
                    }
                    let mut stream = stream;
                    let _ = stream.read(&mut [0; 4_096]).await;
                    match answer {
                        None => pending().await,
                        Some(bytes) => drop(stream.write_all(bytes).await),
                    }
                }
            })
            .await;

            let report = run(vec![pki.target("", port)], 1).await;
            let seen = &report.endpoints[0];
            let (mut codes, expected) = (codes(seen), ["expires_soon", "handshake_failed"]);
            codes.sort_unstable();
            assert_eq!(codes, expected, "{what}: {seen:?}");
            let messages: Vec<_> = seen
                .all_findings()
                .map(|(_, finding)| finding.message.as_str())
                .collect();
            let is_named = |message: &&str| message.contains(reason) && message.contains("post-quantum");
            assert!(messages.iter().any(is_named), "{what}: {messages:?}");
            assert!(seen.observations[0].tls.is_some(), "{what}: {seen:?}");
        }
    }
}

/// `--timeout 60` did not help: each step had its five or ten seconds.
#[tokio::test]
async fn a_slow_server_may_take_all_the_time_that_its_entry_gives() {
    let pki = Pki::new();
    let config = pki.config(pki.leaf(90), &[&TLS13], None);
    let slow = config.clone();
    let slow = serve(move |stream| {
        let config = slow.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(6)).await;
            accept(config, stream).await;
        }
    })
    .await;
    let greeting = serve(move |mut stream: TcpStream| {
        let config = config.clone();
        async move {
            for byte in b"220 mail.example ESMTP\r\n" {
                tokio::time::sleep(Duration::from_millis(470)).await;
                let _ = stream.write_all(&[*byte]).await;
            }
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(b"250 STARTTLS\r\n").await;
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(b"220 go\r\n").await;
            accept(config, stream).await;
        }
    })
    .await;
    let options = Options {
        revocation: false,
        ..Options::default()
    };
    let prober = Prober::new(options).unwrap();
    let patient = |scheme, port, seconds| Target {
        timeout: Some(Duration::from_secs(seconds)),
        ..pki.target(scheme, port)
    };
    let cases = [
        (patient("", slow, 30), &[][..]),
        (patient("smtp://", greeting, 30), &[]),
        (patient("", slow, 3), &["timed_out"]),
        (patient("smtp://", greeting, 3), &["timed_out"]),
    ];
    let probing = cases.map(|(target, expected)| {
        let prober = prober.clone();
        async move { (prober.probe(&target).await, expected) }
    });
    for (seen, expected) in futures::future::join_all(probing).await {
        assert_eq!(codes(&seen), expected, "{seen:?}");
    }
}

/// Mail servers refuse a client whose name does not resolve; `.invalid` never does.
#[tokio::test]
async fn a_mail_server_hears_an_address_or_the_name_that_is_set() {
    let pki = Pki::new();
    for (ehlo, expected) in [
        (None, "EHLO [127.0.0.1]\r\n"),
        (Some("probe.example.com"), "EHLO probe.example.com\r\n"),
    ] {
        let (heard, hears) = tokio::sync::oneshot::channel();
        let heard = Arc::new(std::sync::Mutex::new(Some(heard)));
        let port = serve(move |mut stream: TcpStream| {
            let heard = heard.clone();
            async move {
                let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
                let mut command = vec![0; 512];
                let length = stream.read(&mut command).await.unwrap_or(0);
                command.truncate(length);
                if let Some(heard) = heard.lock().unwrap().take() {
                    let _ = heard.send(command);
                }
            }
        })
        .await;
        let target = Target {
            ehlo: ehlo.map(|name| name.parse().unwrap()),
            ..pki.target("smtp://", port)
        };
        run(vec![target], 1).await;
        assert_eq!(String::from_utf8(hears.await.unwrap()).unwrap(), expected);
    }
}

/// Names that the TLS library refuses or the resolver refused, though other clients take them.
#[tokio::test]
async fn odd_names_are_asked_for_and_judged() {
    let pki = Pki::new();
    for (host, certified, expected) in [
        ("my_host.shop.example", "*.shop.example", &[][..]),
        ("foo-.shop.example", "*.shop.example", &[]),
        ("-foo.shop.example", "*.shop.example", &[]),
        ("foo-.shop.example", "www.shop.example", &["name_mismatch"]),
    ] {
        for version in [&TLS12, &TLS13] {
            let config = pki.config(pki.leaf_for(certified, 90), &[version], None);
            let port = serve(move |stream| accept(config.clone(), stream)).await;
            let target = Target {
                endpoint: format!("{host}:{port}").parse().unwrap(),
                ..pki.target("", port)
            };
            let report = run(vec![target], 1).await;
            assert_eq!(codes(&report.endpoints[0]), expected, "{host}: {report:?}");
        }
    }
}

#[tokio::test]
async fn every_alert_is_a_failed_handshake() {
    let pki = Pki::new();
    let mut cases = Vec::new();
    for level in [1, 2] {
        for code in 0..=255 {
            let alert = [0x15, 3, 3, 0, 2, level, code];
            let port = serve(move |mut stream| async move {
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(&alert).await;
                let _ = stream.shutdown().await;
                let _ = stream.read(&mut [0; 4_096]).await;
            })
            .await;
            cases.push((level, code, port));
        }
    }
    let report = run(cases.iter().map(|(.., port)| pki.target("", *port)).collect(), 1).await;
    for (level, code, port) in cases {
        let seen = of(&report, &format!("shop.example:{port}"));
        assert_eq!(codes(seen), ["handshake_failed"], "level {level}, {code}: {seen:?}");
        let (_, finding) = seen.all_findings().next().unwrap();
        assert!(
            finding.message.len() < 200,
            "level {level}, {code}: {}",
            finding.message
        );
        if (level, code) == (2, 40) {
            let words = "the TLS handshake failed: the server refused it with the alert handshake_failure (40)";
            assert_eq!(finding.message, words);
        }
    }
}

/// A healthy server's words with bytes changed, lost and added on the way.
#[tokio::test]
async fn no_garbled_flight_makes_it_panic() {
    let pki = Pki::new();
    let healthy = pki.serve(pki.leaf(90)).await;
    let mut targets = vec![pki.target("", healthy)];
    for version in [&TLS12, &TLS13] {
        let config = pki.config(pki.leaf(90), &[version], None);
        for seed in 0..150 {
            let config = config.clone();
            let port = serve(move |stream| garbles(config.clone(), stream, seed)).await;
            targets.push(pki.target("", port));
        }
    }
    let count = targets.len();
    let report = run(targets, 1).await;
    assert_eq!((report.endpoints.len(), report.not_reached.len()), (count, 0));
    assert_eq!(codes(of(&report, &format!("shop.example:{healthy}"))), [""; 0]);
    let failed = report
        .endpoints
        .iter()
        .filter(|seen| seen.status > Severity::Ok)
        .count();
    assert!(failed > count / 2, "{failed} of {count} were garbled");
}

/// Certificates with everything in them, changed at random: whatever is left of them is judged,
/// printed and put into JSON.
#[test]
fn no_certificate_makes_it_panic() {
    use rcgen::{CidrSubnet, CrlDistributionPoint, CustomExtension, GeneralSubtree, NameConstraints, SanType};
    let pki = Pki::new();
    let mut constrained = ca("Constrained");
    constrained.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("example".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([192, 0, 2, 0], 24)),
        ],
        excluded_subtrees: vec![GeneralSubtree::DnsName("evil.example".to_owned())],
    });
    let issuer = CertifiedIssuer::signed_by(constrained, key(), &pki.root).unwrap();
    let mut params = params("shop.example", 90);
    params.subject_alt_names.push(SanType::IpAddress([192, 0, 2, 7].into()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.crl_distribution_points = vec![CrlDistributionPoint {
        uris: vec!["http://crl.example/list.crl".to_owned()],
    }];
    // Where certificate transparency keeps its timestamps.
    params.custom_extensions = vec![CustomExtension::from_oid_content(
        &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2],
        vec![4, 2, 0, 0],
    )];
    let leaf = params.signed_by(&key(), &issuer).unwrap().der().to_vec();
    let chain = [leaf, issuer.der().to_vec()];
    let target = pki.target("", 443);
    let name = target.endpoint.host.server_name().unwrap();
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let judge = |chain: &[Vec<u8>]| {
        let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let criteria = Criteria {
            name: &name,
            roots: &target.roots,
            thresholds: Thresholds::default(),
            now: Timestamp::now(),
            key_use: KeyUse::Signs,
            has_staple: None,
        };
        judge(&chain, &criteria)
    };
    assert_eq!(judge(&chain).findings, []);
    let began = std::time::Instant::now();
    let mut rounds = 0;
    while began.elapsed() < Duration::from_secs(3) || rounds < 500 {
        let mut chain = chain.clone();
        for _ in 0..random.random_range(1..4) {
            let der = &mut chain[random.random_range(0..2)];
            let at = random.random_range(0..der.len());
            match random.random_range(0..8) {
                0 => {
                    der.remove(at);
                }
                1 => der.insert(at, random.random()),
                2 => der[at] = der[at].wrapping_add(1),
                _ => der[at] = random.random(),
            }
        }
        let verdict = judge(&chain);
        for finding in &verdict.findings {
            assert!(finding.message.len() < 4_000, "{}", finding.message);
        }
        serde_json::to_string(&(&verdict.leaf, &verdict.issuers, &verdict.findings)).unwrap();
        rounds += 1;
    }
    println!("{rounds} rounds");
}

#[tokio::test]
async fn huge_chains() {
    let pki = Pki::new();
    let chain = |extra: usize| {
        let mut leaf = pki.leaf(90);
        for number in 0..extra {
            let stray = CertifiedIssuer::self_signed(ca(&format!("Stray {number}")), key()).unwrap();
            leaf.chain.push(stray.der().clone());
        }
        leaf
    };
    // rustls, like browsers, reads no Certificate message beyond 64 KB; whoever sends one has no
    // clients.
    let (large, too_large) = (pki.serve(chain(100)).await, pki.serve(chain(300)).await);
    let report = run(vec![pki.target("", large), pki.target("", too_large)], 1).await;
    let seen = of(&report, &format!("shop.example:{large}"));
    assert_eq!(codes(seen), [""; 0], "{seen:?}");
    assert!(seen.observations[0].issuers.len() <= 101);
    let seen = of(&report, &format!("shop.example:{too_large}"));
    assert_eq!(codes(seen), ["handshake_failed"], "{seen:?}");
}

#[tokio::test]
async fn certificates_that_are_no_certificates() {
    let pki = Pki::new();
    let good = pki.leaf(90);
    for (what, leaf) in [
        ("garbage", vec![0x30, 0x03, 1, 2, 3]),
        ("half of one", good.chain[0][..good.chain[0].len() / 2].to_vec()),
        ("one and more", [&good.chain[0][..], b"more"].concat()),
    ] {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Fixed::new(&good, vec![CertificateDer::from(leaf)])));
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        let port = serve(move |stream| accept(config.clone(), stream)).await;
        let report = run(vec![pki.target("", port)], 1).await;
        let seen = &report.endpoints[0];
        assert!(seen.status > Severity::Ok, "{what}: {seen:?}");
        let known = ["invalid_chain", "handshake_failed", "name_mismatch", "incomplete_chain"];
        assert!(codes(seen).iter().all(|code| known.contains(code)), "{what}: {seen:?}");
        assert!(codes(seen).contains(&"invalid_chain"), "{what}: {seen:?}");
    }
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_certificate_is_said() {
    let (pki, other) = (Pki::new(), Pki::named("Other"));
    let self_signed = {
        let key = key();
        let certificate = params("shop.example", 90).self_signed(&key).unwrap();
        Leaf::new(vec![certificate.der().clone()], &key)
    };
    let with_stray = {
        let mut stray = ca("Stray");
        stray.not_after = (Timestamp::now() - DAY).into();
        let mut leaf = pki.leaf(90);
        leaf.chain.push(stray.self_signed(&key()).unwrap().der().clone());
        leaf
    };
    for (what, leaf, expected) in [
        ("healthy", pki.leaf(90), vec![]),
        (
            "expired, for another name, from an unknown CA",
            other.leaf_for("other.example", -1),
            vec!["expired", "name_mismatch", "untrusted_root"],
        ),
        ("without its issuer", pki.leaf(90).alone(), vec!["incomplete_chain"]),
        ("self-signed", self_signed, vec!["self_signed"]),
        ("with an expired certificate too many", with_stray, vec![]),
        ("9 days left", pki.leaf(9), vec!["expires_soon"]),
    ] {
        for version in [&TLS12, &TLS13] {
            let config = pki.config(leaf.clone(), &[version], None);
            let port = serve(move |stream| accept(config.clone(), stream)).await;
            let report = run(vec![pki.target("", port)], 1).await;
            let mut found = codes(&report.endpoints[0]);
            found.sort_unstable();
            assert_eq!(found, expected, "{what}, {version:?}: {report:?}");
        }
    }
}

#[tokio::test]
async fn what_no_path_needs_is_called_extra() {
    let (pki, other) = (Pki::new(), Pki::named("Other"));
    let mut leaf = pki.leaf(90);
    leaf.chain.push(other.intermediate.der().clone());
    let port = pki.serve(leaf).await;
    let report = run(vec![pki.target("", port)], 1).await;
    let roles: Vec<_> = report.endpoints[0].observations[0]
        .issuers
        .iter()
        .map(|issuer| issuer.role)
        .collect();
    assert_eq!(roles, [Role::Path, Role::Extra]);
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_still_shows_its_own() {
    let pki = Pki::new();
    for version in [&TLS12, &TLS13] {
        for (days, expected) in [(90, vec![]), (-1, vec!["expired"])] {
            let config = pki.config(pki.leaf(days), &[version], Some(&pki.root));
            let port = serve(move |stream| accept(config.clone(), stream)).await;
            let report = run(vec![pki.target("", port)], 2).await;
            let seen = &report.endpoints[0];
            assert_eq!(codes(seen), expected, "{version:?}: {seen:?}");
            let observation = &seen.observations[0];
            assert!(observation.leaf.is_some(), "{version:?}");
            assert_eq!((observation.issuers.len(), observation.tries), (1, 1), "{version:?}");
        }
    }
}

/// The RSA certificate of a server had expired; its ECDSA one, which the probe saw, was fine.
#[tokio::test]
async fn both_certificates_of_a_server_are_judged() {
    let (pki, stranger) = (Pki::new(), Pki::named("Other"));
    let rsa = || KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    for version in [&TLS12, &TLS13] {
        for (ca, ecdsa_days, rsa_days, expected) in [
            (&pki, 90, 90, vec![]),
            (&pki, 90, -1, vec![("expired", Some("rsa-2048"))]),
            (&pki, -1, 90, vec![("expired", Some("ecdsa-p256"))]),
            // One cause is one finding.
            (&stranger, 90, 89, vec![("untrusted_root", None)]),
        ] {
            let of_key = |key: KeyPair, days| {
                let leaf = params("shop.example", days).signed_by(&key, &ca.intermediate).unwrap();
                Leaf::new(vec![leaf.der().clone(), ca.intermediate.der().clone()], &key)
            };
            let resolver = Both {
                ecdsa: Fixed::of(&of_key(key(), ecdsa_days)),
                rsa: Fixed::of(&of_key(rsa(), rsa_days)),
            };
            let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(resolver));
            let config = Arc::new(config);
            let port = serve(move |stream| accept(config.clone(), stream)).await;

            let report = run(vec![pki.target("", port)], 2).await;
            let seen = &report.endpoints[0];
            let found: Vec<_> = seen
                .all_findings()
                .map(|(_, finding)| (finding.kind.code().as_str(), finding.certificate.as_deref()))
                .collect();
            assert_eq!(found, expected, "{version:?}: {seen:?}");
            let keys: Vec<_> = seen.observations[0].leaves().map(|leaf| leaf.key.as_str()).collect();
            assert_eq!(keys, ["ecdsa-p256", "rsa-2048"]);
            let first_end = seen.observations[0].leaves().map(|leaf| leaf.not_after).min();
            assert_eq!(seen.not_after, first_end);
        }
    }
}

#[tokio::test]
async fn addresses_are_looked_at_one_by_one() {
    let pki = Pki::new();
    let (one, two) = (Arc::new(pki.leaf(90)), Arc::new(pki.leaf(60)));
    for (second, endpoint_codes, address_codes) in [
        (Some(two), vec!["addresses_disagree"], vec![]),
        (Some(one.clone()), vec![], vec![]),
        (None, vec![], vec!["connect_failed"]),
    ] {
        let (first_listener, second_listener) = same_port().await;
        let port = first_listener.local_addr().unwrap().port();
        let config = pki.config((*one).clone(), &[&TLS13], None);
        accept_all(first_listener, move |stream| accept(config.clone(), stream));
        match second {
            Some(leaf) => {
                let config = pki.config((*leaf).clone(), &[&TLS13], None);
                accept_all(second_listener, move |stream| accept(config.clone(), stream));
            }
            None => drop(second_listener),
        }
        let mut target = pki.target("", port);
        target.addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let report = run(vec![target], 1).await;
        let seen = &report.endpoints[0];
        let own: Vec<_> = seen
            .findings
            .iter()
            .map(|finding| finding.kind.code().as_str())
            .collect();
        assert_eq!(own, endpoint_codes, "{seen:?}");
        let found = |at: usize| {
            seen.observations[at]
                .findings
                .iter()
                .map(|finding| finding.kind.code().as_str())
        };
        assert_eq!(found(0).count(), 0, "{seen:?}");
        assert_eq!(found(1).collect::<Vec<_>>(), address_codes, "{seen:?}");
    }
}

#[tokio::test]
async fn starttls_leads_to_the_certificate() {
    let pki = Pki::new();
    let config = pki.config(pki.leaf(9), &[&TLS13], None);
    let port = serve(move |mut stream: TcpStream| {
        let config = config.clone();
        async move {
            for says in [&b"220-mail\r\n220 hi\r\n"[..], b"250-mail\r\n250 STARTTLS\r\n"] {
                let _ = stream.write_all(says).await;
                let _ = stream.read(&mut [0; 512]).await;
            }
            let _ = stream.write_all(b"220 go\r\n").await;
            accept(config, stream).await;
        }
    })
    .await;
    let report = run(vec![pki.target("smtp://", port)], 1).await;
    assert_eq!(codes(&report.endpoints[0]), ["expires_soon"], "{report:?}");
}

/// Runs targets with short deadlines, and without DNS or lists.
async fn run(targets: Vec<Target>, tries: u32) -> Report {
    let step = Duration::from_secs(5);
    let timeouts = Timeouts {
        dns: step,
        connect: step,
        starttls: step,
        handshake: step,
        endpoint: Duration::from_secs(30),
    };
    let options = Options {
        timeouts,
        tries,
        revocation: false,
        ..Options::default()
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    Prober::new(options).unwrap().report(targets, deadline).await
}

fn of<'a>(report: &'a Report, endpoint: &str) -> &'a EndpointReport {
    let mut all = report.endpoints.iter();
    all.find(|seen| seen.endpoint == endpoint)
        .unwrap_or_else(|| panic!("{endpoint} is not in the report"))
}

fn codes(seen: &EndpointReport) -> Vec<&str> {
    seen.all_findings()
        .map(|(_, finding)| finding.kind.code().as_str())
        .collect()
}

/// Listens on loopback and treats every client the same way.
async fn serve<F, B>(behave: B) -> u16
where
    B: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    accept_all(listener, behave);
    port
}

fn accept_all<F, B>(listener: TcpListener, behave: B)
where
    B: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(behave(stream));
        }
    });
}

/// Two listeners on one port of two loopback addresses.
async fn same_port() -> (TcpListener, TcpListener) {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(("127.0.0.2", port)).await {
            return (first, second);
        }
    }
    panic!("no port is free on both 127.0.0.1 and 127.0.0.2");
}

/// Says each of these in turn, waiting for a word from the client between them, then holds the line
/// in silence.
async fn says_and_holds(mut stream: TcpStream, says: Vec<&'static [u8]>) {
    for bytes in says {
        let _ = stream.write_all(bytes).await;
        let _ = stream.read(&mut [0; 4_096]).await;
    }
    pending().await
}

async fn hears_and_closes(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 4_096]).await;
}

async fn resets(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn endless_noise(stream: TcpStream) {
    let mut noise = vec![0; 4_096];
    rand::rngs::StdRng::seed_from_u64(7).fill_bytes(&mut noise);
    // Neither a record of TLS nor a BER sequence.
    noise[0] = 0xa7;
    repeats(stream, &noise).await;
}

fn endless(bytes: &[u8]) -> impl Fn(TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + use<> {
    let bytes = bytes.repeat(4_096 / bytes.len() + 1);
    move |stream| {
        let bytes = bytes.clone();
        Box::pin(async move { repeats(stream, &bytes).await })
    }
}

async fn repeats(mut stream: TcpStream, bytes: &[u8]) {
    while stream.write_all(bytes).await.is_ok() {}
}

async fn drips_letters(stream: TcpStream) {
    drips(stream, b"+OK one letter at a time, and never a whole line").await;
}

/// A record of 16 KB, well formed as far as anyone will ever know.
async fn drips_a_handshake(stream: TcpStream) {
    drips(
        stream,
        &[&b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"[..], &[7; 16_000]].concat(),
    )
    .await;
}

async fn drips(mut stream: TcpStream, bytes: &[u8]) {
    for byte in bytes {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
    pending().await
}

/// A full record that begins with these bytes.
fn record(begin: &[u8]) -> Vec<u8> {
    let mut body = begin.to_vec();
    body.resize(16_384, 0);
    [&b"\x16\x03\x03\x40\x00"[..], &body].concat()
}

/// Shakes hands and waits for the client to go.
async fn accept(config: Arc<ServerConfig>, stream: TcpStream) {
    if let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await {
        let _ = stream.read(&mut [0]).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Hold,
    Close,
    Noise,
}

/// A real server, of whose words only the first `cut` bytes get through; `flight` is how many there
/// were when the client spoke for the second time.
async fn relay(config: Arc<ServerConfig>, stream: TcpStream, cut: usize, then: Then, flight: Arc<AtomicUsize>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let served = TlsAcceptor::from(config).accept(theirs).await;
        pending::<()>().await;
        drop(served);
    });
    let (mut from_client, mut to_client) = stream.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(ours);
    let sent = Arc::new(AtomicUsize::new(0));
    let sent_by_now = sent.clone();
    let listening = tokio::spawn(async move {
        let mut bytes = vec![0; 65_536];
        let mut times = 0;
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            times += 1;
            if times == 2 {
                flight.store(sent_by_now.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            let _ = to_server.write_all(&bytes[..read]).await;
        }
    });
    let mut bytes = vec![0; 65_536];
    let mut left = cut;
    while left > 0 {
        let most = left.min(bytes.len());
        let Ok(read @ 1..) = from_server.read(&mut bytes[..most]).await else {
            break;
        };
        left -= read;
        sent.fetch_add(read, Ordering::SeqCst);
        let _ = to_client.write_all(&bytes[..read]).await;
    }
    match then {
        Then::Hold => pending().await,
        Then::Noise => while to_client.write_all(&[0xa7; 4_096]).await.is_ok() {},
        Then::Close => {}
    }
    listening.abort();
}

async fn flight_length(pki: &Pki, config: &Arc<ServerConfig>) -> usize {
    let (config, flight) = (config.clone(), Arc::new(AtomicUsize::new(0)));
    let count = flight.clone();
    let port = serve(move |stream| relay(config.clone(), stream, usize::MAX, Then::Hold, count.clone())).await;
    let report = run(vec![pki.target("", port)], 1).await;
    assert_eq!(codes(&report.endpoints[0]), [""; 0], "whole, it is fine: {report:?}");
    // The client is done as soon as it has spoken; the relay may hear it a moment later.
    while flight.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    flight.load(Ordering::SeqCst)
}

/// A real server, whose words are changed on their way.
async fn garbles(config: Arc<ServerConfig>, stream: TcpStream, seed: u64) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(accept_duplex(config, theirs));
    let (mut from_client, mut to_client) = stream.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(ours);
    let hearing = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
    });
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut bytes = vec![0; 16_384];
    while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
        let mut words = bytes[..read].to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..words.len());
            match random.random_range(0..4) {
                0 if words.len() > 1 => {
                    words.remove(at);
                }
                1 => words.insert(at, random.random()),
                _ => words[at] ^= random.random_range(1..=255),
            }
        }
        if to_client.write_all(&words).await.is_err() {
            break;
        }
    }
    hearing.abort();
}

async fn accept_duplex(config: Arc<ServerConfig>, stream: tokio::io::DuplexStream) {
    if let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await {
        let _ = stream.read(&mut [0]).await;
    }
}

/// A private CA.
struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf, what is sent with it, and its key.
#[derive(Clone)]
struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Leaf {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let key = key.serialize_der();
        Self { chain, key }
    }

    fn alone(mut self) -> Self {
        self.chain.truncate(1);
        self
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone().try_into().unwrap()
    }
}

impl Pki {
    fn new() -> Self {
        Self::named("Our")
    }

    fn named(name: &str) -> Self {
        let root = CertifiedIssuer::self_signed(ca(&format!("{name} Root")), key()).unwrap();
        let intermediate = CertifiedIssuer::signed_by(ca(&format!("{name} Intermediate")), key(), &root).unwrap();
        Self { root, intermediate }
    }

    fn leaf(&self, days: i32) -> Leaf {
        self.leaf_for("shop.example", days)
    }

    /// Of 91 days, so many of them left.
    fn leaf_for(&self, name: &str, days: i32) -> Leaf {
        let key = key();
        let leaf = params(name, days).signed_by(&key, &self.intermediate).unwrap();
        Leaf::new(vec![leaf.der().clone(), self.intermediate.der().clone()], &key)
    }

    fn config(
        &self,
        leaf: Leaf,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&CertifiedIssuer<'static, KeyPair>>,
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(root) => {
                let mut roots = RootCertStore::empty();
                roots.add(root.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = leaf.key();
        Arc::new(builder.with_single_cert(leaf.chain, key).unwrap())
    }

    async fn serve(&self, leaf: Leaf) -> u16 {
        let config = self.config(leaf, &[&TLS12, &TLS13], None);
        serve(move |stream| accept(config.clone(), stream)).await
    }

    /// `shop.example`, wherever it really is, judged by this CA.
    fn target(&self, scheme: &str, port: u16) -> Target {
        let roots = Roots::public().with_pem(self.root.pem().as_bytes()).unwrap();
        let endpoint = format!("{scheme}shop.example:{port}").parse().unwrap();
        Target {
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            ..Target::plain(endpoint, Arc::new(roots))
        }
    }
}

/// Sends whatever it was given: rustls itself would check that leaf and key match.
#[derive(Debug)]
struct Fixed(Arc<tokio_rustls::rustls::sign::CertifiedKey>);

impl Fixed {
    fn new(leaf: &Leaf, chain: Vec<CertificateDer<'static>>) -> Self {
        let key = aws_lc_rs::sign::any_supported_type(&leaf.key()).unwrap();
        Self(Arc::new(tokio_rustls::rustls::sign::CertifiedKey::new(chain, key)))
    }

    fn of(leaf: &Leaf) -> Self {
        Self::new(leaf, leaf.chain.clone())
    }
}

/// Sends its ECDSA certificate to whoever takes that, and its RSA certificate to the others.
#[derive(Debug)]
struct Both {
    ecdsa: Fixed,
    rsa: Fixed,
}

impl tokio_rustls::rustls::server::ResolvesServerCert for Both {
    fn resolve(
        &self,
        hello: tokio_rustls::rustls::server::ClientHello<'_>,
    ) -> Option<Arc<tokio_rustls::rustls::sign::CertifiedKey>> {
        let takes_ecdsa = hello
            .signature_schemes()
            .contains(&tokio_rustls::rustls::SignatureScheme::ECDSA_NISTP256_SHA256);
        let chosen = if takes_ecdsa { &self.ecdsa } else { &self.rsa };
        Some(chosen.0.clone())
    }
}

impl tokio_rustls::rustls::server::ResolvesServerCert for Fixed {
    fn resolve(
        &self,
        _: tokio_rustls::rustls::server::ClientHello<'_>,
    ) -> Option<Arc<tokio_rustls::rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn params(name: &str, days: i32) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    let not_after = Timestamp::now() + days * DAY;
    params.not_before = OffsetDateTime::from(not_after) - 91 * DAY;
    params.not_after = not_after.into();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

const DAY: time::Duration = time::Duration::DAY;
