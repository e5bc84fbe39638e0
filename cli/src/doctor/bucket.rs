//! The bucket and the two keys: what keeps secrets secret, and what was deleted from being lost.

use std::fmt::Display;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::BucketVersioningStatus;
use neverlapse::aws;
use serde_json::{Value, json};

use super::Patient;
use super::line::Line;
use crate::service::KMS;

/// Everything about what is stored.
pub(super) async fn examine(patient: &Patient) -> Vec<Line> {
    let s3 = Client::new(&patient.stack.config);
    let bucket = patient.stack.store.bucket();
    let mut wrong = Vec::new();
    wrong.extend(examine_versioning(&s3, bucket).await);
    wrong.extend(examine_policy(&s3, bucket).await);
    wrong.extend(examine_encryption(patient, &s3, bucket).await);
    wrong.extend(examine_public_access(&s3, bucket).await);
    if wrong.is_empty() {
        wrong.push(Line::ok(
            ABOUT,
            format!("{bucket}: versioned, encrypted, closed to the public"),
        ));
    }

    for id in ["Key", "SecretsKey"] {
        wrong.push(examine_key(patient, id).await);
    }
    wrong.extend(examine_accounts(patient, &s3, bucket).await);
    wrong
}

async fn examine_versioning(s3: &Client, bucket: &str) -> Option<Line> {
    let status = match s3.get_bucket_versioning().bucket(bucket).send().await {
        Ok(answer) => answer.status,
        Err(error) => return Some(Line::unknown(ABOUT, aws::reason(&error))),
    };
    (status != Some(BucketVersioningStatus::Enabled)).then(|| {
        Line::critical(
            ABOUT,
            "it is not versioned",
            "what is overwritten or deleted, private keys and account keys too, is lost at once",
            format!("aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled"),
        )
    })
}

async fn examine_policy(s3: &Client, bucket: &str) -> Vec<Line> {
    let policy = match s3.get_bucket_policy().bucket(bucket).send().await {
        Ok(answer) => answer.policy.unwrap_or_default(),
        Err(error) if aws::reason(&error).contains("NoSuchBucketPolicy") => String::new(),
        Err(error) => return vec![Line::unknown(ABOUT, aws::reason(&error))],
    };
    of_policy(&serde_json::from_str(&policy).unwrap_or_default())
}

/// The statements that the template has.
fn of_policy(policy: &Value) -> Vec<Line> {
    let expected = [
        ("OnlyThroughTls", "objects can be read in clear over the network"),
        (
            "AccountsAndOrdersOnlyUnderTheirKey",
            "what is put under accounts/ without a word about keys is encrypted with one that instances may use",
        ),
    ];

    let missing = expected.into_iter().filter(|(sid, _)| {
        let mut statements = policy["Statement"].as_array().into_iter().flatten();
        !statements.any(|statement| statement["Sid"] == *sid && statement["Effect"] == "Deny")
    });
    missing
        .map(|(sid, why)| {
            Line::critical(
                ABOUT,
                format!("its policy lacks the statement {sid}"),
                why,
                "make deploy",
            )
        })
        .collect()
}

async fn examine_encryption(patient: &Patient, s3: &Client, bucket: &str) -> Option<Line> {
    let answer = match s3.get_bucket_encryption().bucket(bucket).send().await {
        Ok(answer) => answer,
        Err(error) => return Some(Line::unknown(ABOUT, aws::reason(&error))),
    };
    let rules = answer
        .server_side_encryption_configuration
        .map(|configuration| configuration.rules)
        .unwrap_or_default();
    let default = rules
        .into_iter()
        .find_map(|rule| rule.apply_server_side_encryption_by_default);
    let key = default
        .and_then(|default| default.kms_master_key_id)
        .unwrap_or_default();

    let expected = patient.resource("Key")?;
    (!key.ends_with(expected)).then(|| {
        Line::critical(
            ABOUT,
            match key.as_str() {
                "" => format!("it encrypts with no key of its own (expected the stack's Key, {expected:?})"),
                key => format!("it encrypts with {key:?} (expected the stack's Key, {expected:?})"),
            },
            "the stack's key no longer decides who may read private keys",
            "make deploy, then copy what was written meanwhile onto itself (aws s3 cp --recursive s3://… s3://…)",
        )
    })
}

