//! Invented fleets, as reports: for the page's tests and its picture.

use std::net::{Ipv4Addr, SocketAddr};

use neverlapse::certificate::{Certificate, Role};
use neverlapse::finding::{Finding, Kind, Phase, Served, Severity};
use neverlapse::inventory::Problem;
use neverlapse::observation::{Observation, Revocation, Tls};
use neverlapse::report::{
    AddressReport, AddressStage, CertificateReport, EndpointReport, FailedTry, InstanceReport, InstanceStage,
    RenewalReport, Report, StoredVersion, Version,
};
use neverlapse::timestamp::Timestamp;
use time::Duration;

/// A shop's fleet, with one of most things that go wrong, and managed certificates in each stage.
pub fn shop(now: Timestamp) -> Report {
    let mut fleet = Fleet { now, next: 1 };
    let mut all = vec![
        fleet.ends("status.shop.example:443", LETS_ENCRYPT, 90, -2.3),
        fleet.ends("smtp://mail.shop.example:587", LETS_ENCRYPT, 90, 1.2),
        fleet.ends("legacy.shop.example:8443", DIGICERT, 199, 9.4),
        fleet.ends("vault.internal.shop.example:8200", INTERNAL, 30, 7.1),
        fleet.disagrees("shop.example:443"),
        fleet.misnamed("promo.shop.example:443"),
        fleet.revoked("login.shop.example:443"),
        fleet.silent("partner.example.net:8443"),
        fleet.nowhere("old-shop.example:443"),
    ];
    let healthy = [
        ("www.shop.example:443", LETS_ENCRYPT, 90, 47.0),
        ("api.shop.example:443", LETS_ENCRYPT, 90, 47.0),
        ("cdn.shop.example:443", LETS_ENCRYPT, 90, 47.0),
        ("images.shop.example:443", LETS_ENCRYPT, 90, 47.0),
        ("pay.shop.example:443", DIGICERT, 199, 151.0),
        ("pay-eu.shop.example:443", DIGICERT, 199, 131.5),
        ("auth.shop.example:443", LETS_ENCRYPT, 90, 61.2),
        ("admin.shop.example:8443", LETS_ENCRYPT, 90, 35.7),
        ("git.shop.example:443", LETS_ENCRYPT, 90, 71.1),
        ("grafana.shop.example:443", LETS_ENCRYPT, 90, 71.2),
        ("edge-1.shop.example:443", LETS_ENCRYPT, 6, 4.2),
        ("edge-2.shop.example:443", LETS_ENCRYPT, 6, 4.3),
        ("postgres://db.internal.shop.example:5432", INTERNAL, 30, 21.0),
        ("ldap://directory.internal.shop.example:389", INTERNAL, 30, 26.0),
        ("imap://mail.shop.example:143", LETS_ENCRYPT, 90, 66.0),
        ("b2b.shop.example:443", SECTIGO, 199, 88.0),
        ("docs.shop.example:443", AMAZON, 198, 97.0),
        ("jobs.shop.example:443", AMAZON, 198, 112.0),
        ("careers.shop.example:443", AMAZON, 198, 112.0),
        ("news.shop.example:443", LETS_ENCRYPT, 90, 78.4),
        ("search.shop.example:443", LETS_ENCRYPT, 90, 80.0),
    ];
    all.extend(healthy.map(|(name, issuer, life, left)| fleet.ends(name, issuer, life, left)));
    let mut idn = fleet.ends("xn--bcher-kva.example:443", LETS_ENCRYPT, 90, 54.0);
    idn.unicode = Some("bücher.example".to_owned());
    all.push(idn);
    let mut report = Report::new(now - Duration::milliseconds(12_400), now, all);
    report.certificates = managed(&report, now);
    report
}

/// The part of the shop's fleet that a picture of an alert has room for, with what is wrong in four
/// places.
pub fn corner(now: Timestamp) -> Report {
    let shop = shop(now);
    let shown = |endpoint: &EndpointReport| {
        let quiet = ["old-shop", "partner", "promo", "login", "vault", "smtp", "legacy"];
        !quiet.iter().any(|name| endpoint.endpoint.contains(name))
    };
    let mut corner = Report::new(shop.started_at, now, shop.endpoints.into_iter().filter(shown).collect());
    corner.certificates = shop.certificates;
    corner
}

