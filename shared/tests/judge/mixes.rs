//! Random mixes of what certificates may say, each judged by all clients.
//!
//! Each mix has a seed of its own: `JUDGE_MIX=17` makes and prints that one alone, and
//! `JUDGE_MIXES=5000` makes so many of them.

use std::collections::BTreeMap;
use std::env;
use std::sync::LazyLock;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose as Usage, NameConstraints,
    OtherNameValue, RsaKeySize, SanType, SerialNumber,
};
use time::Duration;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::clients::{Exhibit, Opinion, now, opinions, ours};

#[test]
fn random_mixes_of_the_rules() {
    let number = |name: &str| Some(env::var(name).ok()?.parse::<u64>().unwrap());
    let seeds = match number("JUDGE_MIX") {
        Some(one) => one..one + 1,
        None => 0..number("JUDGE_MIXES").unwrap_or(MIXES),
    };

    let mut tally = BTreeMap::<String, u32>::new();
    let mut wrong = Vec::new();
    for seed in seeds.clone() {
        let mix = Mix::of(seed);
        let judgement = ours(&mix.exhibit);
        let mut votes = opinions(&mix.exhibit);

        // A client that is known to go its own way has no vote where that matters.
        let mut reasons = Vec::new();
        if judgement.disagreement(&votes).is_some() {
            votes.retain(|vote| match explained(&mix, vote) {
                Some(reason) => {
                    reasons.push(format!("differs, {}: {reason}", vote.client));
                    false
                }
                None => true,
            });
        }
        let refusing: Vec<_> = votes
            .iter()
            .filter(|vote| !vote.accepts)
            .map(|vote| vote.client)
            .collect();
        let outcome = match refusing.len() {
            _ if votes.is_empty() => "agrees: nobody has a vote".to_owned(),
            0 => format!("agrees: all accept, we say {}", judgement.worst),
            all if all == votes.len() => format!("agrees: all refuse, we say {}", judgement.worst),
            _ => format!("agrees: {} refuse, we say {}", refusing.join(" and "), judgement.worst),
        };
        let disagreement = judgement.disagreement(&votes).filter(|_| !votes.is_empty());

        let is_alone = seeds.end - seeds.start == 1;
        if disagreement.is_some() || is_alone {
            let said: Vec<_> = (votes.iter())
                .map(|vote| {
                    format!(
                        "\n    {} {}: {}",
                        vote.client,
                        if vote.accepts { "accepts" } else { "refuses" },
                        last_line(&vote.words)
                    )
                })
                .collect();
            let messages: Vec<_> = (judgement.findings.iter())
                .map(|finding| format!("\n    we say {}: {}", finding.severity, finding.message))
                .collect();
            let what = disagreement.unwrap_or("agrees");
            let text = format!(
                "JUDGE_MIX={seed} {what}: {:?}{}{}",
                mix.traits,
                messages.concat(),
                said.concat()
            );
            if disagreement.is_some() {
                wrong.push(text);
            } else {
                println!("{text}");
            }
        }
        for line in reasons.into_iter().chain(disagreement.is_none().then_some(outcome)) {
            *tally.entry(line).or_default() += 1;
        }
    }

    for (line, count) in &tally {
        println!("{count:>5} {line}");
    }
    assert!(
        wrong.is_empty(),
        "{} mixes of {seeds:?} disagree:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Why a client says what it says, where that is not what the rule is about.
fn explained(mix: &Mix, opinion: &Opinion) -> Option<&'static str> {
    let mut known = KNOWN
        .iter()
        .filter(|(client, about, _)| *client == opinion.client && mix.has(about));
    known.next().map(|(.., reason)| *reason)
}

/// A client, what a chain has, and the reason why the client's opinion of that does not count.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "OpenSSL",
        "names: underscore by wildcard",
        "X509_check_host alone compares no underscore with a wildcard; curl with OpenSSL does",
    ),
    ("OpenSSL", "sent: IntermediateTrusted", PARTIAL_CHAIN),
    ("Go", "sent: IntermediateTrusted", GIVEN),
    ("GnuTLS", "sent: IntermediateTrusted", GIVEN),
    (
        "GnuTLS",
        "strings: ",
        "it finds roots by a hash of their name's encoding, and that of another encoding may be the same",
    ),
    (
        "GnuTLS",
        "constraints: every name",
        "it takes a permitted subtree without a name beside another one for none",
    ),
    (
        "GnuTLS",
        "sent: CrossSigned",
        "it goes through a cross-sign that was sent, and not to the root of its name",
    ),
];

