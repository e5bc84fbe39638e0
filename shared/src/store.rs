//! The bucket: what is read from it and written to it.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{DisplayErrorContext, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use thiserror::Error;

/// A bucket laid out as the architecture page describes it.
#[derive(Clone, Debug)]
pub struct Store {
    s3: Client,
    bucket: String,
}

/// What went wrong with an object. "No such key" is no error; access denied, throttled and timed out are.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot read s3://{bucket}/{key}: {reason}")]
    Read {
        bucket: String,
        key: String,
        reason: String,
    },
    #[error("s3://{bucket}/{key} is not UTF-8 text")]
    NotText { bucket: String, key: String },
}

impl Store {
    /// The bucket of this name.
    pub fn new(s3: Client, bucket: impl Into<String>) -> Self {
        Self {
            s3,
            bucket: bucket.into(),
        }
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
        let not_text = |_| Error::NotText {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
        };
        String::from_utf8(bytes).map(Some).map_err(not_text)
    }

    /// An object's bytes, if it is there.
    pub async fn object(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let error = |reason: String| Error::Read {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            reason,
        };
        match self.s3.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => {
                let body = object
                    .body
                    .collect()
                    .await
                    .map_err(|failed| error(failed.to_string()))?;
                Ok(Some(body.to_vec()))
            }
            Err(failed) if is_missing(&failed) => Ok(None),
            Err(failed) => Err(error(DisplayErrorContext(failed).to_string())),
        }
    }
}

fn is_missing(error: &SdkError<GetObjectError>) -> bool {
    error.as_service_error().is_some_and(GetObjectError::is_no_such_key)
}

/// Where the inventory is.
pub const INVENTORY: &str = "inventory.toml";
