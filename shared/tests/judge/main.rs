//! Independent judges: OpenSSL, Go and GnuTLS judge the same chains. What all of them accept is
//! never critical for us, what all of them refuse is critical, and where they differ it is a
//! warning that names those that refuse; the tables have the reason of each exception.

mod clients;
mod mixes;

use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose as Usage, NameConstraints,
    SanType, SerialNumber,
};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio_rustls::rustls::pki_types::CertificateDer;

use self::clients::{Exhibit, now, opinions, ours};

const DAY: time::Duration = time::Duration::DAY;
const SHOP: &str = "shop.example";

/// A chain, and the findings that are expected.
struct Case {
    what: &'static str,
    exhibit: Exhibit,
    ours: &'static [&'static str],
    /// Why the clients say something else, if they do.
    differs: Option<&'static str>,
}

#[test]
fn names() {
    let pki = Pki::new();
    let named = |sans: Vec<SanType>| pki.chain(|leaf| leaf.subject_alt_names = sans);
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let ip = |address: &str| SanType::IpAddress(address.parse().unwrap());
    let case = |what, chain, name, ours| pki.case(what, chain, ours).of(name);
    let mismatch: &[&str] = &["name_mismatch"];
    let differ: &[&str] = &["some_clients_refuse"];
    compare(vec![
        case("exact", named(vec![dns(SHOP)]), SHOP, &[]),
        case("in capitals", named(vec![dns("SHOP.Example")]), SHOP, &[]),
        case(
            "one of many",
            named(vec![dns("a.example"), dns(SHOP), dns("b.example")]),
            SHOP,
            &[],
        ),
        case("another", named(vec![dns("shop.example.net")]), SHOP, mismatch),
        case("a parent", named(vec![dns("example")]), SHOP, mismatch),
        case("wildcard", named(vec![dns("*.shop.example")]), "a.shop.example", &[]),
        case("wildcard, apex", named(vec![dns("*.shop.example")]), SHOP, mismatch),
        case(
            "wildcard, two labels",
            named(vec![dns("*.shop.example")]),
            "a.b.shop.example",
            mismatch,
        ),
        case(
            "wildcard in the middle",
            named(vec![dns("a.*.example")]),
            "a.shop.example",
            mismatch,
        ),
        case(
            "wildcard of a top-level domain",
            named(vec![dns("*.example")]),
            SHOP,
            differ,
        ),
        case(
            "part of a label",
            named(vec![dns("s*.shop.example")]),
            "sub.shop.example",
            differ,
        ),
        case(
            "part of another label",
            named(vec![dns("t*.shop.example")]),
            "sub.shop.example",
            mismatch,
        ),
        case(
            "punycode",
            named(vec![dns("xn--bcher-kva.example")]),
            "xn--bcher-kva.example",
            &[],
        ),
        case("a homograph", named(vec![dns("xn--hop-ssc.example")]), SHOP, mismatch),
        case("with a trailing dot", named(vec![dns("shop.example.")]), SHOP, differ),
        case(
            "an address as the common name only",
            pki.chain(|leaf| {
                leaf.subject_alt_names.clear();
                leaf.distinguished_name = DistinguishedName::new();
                leaf.distinguished_name.push(DnType::CommonName, "192.0.2.7");
            }),
            "192.0.2.7",
            differ,
        ),
        case("an address", named(vec![ip("192.0.2.7")]), "192.0.2.7", &[]),
        case("an IPv6 address", named(vec![ip("2001:db8::7")]), "2001:db8::7", &[]),
        case("another address", named(vec![ip("192.0.2.7")]), "192.0.2.8", mismatch),
        case(
            "an address as a name",
            named(vec![dns("192.0.2.7")]),
            "192.0.2.7",
            mismatch,
        ),
        case("common name only", named(vec![]), SHOP, differ),
        case("another common name only", named(vec![]), "a.example", mismatch),
        case(
            "common name, and an address",
            named(vec![ip("192.0.2.7")]),
            SHOP,
            differ,
        ),
        case(
            "common name, and an address of mail",
            named(vec![SanType::Rfc822Name("me@shop.example".try_into().unwrap())]),
            SHOP,
            differ,
        ),
        case(
            "common name, and a URI",
            named(vec![SanType::URI("https://shop.example/".try_into().unwrap())]),
            SHOP,
            differ,
        ),
        case(
            "common name, and another name",
            named(vec![dns("a.example")]),
            SHOP,
            mismatch,
        ),
        case("no subject, critical names", nameless(&pki), SHOP, &[]),
        case(
            "NUL in the name",
            raw_name(&pki, b"shop.example\0.evil.example"),
            SHOP,
            mismatch,
        ),
        case(
            "an empty name",
            raw_name(&pki, b""),
            SHOP,
            &["name_mismatch", "some_clients_refuse"],
        ),
        case(
            "3,000 names, which are 80 kB, and this one",
            named(
                (0..3_000)
                    .map(|n| dns(&format!("{n}-long.sans.example")))
                    .chain([dns(SHOP)])
                    .collect(),
            ),
            SHOP,
            differ,
        ),
        case(
            "3,000 names without it",
            named((0..3_000).map(|n| dns(&format!("{n}-long.sans.example"))).collect()),
            SHOP,
            &["name_mismatch", "some_clients_refuse"],
        ),
        case(
            "a thousand names",
            named((0..1_000).map(|n| dns(&format!("n{n}.example"))).collect()),
            SHOP,
            mismatch,
        ),
    ]);
}

