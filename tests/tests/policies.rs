//! The template's policies against every call of AWS's API that the code makes
//! (`policies/calls.toml`), for several sets of parameters, by an evaluator of IAM policies that
//! runs in Node.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use neverlapse_tests::calls::{Catalogue, DELEGATED, Known, ZONE_ROLE};
use neverlapse_tests::stack::root;
use serde::Deserialize;
use serde_json::{Value, json};

/// What `simulate.mjs` answers.
#[derive(Deserialize)]
struct Simulation {
    answers: Vec<Answer>,
    grants: Vec<Grant>,
    sizes: Vec<Size>,
}

/// Whether a request is allowed. A call becomes several where the service that is called asks KMS;
/// the first is the call itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    set: String,
    call: usize,
    is_first: bool,
    allowed: bool,
    request: String,
}

/// An action or a resource in a statement, and whether a call has used it.
#[derive(Deserialize)]
struct Grant {
    set: String,
    by: String,
    statement: String,
    grant: String,
    used: bool,
}

/// How long something is that AWS limits.
#[derive(Debug, Deserialize)]
struct Size {
    set: String,
    of: String,
    is: String,
    size: usize,
    limit: usize,
}

#[test]
fn every_call_is_allowed_and_nothing_else_is() {
    let Some(node) = node() else { return };
    let catalogue = Catalogue::read().unwrap();
    for known in catalogue.calls.iter().chain(&catalogue.forbidden) {
        assert!(
            known.is_explained(),
            "seen by a suite, or a reason why not: {:?}",
            known.call()
        );
    }

    let template = root().join("template.yaml");
    let calls = simulate(&node, &template, &sets(), &catalogue.calls);
    assert_eq!(denied(&calls, &catalogue.calls), Vec::<String>::new());
    assert_eq!(unused(&calls), BTreeSet::new());

    let forbidden = simulate(&node, &template, &sets(), &catalogue.forbidden);
    let allowed = forbidden
        .answers
        .iter()
        .filter(|answer| answer.is_first && answer.allowed);
    let allowed: Vec<_> = allowed.map(|answer| described(answer, &catalogue.forbidden)).collect();
    assert_eq!(allowed, Vec::<String>::new());
}

/// Lambda and IAM refuse what is longer, and the deployment is rolled back.
#[test]
fn the_longest_parameters_stay_within_the_limits_of_aws() {
    let Some(node) = node() else { return };
    let measured = simulate(&node, &root().join("template.yaml"), &sets(), &[]);
    let longest: Vec<_> = measured.sizes.iter().filter(|size| size.set == "longest").collect();
    for kind in ["environment", "managed policy", "policies in a role"] {
        assert!(longest.iter().any(|size| size.is == kind), "no {kind} was measured");
    }

    let over = measured.sizes.iter().filter(|size| size.size > size.limit);
    let over: Vec<_> = over
        .map(
            |Size {
                 set,
                 of,
                 is,
                 size,
                 limit,
             }| format!("{set}: {of}, {is}: {size} characters (at most {limit})"),
        )
        .collect();
    assert_eq!(over, Vec::<String>::new());
}

