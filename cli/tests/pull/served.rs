//! Whether it is served: servers that are down, hidden, half reloaded, or have another certificate.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::Current;
use neverlapse::timestamp::Timestamp;
use time::Duration;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::bench::{Bench, NAME, NEVERLAPSE, run, window};

#[tokio::test]
async fn a_server_that_was_just_restarting_was_reloaded() {
    let (mut bench, version) = Bench::open().await;
    bench.configure_with("exit 1", "exit 1", "");
    bench.host.stop();
    let mut command = bench.command(Command::new(NEVERLAPSE));
    let restart = async {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        bench.host.start().await.unwrap();
    };
    let (ran, ()) = tokio::join!(run(&mut command), restart);
    assert_eq!(ran.code, 0, "{ran:?}");
    bench.serves(&version).await;
}

#[tokio::test]
async fn a_server_that_is_down_was_reloaded_outside_of_the_window() {
    let (mut bench, version) = Bench::open().await;
    bench.configure_unserved("true", &bench.log_of_reloads(), &window(6, 8));
    bench.host.stop();
    let ran = bench.pull().await;
    assert!(
        ran.code == 1 && ran.err.contains("no TCP connection") && ran.err.contains("tried again in its window"),
        "{ran:?}"
    );
    assert_eq!(bench.reloads(), 0);
    bench.reported(Stage::Failed, &version);
    bench.reported_failed("no TCP connection");
    assert_eq!(bench.pull_with(&["--now"]).await.code, 1);
    assert_eq!(bench.reloads(), 1, "once, and not again for the same files");
    // It is back by itself: nothing is left to be done.
    bench.host.start().await.unwrap();
    bench.pulls().await;
    assert_eq!(bench.reloads(), 1);
    assert_eq!(bench.receipt().stage, Stage::Served);
}

#[tokio::test]
async fn telling_a_server_again_removed_the_version_before() {
    let (mut bench, old) = Bench::open().await;
    let new = bench.publish(80);
    bench.pulls().await;
    bench.serves(&new).await;
    // Somebody had the server load the old one.
    let point = |version: &Current| {
        fs::remove_file(bench.live()).unwrap();
        symlink(format!("../versions/shop.test/{}", version.facts.version), bench.live()).unwrap();
    };
    point(&old);
    run(Command::new("sh").args(["-c", &bench.host.reload_command()])).await;
    bench.serves(&old).await;
    point(&new);
    // It waits for the server to show it by itself, and reloads it then.
    let (test, reload) = (bench.host.test_command(), bench.host.reload_command());
    bench.configure_within(10, &test, &reload, "");
    bench.pulls().await;
    bench.serves(&new).await;
    for version in [old, new] {
        let folder = bench
            .host
            .folder()
            .join("versions/shop.test")
            .join(version.facts.version);
        assert!(folder.exists(), "{}", folder.display());
    }
}

fn certified(chain: &str, key: &str) -> Arc<CertifiedKey> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    Arc::new(CertifiedKey::new(chain.unwrap(), any_supported_type(&key).unwrap()))
}

/// A server in the place of nginx.
async fn serve(bench: &Bench, certificates: impl ResolvesServerCert + 'static) -> JoinHandle<()> {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(bench.host.places[0].1).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    })
}

/// Shows a certificate whatever its key is.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn a_server_that_cannot_use_its_key_counted_as_one_that_serves() {
    let mut bench = Bench::closed(&[NAME]);
    bench.configure_unserved("true", "true", "");
    let (leaf, other) = (bench.leaf(60), bench.leaf(60));
    bench.depot.publish(NAME, &leaf).unwrap();
    let serving = serve(&bench, Shows(certified(&leaf.fullchain, &other.key))).await;
    let ran = bench.pull().await;
    ran.says(
        2,
        "shows it, but no handshake comes to its end: the TLS handshake failed",
    );
    assert_eq!(bench.receipt().stage, Stage::Failed);
    serving.abort();
}

#[tokio::test]
async fn could_not_look_was_taken_for_not_served() {
    let (mut bench, _) = Bench::open().await;
    let place = bench.host.places[0].1;
    let port = neverlapse_tests::process::free_port().unwrap();
    let places = format!("verify = [\"{place}\", \"127.0.0.1:{port}\"]");

    // One of two servers is stopped. The other one keeps the new version.
    bench.reconfigure(|text| text.replace(&format!("verify = \"{place}\""), &places));
    let new = bench.publish(80);
    let ran = bench.pull_with(&["--now"]).await;
    assert!(
        ran.code == 1
            && ran.err.contains("could not check whether it is served")
            && ran.err.contains(&port.to_string()),
        "{ran:?}"
    );
    assert!(!ran.err.contains(&format!("{place} ")), "{ran:?}");
    bench.serves(&new).await;
    bench.reported(Stage::Installed, &new);
    assert!(bench.receipt().reason.unwrap().contains("could not check"));
    assert_eq!(bench.pull().await.code, 1, "it looks again");
    assert_eq!(bench.live_version(), new.facts.version);

    let live = bench.live();
    let live = live.display();
    bench
        .host
        .configure(&format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem; }}"
        ))
        .unwrap();
    run(Command::new("sh").args(["-c", &bench.host.reload_command()])).await;
    bench.pulls().await;
    bench.reported_served();
}

