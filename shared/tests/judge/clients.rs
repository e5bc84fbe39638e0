//! What other clients say about a chain, and whether our own judgement agrees with them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use neverlapse::chain::roots::Roots;
use neverlapse::chain::{Criteria, KeyUse, judge};
use neverlapse::finding::{Finding, Kind, Severity, Thresholds};
use time::OffsetDateTime;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

/// A chain, and what it is judged by.
pub(crate) struct Exhibit {
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) name: String,
    pub(crate) at: OffsetDateTime,
}

/// What a client says.
pub(crate) struct Opinion {
    pub(crate) client: &'static str,
    pub(crate) accepts: bool,
    pub(crate) words: String,
}

/// What we say.
pub(crate) struct Judgement {
    pub(crate) worst: Severity,
    pub(crate) findings: Vec<Finding>,
}

/// When the tests began: certtool judges as of now, and cannot be asked for another time.
pub(crate) fn now() -> OffsetDateTime {
    static NOW: LazyLock<OffsetDateTime> = LazyLock::new(|| {
        let now = OffsetDateTime::now_utc();
        now.replace_nanosecond(0).unwrap()
    });
    *NOW
}

/// What every client says that can be asked here.
pub(crate) fn opinions(exhibit: &Exhibit) -> Vec<Opinion> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, certificates: &[CertificateDer<'_>]| {
        let pem: String = certificates.iter().map(to_pem).collect();
        fs::write(folder.path().join(name), pem).unwrap();
    };
    write("chain.pem", &exhibit.chain);
    write("leaf.pem", &exhibit.chain[..1]);
    write("sent.pem", &exhibit.chain[1..]);
    write("roots.pem", &exhibit.roots);

    let asked = [
        ("OpenSSL", Some(openssl(folder.path(), exhibit))),
        ("Go", go(folder.path(), exhibit)),
        ("GnuTLS", gnutls(folder.path(), exhibit)),
    ];
    let opinion = |(client, output): (&'static str, Option<Output>)| {
        let output = output?;
        let words = [output.stdout, output.stderr].concat();
        Some(Opinion {
            client,
            accepts: output.status.success(),
            words: String::from_utf8_lossy(&words).trim().to_owned(),
        })
    };
    asked.into_iter().filter_map(opinion).collect()
}

/// What we say.
pub(crate) fn ours(exhibit: &Exhibit) -> Judgement {
    let roots = exhibit.roots.iter().fold(Roots::public(), |roots, der| {
        roots.with_pem(to_pem(der).as_bytes()).unwrap()
    });
    let criteria = Criteria {
        name: &ServerName::try_from(exhibit.name.as_str()).unwrap(),
        roots: &roots,
        thresholds: Thresholds {
            warn_days: 1,
            critical_days: 0,
        },
        now: exhibit.at.into(),
        key_use: KeyUse::Signs,
        has_staple: None,
    };
    let findings = judge(&exhibit.chain, &criteria).findings;
    let worst = findings.iter().map(|finding| finding.severity).max();
    Judgement {
        worst: worst.unwrap_or(Severity::Ok),
        findings,
    }
}

impl Judgement {
    pub(crate) fn codes(&self) -> Vec<&str> {
        let codes = self.findings.iter().map(|finding| finding.kind.code().as_str());
        codes.collect()
    }

    /// The clients that we say refuse the chain, by what `certtool` and the others judge here.
    fn named(&self) -> BTreeSet<&str> {
        let clients = self.findings.iter().flat_map(|finding| match &finding.kind {
            Kind::SomeClientsRefuse { clients, .. } => clients.as_slice(),
            // GnuTLS looks at it in the handshake only.
            Kind::KeyUsage { clients, .. } => clients.split(|client| client == "GnuTLS").next().unwrap_or_default(),
            _ => &[],
        });
        clients.map(String::as_str).collect()
    }

    /// Where it breaks the rule: what all clients accept is never critical, what all of them refuse
    /// is critical, and where they differ, it is a warning that names those that refuse. Each of
    /// them may refuse it for a reason of its own: then all of them are named.
    pub(crate) fn disagreement(&self, opinions: &[Opinion]) -> Option<&'static str> {
        let named = self.named();
        let is_named = |opinion: &Opinion| named.contains(opinion.client);
        let are_refusing_named = opinions.iter().all(|opinion| opinion.accepts || is_named(opinion));
        let are_accepting_named = opinions.iter().any(|opinion| opinion.accepts && is_named(opinion));

        let do_all_refuse = !opinions.iter().any(|opinion| opinion.accepts);
        match self.worst {
            Severity::Critical if do_all_refuse => None,
            Severity::Critical => Some("some of them accept it, and it is critical"),
            _ if do_all_refuse && !are_refusing_named => Some("all of them refuse it, and it is not critical"),
            _ if !are_refusing_named => Some("one refuses it that is not named"),
            _ => are_accepting_named.then_some("one accepts it that is said to refuse it"),
        }
    }
}

pub(crate) fn to_pem(der: &CertificateDer<'_>) -> String {
    let body = data_encoding::BASE64.encode(der);
    let lines: Vec<_> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

fn openssl(folder: &Path, exhibit: &Exhibit) -> Output {
    let mut command = Command::new("openssl");
    command
        .current_dir(folder)
        .args(["verify", "-no-CApath", "-no-CAstore", "-CAfile", "roots.pem"])
        .args(["-purpose", "sslserver", "-auth_level", "1"])
        .args(["-attime", &exhibit.at.unix_timestamp().to_string()]);
    if exhibit.chain.len() > 1 {
        command.args(["-untrusted", "sent.pem"]);
    }
    let is_address = exhibit.name.parse::<std::net::IpAddr>().is_ok();
    command.args([
        if is_address { "-verify_ip" } else { "-verify_hostname" },
        &exhibit.name,
        "leaf.pem",
    ]);
    command
        .output()
        .expect("openssl can be run (Debian: apt-get install openssl)")
}

/// None where there is no Go.
fn go(folder: &Path, exhibit: &Exhibit) -> Option<Output> {
    static JUDGE: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("judge-go");
        let out = Command::new("go")
            .args(["build", "-o"])
            .arg(&built)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judge/go/main.go"))
            .output();
        if out.as_ref().is_ok_and(|out| out.status.success()) {
            return Some(built);
        }
        eprintln!("SKIPPED: Go judges nothing here ({out:?})");
        None
    });
    let output = Command::new(JUDGE.as_ref()?)
        .current_dir(folder)
        .args(["leaf.pem", "sent.pem", "roots.pem", &exhibit.name])
        .arg(exhibit.at.unix_timestamp().to_string())
        .output();
    Some(output.unwrap())
}

/// None where there is no certtool, and of another time than now.
fn gnutls(folder: &Path, exhibit: &Exhibit) -> Option<Output> {
    static IS_THERE: LazyLock<bool> = LazyLock::new(|| {
        let out = Command::new("certtool").arg("--version").output();
        if out.is_err() {
            eprintln!("SKIPPED: GnuTLS judges nothing here (Debian: apt-get install gnutls-bin)");
        }
        out.is_ok()
    });
    if !*IS_THERE || exhibit.at != now() {
        return None;
    }
    let output = Command::new("certtool")
        .current_dir(folder)
        .args(["--verify", "--verify-profile", "low", "--verify-purpose", SERVER_AUTH])
        .args(["--load-ca-certificate", "roots.pem", "--infile", "chain.pem"])
        .args(["--verify-hostname", &exhibit.name])
        .output();
    Some(output.unwrap())
}

/// id-kp-serverAuth (RFC 5280, 4.2.1.12).
const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