/// RFC 5280, 6.1.1: whatever is given as trusted is an anchor.
const PARTIAL_CHAIN: &str = "an intermediate is given as trusted, and it wants -partial_chain for that";
const GIVEN: &str = "an intermediate is given as trusted with its root, and what is above it counts or not";

fn last_line(words: &str) -> &str {
    words.lines().last().unwrap_or_default()
}

/// A random chain.
struct Mix {
    /// What is special about it.
    traits: Vec<String>,
    exhibit: Exhibit,
}

impl Mix {
    fn of(seed: u64) -> Self {
        let mut draft = Draft::new(seed);
        let count = *[0, 1, 1, 1, 2, 2, 2, 3, 3, 4].choose(&mut draft.rng).unwrap();
        for _ in 0..count {
            let change = CHANGES.choose(&mut draft.rng).unwrap();
            change(&mut draft);
        }
        draft.finish()
    }

    fn has(&self, part: &str) -> bool {
        part.is_empty() || self.traits.iter().any(|one| one.contains(part))
    }
}

/// One certificate before it is signed.
struct Entry {
    params: CertificateParams,
    key: &'static KeyPair,
    /// What it calls its issuer, if that is not the issuer's own name.
    issuer_name: Option<DnValue>,
}

/// What is done with the certificates once they are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrangement {
    Shuffled,
    Reversed,
    WithRoot,
    EachTwice,
    StraysFirst(usize),
    StraysLast(usize),
    WithoutLastIssuer,
    /// A certificate of the first issuer that differs in its dates, before or behind the good one.
    Twin {
        days: i64,
        is_first: bool,
    },
    /// A certificate of the first issuer's name and another key.
    Stranger {
        is_first: bool,
    },
    /// The root is an intermediate of another root, too.
    CrossSigned {
        is_trusted: bool,
        ends_in: i64,
    },
    /// The root is not trusted, its cross-sign is.
    OnlyCrossSigned {
        ends_in: i64,
    },
    UnknownRoot,
    AlsoTrusted,
    IntermediateTrusted,
    WrongSignature,
}

struct Draft {
    rng: StdRng,
    /// From the root to the leaf.
    row: Vec<Entry>,
    name: String,
    arrangements: Vec<Arrangement>,
    traits: Vec<String>,
}

type Change = fn(&mut Draft);

/// What may be special about a chain, one kind at a time.
const CHANGES: &[Change] = &[
    Draft::change_dates,
    Draft::change_dates,
    Draft::change_leaf_uses,
    Draft::change_issuer_uses,
    Draft::change_leaf_key_usage,
    Draft::change_issuer_key_usage,
    Draft::change_ca_flags,
    Draft::change_path_length,
    Draft::change_name_constraints,
    Draft::change_name_constraints,
    Draft::change_policies,
    Draft::add_critical_extension,
    Draft::add_critical_extension,
    Draft::change_string_types,
    Draft::change_string_types,
    Draft::change_key,
    Draft::change_alternative_names,
    Draft::change_alternative_names,
    Draft::change_serial,
    Draft::change_key_identifiers,
    Draft::repeat_an_extension,
    Draft::arrange,
    Draft::arrange,
    Draft::arrange,
];