#[test]
fn dates() {
    let pki = Pki::new();
    let (from, to) = (now() - 45 * DAY, now() + 45 * DAY);
    let usual = || pki.chain(|_| {});
    let until = |end| pki.chain(move |leaf| leaf.not_after = end);
    let case = |what, at, ours| pki.case(what, usual(), ours).at(at);
    compare(vec![
        case("first second", from, &[]),
        case("one second before", from - time::Duration::SECOND, &["not_yet_valid"]),
        case("last second", to, &["expires_soon"])
            .differs("RFC 5280, 4.1.2.5: the last second belongs to it; OpenSSL ends it a second early"),
        case("one second after", to + time::Duration::SECOND, &["expired"]),
        pki.case(
            "GeneralizedTime",
            until(datetime!(2061-01-01 0:00 UTC)),
            &["long_lifetime"],
        ),
        pki.case(
            "the last date there is",
            until(datetime!(9999-12-31 23:59:59 UTC)),
            &["long_lifetime"],
        ),
        pki.case(
            "begins in 1970",
            pki.chain(|leaf| leaf.not_before = OffsetDateTime::UNIX_EPOCH),
            &[],
        ),
        pki.case(
            "begins in 1955",
            pki.chain(|leaf| leaf.not_before = datetime!(1955-01-01 0:00 UTC)),
            &[],
        ),
        pki.case(
            "ends before it begins",
            pki.chain(|leaf| leaf.not_after = from - DAY),
            &["expired", "invalid_chain"],
        ),
    ]);
}

#[test]
fn what_is_sent_with_the_leaf() {
    let (pki, other) = (Pki::new(), Pki::named("Other"));
    let leaf = || pki.chain(|_| {}).remove(0);
    let (ours, root) = (pki.intermediate(), pki.root.clone());
    let stray = Authority::new("Stray", |stray| stray.not_after = now() - DAY);
    let broken = |der: CertificateDer<'static>| {
        let mut bytes = der.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        CertificateDer::from(bytes)
    };
    let again = Authority::new("Our Root", |_| {});
    let pinned = self_signed();
    compare(vec![
        pki.case("as it should be", vec![leaf(), ours.clone()], &[]),
        pki.case("with the root", vec![leaf(), ours.clone(), root.clone()], &[]),
        pki.case("unordered", vec![leaf(), root.clone(), ours.clone()], &[]),
        pki.case(
            "each twice",
            vec![leaf(), ours.clone(), leaf(), ours.clone(), root.clone()],
            &[],
        ),
        pki.case("an expired one too many", vec![leaf(), stray.root(), ours.clone()], &[]),
        pki.case(
            "another's issuer too",
            vec![leaf(), other.intermediate(), ours.clone()],
            &[],
        ),
        pki.case("without the issuer", vec![leaf()], &["incomplete_chain"]),
        pki.case(
            "with another's issuer",
            vec![leaf(), other.intermediate()],
            &["incomplete_chain"],
        ),
        pki.case("from an unknown root", vec![leaf(), ours.clone()], &["untrusted_root"])
            .trusting(vec![other.root.clone()]),
        pki.case(
            "from an unknown root, sent",
            vec![leaf(), ours.clone(), root.clone()],
            &["untrusted_root"],
        )
        .trusting(vec![other.root.clone()]),
        pki.case("from a recreated root", vec![leaf(), ours.clone()], &["untrusted_root"])
            .trusting(vec![again.root()]),
        // Without key identifiers, OpenSSL takes the first of its name, and GnuTLS the last.
        pki.case(
            "a recreated root, the old one last",
            vec![leaf(), ours.clone()],
            &["some_clients_refuse"],
        )
        .trusting(vec![root.clone(), again.root()]),
        pki.case(
            "a recreated root, the old one first",
            vec![leaf(), ours.clone()],
            &["some_clients_refuse"],
        )
        .trusting(vec![again.root(), root.clone()]),
        pki.case(
            "a broken signature",
            vec![broken(leaf()), ours.clone()],
            &["invalid_chain"],
        ),
        pki.case(
            "an issuer's broken signature",
            vec![leaf(), broken(ours.clone())],
            &["untrusted_root"],
        ),
        pki.case("self-signed", vec![self_signed()], &["self_signed"]),
        pki.case("pinned", vec![pinned.clone()], &[]).trusting(vec![pinned]),
        pki.case("a trusted intermediate", vec![leaf()], &[])
            .trusting(vec![ours])
            .differs(
                "whatever is given as trusted is an anchor (RFC 5280, 6.1.1); OpenSSL wants -partial_chain for it",
            ),
    ]);
}

