//! The calls of AWS's API that a run made, as a policy sees them, and those that are known:
//! `policies/calls.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Passed;
use crate::stack::root;

/// A call, with names and versions that differ from run to run replaced by `NAME` and the like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Call {
    /// Whose role: `probe`, `renewer`, `schedule`, `instance`, `operator`, or a service of AWS.
    pub by: String,
    /// IAM's name of the action.
    #[serde(rename = "do")]
    pub action: String,
    /// The resource's ARN; `{Bucket}` stands for that of the template's resource.
    #[serde(default = "anything")]
    pub on: String,
    /// Condition keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub with: BTreeMap<String, Values>,
}

/// What a condition key has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// One value.
    One(String),
    /// Several.
    All(BTreeSet<String>),
}

/// An entry of `calls.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Known {
    /// The call.
    #[serde(rename = "by")]
    by: String,
    #[serde(rename = "do")]
    action: String,
    #[serde(default = "anything")]
    on: String,
    #[serde(default)]
    with: BTreeMap<String, Values>,
    /// The suites that make it.
    #[serde(default)]
    seen: Vec<String>,
    /// Where no suite makes it: who does.
    #[serde(default)]
    why: Option<String>,
    /// The sets of parameters under which it can be made; none means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    only: Option<Vec<String>>,
    /// Lambda makes it with the function's role, not the function.
    #[serde(default, rename = "by-lambda")]
    by_lambda: bool,
    /// Of the object only its headers are wanted.
    #[serde(default)]
    head: bool,
    /// Put without a word about a key.
    #[serde(default)]
    plain: bool,
}

/// `calls.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Calls that must be allowed.
    #[serde(rename = "call")]
    pub calls: Vec<Known>,
    /// Calls that must not be.
    #[serde(rename = "forbidden")]
    pub forbidden: Vec<Known>,
}

impl Catalogue {
    /// Reads it.
    pub fn read() -> Result<Self> {
        let path = root().join("tests/policies/calls.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).context("calls.toml")
    }

    /// Compares it with what a suite recorded: a call that it does not have has never been held
    /// against the policies. Where the whole suite ran, what it is said to make must have been
    /// made.
    pub fn compare(&self, suite: &str, recorded: &[Passed], is_whole: bool) -> Result<()> {
        let made: BTreeSet<Call> = recorded
            .iter()
            .filter_map(|passed| Call::of(passed).transpose())
            .collect::<Result<_>>()?;
        ensure!(!made.is_empty(), "{suite} recorded nothing");

        let known: BTreeSet<Call> = self.calls.iter().map(Known::call).collect();
        let unknown: Vec<_> = made.difference(&known).collect();
        ensure!(
            unknown.is_empty(),
            "{suite} makes calls that tests/policies/calls.toml does not have:\n{}",
            entries(unknown)?
        );

        let expected = self
            .calls
            .iter()
            .filter(|known| known.seen.iter().any(|seen| seen == suite));
        let missing: Vec<_> = expected.map(Known::call).filter(|call| !made.contains(call)).collect();
        ensure!(
            !is_whole || missing.is_empty(),
            "{suite} does not make these calls of tests/policies/calls.toml:\n{}",
            entries(&missing)?
        );
        Ok(())
    }
}

impl Known {
    /// What is called.
    pub fn call(&self) -> Call {
        let Self {
            by, action, on, with, ..
        } = self.clone();
        Call { by, action, on, with }
    }

    /// Whether it says who makes it.
    pub fn is_explained(&self) -> bool {
        self.seen.is_empty() == self.why.is_some()
    }
}

impl Call {
    /// What a request asks for. None where no policy is asked.
    fn of(passed: &Passed) -> Result<Option<Self>> {
        let by = passed.agent.split(' ').find_map(|part| part.strip_prefix("app/"));
        let by = by.with_context(|| format!("who makes {}? (its user agent is {:?})", passed.line, passed.agent))?;
        let scope = passed.authorization.split('/').nth(3);
        let service = scope.with_context(|| format!("{} is not signed", passed.line))?;

        let mut call = Self {
            by: by.to_owned(),
            action: String::new(),
            on: anything(),
            with: BTreeMap::new(),
        };
        match service {
            "s3" => call.of_s3(passed)?,
            "route53" => call.of_route53(passed)?,
            "sns" | "sts" | "cloudformation" | "iam" => call.of_form(service, &passed.body),
            "monitoring" | "kms" | "sqs" | "logs" => call.of_json(service, passed)?,
            "lambda" | "scheduler" => call.of_rest(service, &passed.line)?,
            _ => bail!("{service}: {}", passed.line),
        }
        // Who one is, everybody may ask.
        Ok((call.action != "sts:GetCallerIdentity").then_some(call))
    }

