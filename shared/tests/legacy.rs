//! Real old servers: OpenSSL, configured to speak nothing that rustls accepts.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use neverlapse::chain::roots::Roots;
use neverlapse::finding::{Kind, Severity};
use neverlapse::probe::legacy;
use neverlapse::probe::{Options, Prober, Target};
use neverlapse::report::EndpointReport;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::OffsetDateTime;
use tokio::net::TcpStream;

#[tokio::test]
async fn rsa_key_exchange_still_shows_the_chain() {
    let pki = Pki::new();
    for (cipher, name) in [
        ("AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA"),
        ("AES256-GCM-SHA384", "TLS_RSA_WITH_AES_256_GCM_SHA384"),
        ("DHE-RSA-AES256-SHA256", "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256"),
        ("ECDHE-RSA-AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
    ] {
        let server = Server::start(&pki, &["-tls1_2", "-cipher", cipher]);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let shown = legacy::fetch(&mut stream, Some("old.example")).await.unwrap();
        assert_eq!(
            (shown.choice.version(), shown.choice.cipher_suite()),
            ("TLSv1.2".into(), name.into())
        );
        assert_eq!(
            shown.certificates,
            [pki.leaf.der().clone(), pki.root.der().clone()],
            "{cipher}"
        );
        // It serves one client at a time.
        drop(stream);
        is_legacy_and_nothing_else(&pki, &server, "TLSv1.2", Some(name)).await;
    }
}

#[tokio::test]
async fn old_versions_still_show_the_chain() {
    let pki = Pki::new();
    for (option, version) in [("-tls1", "TLSv1.0"), ("-tls1_1", "TLSv1.1")] {
        let server = Server::start(&pki, &[option, "-cipher", "ALL:@SECLEVEL=0"]);
        if !server.takes(option) {
            eprintln!("this machine's openssl does not speak {version} with itself: not tested");
            continue;
        }
        is_legacy_and_nothing_else(&pki, &server, version, None).await;
    }
}

#[tokio::test]
async fn a_server_that_has_nothing_in_common_is_a_failed_handshake() {
    let pki = Pki::new();
    let server = Server::start(&pki, &["-tls1_2", "-cipher", "PSK-AES128-CBC-SHA", "-psk", "00"]);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let error = legacy::fetch(&mut stream, None).await.unwrap_err().to_string();
    assert_eq!(error, "the server refused it with the alert handshake_failure (40)");
}

/// It chose a modern suite on a curve that rustls does not have: the handshake failed, and its
/// certificate was not shown. Other clients have that curve.
#[tokio::test]
async fn a_modern_server_that_rustls_cannot_finish_with_still_shows_the_chain() {
    let pki = Pki::new();
    let options = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", "-curves", "P-521"];
    let server = Server::start(&pki, &options);
    let report = probe(&pki.root.pem(), &server).await;
    let codes: Vec<_> = report
        .all_findings()
        .map(|(_, finding)| finding.kind.code().as_str())
        .collect();
    assert_eq!(codes, ["legacy_tls"], "{report:?}");
    assert_eq!(report.status, Severity::Warning, "{report:?}");
    let seen = &report.observations[0];
    assert_eq!(seen.leaf.as_ref().unwrap().names, ["old.example"]);
    assert_eq!(seen.issuers.len(), 1);
    let suite = seen.tls.as_ref().map(|tls| tls.cipher_suite.as_str());
    assert_eq!(suite, Some("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"));
}

/// Keys and certificates that today's clients do not take: the report has what the server shows,
/// and not only that the handshake failed.
#[tokio::test]
async fn a_certificate_that_rustls_does_not_take_is_shown() {
    for (what, key, extensions, key_type, expected) in [
        (
            "Ed448",
            "-newkey ed448",
            "-addext subjectAltName=DNS:old.example",
            "ed448",
            &["some_clients_refuse"][..],
        ),
        (
            "RSA for PSS alone",
            "-newkey rsa-pss",
            "-addext subjectAltName=DNS:old.example",
            "rsa-pss",
            &["some_clients_refuse"],
        ),
        (
            "RSA of 1024 bits",
            "-newkey rsa:1024",
            "-addext subjectAltName=DNS:old.example",
            "rsa-1024",
            &["weak_key"],
        ),
        ("no names", "-newkey rsa:2048", "", "rsa-2048", &["some_clients_refuse"]),
    ] {
        let files = tempfile::tempdir().unwrap();
        let request =
            format!("req -x509 {key} -nodes -keyout key.pem -out leaf.pem -subj /CN=old.example -days 90 {extensions}");
        let made = Command::new("openssl")
            .args(request.split_whitespace())
            .current_dir(&files)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let root = std::fs::read_to_string(files.path().join("leaf.pem")).unwrap();
        let server = Server::run(files, &["-cipher", "ALL:@SECLEVEL=0"]);
        let report = probe(&root, &server).await;
        let mut codes: Vec<_> = report
            .all_findings()
            .map(|(_, finding)| finding.kind.code().as_str())
            .collect();
        codes.sort_unstable();
        assert_eq!(codes, expected, "{what}: {report:?}");
        assert_eq!(report.observations[0].leaf.as_ref().unwrap().key, key_type, "{what}");
    }
}

/// More than the library reads was a failed handshake, and a promise of OCSP that is not kept was
/// fine.
#[tokio::test]
async fn what_some_clients_do_not_take_is_a_warning_that_names_them() {
    let many_names = |leaf: &mut CertificateParams| {
        let names = (0..3_000).map(|number| format!("{number}-long.sans.example"));
        let names = names.map(|name| SanType::DnsName(name.try_into().unwrap()));
        leaf.subject_alt_names.extend(names);
    };
    let promise = |leaf: &mut CertificateParams| {
        let id = [1, 3, 6, 1, 5, 5, 7, 1, 24];
        leaf.custom_extensions
            .push(CustomExtension::from_oid_content(&id, vec![0x30, 3, 2, 1, 5]));
    };
    for (change, options, expected) in [
        (&many_names as &dyn Fn(&mut _), &["-tls1_2"][..], &["rustls"][..]),
        (&many_names, &[], &["rustls"]),
        (&promise, &["-tls1_2"], &["GnuTLS", "Firefox"]),
        (&promise, &[], &["GnuTLS", "Firefox"]),
    ] {
        let pki = Pki::with(change);
        let server = Server::start(&pki, options);
        let report = probe(&pki.root.pem(), &server).await;
        let findings: Vec<_> = report.all_findings().map(|(_, finding)| &finding.kind).collect();
        assert!(
            matches!(findings[..], [Kind::SomeClientsRefuse { clients, .. }] if clients == expected),
            "{expected:?} {options:?}: {findings:?}"
        );
    }
}

/// What a user sees: the certificate, judged like any other, and one warning.
async fn is_legacy_and_nothing_else(pki: &Pki, server: &Server, version: &str, cipher_suite: Option<&str>) {
    let report = probe(&pki.root.pem(), server).await;
    let codes: Vec<_> = report
        .all_findings()
        .map(|(_, finding)| finding.kind.code().as_str())
        .collect();
    assert_eq!(codes, ["legacy_tls"], "{report:?}");
    let seen = &report.observations[0];
    let tls = seen.tls.as_ref().unwrap();
    assert_eq!(tls.version, version);
    assert!(cipher_suite.is_none_or(|name| name == tls.cipher_suite), "{tls:?}");
    assert!(tls.cipher_suite.starts_with("TLS_"), "{tls:?}");
    assert_eq!(seen.leaf.as_ref().unwrap().names, ["old.example"]);
    assert_eq!(seen.issuers.len(), 1);
}

async fn probe(root: &str, server: &Server) -> EndpointReport {
    let roots = Roots::public().with_pem(root.as_bytes()).unwrap();
    let target = Target {
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        ..Target::plain(
            format!("old.example:{}", server.address.port()).parse().unwrap(),
            Arc::new(roots),
        )
    };
    Prober::new(Options::default()).unwrap().probe(&target).await
}

/// A root and a leaf, with RSA keys as old servers have them.
struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
    leaf: rcgen::Certificate,
    key: KeyPair,
}

