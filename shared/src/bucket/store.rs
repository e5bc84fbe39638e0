//! The bucket: reads and writes its objects, with the conditions that keep two writers apart.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use bytes::Bytes;
use serde::Serialize;
use thiserror::Error;
use tokio::time::sleep;

use super::document::{self, Document};
use crate::aws::reason;
use crate::text::causes;

/// A bucket in S3. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    s3: Client,
    bucket: String,
}

/// An object's content and its ETag, which changes with the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged<T> {
    /// Its content.
    pub value: T,
    /// Its ETag, as S3 gave it.
    pub tag: String,
}

/// An object, compared with the ETag that the reader knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// There is no object.
    Missing,
    /// It still has that ETag.
    Unchanged,
    /// Its content now.
    Changed(Tagged<Vec<u8>>),
}

/// The condition of a write (RFC 9110, 13.1): what must be there for it to happen.
///
/// A reader who wants to replace what it read uses [`Expecting::unchanged`]. A write that finds
/// something else is [`Error::Changed`], and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expecting<'a> {
    /// Anything or nothing: the last write wins.
    Anything,
    /// No object yet (`If-None-Match: *`).
    Nothing,
    /// An object with this ETag (`If-Match`).
    Tag(&'a str),
}

impl<'a> Expecting<'a> {
    /// The same as was read: the object with its ETag, or no object.
    pub fn unchanged<T>(read: Option<&'a Tagged<T>>) -> Self {
        read.map_or(Self::Nothing, |read| Self::Tag(&read.tag))
    }
}

/// Why an object cannot be read or written. "No such key" is no error; access denied, throttled and
/// timed out are.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each field is in the variant's message")]
pub enum Error {
    /// The service refused it, or did not answer.
    #[error("cannot {what} s3://{bucket}/{key}: {reason}")]
    Failed {
        what: &'static str,
        bucket: String,
        key: String,
        reason: String,
        /// Its policy forbids it.
        denied: bool,
    },
    /// The object has another content than was expected.
    #[error("s3://{bucket}/{key} is {problem}")]
    Unexpected {
        bucket: String,
        key: String,
        problem: String,
    },
    /// The object is longer than its reader allows, and was not read.
    #[error(
        "s3://{bucket}/{key} is not what it should be: it has {} bytes (expected at most {limit})",
        length(.bytes, .limit)
    )]
    TooLong {
        bucket: String,
        key: String,
        /// Its length, if S3 named it.
        bytes: Option<u64>,
        limit: u64,
        /// Its ETag, with which it can be replaced.
        tag: String,
    },
    /// The condition of a write was not met: see [`Expecting`].
    #[error("s3://{bucket}/{key} was changed by somebody else meanwhile")]
    Changed { bucket: String, key: String },
}

impl Error {
    /// Whether the service answered that it is forbidden.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Failed { denied: true, .. })
    }
}

/// Everything is read with a limit, in bytes: what others put into the bucket has none. An object
/// that is longer is [`Error::TooLong`].
impl Store {
    /// The bucket of this name.
    pub fn new(s3: Client, bucket: impl Into<String>) -> Self {
        Self {
            s3,
            bucket: bucket.into(),
        }
    }

    /// Its name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The inventory's text, if there is one.
    pub async fn inventory(&self) -> Result<Option<String>, Error> {
        self.text(INVENTORY, LONGEST_INVENTORY).await
    }