async fn examine_public_access(s3: &Client, bucket: &str) -> Option<Line> {
    let block = match s3.get_public_access_block().bucket(bucket).send().await {
        Ok(answer) => answer.public_access_block_configuration,
        Err(error) if aws::reason(&error).contains("NoSuchPublicAccessBlock") => None,
        Err(error) => return Some(Line::unknown(ABOUT, aws::reason(&error))),
    };
    let is_closed = block.is_some_and(|block| {
        let all = [
            block.block_public_acls,
            block.block_public_policy,
            block.ignore_public_acls,
            block.restrict_public_buckets,
        ];
        all.iter().all(|one| *one == Some(true))
    });

    (!is_closed).then(|| {
        Line::critical(
            ABOUT,
            "it can be opened to the public",
            "private keys are in it, and one wrong policy would show them",
            format!(
                "aws s3api put-public-access-block --bucket {bucket} --public-access-block-configuration \
                 BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true"
            ),
        )
    })
}

async fn examine_key(patient: &Patient, id: &str) -> Line {
    let about = format!("key {id}");
    let Some(key) = patient.resource(id) else {
        return Line::critical(
            about,
            "it does not exist",
            "nothing can be encrypted or decrypted",
            "make deploy",
        );
    };

    let query = json!({ "KeyId": key });
    match patient
        .stack
        .services
        .json(KMS, "TrentService.DescribeKey", &query)
        .await
    {
        Ok(answer) => {
            let state = answer["KeyMetadata"]["KeyState"].as_str().unwrap_or_default();
            of_key(about, key, state)
        }
        Err(refused) => Line::unknown(about, refused),
    }
}

fn of_key(about: impl Display, key: &str, state: &str) -> Line {
    let why = "nothing that it has encrypted can be read: certificates, orders, accounts, alerts";
    let fix = match state {
        "Enabled" => return Line::ok(about, "enabled"),
        "PendingDeletion" => format!("aws kms cancel-key-deletion --key-id {key} && aws kms enable-key --key-id {key}"),
        _ => format!("aws kms enable-key --key-id {key}"),
    };
    Line::critical(about, format!("it is in the state {state}"), why, fix)
}

/// The key of each object under `accounts/`; external account keys are put there by people.
async fn examine_accounts(patient: &Patient, s3: &Client, bucket: &str) -> Vec<Line> {
    let about = "accounts";
    let keys = match patient.stack.store.keys("accounts/").await {
        Ok(keys) => keys,
        Err(error) => return vec![Line::unknown(about, error)],
    };
    // That there is none, a line of its own says.
    let Some(expected) = patient.resource("SecretsKey") else {
        return Vec::new();
    };

    let mut lines = Vec::new();
    for key in &keys {
        match s3.head_object().bucket(bucket).key(key).send().await {
            Ok(object) => lines.extend(of_account(
                bucket,
                key,
                object.ssekms_key_id().unwrap_or_default(),
                expected,
            )),
            Err(error) => lines.push(Line::unknown(about, format!("{key}: {}", aws::reason(&error)))),
        }
    }
    if lines.is_empty() {
        lines.push(Line::ok(about, format!("{} objects, all under SecretsKey", keys.len())));
    }
    lines
}

fn of_account(bucket: &str, key: &str, under: &str, expected: &str) -> Option<Line> {
    (!under.ends_with(expected)).then(|| {
        Line::critical(
            "accounts",
            format!("s3://{bucket}/{key} is not encrypted with SecretsKey, but with {under:?}"),
            "instances may use that key: with a right to read the object they could act as your account at the CA",
            format!(
                "put it again: aws s3 cp FILE s3://{bucket}/{key} --sse aws:kms --sse-kms-key-id {expected}; and have the CA make another one"
            ),
        )
    })
}

const ABOUT: &str = "bucket";