/// So many endpoints, nearly all of them fine, each with a certificate of its own; and so many
/// managed certificates, with ten instances each, of which some are stuck.
pub fn large(now: Timestamp, count: u32, certificates: usize) -> Report {
    let mut fleet = Fleet { now, next: 1 };
    let issuers = [LETS_ENCRYPT, DIGICERT, SECTIGO, AMAZON];
    let one = |index: u32| {
        let left = f64::from(index.wrapping_mul(2_654_435_761) % 8_640) / 100.0 + 3.5;
        let name = format!("host-{index:05}.fleet.example:443");
        fleet.ends(&name, issuers[index as usize % issuers.len()], 90, left)
    };
    let all = (0..count).map(one).collect();
    let mut report = Report::new(now - Duration::seconds(40), now, all);
    let kinds = managed(&shop(now), now);
    report.certificates = (0..certificates)
        .map(|index| many(index, &kinds[index % kinds.len()]))
        .collect();
    report
}

/// A managed certificate like `kind`, by another name and with more instances.
fn many(index: usize, kind: &CertificateReport) -> CertificateReport {
    let name = format!("managed-{index:03}.fleet.example");
    let instance = |n: usize| InstanceReport {
        instance: format!("i-0{:016x}", index * 16 + n),
        ..kind.instances[n % kind.instances.len()].clone()
    };
    CertificateReport {
        identifiers: vec![name.clone(), format!("*.{name}")],
        current: kind.current.clone().map(|current| Version {
            fingerprint: format!("{index:064x}"),
            ..current
        }),
        instances: (0..10).map(instance).collect(),
        name,
        ..kind.clone()
    }
}

/// What somebody might put into a certificate, a banner or a resource record to get at whoever
/// reads the page.
pub fn hostile(now: Timestamp) -> Report {
    let mut report = shop(now);
    for (endpoint, text) in report.endpoints.iter_mut().zip(HOSTILE.iter().cycle()) {
        endpoint.unicode = Some((*text).to_owned());
        for seen in &mut endpoint.observations {
            if let Some(leaf) = &mut seen.leaf {
                leaf.subject = format!("CN={text}");
                leaf.issuer = format!("O={text},CN={text}");
                leaf.key = (*text).to_owned();
                leaf.names = vec![(*text).to_owned()];
            }
            let reason = (*text).to_owned();
            seen.revocation = Some(Revocation::Unknown { reason: reason.clone() });
            let kind = Kind::HandshakeFailed { reason };
            seen.findings.push(Finding::network(kind));
        }
    }
    for (certificate, text) in report.certificates.iter_mut().zip(HOSTILE.iter().cycle()) {
        certificate.identifiers = vec![(*text).to_owned()];
        certificate.renewal.failure = Some(FailedTry {
            problem: (*text).to_owned(),
            next_try: now,
            wait_until: None,
        });
        for instance in &mut certificate.instances {
            instance.host = Some((*text).to_owned());
            instance.reason = Some((*text).to_owned());
            instance.instance = (*text).to_owned();
        }
        for seen in &mut certificate.addresses {
            (seen.endpoint, seen.reason) = ((*text).to_owned(), Some((*text).to_owned()));
            seen.version = Some((*text).to_owned());
        }
    }
    report.problems = HOSTILE.map(Problem::new).to_vec();
    report.not_reached = HOSTILE.map(str::to_owned).to_vec();
    report
}

/// Each of them sets `window.owned` if a browser runs it.
pub const HOSTILE: [&str; 6] = [
    "<script>window.owned=1</script>",
    "</script><script>window.owned=1</script>",
    "<img src=x onerror=window.owned=1>",
    "\"><svg onload=window.owned=1>",
    "<!--<script>",
    "{{ 1 }} \u{202e}drowssap ]]> &lt;b&gt; \u{2028}'`${window.owned=1}",
];

struct Fleet {
    now: Timestamp,
    next: u32,
}

impl Fleet {
    /// An endpoint whose certificate lives so many days, and has so many left.
    fn ends(&mut self, name: &str, issuer: &str, life: i64, left: f64) -> EndpointReport {
        let seen = self.seen(name, issuer, life, left);
        self.endpoint(name, vec![seen], Vec::new())
    }

