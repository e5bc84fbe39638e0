//! `neverlapse doctor` on the deployed stack: nothing to say while it is healthy, and each thing
//! that is broken is named, alone.

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::version::current_key;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::cluster::Ran;
use neverlapse_tests::emulator::Call;
use neverlapse_tests::program::ensure_fits;
use serde_json::{Value, json};

use crate::fixture::Lab;

/// Something to break: how, what the doctor then says about what, and how it is put right again.
struct Fault {
    about: &'static str,
    found: &'static str,
    plant: Vec<Call>,
    mend: Vec<Call>,
}

fn fault(about: &'static str, found: &'static str, plant: impl Into<Vec<Call>>, mend: impl Into<Vec<Call>>) -> Fault {
    let (plant, mend) = (plant.into(), mend.into());
    Fault {
        about,
        found,
        plant,
        mend,
    }
}

pub(crate) async fn each_fault_is_named_by_the_doctor_and_no_other(lab: &Lab) -> Result<()> {
    lab.cluster(NAME, 80, 24).await?;
    let ward = Ward::open(lab).await?;
    ward.run(&ward.what_the_emulator_leaves_out()).await?;
    lab.probe().await?;
    let healthy = ward.diagnosis().await?;
    ensure!(healthy.is_empty(), "the healthy stack: {healthy:#?}");

    let mut faults = ward.of_functions().await?;
    faults.extend(ward.of_messages().await?);
    faults.extend(ward.of_bucket());
    faults.extend(ward.of_certificates().await?);
    ensure!(faults.len() >= 25, "only {} faults", faults.len());
    for Fault {
        about,
        found,
        plant,
        mend,
    } in faults
    {
        ward.run(&plant)
            .await
            .with_context(|| format!("planting {about}: {found}"))?;
        let named = ward.diagnosis().await?;
        ensure!(
            !named.is_empty() && named.iter().all(|(known, text)| known == about && text.contains(found)),
            "{about} ({found}) was planted, and this was found: {named:#?}"
        );
        ward.run(&mend)
            .await
            .with_context(|| format!("mending {about}: {found}"))?;
    }
    let healthy = ward.diagnosis().await?;
    ensure!(healthy.is_empty(), "after all was put right: {healthy:#?}");

    ward.logs_as_lambda_wants().await?;
    ward.collects_no_secret().await?;
    ward.sends().await?;
    for key in lab.stack.keys("accounts/pebble/").await? {
        lab.stack.remove(&key).await?;
    }
    Ok(())
}

/// The stack with the means to break it.
struct Ward<'l> {
    lab: &'l Lab,
    resources: Vec<(String, String)>,
    inventory: String,
}

impl<'l> Ward<'l> {
    async fn open(lab: &'l Lab) -> Result<Self> {
        let xml = lab
            .stack
            .call(&Call::query(
                "cloudformation",
                &[("Action", "DescribeStackResources"), ("StackName", "neverlapse")],
            ))
            .await?;
        let text = |part: &str, element: &str| {
            Some(
                part.split_once(&format!("<{element}>"))?
                    .1
                    .split_once('<')?
                    .0
                    .to_owned(),
            )
        };
        let resources = xml
            .split("<member>")
            .filter_map(|part| Some((text(part, "LogicalResourceId")?, text(part, "PhysicalResourceId")?)));
        Ok(Self {
            lab,
            resources: resources.collect(),
            inventory: lab.stack.get("inventory.toml").await?.context("an inventory")?,
        })
    }

    fn id(&self, logical: &str) -> &str {
        let known = self.resources.iter().find(|(id, _)| id == logical);
        known.map_or_else(|| panic!("the stack has no {logical}"), |(_, physical)| physical)
    }

    async fn run(&self, calls: &[Call]) -> Result<()> {
        for call in calls {
            self.lab.stack.call(call).await?;
        }
        Ok(())
    }

