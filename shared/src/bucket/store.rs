//! The bucket: what is read from it and written to it.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::ByteStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::aws::reason;

/// A bucket laid out as the architecture page describes it.
#[derive(Clone, Debug)]
pub struct Store {
    s3: Client,
    bucket: String,
}

/// An object and the tag that tells whether it is still the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged<T> {
    /// What it holds.
    pub value: T,
    /// Its ETag.
    pub tag: String,
}

/// An object, as compared with what the reader has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// There is none.
    Missing,
    /// It is still the same.
    Unchanged,
    /// What it holds now.
    Changed(Tagged<Vec<u8>>),
}

/// What a write insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expecting<'a> {
    /// Whatever is there.
    Anything,
    /// Nothing is there yet.
    Nothing,
    /// What is there still has this ETag.
    Tag(&'a str),
}

impl<'a> Expecting<'a> {
    /// What was read, or that there was nothing to read.
    pub fn unchanged<T>(read: Option<&'a Tagged<T>>) -> Self {
        read.map_or(Self::Nothing, |read| Self::Tag(&read.tag))
    }
}

/// What went wrong with an object. "No such key" is no error; access denied, throttled and timed out are.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot {what} s3://{bucket}/{key}: {reason}")]
    Failed {
        what: &'static str,
        bucket: String,
        key: String,
        reason: String,
    },
    #[error("s3://{bucket}/{key} is not {expected}")]
    Unexpected {
        bucket: String,
        key: String,
        expected: String,
    },
    #[error("s3://{bucket}/{key} was changed by somebody else meanwhile")]
    Changed { bucket: String, key: String },
}