impl Draft {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(SEED + seed);
        let intermediates = *[0, 1, 1, 1, 1, 2, 2, 3].choose(&mut rng).unwrap();
        let mut row = vec![authority("Root", 0)];
        row.extend((1..=intermediates).map(|level| authority(&format!("Issuer {level}"), level)));
        row.push(leaf());
        Self {
            rng,
            row,
            name: NAME.to_owned(),
            arrangements: Vec::new(),
            traits: vec![format!("{intermediates} issuers")],
        }
    }

    /// One of several, noted as a trait.
    fn one_of<T: Clone>(&mut self, about: &str, choices: &[(&str, T)]) -> T {
        let (what, choice) = choices.choose(&mut self.rng).unwrap();
        self.traits.push(format!("{about}: {what}"));
        choice.clone()
    }

    fn leaf(&mut self) -> &mut CertificateParams {
        &mut self.row.last_mut().unwrap().params
    }

    /// The place of any certificate above the leaf, the root included.
    fn any_issuer(&mut self) -> usize {
        let place = self.rng.random_range(0..self.row.len() - 1);
        self.traits.push(self.place(place));
        place
    }

    /// The place of any certificate.
    fn any(&mut self) -> usize {
        let place = self.rng.random_range(0..self.row.len());
        self.traits.push(self.place(place));
        place
    }

    fn place(&self, place: usize) -> String {
        match place {
            0 => "of the root".to_owned(),
            place if place + 1 == self.row.len() => "of the leaf".to_owned(),
            place => format!("of issuer {place}"),
        }
    }

    fn change_dates(&mut self) {
        let place = self.any();
        let (from, to) = self.one_of(
            "dates",
            &[
                ("ended yesterday", (-40, -1)),
                ("begins tomorrow", (1, 50)),
                ("ends in two hours", (-40, 0)),
                ("began long ago", (-30_000, 30)),
                ("ends late", (-40, 20_000)),
            ],
        );
        let params = &mut self.row[place].params;
        params.not_before = now() + Duration::days(from);
        params.not_after = now() + Duration::days(to) + Duration::hours(2);
    }

    fn change_leaf_uses(&mut self) {
        let uses = self.one_of(
            "uses of the leaf",
            &[
                ("server", vec![Eku::ServerAuth]),
                ("client", vec![Eku::ClientAuth]),
                ("both", vec![Eku::ClientAuth, Eku::ServerAuth]),
                ("any", vec![Eku::Any]),
                ("any and server", vec![Eku::Any, Eku::ServerAuth]),
                ("any and client", vec![Eku::Any, Eku::ClientAuth]),
                ("code", vec![Eku::CodeSigning]),
                ("unknown", vec![Eku::Other(vec![1, 3, 6, 1, 4, 1, 55_555, 3])]),
                (
                    "unknown and server",
                    vec![Eku::Other(vec![1, 3, 6, 1, 4, 1, 55_555, 3]), Eku::ServerAuth],
                ),
            ],
        );
        self.leaf().extended_key_usages = uses;
    }

    fn change_issuer_uses(&mut self) {
        let place = self.any_issuer();
        let uses = self.one_of(
            "uses of an issuer",
            &[
                ("server", vec![Eku::ServerAuth]),
                ("client", vec![Eku::ClientAuth]),
                ("both", vec![Eku::ClientAuth, Eku::ServerAuth]),
                ("any", vec![Eku::Any]),
                ("any and client", vec![Eku::Any, Eku::ClientAuth]),
                ("mail", vec![Eku::EmailProtection]),
                ("lists", vec![Eku::OcspSigning]),
            ],
        );
        self.row[place].params.extended_key_usages = uses;
    }

    fn change_leaf_key_usage(&mut self) {
        let usages = self.one_of(
            "key usage of the leaf",
            &[
                ("signs", vec![Usage::DigitalSignature]),
                (
                    "signs and enciphers",
                    vec![Usage::DigitalSignature, Usage::KeyEncipherment],
                ),
                ("enciphers", vec![Usage::KeyEncipherment]),
                ("agrees", vec![Usage::KeyAgreement]),
                ("lists", vec![Usage::CrlSign]),
                ("certificates", vec![Usage::KeyCertSign]),
                ("commits", vec![Usage::ContentCommitment]),
            ],
        );
        self.leaf().key_usages = usages;
    }

    fn change_issuer_key_usage(&mut self) {
        let place = self.any_issuer();
        let usages = self.one_of(
            "key usage of an issuer",
            &[
                ("none", vec![]),
                ("lists", vec![Usage::CrlSign]),
                ("signs", vec![Usage::DigitalSignature]),
                (
                    "signs and certificates",
                    vec![Usage::DigitalSignature, Usage::KeyCertSign],
                ),
                (
                    "all three",
                    vec![Usage::DigitalSignature, Usage::KeyCertSign, Usage::CrlSign],
                ),
            ],
        );
        self.row[place].params.key_usages = usages;
    }

    fn change_ca_flags(&mut self) {
        let place = self.any();
        let flag = self.one_of(
            "CA flag",
            &[
                ("no constraints at all", IsCa::NoCa),
                ("no CA", IsCa::ExplicitNoCa),
                ("CA", IsCa::Ca(BasicConstraints::Unconstrained)),
            ],
        );
        self.row[place].params.is_ca = flag;
    }

    fn change_path_length(&mut self) {
        let place = self.any_issuer();
        let length = self.one_of("path length", &[("0", 0), ("1", 1), ("2", 2)]);
        self.row[place].params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
    }

    fn change_name_constraints(&mut self) {
        let place = self.any_issuer();
        let dns = |name: &str| GeneralSubtree::DnsName(name.to_owned());
        let email = |name: &str| GeneralSubtree::Rfc822Name(name.to_owned());
        let net = |address: [u8; 4]| GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(address, 24));
        let directory = |name: &str| GeneralSubtree::DirectoryName(named(DnValue::Utf8String(name.to_owned())));
        let (is_permitted, subtree) = self.one_of(
            "constraints",
            &[
                ("this name", (true, dns(NAME))),
                ("names below it", (true, dns("www.example"))),
                ("the domain", (true, dns("example"))),
                ("the domain with a dot", (true, dns(".example"))),
                ("every name", (true, dns(""))),
                ("another name", (true, dns("other.example"))),
                ("but this name", (false, dns(NAME))),
                ("but the domain with a dot", (false, dns(".example"))),
                ("but every name", (false, dns(""))),
                ("but another name", (false, dns("other.example"))),
                ("a network", (true, net([192, 0, 2, 0]))),
                ("another network", (true, net([198, 51, 100, 0]))),
                ("but a network", (false, net([192, 0, 2, 0]))),
                ("mail", (true, email("example"))),
                ("mail of another host", (true, email("other.example"))),
                ("but mail", (false, email("www.example"))),
                ("this directory name", (true, directory(NAME))),
                ("another directory name", (true, directory("Other"))),
                ("but this directory name", (false, directory(NAME))),
                ("but another directory name", (false, directory("Other"))),
            ],
        );
        let constraints = self.row[place].params.name_constraints.get_or_insert(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: Vec::new(),
        });
        if is_permitted {
            constraints.permitted_subtrees.push(subtree);
        } else {
            constraints.excluded_subtrees.push(subtree);
        }
    }

    fn change_policies(&mut self) {
        let place = self.any();
        let is_critical = self.one_of("policies", &[("critical", true), ("not critical", false)]);
        let policy = |oid: &[u8]| sequence(&sequence(oid));
        let (number, content) = self.one_of(
            "policies",
            &[
                ("any", (32, policy(ANY_POLICY))),
                ("one", (32, policy(OV))),
                ("another", (32, policy(&[6, 3, 0x2a, 3, 9]))),
                ("explicit", (36, sequence(&[0x80, 1, 0]))),
                ("explicit later", (36, sequence(&[0x80, 1, 1]))),
                ("no mapping", (36, sequence(&[0x81, 1, 0]))),
                ("not any", (54, vec![2, 1, 0])),
                (
                    "mappings",
                    (33, sequence(&sequence(&[OV, &[6, 3, 0x2a, 3, 9]].concat()))),
                ),
            ],
        );
        self.add(place, &[2, 5, 29, number], content, is_critical);
    }

    fn add_critical_extension(&mut self) {
        let place = self.any();
        let (oid, content) = self.one_of(
            "critical extension",
            &[
                ("unknown", (vec![1, 3, 6, 1, 4, 1, 55_555, 1], vec![5, 0])),
                ("unknown of RFC 5280's arc", (vec![2, 5, 29, 99], vec![5, 0])),
                (
                    "subjectDirectoryAttributes",
                    (
                        vec![2, 5, 29, 9],
                        sequence(&sequence(&[6, 3, 0x2a, 3, 9, 0x31, 2, 5, 0])),
                    ),
                ),
                ("subjectKeyIdentifier", (vec![2, 5, 29, 14], vec![4, 2, 1, 2])),
                ("issuerAltName", (vec![2, 5, 29, 18], sequence(&[0x82, 1, b'x']))),
                ("CRL distribution points", (vec![2, 5, 29, 31], points())),
                ("freshest CRL", (vec![2, 5, 29, 46], points())),
                ("authorityInfoAccess", (vec![1, 3, 6, 1, 5, 5, 7, 1, 1], access())),
                ("subjectInfoAccess", (vec![1, 3, 6, 1, 5, 5, 7, 1, 11], access())),
                ("TLS feature", (vec![1, 3, 6, 1, 5, 5, 7, 1, 24], sequence(&[2, 1, 5]))),
                ("OCSP no check", (vec![1, 3, 6, 1, 5, 5, 7, 48, 1, 5], vec![5, 0])),
                (
                    "Netscape certificate type",
                    (vec![2, 16, 840, 1, 113_730, 1, 1], vec![3, 2, 6, 0x40]),
                ),
                (
                    "Netscape comment",
                    (vec![2, 16, 840, 1, 113_730, 1, 13], vec![0x16, 1, b'x']),
                ),
                (
                    "precertificate poison",
                    (vec![1, 3, 6, 1, 4, 1, 11_129, 2, 4, 3], vec![5, 0]),
                ),
                ("SCT list", (vec![1, 3, 6, 1, 4, 1, 11_129, 2, 4, 2], vec![4, 2, 0, 0])),
                (
                    "qualified certificate",
                    (
                        vec![1, 3, 6, 1, 5, 5, 7, 1, 3],
                        sequence(&sequence(&[6, 6, 4, 0, 0x8e, 0x46, 1, 1])),
                    ),
                ),
                (
                    "private key period",
                    (
                        vec![2, 5, 29, 16],
                        sequence(&[&[0x80, 15], &b"20200101000000Z"[..]].concat()),
                    ),
                ),
            ],
        );
        self.add(place, &oid, content, true);
    }

    fn change_string_types(&mut self) {
        let place = self.any_issuer();
        let bmp = |name: &str| DnValue::BmpString(name.try_into().unwrap());
        let universal = |name: &str| DnValue::UniversalString(name.try_into().unwrap());
        let teletex = |name: &str| DnValue::TeletexString(name.try_into().unwrap());
        let printable = |name: &str| DnValue::PrintableString(name.try_into().unwrap());
        let utf8 = |name: &str| DnValue::Utf8String(name.to_owned());
        let (own, used) = self.one_of(
            "strings",
            &[
                ("UTF-8 and printable", (utf8("Sub CA"), Some(printable("Sub CA")))),
                ("printable and UTF-8", (printable("Sub CA"), Some(utf8("Sub CA")))),
                ("printable and BMP", (printable("Sub CA"), Some(bmp("Sub CA")))),
                ("another case", (utf8("Sub CA"), Some(utf8("SUB ca")))),
                ("surplus blanks", (utf8("Sub CA"), Some(utf8("Sub   CA ")))),
                ("another name", (utf8("Sub CA"), Some(utf8("Sub-CA")))),
                ("teletex", (teletex("Sub CA"), None)),
                ("BMP", (bmp("Sub CA"), None)),
                ("universal", (universal("Sub CA"), None)),
                ("UTF-8", (utf8("Süb CA"), None)),
            ],
        );
        // The names of two issuers differ.
        let (own, used) = (numbered(own, place), used.map(|used| numbered(used, place)));
        self.row[place].params.distinguished_name = named(own);
        self.row[place + 1].issuer_name = used;
    }

    fn change_key(&mut self) {
        let place = self.any();
        let key = self.one_of(
            "key",
            &[
                ("P-384", 1),
                ("P-521", 2),
                ("Ed25519", 3),
                ("RSA 2048", 4),
                ("RSA 3072", 5),
            ],
        );
        self.row[place].key = &KEYS[key][place % KEYS[key].len()];
    }

    fn change_alternative_names(&mut self) {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let ip = |address: &str| SanType::IpAddress(address.parse().unwrap());
        let uri = SanType::URI("https://www.example/".try_into().unwrap());
        let mail = SanType::Rfc822Name("me@www.example".try_into().unwrap());
        let other = SanType::OtherName((
            vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3],
            OtherNameValue::Utf8String("me".to_owned()),
        ));
        let (name, names) = self.one_of(
            "names",
            &[
                ("capitals", (NAME, vec![dns("WWW.Example")])),
                ("wildcard", ("a.www.example", vec![dns("*.www.example")])),
                ("wildcard, apex", (NAME, vec![dns("*.www.example")])),
                ("wildcard, two labels", ("a.b.www.example", vec![dns("*.www.example")])),
                ("another", (NAME, vec![dns("shop.example")])),
                ("trailing dot", (NAME, vec![dns("www.example.")])),
                ("an address too", (NAME, vec![dns(NAME), ip("192.0.2.7")])),
                ("only an address", (NAME, vec![ip("192.0.2.7")])),
                ("asked for an address", ("192.0.2.7", vec![ip("192.0.2.7"), dns(NAME)])),
                ("asked for an IPv6 address", ("2001:db8::7", vec![ip("2001:db8::7")])),
                (
                    "asked for an address, which is a name",
                    ("192.0.2.7", vec![dns("192.0.2.7")]),
                ),
                ("a URI too", (NAME, vec![uri.clone(), dns(NAME)])),
                ("only a URI", (NAME, vec![uri])),
                ("mail too", (NAME, vec![dns(NAME), mail])),
                ("another form too", (NAME, vec![other, dns(NAME)])),
                ("none", (NAME, vec![])),
                ("none, another common name", ("shop.example", vec![])),
                ("underscore", ("a_b.www.example", vec![dns("a_b.www.example")])),
                (
                    "underscore by wildcard",
                    ("a_b.www.example", vec![dns("*.www.example")]),
                ),
                (
                    "punycode",
                    ("xn--bcher-kva.example", vec![dns("xn--bcher-kva.example")]),
                ),
                (
                    "punycode by wildcard",
                    ("xn--bcher-kva.www.example", vec![dns("*.www.example")]),
                ),
                ("a URL as a name", (NAME, vec![dns(NAME), dns("https://www.example/")])),
                ("blanks in a name", (NAME, vec![dns(NAME), dns("two words.example")])),
                ("an empty name", (NAME, vec![dns(NAME), dns("")])),
                ("a port in a name", (NAME, vec![dns(NAME), dns("www.example:443")])),
                ("a star alone", (NAME, vec![dns(NAME), dns("*")])),
                (
                    "a hundred",
                    (
                        NAME,
                        (0..100)
                            .map(|n| dns(&format!("n{n}.example")))
                            .chain([dns(NAME)])
                            .collect(),
                    ),
                ),
            ],
        );
        self.name = name.to_owned();
        let leaf = self.leaf();
        leaf.subject_alt_names = names;
        let has_subject = self.rng.random_range(0..4) > 0;
        if !has_subject {
            self.traits.push("without a subject".to_owned());
            self.leaf().distinguished_name = DistinguishedName::new();
        }
    }

    fn change_serial(&mut self) {
        let place = self.any();
        let serial = self.one_of(
            "serial",
            &[
                ("0", vec![0]),
                ("1", vec![1]),
                ("20 bytes", vec![0x7f; 20]),
                ("21 bytes", vec![0x7f; 21]),
                ("40 bytes", vec![0x7f; 40]),
            ],
        );
        self.row[place].params.serial_number = Some(SerialNumber::from_slice(&serial));
    }

    fn change_key_identifiers(&mut self) {
        let place = self.any();
        let content = self.one_of(
            "key identifier",
            &[
                ("right", None),
                ("wrong", Some(sequence(&[0x80, 4, 1, 2, 3, 4]))),
                (
                    "wrong serial",
                    Some(sequence(
                        &[&[0xa1, 6, 0x82, 1, b'x', 0x82, 1, b'y'][..], &[0x82, 1, 9]].concat(),
                    )),
                ),
            ],
        );
        match content {
            None => self.row[place].params.use_authority_key_identifier_extension = true,
            Some(content) => self.add(place, &[2, 5, 29, 35], content, false),
        }
    }

    fn repeat_an_extension(&mut self) {
        let place = self.any();
        let (oid, content) = self.one_of(
            "an extension twice",
            &[
                ("unknown", (vec![1, 3, 6, 1, 4, 1, 55_555, 2], vec![5, 0])),
                ("policies", (vec![2, 5, 29, 32], sequence(&sequence(OV)))),
            ],
        );
        self.add(place, &oid, content.clone(), false);
        self.add(place, &oid, content, false);
    }

    fn add(&mut self, place: usize, oid: &[u64], content: Vec<u8>, is_critical: bool) {
        let mut extension = CustomExtension::from_oid_content(oid, content);
        extension.set_criticality(is_critical);
        self.row[place].params.custom_extensions.push(extension);
    }

    fn arrange(&mut self) {
        use Arrangement::*;
        let all = [
            Shuffled,
            Reversed,
            WithRoot,
            EachTwice,
            StraysFirst(1),
            StraysFirst(3),
            StraysLast(2),
            StraysLast(20),
            WithoutLastIssuer,
            Twin {
                days: -1,
                is_first: true,
            },
            Twin {
                days: -1,
                is_first: false,
            },
            Stranger { is_first: true },
            Stranger { is_first: false },
            CrossSigned {
                is_trusted: true,
                ends_in: 100,
            },
            CrossSigned {
                is_trusted: true,
                ends_in: -1,
            },
            CrossSigned {
                is_trusted: false,
                ends_in: 100,
            },
            CrossSigned {
                is_trusted: false,
                ends_in: -1,
            },
            OnlyCrossSigned { ends_in: 100 },
            OnlyCrossSigned { ends_in: -1 },
            UnknownRoot,
            AlsoTrusted,
            IntermediateTrusted,
            WrongSignature,
        ];
        let one = *all.choose(&mut self.rng).unwrap();
        self.traits.push(format!("sent: {one:?}"));
        self.arrangements.push(one);
    }

    /// Signs everything, and puts it in order.
    fn finish(mut self) -> Mix {
        let signed: Vec<_> = (0..self.row.len())
            .map(|place| signed_by(&self.row[place], &self.row[place.saturating_sub(1)]))
            .collect();
        let (root, below) = signed.split_first().unwrap();
        let (leaf, issuers) = below.split_last().unwrap();
        let mut leaf = leaf.clone();
        let mut sent: Vec<_> = issuers.iter().rev().cloned().collect();
        let mut roots = vec![root.clone()];

        for arrangement in self.arrangements.clone() {
            let issuer = &self.row[self.row.len() - 2];
            let above_issuer = &self.row[self.row.len().saturating_sub(3)];
            let has_issuer = self.row.len() > 2;
            match arrangement {
                Arrangement::Shuffled => sent.shuffle(&mut self.rng),
                Arrangement::Reversed => sent.reverse(),
                Arrangement::WithRoot => sent.push(root.clone()),
                Arrangement::EachTwice => {
                    let again = sent.clone();
                    sent.extend(again);
                    sent.push(leaf.clone());
                }
                Arrangement::StraysFirst(count) => drop(sent.splice(0..0, strays(count))),
                Arrangement::StraysLast(count) => sent.extend(strays(count)),
                Arrangement::WithoutLastIssuer => drop(sent.pop()),
                Arrangement::Twin { days, is_first } if has_issuer => {
                    let mut params = issuer.params.clone();
                    params.not_after = now() + Duration::days(days);
                    let twin = Entry {
                        params,
                        key: issuer.key,
                        issuer_name: issuer.issuer_name.clone(),
                    };
                    let at = if is_first { 0 } else { sent.len() };
                    sent.insert(at, signed_by(&twin, above_issuer));
                }
                Arrangement::Stranger { is_first } if has_issuer => {
                    let stranger = Entry {
                        params: issuer.params.clone(),
                        key: &KEYS[0][5],
                        issuer_name: None,
                    };
                    let at = if is_first { 0 } else { sent.len() };
                    sent.insert(at, signed_by(&stranger, &authority("Other Root", 7)));
                }
                Arrangement::Twin { .. } | Arrangement::Stranger { .. } => {}
                Arrangement::CrossSigned { is_trusted, ends_in } => {
                    let other = authority("Cross Root", 6);
                    sent.push(cross_sign(&self.row[0], &other, ends_in));
                    if is_trusted {
                        roots.push(signed_by(&other, &other));
                    }
                }
                Arrangement::OnlyCrossSigned { ends_in } => {
                    let other = authority("Cross Root", 6);
                    sent.push(cross_sign(&self.row[0], &other, ends_in));
                    roots = vec![signed_by(&other, &other)];
                }
                Arrangement::UnknownRoot => {
                    let other = authority("Other Root", 7);
                    roots = vec![signed_by(&other, &other)];
                }
                Arrangement::AlsoTrusted => {
                    let other = authority("Other Root", 7);
                    roots.insert(0, signed_by(&other, &other));
                }
                Arrangement::IntermediateTrusted => roots.extend(issuers.last().cloned()),
                Arrangement::WrongSignature => {
                    let mut bytes = leaf.to_vec();
                    *bytes.last_mut().unwrap() ^= 1;
                    leaf = CertificateDer::from(bytes);
                }
            }
        }

        Mix {
            traits: self.traits,
            exhibit: Exhibit {
                chain: std::iter::once(leaf).chain(sent).collect(),
                roots,
                name: self.name,
                at: now(),
            },
        }
    }
}