    fn disagrees(&mut self, name: &str) -> EndpointReport {
        let mut seen: Vec<_> = (0..4).map(|_| self.seen(name, LETS_ENCRYPT, 90, 75.0)).collect();
        let fresh = seen[0].leaf.clone();
        seen.iter_mut().for_each(|one| one.leaf.clone_from(&fresh));
        let stale = self.seen(name, LETS_ENCRYPT, 90, 11.8);
        seen[3].leaf = stale.leaf;
        seen[3].findings = stale.findings;
        let served = |range: std::ops::Range<usize>| {
            let leaf = seen[range.start].leaf.as_ref()?;
            Some(Served {
                fingerprint: leaf.fingerprint.clone(),
                not_after: leaf.not_after,
                addresses: seen[range].iter().map(|one| one.address).collect(),
            })
        };
        let certificates = [served(3..4), served(0..3)].into_iter().flatten().collect();
        let kind = Kind::AddressesDisagree { certificates };
        let finding = Finding::new(kind, Severity::Warning, self.now);
        self.endpoint(name, seen, vec![finding])
    }

    fn misnamed(&mut self, name: &str) -> EndpointReport {
        let mut seen = self.seen("www.shop.example:443", LETS_ENCRYPT, 90, 47.0);
        let kind = Kind::NameMismatch {
            expected: host(name),
            names: vec!["shop.example".to_owned(), "www.shop.example".to_owned()],
        };
        seen.findings = vec![Finding::new(kind, Severity::Critical, self.now)];
        self.endpoint(name, vec![seen], Vec::new())
    }

    fn revoked(&mut self, name: &str) -> EndpointReport {
        let mut seen = self.seen(name, DIGICERT, 199, 140.0);
        seen.revocation = Some(Revocation::Revoked);
        let kind = Kind::Revoked {
            subject: format!("CN={}", host(name)),
            serial: "0c4a71".to_owned(),
            revoked_at: self.now - Duration::hours(19),
            reason: Some("key compromise".to_owned()),
        };
        seen.findings = vec![Finding::new(kind, Severity::Critical, self.now)];
        self.endpoint(name, vec![seen], Vec::new())
    }

    fn silent(&mut self, name: &str) -> EndpointReport {
        let mut seen = self.seen(name, LETS_ENCRYPT, 90, 60.0);
        (seen.leaf, seen.tls, seen.revocation) = (None, None, None);
        seen.issuers.clear();
        seen.tries = 2;
        seen.elapsed_ms = 10_412;
        let kind = Kind::TimedOut {
            phase: Phase::Handshake,
            after_ms: 5_000,
        };
        seen.findings = vec![Finding::network(kind)];
        self.endpoint(name, vec![seen], Vec::new())
    }

    fn nowhere(&mut self, name: &str) -> EndpointReport {
        let kind = Kind::DnsFailed {
            name: host(name),
            reason: "no such name (NXDOMAIN)".to_owned(),
            is_answer: true,
        };
        self.endpoint(name, Vec::new(), vec![Finding::network(kind)])
    }

    fn endpoint(&self, name: &str, observations: Vec<Observation>, findings: Vec<Finding>) -> EndpointReport {
        let ends = observations
            .iter()
            .filter_map(|seen| Some(seen.leaf.as_ref()?.not_after));
        let not_after = ends.min();
        let all = observations.iter().flat_map(|seen| &seen.findings).chain(&findings);
        let status = all.map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
        EndpointReport {
            endpoint: name.to_owned(),
            unicode: None,
            sni: None,
            quiet: false,
            status,
            not_after,
            seconds_left: not_after.map(|end| (end - self.now).whole_seconds()),
            observations,
            skipped: Vec::new(),
            findings,
        }
    }