#[test]
fn rules_of_a_path() {
    let pki = Pki::new();
    let invalid: &[&str] = &["invalid_chain"];
    let leaf = |change: &dyn Fn(&mut CertificateParams)| pki.chain(change);
    let under = |change: &dyn Fn(&mut CertificateParams)| pki.chain_under(change);
    let permitted = |subtree: GeneralSubtree| constraints(vec![subtree], vec![]);
    let excluded = |subtree: GeneralSubtree| constraints(vec![], vec![subtree]);
    let dns = |name: &str| GeneralSubtree::DnsName(name.to_owned());
    let net = |address: [u8; 4], bits| GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(address, bits));
    let at_an_address = |leaf: &mut CertificateParams| {
        leaf.subject_alt_names = vec![SanType::IpAddress([192, 0, 2, 7].into())];
    };
    let in_net = |subtree| {
        let net = pki
            .top
            .issue("Net", |issuer| issuer.name_constraints = permitted(subtree));
        let chain = vec![leaf_of(&net.authority, at_an_address), net.der];
        pki.case("an address under constraints", chain, &[]).of("192.0.2.7")
    };
    let unknown = |critical| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
        extension.set_criticality(critical);
        vec![extension]
    };
    let length = |most| move |ca: &mut CertificateParams| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(most));
    let short = Authority::new("Short", length(0));
    let below = short.issue("Below", |_| {});
    let zero = pki.top.issue("Zero", length(0));
    let sub = zero.authority.issue("Sub", |_| {});
    compare(vec![
        pki.case("path length kept", under(&length(0)), &[]),
        pki.case(
            "path length exceeded",
            vec![leaf_of(&sub.authority, |_| {}), sub.der, zero.der],
            invalid,
        ),
        pki.case(
            "path length of the root exceeded",
            vec![leaf_of(&below.authority, |_| {}), below.der],
            invalid,
        )
        .trusting(vec![short.root()]),
        pki.case(
            "permitted",
            under(&|issuer| issuer.name_constraints = permitted(dns(SHOP))),
            &[],
        ),
        pki.case(
            "permitted above",
            under(&|issuer| issuer.name_constraints = permitted(dns("example"))),
            &[],
        ),
        pki.case(
            "not permitted",
            under(&|issuer| issuer.name_constraints = permitted(dns("other.example"))),
            invalid,
        ),
        pki.case(
            "excluded",
            under(&|issuer| issuer.name_constraints = excluded(dns(SHOP))),
            invalid,
        ),
        pki.case(
            "something else excluded",
            under(&|issuer| issuer.name_constraints = excluded(dns("a.example"))),
            &[],
        ),
        in_net(net([192, 0, 2, 0], 24)),
        Case {
            ours: invalid,
            ..in_net(net([198, 51, 100, 0], 24))
        },
        pki.case(
            "an issuer that is no CA",
            under(&|issuer| issuer.is_ca = IsCa::ExplicitNoCa),
            invalid,
        ),
        pki.case(
            "an issuer that does not say it is one",
            under(&|issuer| issuer.is_ca = IsCa::NoCa),
            invalid,
        ),
        pki.case(
            "an issuer for lists only",
            under(&|issuer| issuer.key_usages = vec![Usage::CrlSign]),
            invalid,
        ),
        pki.case(
            "an issuer without key usage",
            under(&|issuer| issuer.key_usages = vec![]),
            &[],
        ),
        pki.case(
            "an issuer for clients",
            under(&|issuer| issuer.extended_key_usages = vec![Eku::ClientAuth]),
            invalid,
        ),
        pki.case(
            "an issuer for servers",
            under(&|issuer| issuer.extended_key_usages = vec![Eku::ServerAuth]),
            &[],
        ),
        pki.case(
            "a leaf for clients",
            leaf(&|leaf| leaf.extended_key_usages = vec![Eku::ClientAuth]),
            invalid,
        ),
        pki.case(
            "a leaf for both",
            leaf(&|leaf| leaf.extended_key_usages = vec![Eku::ClientAuth, Eku::ServerAuth]),
            &[],
        ),
        pki.case(
            "a leaf for anything",
            leaf(&|leaf| leaf.extended_key_usages = vec![Eku::Any]),
            &["some_clients_refuse"],
        ),
        pki.case(
            "a leaf that signs",
            leaf(&|leaf| leaf.key_usages = vec![Usage::DigitalSignature]),
            &[],
        ),
        pki.case(
            "a leaf that signs lists only",
            leaf(&|leaf| leaf.key_usages = vec![Usage::CrlSign]),
            &["key_usage"],
        ),
        pki.case(
            "a leaf that is a CA",
            leaf(&|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            &["some_clients_refuse"],
        ),
        pki.case(
            "an unknown extension",
            leaf(&|leaf| leaf.custom_extensions = unknown(false)),
            &[],
        ),
        pki.case(
            "an unknown critical extension",
            leaf(&|leaf| leaf.custom_extensions = unknown(true)),
            invalid,
        ),
        pki.case(
            "an issuer's",
            under(&|issuer| issuer.custom_extensions = unknown(true)),
            invalid,
        ),
        pki.case(
            "serial 0",
            leaf(&|leaf| leaf.serial_number = Some(SerialNumber::from_slice(&[0]))),
            &[],
        ),
        pki.case(
            "a serial of 40 bytes",
            leaf(&|leaf| leaf.serial_number = Some(SerialNumber::from_slice(&[0x7f; 40]))),
            &[],
        ),
        pki.case(
            "a wrong key identifier",
            leaf(&|leaf| leaf.custom_extensions = vec![key_identifier()]),
            &["some_clients_refuse"],
        ),
    ]);
}