    /// An object as text, if it is there.
    pub async fn text(&self, key: &str, limit: u64) -> Result<Option<String>, Error> {
        let Some(bytes) = self.object(key, limit).await? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| self.unexpected(key, "not UTF-8 text".to_owned()))
    }

    /// An object's bytes, if it is there.
    pub async fn object(&self, key: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.tagged(key, limit).await?.map(|tagged| tagged.value))
    }

    /// An object's bytes and ETag, if it is there.
    pub async fn tagged(&self, key: &str, limit: u64) -> Result<Option<Tagged<Vec<u8>>>, Error> {
        match self.tagged_unless(key, None, limit).await? {
            Fresh::Changed(tagged) => Ok(Some(tagged)),
            Fresh::Missing | Fresh::Unchanged => Ok(None),
        }
    }

    /// An object's bytes and ETag, unless it still has the tag that the caller knows (RFC 9110,
    /// 13.1.2).
    pub async fn tagged_unless(&self, key: &str, known: Option<&str>, limit: u64) -> Result<Fresh, Error> {
        let mut tries = 1;
        loop {
            let request = self
                .s3
                .get_object()
                .bucket(&self.bucket)
                .key(key)
                .set_if_none_match(known.map(str::to_owned));
            let object = match request.send().await {
                Ok(object) => object,
                Err(error) if is_missing(&error) => return Ok(Fresh::Missing),
                Err(error) if is_unchanged(&error) => return Ok(Fresh::Unchanged),
                Err(error) => return Err(self.failed("read", key, &error)),
            };

            let tag = object.e_tag().unwrap_or_default().to_owned();
            match content(object.body, object.content_length, limit).await {
                Ok(value) => return Ok(Fresh::Changed(Tagged { value, tag })),
                // The SDK repeats a request that is not answered, but not one whose answer breaks
                // off.
                Err(Unread::BrokenOff(_)) if tries < READS => {}
                Err(Unread::BrokenOff(reason)) => {
                    return Err(Error::Failed {
                        what: "read",
                        bucket: self.bucket.clone(),
                        key: key.to_owned(),
                        reason,
                        denied: false,
                    });
                }
                Err(Unread::TooLong(bytes)) => {
                    return Err(Error::TooLong {
                        bucket: self.bucket.clone(),
                        key: key.to_owned(),
                        bytes,
                        limit,
                        tag,
                    });
                }
            }
            tries += 1;
            sleep(CONFLICT_PAUSE * tries).await;
        }
    }

    /// A document, if it is there. One that belongs elsewhere is an error.
    pub async fn document<T: Document>(&self, key: &str) -> Result<Option<Tagged<T>>, Error> {
        let Some(Tagged { value, tag }) = self.tagged(key, T::LONGEST).await? else {
            return Ok(None);
        };
        let value: T = document::read(&value).map_err(|error| {
            let problem = match error {
                document::Error::Malformed(position) => format!("not what it should be ({position})"),
                document::Error::OtherFormat { found, expected } => {
                    format!("in the format {found:?} (expected {expected:?})")
                }
            };
            self.unexpected(key, problem)
        })?;

        match value.misplaced(key) {
            Some(problem) => Err(self.unexpected(key, format!("not what it should be: {problem}"))),
            None => Ok(Some(Tagged { value, tag })),
        }
    }

    /// The PEM file that an inventory or a parameter names. The error is for people.
    pub async fn pem(&self, key: &str) -> Result<Vec<u8>, String> {
        let pem = self
            .object(key, LONGEST_FILE)
            .await
            .map_err(|error| error.to_string())?;
        pem.ok_or_else(|| format!("no such object in s3://{} (expected a PEM file)", self.bucket))
    }

    /// Writes an object, and answers with its new ETag.
    ///
    /// A lost race is [`Error::Changed`], unless what is there has the very same content: the SDK
    /// repeats a write whose answer was lost, and the second one then meets the first.
    pub async fn put(&self, key: &str, object: Object<'_>, expecting: Expecting<'_>) -> Result<String, Error> {
        let content = object.body;
        let mut tries = 1;
        loop {
            let mut request = self
                .s3
                .put_object()
                .bucket(&self.bucket)
                .key(key)
                .content_type(object.content_type)
                .body(ByteStream::from(content.clone()));
            if let Some(kms_key) = object.kms_key {
                request = request
                    .server_side_encryption(ServerSideEncryption::AwsKms)
                    .ssekms_key_id(kms_key);
            }
            request = match expecting {
                Expecting::Anything => request,
                Expecting::Nothing => request.if_none_match("*"),
                Expecting::Tag(tag) => request.if_match(tag),
            };

            let error = match request.send().await {
                Ok(written) => return Ok(written.e_tag().unwrap_or_default().to_owned()),
                Err(error) => error,
            };
            if is_conflict(&error) && tries < CONFLICTS {
                tries += 1;
                sleep(CONFLICT_PAUSE * tries).await;
                continue;
            }
            if !is_lost(&error, expecting) {
                return Err(self.failed("write", key, &error));
            }
            return match self.tagged(key, content.len() as u64).await {
                Ok(Some(there)) if there.value == content => Ok(there.tag),
                Ok(_) | Err(Error::TooLong { .. }) => Err(self.changed(key)),
                Err(error) => Err(error),
            };
        }
    }

    /// Removes an object. It is no error if there is none.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let request = self.s3.delete_object().bucket(&self.bucket).key(key);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("delete", key, &error)),
        }
    }

    /// Removes an object that still has this ETag. A lost race is [`Error::Changed`].
    pub async fn delete_unchanged(&self, key: &str, tag: &str) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            let request = self.s3.delete_object().bucket(&self.bucket).key(key).if_match(tag);
            match request.send().await {
                Ok(_) => return Ok(()),
                Err(error) if is_conflict(&error) && tries < CONFLICTS => {
                    tries += 1;
                    sleep(CONFLICT_PAUSE * tries).await;
                }
                Err(error) if is_lost(&error, Expecting::Tag(tag)) => return Err(self.changed(key)),
                Err(error) => return Err(self.failed("delete", key, &error)),
            }
        }
    }

    /// The keys that begin with `prefix`, in order. More than anybody needs are an error: somebody
    /// fills the bucket.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let (keys, are_all) = self.first_keys(prefix, KEYS).await?;
        if are_all {
            Ok(keys)
        } else {
            Err(self.unexpected(prefix, format!("the prefix of more than {KEYS} objects")))
        }
    }

    /// The first keys that begin with `prefix`, in order, and whether these are all of them.
    pub async fn first_keys(&self, prefix: &str, most: usize) -> Result<(Vec<String>, bool), Error> {
        let mut pages = self
            .s3
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .into_paginator()
            .send();

        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed("list", prefix, &error))?;
            for key in page.contents().iter().filter_map(|object| object.key()) {
                if keys.len() == most {
                    return Ok((keys, false));
                }
                keys.push(key.to_owned());
            }
        }
        Ok((keys, true))
    }

    fn failed<E>(&self, what: &'static str, key: &str, error: &SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        Error::Failed {
            what,
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            reason: self.elsewhere(error).unwrap_or_else(|| reason(error)),
            denied: code(error) == Some("AccessDenied"),
        }
    }

    /// What to set, if no region is known, or if S3 answers that the bucket is in another one.
    fn elsewhere<E: ProvideErrorMetadata>(&self, error: &SdkError<E>) -> Option<String> {
        let Some(asked) = self.s3.config().region() else {
            return Some("no region is known (set AWS_REGION, or region = \"…\" in pull.toml)".to_owned());
        };

        let has_moved = code(error).is_some_and(|code| ELSEWHERE.contains(&code));
        let region = error.raw_response()?.headers().get("x-amz-bucket-region");
        let region = region.filter(|_| has_moved)?;
        Some(format!(
            "the bucket is in the region {region}, and {asked} was asked (set AWS_REGION={region}, or region = \
             {region:?} in pull.toml)"
        ))
    }

    fn changed(&self, key: &str) -> Error {
        Error::Changed {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
        }
    }

    fn unexpected(&self, key: &str, problem: String) -> Error {
        Error::Unexpected {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            problem,
        }
    }
}

