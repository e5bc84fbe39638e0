//! What an HTTP server answers, within a bound.

use reqwest::Response;

use crate::text::causes;

/// A whole body of at most `most` bytes; an error is the reason why there is none.
pub async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > most {
            return Err(format!("{} answers with more than {most} bytes", response.url()));
        }
    }
    Ok(body)
}