#[test]
fn cross_signs() {
    let (dst, x1) = (
        Authority::new("DST Root X3", |root| root.not_after = now() - 1_000 * DAY),
        Authority::new("ISRG Root X1", |_| {}),
    );
    let r3 = x1.issue("R3", |_| {});
    let leaf = || leaf_of(&r3.authority, |_| {});
    let cross = |days: i32| dst.sign(&x1, |cross| cross.not_after = now() + days * DAY);
    let pki = Pki::new();
    let case = |what, chain, roots: &[&Authority], ours| {
        let roots = roots.iter().map(|root| root.root()).collect();
        pki.case(what, chain, ours).trusting(roots)
    };
    let through = |days| vec![leaf(), r3.der.clone(), cross(days)];
    // Two intermediates of one name: another key, or another date.
    let stranger = Authority::new("ISRG Root X1", |_| {}).issue("R3", |_| {});
    let expired = x1.sign(&r3.authority, |again| again.not_after = now() - DAY);
    let (a, b) = (Authority::new("A", |_| {}), Authority::new("B", |_| {}));
    let circle = vec![leaf_of(&a, |_| {}), b.sign(&a, |_| {}), a.sign(&b, |_| {})];
    compare(vec![
        case(
            "the expired root besides the good one",
            through(1_000),
            &[&dst, &x1],
            &[],
        ),
        case("the good root, an expired cross-sign", through(-1), &[&x1], &[]),
        case("both roots, an expired cross-sign", through(-1), &[&dst, &x1], &[]),
        case("the expired root only", through(1_000), &[&dst], &["issuer_expired"]),
        case(
            "an expired way to it",
            through(-1),
            &[&dst],
            &["issuer_expired", "issuer_expired"],
        ),
        case(
            "an expired namesake first",
            vec![leaf(), expired.clone(), r3.der.clone()],
            &[&x1],
            &["some_clients_refuse"],
        ),
        case(
            "an expired issuer only",
            vec![leaf(), expired],
            &[&x1],
            &["issuer_expired"],
        ),
        case(
            "a stranger of that name first",
            vec![leaf(), stranger.der.clone(), r3.der.clone()],
            &[&x1],
            &["some_clients_refuse"],
        ),
        case(
            "a stranger of that name only",
            vec![leaf(), stranger.der],
            &[&x1],
            &["invalid_chain"],
        ),
        case("a circle", circle.clone(), &[&x1], &["untrusted_root"]),
        case("a circle with a way out", circle, &[&b], &[]),
    ]);
}

/// A sub-CA was stamped by a clock that was ahead, and a root in a PEM file had expired: every
/// client refused, and nothing was found.
#[test]
fn dates_above_the_leaf() {
    let pki = Pki::new();
    let under = |change: &dyn Fn(&mut CertificateParams)| pki.chain_under(change);
    let future: &[&str] = &["issuer_not_yet_valid"];
    let expired: &[&str] = &["issuer_expired"];
    let begins = |ca: &mut CertificateParams| ca.not_before = now() + DAY;
    let ended = |ca: &mut CertificateParams| ca.not_after = now() - DAY;

    let upper = pki.top.issue("Upper", begins);
    let lower = upper.authority.issue("Lower", |_| {});
    let twin = Authority::new("Twin", |_| {});
    let twins = |first: CertificateDer<'static>, second| vec![leaf_of(&twin, |_| {}), first, second];
    let old = || pki.top.sign(&twin, ended);
    let new = || pki.top.sign(&twin, begins);
    let good = || pki.top.sign(&twin, |_| {});

    let root_of = |change: &dyn Fn(&mut CertificateParams)| {
        let root = Authority::new("Private Root", change);
        let issued = root.issue("Private Sub", |_| {});
        (root.root(), vec![leaf_of(&issued.authority, |_| {}), issued.der])
    };
    let (root_ended, under_ended) = root_of(&ended);
    let (both_root, under_both) = root_of(&ended);
    let (root_begins, under_begins) = root_of(&begins);
    let renewed = Authority::new("Renewed Root", |_| {});
    let root_before = renewed.sign(&renewed, ended);
    let under_renewed = || {
        let issued = renewed.issue("Under Renewed", |_| {});
        vec![leaf_of(&issued.authority, |_| {}), issued.der]
    };
    let sub_ended = pki.top.issue("Sub Ended", ended);
    let below_ended = || leaf_of(&sub_ended.authority, |_| {});

    compare(vec![
        pki.case("an issuer begins tomorrow", under(&begins), future),
        pki.case(
            "the upper of two begins tomorrow",
            vec![leaf_of(&lower.authority, |_| {}), lower.der, upper.der],
            future,
        ),
        pki.case("an expired and a future twin", twins(old(), new()), future),
        pki.case(
            "a future and a good twin",
            twins(new(), good()),
            &["some_clients_refuse"],
        ),
        pki.case("a good and a future twin", twins(good(), new()), &[]),
        pki.case("a root that ended", under_ended, expired)
            .trusting(vec![root_ended]),
        pki.case("a root that begins tomorrow", under_begins, future)
            .trusting(vec![root_begins]),
        pki.case("a renewed root, old one too", under_renewed(), &[])
            .trusting(vec![root_before.clone(), renewed.root()]),
        pki.case("a renewed root, old one last", under_renewed(), &[])
            .trusting(vec![renewed.root(), root_before]),
        pki.case(
            "an intermediate that ended",
            vec![below_ended(), sub_ended.der.clone()],
            expired,
        ),
        pki.case(
            "an intermediate that ended, also in the file",
            vec![below_ended(), sub_ended.der.clone()],
            expired,
        )
        .trusting(vec![sub_ended.der.clone(), pki.root.clone()]),
        pki.case(
            "an intermediate that ended, in the file only",
            vec![below_ended()],
            expired,
        )
        .trusting(vec![pki.root.clone(), sub_ended.der.clone()]),
        pki.case(
            "a root that ended, and its intermediate, in the file",
            under_both.clone(),
            &["some_clients_refuse"],
        )
        .trusting(vec![under_both[1].clone(), both_root]),
        pki.case("an intermediate that ended is the anchor", vec![below_ended()], expired)
            .trusting(vec![sub_ended.der.clone()]),
        pki.case(
            "an intermediate in the file that is not sent",
            vec![pki.chain(|_| {}).remove(0)],
            &[],
        )
        .trusting(vec![pki.intermediate(), pki.root.clone()]),
    ]);
}