/// A certificate of `entry` by `issuer`, under the name that it calls it by.
fn signed_by(entry: &Entry, issuer: &Entry) -> CertificateDer<'static> {
    let mut params = issuer.params.clone();
    if let Some(name) = &entry.issuer_name {
        params.distinguished_name = named(name.clone());
    }
    let issuer = Issuer::from_params(&params, issuer.key);
    entry.params.signed_by(entry.key, &issuer).unwrap().der().clone()
}

fn cross_sign(root: &Entry, other: &Entry, ends_in: i64) -> CertificateDer<'static> {
    let mut params = root.params.clone();
    params.not_after = now() + Duration::days(ends_in);
    let entry = Entry {
        params,
        key: root.key,
        issuer_name: None,
    };
    signed_by(&entry, other)
}

/// Certificates that have nothing to do with the chain.
fn strays(count: usize) -> Vec<CertificateDer<'static>> {
    let other = authority("Stray Root", 8);
    (0..count)
        .map(|number| signed_by(&authority(&format!("Stray {number}"), 9), &other))
        .collect()
}

/// A CA with one of the keys of the first kind.
fn authority(name: &str, key: usize) -> Entry {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(DnValue::Utf8String(name.to_owned()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Usage::KeyCertSign, Usage::CrlSign];
    params.not_before = now() - Duration::days(1_000);
    params.not_after = now() + Duration::days(1_000);
    Entry {
        params,
        key: &KEYS[0][key],
        issuer_name: None,
    }
}

fn leaf() -> Entry {
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.distinguished_name = named(DnValue::Utf8String(NAME.to_owned()));
    params.not_before = now() - Duration::days(45);
    params.not_after = now() + Duration::days(45);
    Entry {
        params,
        key: &KEYS[0][4],
        issuer_name: None,
    }
}

fn named(value: DnValue) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, value);
    name
}