#[tokio::test]
async fn a_port_that_nobody_can_look_at_kept_the_new_version_from_clients() {
    let (mut bench, _) = Bench::open().await;
    let place = bench.host.places[0].1;
    let live = bench.live();
    let live = live.display();
    // The same files behind a port that wants the PROXY protocol, and one that knows no curve of
    // ours.
    for (more, listen) in [
        ("", "proxy_protocol"),
        ("ssl_ecdh_curve X448; ssl_protocols TLSv1.3;", ""),
    ] {
        let port = neverlapse_tests::process::free_port().unwrap();
        bench
            .host
            .configure(&format!(
                "server {{ listen 127.0.0.1:{port} ssl {listen}; {more} ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem; }}"
            ))
            .unwrap();
        let at_that_port = |text: String| text.replace(&place.to_string(), &format!("127.0.0.1:{port}"));
        bench.configure("");
        bench.reconfigure(at_that_port);
        let new = bench.publish(80);
        let ran = bench.pull().await;
        ran.says(1, "could not check");
        bench.serves(&new).await;
        bench.reported(Stage::Installed, &new);
        assert_eq!(bench.live_version(), new.facts.version);
        // To reload it again would show nothing more.
        bench.configure_with("true", &bench.log_of_reloads(), "");
        bench.reconfigure(at_that_port);
        assert_eq!(bench.pull().await.code, 1);
        assert_eq!(bench.reloads(), 0);
    }
}

/// Shows one certificate to some clients, and another one to the others.
#[derive(Debug)]
struct Alternates {
    one: Arc<CertifiedKey>,
    other: Arc<CertifiedKey>,
    clients: AtomicU32,
}

impl ResolvesServerCert for Alternates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let client = self.clients.fetch_add(1, Ordering::Relaxed);
        let is_one = client.is_multiple_of(7);
        Some(if is_one { self.one.clone() } else { self.other.clone() })
    }
}

#[tokio::test]
async fn a_process_with_the_old_certificate_on_the_same_port_was_not_seen() {
    let mut bench = Bench::closed(&[NAME]);
    bench.configure_with("true", "true", "");
    let (old, new) = (bench.leaf(60), bench.leaf(80));
    // It is installed, and nothing serves yet.
    let before = bench.depot.publish(NAME, &old).unwrap();
    bench.pull().await;
    let current = bench.depot.publish(NAME, &new).unwrap();
    let both = Alternates {
        one: certified(&old.fullchain, &old.key),
        other: certified(&new.fullchain, &new.key),
        clients: 0.into(),
    };
    let serving = serve(&bench, both).await;
    for _ in 0..2 {
        let ran = bench.pull().await;
        let expected = format!("but version {} from before", before.facts.version);
        assert!(
            ran.code == 1 && ran.err.contains("not every process serves it") && ran.err.contains(&expected),
            "{ran:?}"
        );
        bench.reported(Stage::Failed, &current);
        assert_eq!(
            bench.live_version(),
            current.facts.version,
            "to go back would gain nothing"
        );
    }
    serving.abort();
}

#[tokio::test]
async fn of_two_certificates_at_one_place_the_wrong_one_was_looked_at() {
    let mut bench = Bench::closed(&[NAME]);
    bench.publish(60);
    let rsa = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .await
        .unwrap();
    let rsa = String::from_utf8(rsa.stdout).unwrap();
    let publish = |bench: &mut Bench, days| {
        let end = Timestamp::now() + Duration::days(days);
        let leaf = bench.authority.leaf(NAME, end).unwrap();
        bench.depot.publish("ec", &leaf).unwrap();
        let leaf = bench.authority.of_key(NAME, &rsa, end).unwrap();
        bench.depot.publish("rsa", &leaf).unwrap();
    };
    publish(&mut bench, 60);

    let port = neverlapse_tests::process::free_port().unwrap();
    let live = bench.host.folder().join("live").display().to_string();
    let configure = |bench: &Bench, reload: &str, verify: &str| {
        bench.configure_with("true", reload, "");
        let both = ["ec", "rsa"]
            .map(|name| format!("[[certificate]]\nname = {name:?}\nserver_name = \"shop.test\"\n{verify}\n"));
        bench.reconfigure(|text| text + &both.concat());
    };
    configure(&bench, "true", "");
    bench.pull().await;
    let pair = |name: &str| {
        format!("ssl_certificate {live}/{name}/fullchain.pem; ssl_certificate_key {live}/{name}/privkey.pem;")
    };
    let server = format!(
        "server {{ listen 127.0.0.1:{port} ssl; {} {} }}",
        pair("ec"),
        pair("rsa")
    );
    bench.host.configure(&server).unwrap();
    bench.host.start().await.unwrap();
    configure(
        &bench,
        &bench.host.reload_command(),
        &format!("verify = \"127.0.0.1:{port}\""),
    );
    for days in [60, 80] {
        if days == 80 {
            publish(&mut bench, days);
        }
        let ran = bench.pull_with(&["--now"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        for name in ["ec", "rsa"] {
            let receipt = bench.receipt_of(name);
            assert_eq!((receipt.stage, receipt.reason), (Stage::Served, None), "{name}");
        }
    }

    // The RSA one is not reloaded: it is not hidden by the other one.
    configure(&bench, "true", &format!("verify = \"127.0.0.1:{port}\""));
    publish(&mut bench, 85);
    let ran = bench.pull_with(&["--now"]).await;
    for name in ["ec", "rsa"] {
        assert!(
            ran.err.contains(&format!("{name}: after the reload 127.0.0.1")),
            "{ran:?}"
        );
    }
}