    async fn doctor(&self, arguments: &[&str]) -> Result<Ran> {
        let nameserver = self.lab.dns.address.to_string();
        let all = [&["doctor", "--nameserver", &nameserver], arguments].concat();
        self.lab.neverlapse(&all).await
    }

    /// What is said about what, of all that is not as it should be.
    async fn diagnosis(&self) -> Result<Vec<(String, String)>> {
        let ran = self.doctor(&["--format", "json"]).await?;
        let json: Value = serde_json::from_str(ran.said.trim()).with_context(|| ran.said.clone())?;
        ensure_fits("diagnosis", &json).await?;
        let lines = json["lines"].as_array().context("lines")?;

        let wrong: Vec<_> = lines.iter().filter(|line| line["status"] != "ok").collect();
        let expected = wrong.iter().map(|line| match line["status"].as_str() {
            Some("critical") => 2,
            Some("unknown") => 3,
            _ => 1,
        });
        // Critical outranks unknown, whose exit code is higher.
        let code = if wrong.iter().any(|line| line["status"] == "critical") {
            2
        } else {
            expected.max().unwrap_or(0)
        };
        ensure!(ran.code == code, "exit code {}, not {code}: {json}", ran.code);

        for line in &wrong {
            ensure!(
                line["why"].is_string() && line["fix"].is_string(),
                "nothing to do: {line}"
            );
        }
        let text = |line: &Value, member: &str| line[member].as_str().unwrap_or_default().to_owned();
        Ok(wrong
            .into_iter()
            .map(|line| (text(line, "about"), text(line, "found")))
            .collect())
    }

    /// The emulator takes these properties of the template, and does not keep them.
    fn what_the_emulator_leaves_out(&self) -> Vec<Call> {
        let topics = ["AlertTopic", "RenewalTopic", "OperatorTopic"];
        let keys = topics.iter().map(|topic| self.topic_key(topic, self.id("Key")));
        keys.chain([self.encryption(&format!(
            "aws:kms</SSEAlgorithm><KMSMasterKeyID>{}</KMSMasterKeyID>",
            self.id("Key")
        ))])
        .collect()
    }

    fn topic_key(&self, topic: &str, key: &str) -> Call {
        let arn = self.id(topic);
        Call::query(
            "sns",
            &[
                ("Action", "SetTopicAttributes"),
                ("TopicArn", arn),
                ("AttributeName", "KmsMasterKeyId"),
                ("AttributeValue", key),
            ],
        )
    }

    fn encryption(&self, algorithm: &str) -> Call {
        let end = if algorithm.ends_with('>') {
            ""
        } else {
            "</SSEAlgorithm>"
        };
        let xml = format!(
            "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>{algorithm}{end}\
             </ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
        );
        self.bucket("PUT", "encryption", &xml)
    }

    fn bucket(&self, method: &str, what: &str, body: &str) -> Call {
        Call::rest("s3", method, &format!("/{}?{what}", self.lab.stack.bucket), body)
    }

    fn put(&self, key: &str, text: &str) -> Call {
        Call::rest("s3", "PUT", &format!("/{}/{key}", self.lab.stack.bucket), text)
    }

    fn remove(&self, key: &str) -> Call {
        Call::rest("s3", "DELETE", &format!("/{}/{key}", self.lab.stack.bucket), "")
    }

