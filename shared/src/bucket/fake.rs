//! As much of S3 as tests of reading need.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::Region;
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::store::Store;
use crate::aws;

/// By key.
type Objects = BTreeMap<String, String>;
/// The pause before the answer about a key, or about the keys with a prefix.
type Pause = fn(&str) -> Duration;

/// A bucket that holds these objects.
pub(crate) async fn bucket(objects: Objects, pause: Pause) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let objects = Arc::new(objects);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, objects.clone(), pause));
        }
    });

    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = aws::config().await.unwrap().into_builder();
    let config = config
        .endpoint_url(endpoint)
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true);
    Store::new(aws_sdk_s3::Client::from_conf(s3.build()), "bucket")
}

async fn serve(mut stream: TcpStream, objects: Arc<Objects>, pause: Pause) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }

        let request = String::from_utf8_lossy(&head).replace("%2F", "/");
        head.clear();
        let target = request.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let key = path.trim_start_matches("/bucket").trim_start_matches('/');
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
        sleep(pause(prefix.unwrap_or(key))).await;

        let answer = answer(&objects, key, prefix);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn answer(objects: &Objects, key: &str, prefix: Option<&str>) -> String {
    let (status, body) = match (prefix, objects.get(key)) {
        (Some(prefix), _) => {
            let keys = objects.keys().filter(|key| key.starts_with(prefix));
            let keys: String = keys
                .map(|key| format!("<Contents><Key>{key}</Key></Contents>"))
                .collect();
            let list = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>");
            ("200 OK", list)
        }
        (None, Some(object)) => ("200 OK", object.clone()),
        (None, None) => ("404 X", "<Error><Code>NoSuchKey</Code></Error>".to_owned()),
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\netag: \"1\"\r\ncontent-length: {length}\r\n\r\n{body}")
}