/// RFC 5280 wants some of these to be critical, and webpki refuses each that is.
#[test]
fn critical_extensions() {
    let pki = Pki::new();
    let under = |extensions: Vec<CustomExtension>| pki.chain_under(move |issuer| issuer.custom_extensions = extensions);
    let leaf = |extensions: Vec<CustomExtension>| pki.chain(move |leaf| leaf.custom_extensions = extensions);
    let differ: &[&str] = &["some_clients_refuse"];
    let explicit = || critical(36, &[0x30, 3, 0x80, 1, 0]);
    let with_policy = |issuer: Vec<CustomExtension>, own: Vec<CustomExtension>| {
        let issued = pki.top.issue("Policed", |ca| ca.custom_extensions = issuer);
        let leaf = leaf_of(&issued.authority, |leaf| leaf.custom_extensions = own);
        vec![leaf, issued.der]
    };
    let mapping = critical(
        33,
        &[&[0x30, 0x10, 0x30, 0x0e][..], OV, &[6, 4, 0x2a, 3, 4, 5]].concat(),
    );
    compare(vec![
        pki.case("policies of an issuer", under(vec![policies(ANY_POLICY)]), &[]),
        pki.case("policies of a leaf", leaf(vec![policies(OV)]), &[]),
        pki.case(
            "inhibitAnyPolicy",
            under(vec![policies(ANY_POLICY), critical(54, &[2, 1, 0])]),
            &[],
        ),
        pki.case(
            "an explicit policy that is there",
            with_policy(vec![policies(ANY_POLICY), explicit()], vec![policies(OV)]),
            differ,
        ),
        pki.case(
            "an explicit policy that is missing",
            with_policy(vec![policies(ANY_POLICY), explicit()], vec![]),
            &["some_clients_refuse", "some_clients_refuse"],
        ),
        pki.case(
            "an explicit policy that is another",
            with_policy(vec![policies(OV), explicit()], vec![policies(&[6, 3, 0x2a, 3, 9])]),
            &["some_clients_refuse", "some_clients_refuse"],
        ),
        pki.case(
            "mappings",
            with_policy(vec![policies(OV), mapping], vec![policies(OV)]),
            differ,
        ),
        pki.case(
            "a critical key identifier",
            leaf(vec![critical(14, &[4, 2, 1, 2])]),
            differ,
        ),
        pki.case(
            "policies, and something unknown",
            leaf(vec![policies(OV), critical(99, &[5, 0])]),
            &["invalid_chain"],
        ),
        pki.case(
            "policies, and an unknown root",
            leaf(vec![policies(OV)]),
            &["untrusted_root"],
        )
        .trusting(vec![Authority::new("Stranger", |_| {}).root()]),
    ]);
}

/// OpenSSL and Go follow more issuers in a row than Firefox and rustls.
#[test]
fn long_rows_of_issuers() {
    let pki = Pki::new();
    let row = |length: usize, change: &dyn Fn(&mut CertificateParams)| {
        let mut chain = Vec::new();
        let mut last = pki.top.issue("Issuer 0", |_| {});
        for level in 1..length {
            let next = last.authority.issue(&format!("Issuer {level}"), |ca| {
                if level == 2 {
                    change(ca);
                }
            });
            chain.insert(0, std::mem::replace(&mut last, next).der);
        }
        chain.insert(0, last.der);
        chain.insert(0, leaf_of(&last.authority, |_| {}));
        chain
    };
    let differ: &[&str] = &["some_clients_refuse"];
    let length = |ca: &mut CertificateParams| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(2));
    let no_ca = |ca: &mut CertificateParams| ca.is_ca = IsCa::ExplicitNoCa;
    let mut broken = row(8, &|_| {});
    let mut bytes = broken[5].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    broken[5] = bytes.into();
    compare(vec![
        pki.case("six issuers", row(6, &|_| {}), &[]),
        pki.case("seven", row(7, &|_| {}), differ),
        pki.case("thirteen", row(13, &|_| {}), differ),
        pki.case("eight with a path length", row(8, &length), &["invalid_chain"]),
        pki.case("eight, one of which is no CA", row(8, &no_ca), &["invalid_chain"]),
        pki.case("eight, one of which is broken", broken, &["invalid_chain"]),
        pki.case(
            "eight, one of which has ended",
            row(8, &|ca| ca.not_after = now() - DAY),
            &["issuer_expired", "some_clients_refuse"],
        ),
    ]);
}

