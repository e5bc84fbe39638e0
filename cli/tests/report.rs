//! `neverlapse report`: from a file, from standard input, from a bucket.

use std::path::Path;
use std::process::Output;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::fleet;
use neverlapse_tests::process::{output, text};
use tokio::process::Command;

async fn report(folder: &Path, arguments: &[&str], input: &str, environment: &[(&str, String)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_neverlapse"));
    command
        .arg("report")
        .args(arguments)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .current_dir(folder);
    output(&mut command, input).await.unwrap()
}

#[tokio::test]
async fn a_page_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let json = serde_json::to_string(&fleet::shop(Timestamp::now())).unwrap();
    std::fs::write(folder.path().join("report.json"), &json).unwrap();

    let from_file = report(folder.path(), &["report.json", "--output", "report.html"], "", &[]).await;
    assert_eq!(from_file.status.code(), Some(0), "{}", text(&from_file.stderr));
    assert!(from_file.stdout.is_empty());
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<h1>4 of 31 endpoints are critical</h1>"), "{page}");

    let from_input = report(folder.path(), &["-"], &json, &[]).await;
    assert_eq!(text(&from_input.stdout), page);
}

#[tokio::test]
async fn what_is_no_report_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = fleet::shop(Timestamp::now());
    other.schema = "neverlapse.report/9".to_owned();
    let other = serde_json::to_string(&other).unwrap();
    for input in ["", "[]", "{\"schema\": \"neverlapse.report/1\"}", &other] {
        let out = report(folder.path(), &["-"], input, &[]).await;
        assert_eq!(out.status.code(), Some(3), "{input}");
        let said = text(&out.stderr);
        assert!(
            said.contains("standard input is not a report (expected neverlapse.report/1"),
            "{said}"
        );
        assert!(out.stdout.is_empty());
    }
}

#[tokio::test]
async fn the_latest_one_in_a_bucket() {
    let emulator = Emulator::start().await.unwrap();
    let s3 = aws_sdk_s3::Client::new(&emulator.config);
    let location = BucketLocationConstraint::from(emulator.config.region().unwrap().as_ref());
    let location = CreateBucketConfiguration::builder().location_constraint(location);
    let create = s3.create_bucket().bucket("reports-here");
    create
        .create_bucket_configuration(location.build())
        .send()
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let environment: Vec<_> = (emulator.environment().into_iter())
        .map(|(key, value)| (key, value.to_string()))
        .chain([("AWS_ENDPOINT_URL", emulator.endpoint.clone())])
        .collect();
    let fetch = async |format: &str| {
        let arguments = ["--bucket", "reports-here", "--format", format];
        report(folder.path(), &arguments, "", &environment).await
    };

    let none = fetch("html").await;
    assert_eq!(none.status.code(), Some(3));
    let said = text(&none.stderr);
    assert!(
        said.contains("there is no s3://reports-here/reports/latest.html yet"),
        "{said}"
    );

    for (key, body) in [("reports/latest.html", "the page"), ("reports/latest.json", "the json")] {
        let put = s3.put_object().bucket("reports-here").key(key);
        put.body(ByteStream::from_static(body.as_bytes())).send().await.unwrap();
    }
    for (format, expected) in [("html", "the page"), ("json", "the json")] {
        let out = fetch(format).await;
        assert_eq!(text(&out.stdout), expected, "{}", text(&out.stderr));
    }
}