impl Error {
    /// Whether the service answered, and said that it may not be.
    pub fn is_denied(&self) -> bool {
        // The service's code comes first: see `reason`.
        matches!(self, Self::Failed { reason, .. } if reason.starts_with("AccessDenied"))
    }
}

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
        self.text(INVENTORY).await
    }

    /// An object as text, if it is there.
    pub async fn text(&self, key: &str) -> Result<Option<String>, Error> {
        let Some(bytes) = self.object(key).await? else {
            return Ok(None);
        };
        let not_text = |_| self.unexpected(key, "UTF-8 text");
        String::from_utf8(bytes).map(Some).map_err(not_text)
    }

    /// An object's bytes, if it is there.
    pub async fn object(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.tagged(key).await?.map(|tagged| tagged.value))
    }

    /// An object's bytes, if it is there. One of more than `limit` bytes is an error, and is not read.
    pub async fn object_within(&self, key: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.get(key, None, Some(limit)).await? {
            Fresh::Changed(tagged) => Ok(Some(tagged.value)),
            Fresh::Missing | Fresh::Unchanged => Ok(None),
        }
    }

    /// An object's bytes and ETag, if it is there.
    pub async fn tagged(&self, key: &str) -> Result<Option<Tagged<Vec<u8>>>, Error> {
        match self.tagged_unless(key, None).await? {
            Fresh::Changed(tagged) => Ok(Some(tagged)),
            Fresh::Missing | Fresh::Unchanged => Ok(None),
        }
    }

    /// An object's bytes and ETag, unless it still has the tag that the caller knows (RFC 9110, 13.1.2).
    pub async fn tagged_unless(&self, key: &str, known: Option<&str>) -> Result<Fresh, Error> {
        self.get(key, known, None).await
    }

    async fn get(&self, key: &str, known: Option<&str>, limit: Option<u64>) -> Result<Fresh, Error> {
        let request = self.s3.get_object().bucket(&self.bucket).key(key);
        match request.set_if_none_match(known.map(str::to_owned)).send().await {
            Ok(object) => {
                let length = u64::try_from(object.content_length().unwrap_or(0)).unwrap_or(0);
                if let Some(limit) = limit.filter(|limit| length > *limit) {
                    let expected = format!("what it should be: it has {length} bytes (expected at most {limit})");
                    return Err(self.unexpected(key, &expected));
                }
                let tag = object.e_tag().unwrap_or_default().to_owned();
                let body = object.body.collect().await;
                let body = body.map_err(|failed| self.failed("read", key, failed.to_string()))?;
                let value = body.to_vec();
                Ok(Fresh::Changed(Tagged { value, tag }))
            }
            Err(failed) if is_missing(&failed) => Ok(Fresh::Missing),
            Err(failed) if failed.raw_response().is_some_and(|raw| raw.status().as_u16() == 304) => {
                Ok(Fresh::Unchanged)
            }
            Err(failed) => Err(self.failed("read", key, reason(&failed))),
        }
    }

    /// A JSON object, if it is there.
    pub async fn json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Tagged<T>>, Error> {
        let Some(Tagged { value, tag }) = self.tagged(key).await? else {
            return Ok(None);
        };
        // The parser's own words could repeat a piece of a secret.
        let not_json = |error: serde_json::Error| {
            let (line, column) = (error.line(), error.column());
            self.unexpected(key, &format!("what it should be (line {line}, column {column})"))
        };
        let value = serde_json::from_slice(&value).map_err(not_json)?;
        Ok(Some(Tagged { value, tag }))
    }

    /// Writes an object, and answers with its new ETag. A lost race is [`Error::Changed`], unless what is there is the very same: a write
    /// whose answer was lost is sent again, and then finds itself in its way.
    pub async fn put(&self, key: &str, object: Object<'_>, expecting: Expecting<'_>) -> Result<String, Error> {
        let content = object.body.clone();
        let mut request = self.s3.put_object().bucket(&self.bucket).key(key);
        request = request
            .content_type(object.content_type)
            .body(ByteStream::from(object.body));
        if let Some(kms_key) = object.kms_key {
            request = request
                .server_side_encryption(aws_sdk_s3::types::ServerSideEncryption::AwsKms)
                .ssekms_key_id(kms_key);
        }
        request = match expecting {
            Expecting::Anything => request,
            Expecting::Nothing => request.if_none_match("*"),
            Expecting::Tag(tag) => request.if_match(tag),
        };
        match request.send().await {
            Ok(written) => Ok(written.e_tag().unwrap_or_default().to_owned()),
            Err(failed) if is_lost(&failed, expecting) => match self.tagged(key).await? {
                Some(there) if there.value == content => Ok(there.tag),
                _ => Err(Error::Changed {
                    bucket: self.bucket.clone(),
                    key: key.to_owned(),
                }),
            },
            Err(failed) => Err(self.failed("write", key, reason(&failed))),
        }
    }

    /// Removes an object; that it is not there is no error.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let request = self.s3.delete_object().bucket(&self.bucket).key(key);
        let deleted = request.send().await;
        deleted
            .map(drop)
            .map_err(|failed| self.failed("delete", key, reason(&failed)))
    }

    /// Removes an object that still has this ETag; a lost race is [`Error::Changed`].
    pub async fn delete_unchanged(&self, key: &str, tag: &str) -> Result<(), Error> {
        let request = self.s3.delete_object().bucket(&self.bucket).key(key).if_match(tag);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(failed) if is_lost(&failed, Expecting::Tag(tag)) => Err(Error::Changed {
                bucket: self.bucket.clone(),
                key: key.to_owned(),
            }),
            Err(failed) => Err(self.failed("delete", key, reason(&failed))),
        }
    }

    /// The keys that begin with `prefix`, in order.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let mut pages = self
            .s3
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .into_paginator()
            .send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|failed| self.failed("list", prefix, reason(&failed)))?;
            keys.extend(
                page.contents()
                    .iter()
                    .filter_map(|object| object.key().map(str::to_owned)),
            );
        }
        Ok(keys)
    }

    fn failed(&self, what: &'static str, key: &str, reason: String) -> Error {
        Error::Failed {
            what,
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            reason,
        }
    }

    fn unexpected(&self, key: &str, expected: &str) -> Error {
        Error::Unexpected {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
        }
    }
}

/// What is to be written.
#[derive(Clone)]
pub struct Object<'a> {
    body: Vec<u8>,
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

    /// Anything else.
    pub fn new(body: impl Into<Vec<u8>>, content_type: &'static str) -> Self {
        Self {
            body: body.into(),
            content_type,
            kms_key: None,
        }
    }

    /// What will be written.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Encrypted under another key than the bucket's.
    pub fn under(mut self, kms_key: &'a str) -> Self {
        self.kms_key = Some(kms_key);
        self
    }
}

fn is_missing(error: &SdkError<GetObjectError>) -> bool {
    error.as_service_error().is_some_and(GetObjectError::is_no_such_key)
}

/// S3 answers 412 to a lost condition, 409 to two conditional writes at once, and 404 to If-Match where nothing is.
fn is_lost<E: ProvideErrorMetadata>(error: &SdkError<E>, expecting: Expecting<'_>) -> bool {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    match code {
        Some("PreconditionFailed" | "ConditionalRequestConflict") => true,
        Some("NoSuchKey") => matches!(expecting, Expecting::Tag(_)),
        _ => false,
    }
}

/// Where the last run's report is.
pub const LATEST_JSON: &str = "reports/latest.json";
/// The same as a web page.
pub const LATEST_PAGE: &str = "reports/latest.html";
/// Where the inventory is.
pub const INVENTORY: &str = "inventory.toml";