impl Pki {
    fn new() -> Self {
        Self::with(&|_| {})
    }

    fn with(change: &dyn Fn(&mut CertificateParams)) -> Self {
        let key = || KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let now = OffsetDateTime::now_utc();
        let mut root = CertificateParams::default();
        root.distinguished_name.push(DnType::CommonName, "Old Root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = CertifiedIssuer::self_signed(root, key()).unwrap();
        let mut leaf = CertificateParams::new(["old.example".to_owned()]).unwrap();
        (leaf.not_before, leaf.not_after) = (now - Duration::from_secs(3_600), now + Duration::from_secs(90 * 86_400));
        change(&mut leaf);
        let key = key();
        let leaf = leaf.signed_by(&key, &root).unwrap();
        Self { root, leaf, key }
    }
}

/// `openssl s_server` on a free port; killed on drop.
struct Server {
    process: Child,
    address: SocketAddr,
    _files: tempfile::TempDir,
}

impl Server {
    fn start(pki: &Pki, options: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        for (name, pem) in [
            ("leaf.pem", pki.leaf.pem()),
            ("key.pem", pki.key.serialize_pem()),
            ("root.pem", pki.root.pem()),
        ] {
            std::fs::write(files.path().join(name), pem).unwrap();
        }
        Self::run(files, &[&["-cert_chain", "root.pem"][..], options].concat())
    }

    /// With the files' `leaf.pem` and `key.pem`.
    fn run(files: tempfile::TempDir, options: &[&str]) -> Self {
        let mut process = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-cert",
                "leaf.pem",
                "-key",
                "key.pem",
            ])
            .args(options)
            .current_dir(&files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl can be run (Debian: apt-get install openssl)");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.ok()?.strip_prefix("ACCEPT ")?.parse().ok());
        // It writes what it hears; nobody needs that, but a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address: address.expect("openssl s_server says where it listens"),
            _files: files,
        }
    }

    /// Whether OpenSSL's own client gets through: some machines' policies forbid old versions
    /// altogether.
    fn takes(&self, option: &str) -> bool {
        Command::new("openssl")
            .args(["s_client", option, "-cipher", "ALL:@SECLEVEL=0", "-connect"])
            .arg(self.address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