#[test]
fn name_constraints_of_every_form() {
    let pki = Pki::new();
    let invalid: &[&str] = &["invalid_chain"];
    let differ: &[&str] = &["some_clients_refuse"];
    let named = |subtrees: NameConstraints, change: &dyn Fn(&mut CertificateParams)| {
        let issued = pki.top.issue("Bound", |ca| ca.name_constraints = Some(subtrees));
        vec![leaf_of(&issued.authority, change), issued.der]
    };
    let directory = |name: &str| {
        let mut names = DistinguishedName::new();
        names.push(DnType::CommonName, name);
        GeneralSubtree::DirectoryName(names)
    };
    let email = |name: &str| GeneralSubtree::Rfc822Name(name.to_owned());
    let only = |subtree| constraints(vec![subtree], vec![]).unwrap();
    let all_but = |subtree| constraints(vec![], vec![subtree]).unwrap();
    let length = |bytes: usize| u8::try_from(bytes).unwrap();
    let uris = |permitted_or_excluded: u8, host: &[u8]| {
        let name = [&[0x86, length(host.len())][..], host].concat();
        let subtree = [&[0x30, length(name.len())][..], &name].concat();
        let subtrees = [&[permitted_or_excluded, length(subtree.len())][..], &subtree].concat();
        let constraints = [&[0x30, length(subtrees.len())][..], &subtrees].concat();
        let issued = pki
            .top
            .issue("Bound", |ca| ca.custom_extensions = vec![critical(30, &constraints)]);
        let leaf = leaf_of(&issued.authority, |leaf| {
            let uri = "https://shop.example/".try_into().unwrap();
            leaf.subject_alt_names.push(SanType::URI(uri));
        });
        vec![leaf, issued.der]
    };
    let with_email = |leaf: &mut CertificateParams| {
        leaf.subject_alt_names
            .push(SanType::Rfc822Name("me@shop.example".try_into().unwrap()));
    };
    // More than a million comparisons.
    let crowded = {
        let others = (0..1_100).map(|number| email(&format!("n{number}.example"))).collect();
        named(constraints(vec![], others).unwrap(), &|leaf| {
            let mails = (0..1_100).map(|number| format!("{number}@shop.example"));
            let names = mails.map(|mail| SanType::Rfc822Name(mail.as_str().try_into().unwrap()));
            leaf.subject_alt_names.extend(names);
        })
    };
    compare(vec![
        pki.case("more names and constraints than we compare", crowded, invalid)
            .differs("OpenSSL and Chromium refuse them too, others compare them all"),
        pki.case(
            "a directory name that is permitted",
            named(only(directory(SHOP)), &|_| {}),
            differ,
        ),
        pki.case(
            "a directory name that is not",
            named(only(directory("Other")), &|_| {}),
            BOTH,
        ),
        pki.case(
            "a directory name that is excluded",
            named(all_but(directory(SHOP)), &|_| {}),
            ALL_THREE,
        ),
        pki.case(
            "another one is excluded",
            named(all_but(directory("Other")), &|_| {}),
            BOTH,
        ),
        pki.case("addresses of mail", named(only(email("shop.example")), &|_| {}), &[]),
        pki.case(
            "an address of mail within",
            named(only(email("shop.example")), &with_email),
            &[],
        ),
        pki.case(
            "an address of mail outside",
            named(only(email("other.example")), &with_email),
            invalid,
        ),
        pki.case("a URI within", uris(0xa0, b"shop.example"), &[]),
        pki.case("a URI outside", uris(0xa0, b".other.example"), differ),
        pki.case("a URI excluded", uris(0xa1, b"shop.example"), BOTH),
        pki.case("another one is excluded", uris(0xa1, b".shop.example"), differ),
        pki.case(
            "an address of mail excluded",
            named(all_but(email("shop.example")), &with_email),
            invalid,
        ),
    ]);
}

/// The issuer was sent, in another type of string or another case, and was said to be missing.
#[test]
fn names_are_compared_by_content() {
    let differ: &[&str] = &["some_clients_refuse"];
    let pki = Pki::new();
    let named = |name: DnValue| {
        move |ca: &mut CertificateParams| {
            ca.distinguished_name = DistinguishedName::new();
            ca.distinguished_name.push(DnType::CommonName, name.clone());
        }
    };
    let utf8 = |name: &str| DnValue::Utf8String(name.to_owned());
    let printable = |name: &str| DnValue::PrintableString(name.try_into().unwrap());
    let alias = |authority: &Authority, name| {
        let mut params = authority.params.clone();
        named(name)(&mut params);
        let key = KeyPair::try_from(authority.key.serialize_der()).unwrap();
        Authority { params, key }
    };
    let sub = pki.top.issue("", named(printable("Sub CA")));
    let leaf_by = |name| leaf_of(&alias(&sub.authority, name), |_| {});
    let top = Authority::new("", named(printable("Root 2")));
    let below = alias(&top, utf8("ROOT 2")).issue("Under", |_| {});
    let strangers = |count: usize| -> Vec<_> {
        let stranger = || Authority::new("Other Root", |_| {}).issue("Sub", named(printable("Sub CA")));
        (0..count).map(|_| stranger().der).collect()
    };
    let with_key = |leaf: &mut CertificateParams| leaf.use_authority_key_identifier_extension = true;
    let behind = [
        vec![leaf_of(&sub.authority, with_key)],
        strangers(5),
        vec![sub.der.clone()],
    ];
    let many = [
        vec![leaf_of(&sub.authority, with_key)],
        (0..40)
            .map(|n| pki.top.issue(&format!("Other {n}"), |_| {}).der)
            .collect(),
        vec![sub.der.clone()],
    ];
    compare(vec![
        pki.case("another type", vec![leaf_by(utf8("Sub CA")), sub.der.clone()], differ),
        pki.case(
            "another case",
            vec![leaf_by(printable("SUB CA")), sub.der.clone()],
            differ,
        ),
        pki.case(
            "surplus blanks",
            vec![leaf_by(utf8("Sub  CA ")), sub.der.clone()],
            differ,
        ),
        pki.case(
            "the root's name in another type and case",
            vec![leaf_of(&below.authority, |_| {}), below.der],
            differ,
        )
        .trusting(vec![top.root()]),
        pki.case(
            "another name",
            vec![leaf_by(utf8("Sub-CA")), sub.der.clone()],
            &["incomplete_chain"],
        ),
        pki.case("the sixth of its name", behind.concat(), &[]),
        pki.case("the forty-first", many.concat(), differ),
    ]);
}