/// An object to write: its content and how S3 is to keep it. It is cheap to clone.
#[derive(Clone)]
pub struct Object<'a> {
    body: Bytes,
    content_type: &'static str,
    kms_key: Option<&'a str>,
}

impl<'a> Object<'a> {
    /// JSON, over several lines, because people read it too.
    pub fn json<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        let mut body = serde_json::to_vec_pretty(value)?;
        body.push(b'\n');
        Ok(Self::new(body, "application/json"))
    }

    /// Content of another type.
    pub fn new(body: impl Into<Vec<u8>>, content_type: &'static str) -> Self {
        Self {
            body: Bytes::from(body.into()),
            content_type,
            kms_key: None,
        }
    }

    /// Its content.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The same, encrypted with another KMS key than the bucket's.
    pub fn under(mut self, kms_key: &'a str) -> Self {
        self.kms_key = Some(kms_key);
        self
    }
}

/// Why the content of an object was not read to its end.
#[derive(Debug, PartialEq, Eq)]
enum Unread {
    BrokenOff(String),
    /// With its length, if that is known.
    TooLong(Option<u64>),
}

/// The content of an object, unless it is longer than allowed: by its own word, or in truth.
async fn content(mut body: ByteStream, length: Option<i64>, limit: u64) -> Result<Vec<u8>, Unread> {
    let length = length.and_then(|length| u64::try_from(length).ok());
    if length.is_some_and(|length| length > limit) {
        return Err(Unread::TooLong(length));
    }

    // Grown step by step, a long one would take twice its length.
    let mut content = Vec::with_capacity(length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0));
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| Unread::BrokenOff(causes(&error)))?;
        content.extend_from_slice(&part);
        if content.len() as u64 > limit {
            return Err(Unread::TooLong(None));
        }
    }
    Ok(content)
}

/// The length of an object that is longer than its limit, in words.
fn length(bytes: &Option<u64>, limit: &u64) -> String {
    bytes.map_or_else(|| format!("more than {limit}"), |bytes| bytes.to_string())
}