#[test]
fn a_permission_that_goes_and_one_that_comes_are_noticed() {
    let Some(node) = node() else { return };
    let catalogue = Catalogue::read().unwrap();
    let template = fs::read_to_string(root().join("template.yaml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let changed = |from: &str, to: &str| {
        assert!(template.contains(from), "{from}");
        let path = folder.path().join("template.yaml");
        fs::write(&path, template.replacen(from, to, 1)).unwrap();
        simulate(&node, &path, &sets()[..1], &catalogue.calls)
    };

    let without = changed("                  - !Sub ${Bucket.Arn}/orders/*\n", "");
    let denied = denied(&without, &catalogue.calls);
    assert!(
        denied
            .iter()
            .any(|one| one.contains("renewer") && one.contains("/orders/")),
        "{denied:?}"
    );

    let with = changed(
        "Action: route53:ListHostedZones\n",
        "Action: [route53:ListHostedZones, route53:DeleteHostedZone]\n",
    );
    let unused = unused(&with);
    assert!(
        unused.iter().all(|one| one.ends_with("route53:DeleteHostedZone")) && !unused.is_empty(),
        "{unused:?}"
    );
}

/// The calls that are not allowed.
fn denied(simulation: &Simulation, calls: &[Known]) -> Vec<String> {
    let denied = simulation.answers.iter().filter(|answer| !answer.allowed);
    denied.map(|answer| described(answer, calls)).collect()
}

/// What the policies allow and no call needs.
fn unused(simulation: &Simulation) -> BTreeSet<String> {
    let unused = simulation.grants.iter().filter(|grant| !grant.used);
    unused
        .map(
            |Grant {
                 set,
                 by,
                 statement,
                 grant,
                 ..
             }| format!("{set}: {by}, {statement}: {grant}"),
        )
        .collect()
}

fn described(Answer { set, call, request, .. }: &Answer, calls: &[Known]) -> String {
    let by = calls[*call].call().by;
    format!("{set}: {by}, {request}")
}

fn simulate(node: &Path, template: &Path, sets: &[Value], calls: &[Known]) -> Simulation {
    let readers = root().join("docs/readers.example.yaml");
    let input = json!({ "template": template, "readers": readers, "sets": sets, "calls": calls });
    let mut child = Command::new(node)
        .arg(root().join("tests/policies/simulate.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.to_string().as_bytes())
        .unwrap();

    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "simulate.mjs ended with {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the template is rendered for. The first is enough for what is about the simulation itself.
fn sets() -> Vec<Value> {
    let sets = json!([
        {"name": "defaults", "partition": "aws", "region": "eu-central-1"},
        {"name": "vpc", "partition": "aws", "region": "us-east-1", "parameters": {
            "SubnetIds": "subnet-0123456789abcdef0", "SecurityGroupIds": "sg-0123456789abcdef0", "RenewerInVpc": "true",
            "ZoneRoleArns": ZONE_ROLE, "ChallengeRecordNames": format!("_acme-challenge.*,{DELEGATED}"),
        }},
        {"name": "one-reader", "partition": "aws", "region": "eu-west-1", "certificates": ["shop.example"],
            "parameters": {"ReaderCertificates": "shop.example"}},
        {"name": "readers", "partition": "aws", "region": "eu-west-1", "certificates": ["shop.example", "mail.example", "api.example"],
            "parameters": {"ReaderCertificates": "shop.example,mail.example,api.example"}},
        {"name": "accounts", "partition": "aws", "region": "eu-west-1", "certificates": ["shop.example", "mail.example"],
            "parameters": {"ReaderCertificates": "shop.example,mail.example", "ReaderAccounts": "210987654321"}},
        // By docs/readers.example.yaml, deployed in another region.
        {"name": "many-readers", "partition": "aws", "region": "eu-west-1", "readersIn": "us-east-1", "certificates": many_names(),
            "parameters": {"ReaderAccounts": "210987654321"}},
        {"name": "patterns", "partition": "aws", "region": "eu-west-1", "readersIn": "eu-west-1", "patterns": ["*.shop.example"],
            "certificates": many_names(), "parameters": {"ReaderAccounts": "210987654321"}},
        {"name": "longest", "partition": "aws-us-gov", "region": "us-gov-west-1", "longest": true, "stack": "s".repeat(128),
            "certificates": many_names(), "readersIn": "us-gov-west-1", "parameters": {
            "SubnetIds": "", "ReaderAccounts": "210987654321", "ZoneRoleArns": "", "ChallengeRecordNames": "_acme-challenge.*"}},
        {"name": "china", "partition": "aws-cn", "region": "cn-north-1"},
        {"name": "government", "partition": "aws-us-gov", "region": "us-gov-west-1"},
        {"name": "sovereign", "partition": "aws-eusc", "region": "eusc-de-east-1"},
    ]);
    serde_json::from_value(sets).unwrap()
}

/// As many certificates of one instance as docs/readers.example.yaml says that a role takes.
fn many_names() -> Vec<String> {
    (1..=15)
        .map(|number| format!("service-{number}.shop.example"))
        .collect()
}

/// Node, where `make setup` could have it.
fn node() -> Option<PathBuf> {
    let own = root().join(".local/node/bin/node");
    let node = if own.exists() { own } else { PathBuf::from("node") };
    let is_there = Command::new(&node).arg("--version").output().is_ok();
    if is_there && root().join("tests/policies/node_modules").exists() {
        return Some(node);
    }
    eprintln!(
        "WARNING: the policies were NOT checked, because Node or its packages are missing here: run `make setup`"
    );
    None
}