/// OpenSSL, curl and Go do not look at it: Chrome, Firefox and GnuTLS do.
#[test]
fn key_usage_is_for_what_the_server_does() {
    let pki = Pki::new();
    let used = |usages: &[Usage]| pki.chain(|leaf| leaf.key_usages = usages.to_vec());
    let case = |what, usages: &[Usage], ours| pki.case(what, used(usages), ours);
    compare(vec![
        case("signs", &[Usage::DigitalSignature, Usage::KeyEncipherment], &[]),
        case(
            "enciphers",
            &[Usage::KeyEncipherment, Usage::DataEncipherment],
            &["key_usage"],
        ),
        case("agrees", &[Usage::KeyAgreement], &["key_usage"]),
    ]);
}

/// An extension of RFC 5280 by its last number, critical.
fn critical(number: u64, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, number], content.to_vec());
    extension.set_criticality(true);
    extension
}

/// One certificate policy, critical.
fn policies(policy: &[u8]) -> CustomExtension {
    let length = |bytes: usize| u8::try_from(bytes).unwrap();
    let information = [&[0x30, length(policy.len())][..], policy].concat();
    critical(32, &[&[0x30, length(information.len())][..], &information].concat())
}

const BOTH: &[&str] = &["some_clients_refuse"; 2];
const ALL_THREE: &[&str] = &["some_clients_refuse"; 3];
const ANY_POLICY: &[u8] = &[6, 4, 0x55, 0x1d, 0x20, 0];
const OV: &[u8] = &[6, 6, 0x67, 0x81, 0x0c, 1, 2, 2];

/// What rcgen does not make: old versions, old signatures, small keys.
#[test]
fn what_openssl_makes() {
    let folder = tempfile::tempdir().unwrap();
    let ca = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
    let san = "subjectAltName=DNS:shop.example\n";
    openssl(
        folder.path(),
        &format!("req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -subj /CN=Root -days 900 {ca}"),
    );
    let made = |what, key: &str, options: &str, extensions: &str| {
        std::fs::write(folder.path().join("leaf.ext"), extensions).unwrap();
        openssl(
            folder.path(),
            &format!("req -new {key} -nodes -keyout leaf.key -out leaf.csr -subj /CN=shop.example"),
        );
        let extfile = if extensions.is_empty() { "" } else { "-extfile leaf.ext" };
        openssl(
            folder.path(),
            &format!("x509 -req -in leaf.csr -CA root.pem -CAkey root.key -days 90 {options} {extfile} -out leaf.pem"),
        );
        let der = |name: &str| pem(&std::fs::read(folder.path().join(name)).unwrap());
        Case {
            what,
            exhibit: Exhibit {
                chain: vec![der("leaf.pem")],
                roots: vec![der("root.pem")],
                name: SHOP.to_owned(),
                at: OffsetDateTime::now_utc(),
            },
            ours: &[],
            differs: None,
        }
    };
    let ec = |curve: &str| format!("-newkey ec -pkeyopt ec_paramgen_curve:{curve}");
    compare(vec![
        made("RSA", "-newkey rsa:2048", "-set_serial 1", san),
        made("P-384", &ec("P-384"), "-set_serial 2", san),
        made("P-521", &ec("P-521"), "-set_serial 3", san),
        made("Ed25519", "-newkey ed25519", "-set_serial 4", san),
        made("Ed448", "-newkey ed448", "-set_serial 5", san),
        made(
            "signed with PSS",
            "-newkey rsa:2048",
            "-set_serial 6 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest",
            san,
        ),
        Case {
            ours: &["some_clients_refuse"],
            ..made(
                "signed with PSS and a long salt",
                "-newkey rsa:2048",
                "-set_serial 12 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max",
                san,
            )
        },
        Case {
            ours: &["some_clients_refuse"],
            ..made("signed with SHA-224", "-newkey rsa:2048", "-set_serial 13 -sha224", san)
        },
        Case {
            ours: &["some_clients_refuse"],
            ..made(
                "of Netscape's type for clients",
                "-newkey rsa:2048",
                "-set_serial 14",
                &format!("{san}nsCertType=client\n"),
            )
        },
        made(
            "of Netscape's type for servers",
            "-newkey rsa:2048",
            "-set_serial 15",
            &format!("{san}nsCertType=server\n"),
        ),
        Case {
            ours: &["some_clients_refuse"],
            ..made("a negative serial", "-newkey rsa:2048", "-set_serial -7", san)
        },
        Case {
            ours: &["some_clients_refuse"],
            ..made(
                "two common names",
                "-newkey rsa:2048",
                "-set_serial 11 -subj /CN=a.example/CN=shop.example",
                "extendedKeyUsage=serverAuth\n",
            )
        },
        Case {
            ours: &["weak_signature"],
            ..made("SHA-1", "-newkey rsa:2048", "-set_serial 8 -sha1", san)
        },
        Case {
            ours: &["weak_key"],
            ..made("RSA of 1024 bits", "-newkey rsa:1024", "-set_serial 9", san)
        },
        Case {
            ours: &["some_clients_refuse"],
            ..made("X.509 version 1", "-newkey rsa:2048", "-set_serial 10", "")
        },
    ]);
}