    fn seen(&mut self, name: &str, issuer: &str, life: i64, left: f64) -> Observation {
        self.next += 1;
        let not_after = self.now + Duration::seconds((left * 86_400.0) as i64);
        let leaf = Certificate {
            subject: format!("CN={}", host(name)),
            issuer: issuer.to_owned(),
            not_before: not_after - Duration::days(life),
            ..self.certificate(Role::Leaf, host(name), not_after)
        };
        let warn = 14.0_f64.min(life as f64 / 3.0);
        let critical = 3.0_f64.min(life as f64 / 10.0);
        let found = match left {
            ..0.0 => Some((Kind::Expired { not_after }, Severity::Critical)),
            _ if left < warn => {
                let severity = if left < critical {
                    Severity::Critical
                } else {
                    Severity::Warning
                };
                let threshold_seconds = (warn * 86_400.0) as i64;
                Some((
                    Kind::ExpiresSoon {
                        not_after,
                        threshold_seconds,
                    },
                    severity,
                ))
            }
            _ => None,
        };
        let intermediate = Certificate {
            subject: issuer.to_owned(),
            issuer: format!("CN=Root of {}", issuer.rsplit('=').next().unwrap_or_default()),
            not_before: self.now - Duration::days(400),
            names: Vec::new(),
            fingerprint: format!("{:064x}", issuer.len() * 7_919),
            ..self.certificate(Role::Path, String::new(), self.now + Duration::days(700))
        };
        Observation {
            address: SocketAddr::from((Ipv4Addr::from(0xc633_6400 + self.next % 256), port(name))),
            tls: Some(Tls {
                version: "TLSv1.3".to_owned(),
                cipher_suite: "TLS13_AES_256_GCM_SHA384".to_owned(),
                key_exchange: Some("X25519MLKEM768".to_owned()),
            }),
            leaf: Some(leaf),
            issuers: vec![intermediate],
            revocation: Some(Revocation::Good),
            other: None,
            findings: found
                .into_iter()
                .map(|(kind, severity)| Finding::new(kind, severity, self.now))
                .collect(),
            elapsed_ms: 14 + u64::from(self.next.wrapping_mul(31) % 90),
            tries: 1,
        }
    }

    fn certificate(&self, role: Role, name: String, not_after: Timestamp) -> Certificate {
        let hex = |factor: u128| format!("{:032x}", u128::from(self.next).wrapping_mul(factor));
        Certificate {
            subject: String::new(),
            issuer: String::new(),
            serial: hex(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834),
            fingerprint: hex(0xc2b2_ae3d_27d4_eb4f_1656_67b1_9e37_79f9)
                + &hex(0x2545_f491_4f6c_dd1d_9e37_79b9_85eb_ca6b),
            not_before: not_after,
            not_after,
            names: vec![name],
            key: "ecdsa-p256".to_owned(),
            signature: "ecdsa-sha384".to_owned(),
            role,
        }
    }
}