fn is_missing(error: &SdkError<GetObjectError>) -> bool {
    error.as_service_error().is_some_and(GetObjectError::is_no_such_key)
}

fn is_unchanged(error: &SdkError<GetObjectError>) -> bool {
    error.raw_response().is_some_and(|raw| raw.status().as_u16() == 304)
}

/// Whether two conditional writes met (409). Neither condition was judged, so S3 wants the write to
/// be sent again.
fn is_conflict<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    code(error) == Some("ConditionalRequestConflict")
}

/// S3 answers 412 to a condition that is not met, and 404 to If-Match without an object. A conflict
/// that does not end is lost too: somebody else writes all the time.
fn is_lost<E: ProvideErrorMetadata>(error: &SdkError<E>, expecting: Expecting<'_>) -> bool {
    match code(error) {
        Some("PreconditionFailed" | "ConditionalRequestConflict") => true,
        Some("NoSuchKey") => matches!(expecting, Expecting::Tag(_)),
        _ => false,
    }
}

/// The service's own code for an error, if it answered.
fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// What S3 answers in a region that the bucket is not in.
const ELSEWHERE: [&str; 4] = [
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
];
/// How often a write that met another one is sent, and the pause before it, which grows.
const CONFLICTS: u32 = 5;
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// How often an object is read whose content breaks off.
const READS: u32 = 3;
/// The most keys that are listed: a hundred thousand certificates have one record each.
const KEYS: usize = 200_000;

/// Key of the last run's report.
pub const LATEST_JSON: &str = "reports/latest.json";
/// Key of the same report as a web page.
pub const LATEST_PAGE: &str = "reports/latest.html";
/// Key of the inventory.
pub const INVENTORY: &str = "inventory.toml";
/// The longest inventory that is read, in bytes. 100,000 endpoints take some megabytes.
pub const LONGEST_INVENTORY: u64 = 16 << 20;
/// The longest PEM file, secret or other small object that is read, in bytes. Some kilobytes are
/// usual.
pub const LONGEST_FILE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::fake::bucket;
    use crate::bucket::version::{Current, current_key};
    use crate::timestamp;

    /// An object of some gigabytes, at a key that was read without a limit, ended the process.
    #[tokio::test]
    async fn an_object_that_is_longer_than_its_reader_allows_is_an_error_with_its_length() {
        let objects = [("eleven".to_owned(), "x".repeat(11))];
        let store = bucket(objects.into(), |_| Duration::ZERO).await;
        assert_eq!(store.object("eleven", 11).await.unwrap(), Some(vec![b'x'; 11]));

        let expected = "s3://bucket/eleven is not what it should be: it has 11 bytes (expected at most 10)";
        for error in [
            store.text("eleven", 10).await.unwrap_err(),
            store.object("eleven", 10).await.unwrap_err(),
            store.tagged("eleven", 10).await.unwrap_err(),
            store.tagged_unless("eleven", Some("other"), 10).await.unwrap_err(),
        ] {
            assert_eq!(error.to_string(), expected);
            assert!(matches!(error, Error::TooLong { tag, .. } if tag == "\"1\""));
        }
    }

    #[tokio::test]
    async fn an_object_of_unknown_length_is_read_to_its_limit() {
        for (limit, expected) in [(11, Ok(vec![0; 11])), (10, Err(Unread::TooLong(None)))] {
            assert_eq!(content(ByteStream::from(vec![0_u8; 11]), None, limit).await, expected);
        }
        assert_eq!(length(&None, &10), "more than 10");
    }

    /// A pointer to another certificate was taken for this one's.
    #[tokio::test]
    async fn a_pointer_that_belongs_elsewhere_is_an_error_that_says_so() {
        let pointer = Current::sample(
            "other.test",
            timestamp!(2026-10-01 0:00 UTC),
            timestamp!(2026-12-30 0:00 UTC),
        );
        let json = serde_json::to_string(&pointer).unwrap();
        let keys = ["shop.test", "other.test"].map(current_key);
        let objects = keys.clone().map(|key| (key, json.clone()));
        let store = bucket(objects.into(), |_| Duration::ZERO).await;

        let [shop, other] = &keys;
        assert_eq!(
            store.document::<Current>(shop).await.unwrap_err().to_string(),
            format!("s3://bucket/{shop} is not what it should be: it is about \"other.test\" (expected \"shop.test\")")
        );
        let found = store.document::<Current>(other).await.unwrap();
        assert_eq!(found.map(|found| found.value), Some(pointer));
    }
}