/// The name with a number behind it, in the same type of string.
fn numbered(name: DnValue, number: usize) -> DnValue {
    let text = |name: &str| format!("{name} {number}");
    match name {
        DnValue::BmpString(_) => DnValue::BmpString(text("Sub CA").as_str().try_into().unwrap()),
        DnValue::UniversalString(_) => DnValue::UniversalString(text("Sub CA").as_str().try_into().unwrap()),
        DnValue::TeletexString(name) => DnValue::TeletexString(text(name.as_str()).as_str().try_into().unwrap()),
        DnValue::PrintableString(name) => DnValue::PrintableString(text(name.as_str()).as_str().try_into().unwrap()),
        DnValue::Utf8String(name) => DnValue::Utf8String(text(&name)),
        other => other,
    }
}

fn sequence(contents: &[u8]) -> Vec<u8> {
    [&[0x30, u8::try_from(contents.len()).unwrap()][..], contents].concat()
}

/// One distribution point: http://x/
fn points() -> Vec<u8> {
    sequence(&sequence(&[&[0xa0, 13, 0xa0, 11, 0x86, 9][..], b"http://x/"].concat()))
}

/// One access description: OCSP at http://x/
fn access() -> Vec<u8> {
    sequence(&sequence(
        &[&[6, 8, 0x2b, 6, 1, 5, 5, 7, 48, 1, 0x86, 9][..], b"http://x/"].concat(),
    ))
}

/// Keys of each kind; those of one kind all differ.
static KEYS: LazyLock<Vec<Vec<KeyPair>>> = LazyLock::new(|| {
    let of = |algorithm| (0..10).map(|_| KeyPair::generate_for(algorithm).unwrap()).collect();
    let rsa = |size| {
        (0..2)
            .map(|_| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap())
            .collect()
    };
    vec![
        of(&rcgen::PKCS_ECDSA_P256_SHA256),
        of(&rcgen::PKCS_ECDSA_P384_SHA384),
        of(&rcgen::PKCS_ECDSA_P521_SHA512),
        of(&rcgen::PKCS_ED25519),
        rsa(RsaKeySize::_2048),
        rsa(RsaKeySize::_3072),
    ]
});

const SEED: u64 = 20_261_126;
const MIXES: u64 = 300;
const NAME: &str = "www.example";
const ANY_POLICY: &[u8] = &[6, 4, 0x55, 0x1d, 0x20, 0];
const OV: &[u8] = &[6, 6, 0x67, 0x81, 0x0c, 1, 2, 2];