    /// AWS's query protocol.
    fn of_form(&mut self, service: &str, body: &str) {
        let form = form(body);
        let value = |key: &str| form.get(key).cloned().unwrap_or_default();
        self.action = format!("{service}:{}", value("Action"));
        self.on = match service {
            "sns" => resource(&format!("{}{}", value("TopicArn"), value("SubscriptionArn"))),
            "sts" => ZONE_ROLE.to_owned(),
            "iam" => "{ReaderPolicy}".to_owned(),
            _ => "arn:{partition}:cloudformation:{region}:{account}:stack/{stack}/1".to_owned(),
        };
    }

    /// AWS's JSON protocol.
    fn of_json(&mut self, service: &str, passed: &Passed) -> Result<()> {
        let operation = passed.target.rsplit('.').next().unwrap_or_default();
        let body: Value = serde_json::from_str(&passed.body)?;
        let text = |member: &str| body[member].as_str().unwrap_or_default().to_owned();
        self.action = format!(
            "{}:{operation}",
            if service == "monitoring" { "cloudwatch" } else { service }
        );
        self.on = match service {
            "sqs" => resource(&text("QueueUrl").replace('/', ":")),
            "logs" => format!("{{{}}}", text("logGroupName").rsplit('/').next().unwrap_or_default()),
            // Which of the two keys it is, their ids do not tell.
            "kms" => "{Key}".to_owned(),
            _ => anything(),
        };
        Ok(())
    }

    fn of_rest(&mut self, service: &str, line: &str) -> Result<()> {
        let parts: Vec<_> = line.split('/').skip(1).collect();
        let (operation, on) = match parts.as_slice() {
            [_, "functions", name, "configuration"] => ("GetFunctionConfiguration", resource(name)),
            [_, "functions", name, "concurrency"] => ("GetFunctionConcurrency", resource(name)),
            [_, "event-source-mappings", _] => (
                "GetEventSourceMapping",
                "arn:{partition}:lambda:{region}:{account}:event-source-mapping:ID".to_owned(),
            ),
            ["schedules", _] => (
                "GetSchedule",
                "arn:{partition}:scheduler:{region}:{account}:schedule/default/SCHEDULE".to_owned(),
            ),
            _ => bail!("{line}"),
        };
        ensure!(line.starts_with("GET "), "{line}");
        self.action = format!("{service}:{operation}");
        self.on = on;
        Ok(())
    }

    fn of_s3(&mut self, passed: &Passed) -> Result<()> {
        let (method, path) = passed.line.split_once(' ').context("method and path")?;
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        let settings = ["versioning", "policy", "encryption", "publicAccessBlock"];
        if let Some(setting) = settings
            .iter()
            .find(|setting| passed.query.split(['&', '=']).next() == Some(setting))
        {
            let action = match *setting {
                "versioning" => "GetBucketVersioning",
                "policy" => "GetBucketPolicy",
                "encryption" => "GetEncryptionConfiguration",
                _ => "GetBucketPublicAccessBlock",
            };
            self.action = format!("s3:{action}");
            self.on = "{Bucket}".to_owned();
            return Ok(());
        }
        if key.is_empty() {
            let query = form(&passed.query);
            let prefix = query.get("prefix").cloned().unwrap_or_default();
            self.action = "s3:ListBucket".to_owned();
            self.on = "{Bucket}".to_owned();
            self.with.insert("s3:prefix".to_owned(), Values::One(pattern(&prefix)));
            return Ok(());
        }
        self.action = match method {
            "GET" | "HEAD" => "s3:GetObject",
            "PUT" => "s3:PutObject",
            "DELETE" => "s3:DeleteObject",
            _ => bail!("{}", passed.line),
        }
        .to_owned();
        self.on = format!("{{Bucket}}/{}", pattern(&decoded(key)));
        Ok(())
    }