/// One that arrived, one that an instance has not pulled, one that its issuer refuses.
fn managed(report: &Report, now: Timestamp) -> Vec<CertificateReport> {
    let leaf = |name: &str| {
        let endpoint = report.endpoints.iter().find(|one| one.endpoint == name)?;
        let leaves = endpoint.observations.iter().filter_map(|seen| seen.leaf.clone());
        leaves.max_by_key(|leaf| leaf.not_after)
    };
    let version = |at: Timestamp| at.rfc3339().replace(['-', ':'], "");
    // The newest of an endpoint's certificates is the one to serve.
    let addresses = |name: &str| -> Vec<AddressReport> {
        let endpoint = report.endpoints.iter().find(|one| one.endpoint == name);
        let (observations, current) = (endpoint.map_or(&[][..], |one| &one.observations), leaf(name));
        let address = |seen: &Observation| {
            let is_current = seen.leaf.as_ref().map(|leaf| &leaf.fingerprint)
                == current.as_ref().map(|current| &current.fingerprint);
            AddressReport {
                endpoint: name.to_owned(),
                address: Some(seen.address),
                stage: if is_current {
                    AddressStage::Served
                } else {
                    AddressStage::Another
                },
                fingerprint: seen.leaf.as_ref().map(|leaf| leaf.fingerprint.clone()),
                version: current
                    .as_ref()
                    .filter(|_| is_current)
                    .map(|current| version(current.not_before)),
                not_after: seen.leaf.as_ref().map(|leaf| leaf.not_after),
                reason: None,
            }
        };
        observations.iter().map(address).collect()
    };
    let of = |name: &str, endpoint: &str, status| {
        let leaf = leaf(endpoint);
        let begin = leaf.as_ref().map_or(now, |leaf| leaf.not_before);
        let stored = |age: i64| StoredVersion {
            facts: Version {
                version: version(begin - Duration::days(age)),
                not_before: begin - Duration::days(age),
                not_after: begin - Duration::days(age) + Duration::days(90),
                fingerprint: match (&leaf, age) {
                    (Some(leaf), 0) => leaf.fingerprint.clone(),
                    _ => format!("{age:064x}"),
                },
                issuer: "letsencrypt".to_owned(),
            },
            current: age == 0,
        };
        CertificateReport {
            name: name.to_owned(),
            status,
            identifiers: vec![name.to_owned(), format!("*.{name}")],
            quiet: false,
            current: leaf.as_ref().map(|leaf| Version {
                issuer: "letsencrypt".to_owned(),
                version: version(begin),
                fingerprint: leaf.fingerprint.clone(),
                not_before: begin,
                not_after: leaf.not_after,
            }),
            history: [0, 60, 120].map(stored).to_vec(),
            instances: Vec::new(),
            addresses: addresses(endpoint),
            renewal: RenewalReport {
                planned: leaf.map(|leaf| leaf.not_after - Duration::days(30)),
                ..RenewalReport::default()
            },
            findings: Vec::new(),
        }
    };
    let instance = |certificate: &CertificateReport, index: usize, stage, reason: Option<&str>| InstanceReport {
        instance: format!("AROAEXAMPLE:i-0{:015x}", index * 0x1d_9e37_79b9),
        host: Some(format!("web-{index}.internal")),
        version: certificate.version().map(str::to_owned),
        stage,
        reason: reason.map(str::to_owned),
        at: certificate
            .current
            .as_ref()
            .map(|current| current.not_before + Duration::hours(index as i64)),
    };
    let mut delivered = of("www.shop.example", "www.shop.example:443", Severity::Ok);
    delivered.instances = (1..=3)
        .map(|index| instance(&delivered, index, InstanceStage::Served, None))
        .collect();
    let mut stuck = of("shop.example", "shop.example:443", Severity::Warning);
    stuck.instances = (1..=4)
        .map(|index| match index {
            4 => {
                let reason = "nginx -t failed: cannot load certificate key (permission denied)";
                instance(&stuck, 4, InstanceStage::Failed, Some(reason))
            }
            _ => instance(&stuck, index, InstanceStage::Served, None),
        })
        .collect();
    stuck.findings = stuck
        .instances
        .last()
        .map(|last| install_failed(&stuck, last, now))
        .into_iter()
        .collect();
    let mut refused = of("legacy.shop.example", "legacy.shop.example:8443", Severity::Warning);
    if let Some(current) = &mut refused.current {
        current.issuer = "digicert".to_owned();
    }
    refused.instances = vec![instance(&refused, 7, InstanceStage::Served, None)];
    let problem = "digicert: CAA record for shop.example prevents issuance (urn:ietf:params:acme:error:caa)";
    let (since, next_try) = (now - Duration::hours(30), now + Duration::hours(6));
    refused.renewal = RenewalReport {
        failure: Some(FailedTry {
            problem: problem.to_owned(),
            next_try,
            wait_until: None,
        }),
        planned: None,
    };
    let kind = Kind::RenewalFailed {
        name: refused.name.clone(),
        problem: problem.to_owned(),
        tries: 6,
        since,
        next_try,
    };
    refused.findings = vec![Finding::new(kind, Severity::Warning, now)];
    vec![stuck, refused, delivered]
}

fn install_failed(certificate: &CertificateReport, instance: &InstanceReport, now: Timestamp) -> Finding {
    let kind = Kind::InstallFailed {
        instance: instance.instance.clone(),
        host: instance.host.clone().unwrap_or_default(),
        version: certificate.version().unwrap_or_default().to_owned(),
        fingerprint: (certificate.current.as_ref()).map_or_else(String::new, |current| current.fingerprint.clone()),
        not_after: certificate.not_after().unwrap_or(now),
        reason: instance.reason.clone().unwrap_or_default(),
        since: instance.at.unwrap_or(now),
    };
    Finding::new(kind, Severity::Warning, now)
}

fn host(name: &str) -> String {
    let name = name.rsplit("//").next().unwrap_or(name);
    name.split(':').next().unwrap_or(name).to_owned()
}

fn port(name: &str) -> u16 {
    name.rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or(443)
}

const LETS_ENCRYPT: &str = "CN=E8,O=Let's Encrypt,C=US";
const DIGICERT: &str = "CN=DigiCert Global G3 TLS ECC SHA384 2020 CA1,O=DigiCert Inc,C=US";
const SECTIGO: &str = "CN=Sectigo Public Server Authentication CA DV E36,O=Sectigo Limited,C=GB";
const AMAZON: &str = "CN=Amazon RSA 2048 M03,O=Amazon,C=US";
const INTERNAL: &str = "CN=Shop internal CA 2026";