    async fn of_functions(&self) -> Result<Vec<Fault>> {
        let configure = |function: &str, body: Value| {
            Call::rest(
                "lambda",
                "PUT",
                &format!("/2015-03-31/functions/{}/configuration", self.id(function)),
                &body.to_string(),
            )
        };
        let get = Call::rest(
            "lambda",
            "GET",
            &format!("/2015-03-31/functions/{}/configuration", self.id("Renewer")),
            "",
        );
        let configuration: Value = serde_json::from_str(&self.lab.stack.call(&get).await?)?;
        let environment = configuration["Environment"].clone();
        let mut another = environment.clone();
        another["Variables"]["BUCKET"] = "another".into();

        let schedule = format!("/schedules/{}", self.id("ProbeDaily"));
        let enabled = self
            .lab
            .stack
            .call(&Call::rest("scheduler", "GET", &schedule, ""))
            .await?;
        let mut disabled: Value = serde_json::from_str(&enabled)?;
        disabled["State"] = "DISABLED".into();

        let concurrency = format!("/2017-10-31/functions/{}/concurrency", self.id("Probe"));
        let mapping = format!("/2015-03-31/event-source-mappings/{}", self.id("RenewerRequests"));
        let logs = |target: &str, body: Value| Call::json("logs", &format!("Logs_20140328.{target}"), body);
        let (log, stream) = (
            self.id("ProbeLogs"),
            json!({"logGroupName": self.id("ProbeLogs"), "logStreamName": "planted"}),
        );
        let error = json!({"timestamp": "2026-11-26T00:00:00Z", "level": "ERROR", "fields": {"message": "run failed", "error": "AccessDenied"}});
        let event = json!({"timestamp": Timestamp::now().unix() * 1_000, "message": error.to_string()});
        let write = json!({"logGroupName": log, "logStreamName": "planted", "logEvents": [event]});

        let queue = |id: &str, action: &str, mut more: Value| {
            more["QueueUrl"] = self.id(id).into();
            Call::sqs(action, more)
        };
        let set = |attribute: &str, value: &str| {
            queue(
                "RenewalQueue",
                "SetQueueAttributes",
                json!({"Attributes": {attribute: value}}),
            )
        };
        let query = queue(
            "RenewalQueue",
            "GetQueueAttributes",
            json!({"AttributeNames": ["RedrivePolicy"]}),
        );
        let redrive: Value = serde_json::from_str(&self.lab.stack.call(&query).await?)?;
        let redrive = redrive["Attributes"]["RedrivePolicy"]
            .as_str()
            .context("a redrive policy")?
            .to_owned();

        let report = self.lab.stack.get("reports/latest.json").await?.context("a report")?;
        let mut old: Value = serde_json::from_str(&report)?;
        old["finished_at"] = json!(Timestamp::now() - time::Duration::hours(30));

        let update = |body: &str| Call::rest("scheduler", "PUT", &schedule, body);
        let gone = [Call::rest("scheduler", "DELETE", &schedule, "")];
        Ok(vec![
            fault(
                "schedule ProbeDaily",
                "it is disabled",
                [update(&disabled.to_string())],
                [update(&enabled)],
            ),
            fault(
                "schedule ProbeDaily",
                "it does not exist",
                gone,
                [Call::rest("scheduler", "POST", &schedule, &enabled)],
            ),
            fault(
                "last run",
                "more than 26 hours ago",
                [self.put("reports/latest.json", &old.to_string())],
                [],
            ),
            fault(
                "last run",
                "there was none yet",
                [self.remove("reports/latest.json")],
                [self.put("reports/latest.json", &report)],
            ),
            fault(
                "function Probe",
                "its timeout is 3 s",
                [configure("Probe", json!({"Timeout": 3}))],
                [configure("Probe", json!({"Timeout": 300}))],
            ),
            fault(
                "function Renewer",
                "its variable BUCKET is \"another\"",
                [configure("Renewer", json!({"Environment": another}))],
                [configure("Renewer", json!({"Environment": environment}))],
            ),
            fault(
                "function Renewer",
                "its role is",
                [configure(
                    "Renewer",
                    json!({"Role": "arn:aws:iam::000000000000:role/another"}),
                )],
                [configure("Renewer", json!({"Role": configuration["Role"]}))],
            ),
            fault(
                "function Probe",
                "its reserved concurrency is 0",
                [Call::rest(
                    "lambda",
                    "PUT",
                    &concurrency,
                    r#"{"ReservedConcurrentExecutions": 0}"#,
                )],
                [Call::rest("lambda", "DELETE", &concurrency, "")],
            ),
            fault(
                "requests to the renewer",
                "its event source is Disabled",
                [Call::rest("lambda", "PUT", &mapping, r#"{"Enabled": false}"#)],
                [Call::rest("lambda", "PUT", &mapping, r#"{"Enabled": true}"#)],
            ),
            fault(
                "function Probe",
                "1 errors since yesterday; the last: run failed: AccessDenied",
                [logs("CreateLogStream", stream.clone()), logs("PutLogEvents", write)],
                [logs("DeleteLogStream", stream)],
            ),
            fault(
                "dead letters",
                "1 runs or renewals were given up",
                [queue("DeadLetters", "SendMessage", json!({"MessageBody": "{}"}))],
                [queue("DeadLetters", "PurgeQueue", json!({}))],
            ),
            fault(
                "queue of requests",
                "delivered again after 30 s",
                [set("VisibilityTimeout", "30")],
                [set("VisibilityTimeout", "3600")],
            ),
            fault(
                "queue of requests",
                "it has no dead-letter queue",
                [set("RedrivePolicy", "")],
                [set("RedrivePolicy", &redrive)],
            ),
        ])
    }

    async fn of_messages(&self) -> Result<Vec<Fault>> {
        let sns = |parameters: &[(&str, &str)]| Call::query("sns", parameters);
        let cloudwatch = |target: &str, body: Value| {
            Call::json("monitoring", &format!("GraniteServiceVersion20100801.{target}"), body)
        };
        let kms = |target: &str, body: Value| Call::json("kms", &format!("TrentService.{target}"), body);
        let mut faults = Vec::new();

        for (about, topic, found) in [
            ("alerts", "AlertTopic", "no confirmed subscriber receives them"),
            (
                "requests of the probe",
                "RenewalTopic",
                "the renewer's queue is not subscribed",
            ),
            (
                "requests of people",
                "OperatorTopic",
                "the renewer's queue is not subscribed",
            ),
        ] {
            let arn = self.id(topic);
            let listed = self
                .lab
                .stack
                .call(&sns(&[("Action", "ListSubscriptionsByTopic"), ("TopicArn", arn)]))
                .await?;
            let element = |name: &str| Some(listed.split_once(&format!("<{name}>"))?.1.split_once('<')?.0.to_owned());
            let subscription =
                element("SubscriptionArn").with_context(|| format!("{topic} has no subscription: {listed}"))?;
            let endpoint = element("Endpoint").context("an endpoint")?;
            let subscribe = [
                ("Action", "Subscribe"),
                ("TopicArn", arn),
                ("Protocol", "sqs"),
                ("Endpoint", &endpoint),
            ];
            if topic == "OperatorTopic" {
                let raw = |value| {
                    sns(&[
                        ("Action", "SetSubscriptionAttributes"),
                        ("SubscriptionArn", &subscription),
                        ("AttributeName", "RawMessageDelivery"),
                        ("AttributeValue", value),
                    ])
                };
                faults.push(fault(about, "they are delivered raw", [raw("true")], [raw("false")]));
            }
            faults.push(fault(
                about,
                found,
                [sns(&[("Action", "Unsubscribe"), ("SubscriptionArn", &subscription)])],
                [sns(&subscribe)],
            ));
            faults.push(fault(
                about,
                "is encrypted with \"another\"",
                [self.topic_key(topic, "another")],
                [self.topic_key(topic, self.id("Key"))],
            ));
        }

        let state = |value: &str| {
            cloudwatch(
                "SetAlarmState",
                json!({"AlarmName": self.id("NoHeartbeat"), "StateValue": value, "StateReason": "no data"}),
            )
        };
        let names = json!({"AlarmNames": [self.id("ProbeErrors")]});
        let query = cloudwatch("DescribeAlarms", names.clone());
        let alarms: Value = serde_json::from_str(&self.lab.stack.call(&query).await?)?;
        let alarm = alarms["MetricAlarms"][0].clone();
        ensure!(alarm["AlarmName"].is_string(), "{alarms}");
        let mut silent = alarm.clone();
        silent["AlarmActions"] = json!([]);

        let (key, secrets) = (
            json!({"KeyId": self.id("Key")}),
            json!({"KeyId": self.id("SecretsKey")}),
        );
        faults.extend([
            fault(
                "webhooks",
                "does not hold a webhook's URL",
                [self.put("secrets/slack-webhook", "slack.com")],
                [self.remove("secrets/slack-webhook")],
            ),
            fault(
                "alarm NoHeartbeat",
                "it is in alarm: no data",
                [state("ALARM")],
                [state("OK")],
            ),
            fault(
                "alarm ProbeErrors",
                "it does not exist",
                [cloudwatch("DeleteAlarms", names.clone())],
                [cloudwatch("PutMetricAlarm", alarm.clone())],
            ),
            fault(
                "alarm ProbeErrors",
                "its actions are disabled",
                [cloudwatch("DisableAlarmActions", names.clone())],
                [cloudwatch("EnableAlarmActions", names)],
            ),
            fault(
                "alarm ProbeErrors",
                "it does not publish",
                [cloudwatch("PutMetricAlarm", silent)],
                [cloudwatch("PutMetricAlarm", alarm)],
            ),
            fault(
                "key Key",
                "it is in the state Disabled",
                [kms("DisableKey", key.clone())],
                [kms("EnableKey", key)],
            ),
            fault(
                "key SecretsKey",
                "it is in the state PendingDeletion",
                [kms("ScheduleKeyDeletion", secrets.clone())],
                [kms("CancelKeyDeletion", secrets.clone()), kms("EnableKey", secrets)],
            ),
        ]);
        Ok(faults)
    }

    fn of_bucket(&self) -> Vec<Fault> {
        let versioning = |status: &str| {
            self.bucket(
                "PUT",
                "versioning",
                &format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"),
            )
        };
        let statement =
            |sid: &str| json!({"Sid": sid, "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"});
        let policy = |statements: Vec<Value>| {
            let policy = json!({"Version": "2012-10-17", "Statement": statements});
            self.bucket("PUT", "policy", &policy.to_string())
        };
        let whole = || {
            [policy(vec![
                statement("OnlyThroughTls"),
                statement("AccountsAndOrdersOnlyUnderTheirKey"),
            ])]
        };
        let block = "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls>\
                     <BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets>\
                     </PublicAccessBlockConfiguration>";
        vec![
            fault(
                "bucket",
                "it is not versioned",
                [versioning("Suspended")],
                [versioning("Enabled")],
            ),
            fault(
                "bucket",
                "its policy lacks the statement",
                [self.bucket("DELETE", "policy", "")],
                whole(),
            ),
            fault(
                "bucket",
                "AccountsAndOrdersOnlyUnderTheirKey",
                [policy(vec![statement("OnlyThroughTls")])],
                whole(),
            ),
            fault(
                "bucket",
                "it encrypts with no key of its own",
                [self.encryption("AES256")],
                self.what_the_emulator_leaves_out(),
            ),
            fault(
                "bucket",
                "it can be opened to the public",
                [self.bucket("DELETE", "publicAccessBlock", "")],
                [self.bucket("PUT", "publicAccessBlock", block)],
            ),
            fault(
                "accounts",
                "accounts/pebble/eab.json is not encrypted with SecretsKey",
                [self.put("accounts/pebble/eab.json", "{}")],
                [self.remove("accounts/pebble/eab.json")],
            ),
        ]
    }

    async fn of_certificates(&self) -> Result<Vec<Fault>> {
        let inventory = |text: String| [self.put("inventory.toml", &text)];
        let whole = || [self.put("inventory.toml", &self.inventory)];
        let with = |more: &str| inventory(format!("{more}\n{}", self.inventory));
        let instead = |from: &str, to: &str| inventory(self.inventory.replace(from, to));
        let certificate = "certificate doctor.test";

        let receipts = self.lab.stack.keys("receipts/doctor.test/").await?;
        let receipt = self
            .lab
            .stack
            .get(receipts.first().context("a receipt")?)
            .await?
            .context("a receipt")?;
        let receipt: Value = serde_json::from_str(&receipt)?;
        let changed = |member: &str, value: Value| {
            let mut receipt = receipt.clone();
            receipt[member] = value;
            [self.put("receipts/doctor.test/web-9.json", &receipt.to_string())]
        };
        let gone = || [self.remove("receipts/doctor.test/web-9.json")];
        let past = json!(Timestamp::now() - time::Duration::DAY);

        let renewals = "state/renewals/doctor.test.json";
        let failure = json!({"schema": "neverlapse.renewal/1", "name": NAME, "failure": {
            "count": 3, "since": past, "at": past, "problem": "CAA forbids it", "next_try": past}});
        let renewal = self.lab.stack.get(renewals).await?;
        let renewal = renewal.map_or_else(|| self.remove(renewals), |renewal| self.put(renewals, &renewal));

        let key = current_key(NAME);
        let pointer = self.lab.stack.get(&key).await?.context("a pointer")?;
        let mut expired: Value = serde_json::from_str(&pointer)?;
        expired["not_after"] = past.clone();
        ensure!(expired != serde_json::from_str::<Value>(&pointer)?, "{pointer}");

        let zone = self.zone().await?;
        let record = |action: &str, name: &str, kind: &str, value: &str| {
            let xml = format!(
                "<ChangeResourceRecordSetsRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><ChangeBatch><Changes><Change>\
                 <Action>{action}</Action><ResourceRecordSet><Name>{name}</Name><Type>{kind}</Type><TTL>60</TTL><ResourceRecords>\
                 <ResourceRecord><Value>{value}</Value></ResourceRecord></ResourceRecords></ResourceRecordSet>\
                 </Change></Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
            );
            [Call::rest(
                "route53",
                "POST",
                &format!("/2013-04-01/hostedzone/{zone}/rrset"),
                &xml,
            )]
        };
        let challenge = "_acme-challenge.doctor.test";

        Ok(vec![
            fault(
                certificate,
                "CAA: doctor.test: doctor.test keeps pebble (pebble.letsencrypt.org) from issuing",
                record("CREATE", NAME, "CAA", "0 issue \"other.example\""),
                record("DELETE", NAME, "CAA", "0 issue \"other.example\""),
            ),
            fault(
                certificate,
                "zone: _acme-challenge.doctor.test -> nowhere.example: no public hosted zone",
                record("CREATE", challenge, "CNAME", "nowhere.example"),
                record("DELETE", challenge, "CNAME", "nowhere.example"),
            ),
            fault(
                "inventory",
                "there is no inventory.toml",
                [self.remove("inventory.toml")],
                whole(),
            ),
            fault("inventory", "a..b", with("[[endpoint]]\nhost = \"a..b\""), whole()),
            fault(
                "inventory",
                "smtp://mail.test:25 is on port 25",
                with("[[endpoint]]\nhost = \"mail.test\"\nstarttls = \"smtp\""),
                whole(),
            ),
            fault(
                "issuer pebble",
                "directory: cannot read https://127.0.0.1:1/",
                instead("https://127.0.0.1:", "https://127.0.0.1:1/"),
                whole(),
            ),
            fault(
                "issuer pebble",
                "directory: the issuer's ca = \"ca/none.pem\": no such object",
                instead("ca/pebble.pem", "ca/none.pem"),
                whole(),
            ),
            fault(
                "issuer other",
                "EAB: [issuer.other] has eab = true, but the bucket has no",
                inventory(format!(
                    "{}eab = true\n",
                    self.inventory
                        .replace("\"pebble\"", "\"other\"")
                        .replace("issuer.pebble", "issuer.other")
                )),
                whole(),
            ),
            fault(
                certificate,
                "web-9 has not reported since",
                changed("next_by", past),
                gone(),
            ),
            fault(
                certificate,
                "web-9 could not install it",
                changed("stage", "failed".into()),
                gone(),
            ),
            fault(
                certificate,
                "the receipt of web-9 cannot be read",
                [self.put("receipts/doctor.test/web-9.json", "?")],
                gone(),
            ),
            fault(
                certificate,
                "its renewal has failed 3 times",
                [self.put(renewals, &failure.to_string())],
                [renewal],
            ),
            fault(
                certificate,
                "it was never issued",
                [self.remove(&key)],
                [self.put(&key, &pointer)],
            ),
            fault(
                certificate,
                "it expired at",
                [self.put(&key, &expired.to_string())],
                [self.put(&key, &pointer)],
            ),
        ])
    }

    /// The id of the hosted zone of the certificate.
    async fn zone(&self) -> Result<String> {
        let list = Call::rest("route53", "GET", "/2013-04-01/hostedzone", "");
        let zones = self.lab.stack.call(&list).await?;
        let zone = zones
            .split("<HostedZone>")
            .find(|zone| zone.contains(&format!("<Name>{NAME}.</Name>")));
        let id = zone.and_then(|zone| zone.split_once("<Id>/hostedzone/")?.1.split_once('<'));
        Ok(id.context("a hosted zone")?.0.to_owned())
    }

    /// Lambda takes a line without a time for INFO, whatever its level.
    async fn logs_as_lambda_wants(&self) -> Result<()> {
        let query = json!({"logGroupName": self.id("ProbeLogs")});
        let found = self
            .lab
            .stack
            .call(&Call::json("logs", "Logs_20140328.FilterLogEvents", query))
            .await?;
        let found: Value = serde_json::from_str(&found)?;
        let messages = found["events"].as_array().into_iter().flatten();
        let lines = messages.flat_map(|event| event["message"].as_str().unwrap_or_default().lines());
        let lines: Vec<Value> = lines
            .filter_map(|line| serde_json::from_str(line.trim()).ok())
            .collect();

        let ours: Vec<_> = lines.iter().filter(|line| line["level"].is_string()).collect();
        ensure!(!ours.is_empty(), "no line has a level: {found}");
        for line in ours {
            let time = line["timestamp"].as_str().unwrap_or_default();
            ensure!(time.parse::<Timestamp>().is_ok(), "no time: {line}");
        }
        Ok(())
    }

    /// The file for a bug report has what is needed, and none of what must not leave the account.
    async fn collects_no_secret(&self) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("report.json");
        let webhook = "https://127.0.0.1/services/of-nobody-else";
        self.run(&[self.put("secrets/slack-webhook", webhook)]).await?;
        self.doctor(&["--collect", &file.to_string_lossy()]).await?;
        self.run(&[self.remove("secrets/slack-webhook")]).await?;

        let text = std::fs::read_to_string(&file)?;
        serde_json::from_str::<Value>(&text).context("the file is JSON")?;
        for needed in [
            "neverlapse.collection/1",
            "CREATE_COMPLETE",
            "HeartbeatHours",
            "\"Timeout\":300",
        ] {
            ensure!(text.contains(needed), "{needed} is missing in {text}");
        }
        for secret in ["of-nobody-else", "PRIVATE KEY", "\"test\"}"] {
            ensure!(!text.contains(secret), "{secret} is in {text}");
        }
        Ok(())
    }

    /// The test alert arrives.
    async fn sends(&self) -> Result<()> {
        while self.lab.next_alert().await?.is_some() {}
        let ran = self.doctor(&["--send", "--all"]).await?;
        ensure!(
            ran.code == 0 && ran.said.contains("sent; see that it arrives"),
            "{ran:?}"
        );
        let alert = self.lab.alert().await?;
        ensure!(
            alert.subject.contains("TEST") || alert.text.contains("test"),
            "{alert:?}"
        );
        Ok(())
    }
}

const NAME: &str = "doctor.test";