    fn of_route53(&mut self, passed: &Passed) -> Result<()> {
        let (method, path) = passed.line.split_once(' ').context("method and path")?;
        let zone = "arn:{partition}:route53:::hostedzone/ZONE";
        let parts: Vec<_> = path.trim_matches('/').split('/').skip(1).collect();
        let (action, on) = match (method, parts.as_slice()) {
            ("GET", ["hostedzone"]) => ("route53:ListHostedZones", "*"),
            ("GET", ["hostedzone", _]) => ("route53:GetHostedZone", zone),
            ("GET", ["hostedzone", _, "rrset"]) => ("route53:ListResourceRecordSets", zone),
            ("POST", ["hostedzone", _, "rrset", ..]) => ("route53:ChangeResourceRecordSets", zone),
            ("GET", ["change", _]) => ("route53:GetChange", "arn:{partition}:route53:::change/CHANGE"),
            _ => bail!("{}", passed.line),
        };
        self.action = action.to_owned();
        self.on = on.to_owned();

        if method == "POST" {
            let mut keys = |key: &str, values: BTreeSet<String>| {
                self.with
                    .insert(format!("route53:ChangeResourceRecordSets{key}"), Values::All(values))
            };
            let names = elements(&passed.body, "Name").map(|name| match name.starts_with("_acme-challenge.") {
                true => "_acme-challenge.NAME".to_owned(),
                false => DELEGATED.to_owned(),
            });
            keys("NormalizedRecordNames", names.collect());
            keys(
                "RecordTypes",
                elements(&passed.body, "Type").map(str::to_owned).collect(),
            );
            keys("Actions", elements(&passed.body, "Action").map(str::to_owned).collect());
        }
        Ok(())
    }
}

/// As `calls.toml` has them.
fn entries<'c>(calls: impl IntoIterator<Item = &'c Call>) -> Result<String> {
    let entry = |call| {
        let call = toml::to_string(call)?;
        Ok(format!("[[call]]\n{}\n", call.replace("[with]", "[call.with]")))
    };
    calls.into_iter().map(entry).collect()
}

/// A key of the bucket without what differs from run to run.
fn pattern(key: &str) -> String {
    let parts: Vec<_> = key.split('/').collect();
    match parts.as_slice() {
        ["certificates", _, rest @ ..] if rest.len() < 3 => format!("certificates/NAME/{}", rest.join("/")),
        ["certificates", _, "versions", _, file] => format!("certificates/NAME/versions/VERSION/{file}"),
        ["receipts", _, ""] => "receipts/NAME/".to_owned(),
        ["receipts", _, _] => "receipts/NAME/{userid}.json".to_owned(),
        ["orders", _] => "orders/NAME.json".to_owned(),
        ["orders", "dry-run", _] => "orders/dry-run/NAME.json".to_owned(),
        ["state", "renewals", name] if !name.is_empty() => "state/renewals/NAME.json".to_owned(),
        ["state", "issuers", name] if !name.is_empty() => "state/issuers/ISSUER.json".to_owned(),
        ["accounts", _, _, file] => format!("accounts/ISSUER/DIRECTORY/{file}"),
        ["accounts", _, file] => format!("accounts/ISSUER/{file}"),
        ["reports", _, _] => "reports/DATE/TIME.json".to_owned(),
        ["ca", _] => "ca/ROOTS.pem".to_owned(),
        _ => key.to_owned(),
    }
}

/// The template's resource in an ARN or a name such as `neverlapse-AlertTopic-1A2B`.
fn resource(arn: &str) -> String {
    let name = arn.split(':').find(|part| part.starts_with("neverlapse-"));
    let logical = name.and_then(|name| name.split('-').nth(1));
    logical.map_or_else(|| arn.to_owned(), |logical| format!("{{{logical}}}"))
}

fn form(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decoded(key), decoded(value))).collect()
}

/// The texts of XML's elements of this name; those that are asked for here have no escapes.
fn elements<'x>(xml: &'x str, name: &str) -> impl Iterator<Item = &'x str> {
    let parts = xml.split(&format!("<{name}>")).skip(1).collect::<Vec<_>>();
    parts.into_iter().filter_map(|part| part.split('<').next())
}

fn decoded(text: &str) -> String {
    let pieces = text.replace('+', " ");
    let mut pieces = pieces.split('%');
    let mut decoded = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at(piece.len().min(2));
        decoded.extend(u8::from_str_radix(code, 16));
        decoded.extend(rest.bytes());
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn anything() -> String {
    "*".to_owned()
}

/// A name to which a CNAME of `_acme-challenge` leads, in the set of parameters whose
/// `ChallengeRecordNames` has it.
pub const DELEGATED: &str = "delegated.acme.example";
/// The parameter `ZoneRoleArns`, in the set of parameters that has one.
pub const ZONE_ROLE: &str = "arn:aws:iam::210987654321:role/acme-dns";
