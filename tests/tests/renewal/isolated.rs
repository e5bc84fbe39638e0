//! A bucket with renewers of its own, which run as plain processes: what happens here disturbs no
//! other proof.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use neverlapse::renewal::request::Request;
use neverlapse_tests::pebble::{Options, Pebble};
use neverlapse_tests::program::program;
use neverlapse_tests::runtime::{Function, TIMEOUT_SECONDS};
use tempfile::TempDir;

use crate::bucket::Bucket;
use crate::fixture::{Lab, issuer};

pub(crate) struct Isolated<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) bucket: Bucket,
    folder: TempDir,
}

impl<'a> Isolated<'a> {
    pub(crate) async fn open(lab: &'a Lab, name: &str) -> Result<Self> {
        let place = CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::EuCentral1);
        let s3 = aws_sdk_s3::Client::new(&lab.stack.config);
        s3.create_bucket()
            .bucket(name)
            .create_bucket_configuration(place.build())
            .send()
            .await?;
        Ok(Self {
            lab,
            bucket: Bucket::new(&lab.stack.config, name),
            folder: tempfile::tempdir()?,
        })
    }

    /// An ACME server for these renewers alone, so that its counts are theirs, and the inventory's
    /// entry for it.
    pub(crate) async fn issuer(&self, name: &str) -> Result<(Pebble, String)> {
        let options = Options {
            nonces_refused: 0,
            ..Options::default()
        };
        self.issuer_with(name, options).await
    }

    pub(crate) async fn issuer_with(&self, name: &str, options: Options) -> Result<(Pebble, String)> {
        issuer(name, options, self.lab.dns.address, &self.bucket).await
    }

    pub(crate) async fn inventory(&self, entries: &str) -> Result<()> {
        self.bucket.put("inventory.toml", entries).await
    }

    /// Runs the built renewer on one request; whether it did what it could.
    pub(crate) async fn run(&self, request: &Request) -> Result<bool> {
        self.run_with(&program("renewer").await?, self.lab.stack.endpoint(), &[], request)
            .await
    }

    /// Likewise; it finds AWS at `aws`.
    pub(crate) async fn run_through(&self, aws: &str, request: &Request) -> Result<bool> {
        self.run_with(&program("renewer").await?, aws, &[], request).await
    }

    /// Likewise, within so many seconds.
    pub(crate) async fn run_within(&self, seconds: &str, aws: &str, request: &Request) -> Result<bool> {
        self.run_with(&program("renewer").await?, aws, &[(TIMEOUT_SECONDS, seconds)], request)
            .await
    }

    /// Likewise; `program` runs it, with more in its environment.
    pub(crate) async fn run_with(
        &self,
        program: &std::path::Path,
        aws: &str,
        more: &[(&str, &str)],
        request: &Request,
    ) -> Result<bool> {
        let mut environment = self.lab.stack.renewer_environment(self.lab.dns.address, aws);
        let own = [("BUCKET", self.bucket.name())];
        let own = own.iter().chain(more);
        environment.extend(own.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let function = Function::start(program, &environment, &self.log_of(&request.name)).await?;
        let answer = function.invoke(self.lab.batch(request)?).await?;
        let failed = answer["batchItemFailures"].as_array().context("a batch's answer")?;
        Ok(failed.is_empty())
    }

    /// Runs it on a request that must come to a version, which is verified to `pebble`'s root.
    pub(crate) async fn renewed(
        &self,
        request: &Request,
        pebble: &Pebble,
    ) -> Result<neverlapse::bucket::version::Current> {
        let done = self.run(request).await?;
        ensure!(done, "{} was not renewed:\n{}", request.name, self.log(&request.name)?);
        self.bucket.verified(&request.name, pebble).await
    }

    /// Runs it on a request that must fail, and answers with what is remembered of that.
    pub(crate) async fn refused(&self, request: &Request) -> Result<String> {
        let done = self.run(request).await?;
        ensure!(!done, "{} did not fail:\n{}", request.name, self.log(&request.name)?);
        self.problem(&request.name).await
    }

    /// What went wrong the last time.
    pub(crate) async fn problem(&self, name: &str) -> Result<String> {
        let renewal = self.bucket.renewal(name).await?.context("something is remembered")?;
        let failure = renewal.failure.context("a failure is remembered")?;
        Ok(failure.problem)
    }

    /// Writes another program into a folder that is removed with it.
    pub(crate) fn program(&self, name: &str, script: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join(name);
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// What renewers logged about a certificate.
    pub(crate) fn log(&self, name: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.log_of(name))?)
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}