/// All judge every case. A difference to the rule without a reason, and a reason without a
/// difference, are wrong.
fn compare(cases: Vec<Case>) {
    let wrong: Vec<_> = cases.iter().filter_map(difference).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong about one case.
fn difference(case: &Case) -> Option<String> {
    let what = case.what;
    let judgement = ours(&case.exhibit);
    if judgement.codes() != case.ours {
        let messages: Vec<_> = judgement.findings.iter().map(|finding| &finding.message).collect();
        return Some(format!("{what}: we say {messages:?} instead of {:?}", case.ours));
    }

    let opinions = opinions(&case.exhibit);
    let disagreement = judgement.disagreement(&opinions);
    // A reason may be about a client that is not there.
    let are_all_here = opinions.len() == 3;
    let is_right = match (disagreement, case.differs) {
        (None, Some(_)) => !are_all_here,
        (Some(_), None) => false,
        (None, None) | (Some(_), Some(_)) => true,
    };
    (!is_right).then(|| {
        let said: Vec<_> = (opinions.iter())
            .map(|opinion| format!("\n  {} {}: {}", opinion.client, opinion.accepts, opinion.words))
            .collect();
        let messages: Vec<_> = judgement.findings.iter().map(|finding| &finding.message).collect();
        format!(
            "{what}: {disagreement:?}: we say {messages:?}; the reason to differ is {:?}{}",
            case.differs,
            said.concat()
        )
    })
}

impl Case {
    fn of(self, name: &'static str) -> Self {
        let name = name.to_owned();
        let exhibit = Exhibit { name, ..self.exhibit };
        Self { exhibit, ..self }
    }

    fn at(self, at: OffsetDateTime) -> Self {
        let exhibit = Exhibit { at, ..self.exhibit };
        Self { exhibit, ..self }
    }

    fn trusting(self, roots: Vec<CertificateDer<'static>>) -> Self {
        let exhibit = Exhibit { roots, ..self.exhibit };
        Self { exhibit, ..self }
    }

    fn differs(self, why: &'static str) -> Self {
        let differs = Some(why);
        Self { differs, ..self }
    }
}

/// A name and a key that certificates can be made for and by.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

/// One that another has signed.
struct Issued {
    authority: Authority,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Usage::KeyCertSign];
        (params.not_before, params.not_after) = (now() - 3_000 * DAY, now() + 3_000 * DAY);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Self { params, key }
    }

    fn root(&self) -> CertificateDer<'static> {
        self.params.self_signed(&self.key).unwrap().der().clone()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A certificate of ours for another.
    fn sign(&self, other: &Authority, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = other.params.clone();
        change(&mut params);
        params.signed_by(&other.key, &self.issuer()).unwrap().der().clone()
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let authority = Self::new(name, change);
        let der = self.sign(&authority, |_| {});
        Issued { authority, der }
    }
}

/// A root and an intermediate of the usual kind.
struct Pki {
    top: Authority,
    root: CertificateDer<'static>,
    issued: Issued,
}

impl Pki {
    fn new() -> Self {
        Self::named("Our")
    }

    fn named(name: &str) -> Self {
        let top = Authority::new(&format!("{name} Root"), |_| {});
        let issued = top.issue(&format!("{name} Intermediate"), |_| {});
        let root = top.root();
        Self { top, root, issued }
    }

    fn intermediate(&self) -> CertificateDer<'static> {
        self.issued.der.clone()
    }

    /// A leaf, changed, and its issuer.
    fn chain(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        vec![leaf_of(&self.issued.authority, change), self.intermediate()]
    }

    /// A leaf, and its issuer, changed.
    fn chain_under(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let issued = self.top.issue("Changed", change);
        vec![leaf_of(&issued.authority, |_| {}), issued.der]
    }

    fn case(&self, what: &'static str, chain: Vec<CertificateDer<'static>>, ours: &'static [&'static str]) -> Case {
        Case {
            what,
            exhibit: Exhibit {
                chain,
                roots: vec![self.root.clone()],
                name: SHOP.to_owned(),
                at: now(),
            },
            ours,
            differs: None,
        }
    }
}

fn leaf_of(issuer: &Authority, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = leaf();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, &issuer.issuer()).unwrap().der().clone()
}

fn self_signed() -> CertificateDer<'static> {
    leaf().self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

/// Of 90 days, half of them over.
fn leaf() -> CertificateParams {
    let mut params = CertificateParams::new([SHOP.to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, SHOP);
    (params.not_before, params.not_after) = (now() - 45 * DAY, now() + 45 * DAY);
    params
}

/// Without a subject; RFC 5280, 4.1.2.6, then wants the names to be critical, and rcgen makes them
/// so.
fn nameless(pki: &Pki) -> Vec<CertificateDer<'static>> {
    pki.chain(|leaf| leaf.distinguished_name = DistinguishedName::new())
}

/// With bytes for a DNS name that rcgen would refuse.
fn raw_name(pki: &Pki, name: &[u8]) -> Vec<CertificateDer<'static>> {
    let length = |bytes: usize| u8::try_from(bytes).unwrap();
    let names = [&[0x30, length(name.len() + 2), 0x82, length(name.len())][..], name].concat();
    pki.chain(|leaf| {
        leaf.subject_alt_names = Vec::new();
        leaf.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], names)];
    })
}

/// An authority key identifier of nobody.
fn key_identifier() -> CustomExtension {
    CustomExtension::from_oid_content(&[2, 5, 29, 35], vec![0x30, 6, 0x80, 4, 1, 2, 3, 4])
}

fn constraints(permitted: Vec<GeneralSubtree>, excluded: Vec<GeneralSubtree>) -> Option<NameConstraints> {
    Some(NameConstraints {
        permitted_subtrees: permitted,
        excluded_subtrees: excluded,
    })
}

fn pem(pem: &[u8]) -> CertificateDer<'static> {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem).unwrap()
}

fn openssl(folder: &Path, arguments: &str) {
    let out = Command::new("openssl")
        .args(arguments.split(' ').filter(|word| !word.is_empty()))
        .current_dir(folder)
        .output();
    let out = out.expect("openssl can be run (Debian: apt-get install openssl)");
    assert!(
        out.status.success(),
        "{arguments}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}
