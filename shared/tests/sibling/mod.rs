//! Siblings of a document: each differs from it in one place, by what a program or a person who
//! means no good might have put there.

use serde_json::{Map, Value, json};

/// All siblings of a JSON document, each with what is different about it.
pub(crate) fn siblings(document: &Value) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for place in places(document) {
        for (what, value) in values() {
            let mut sibling = document.clone();
            *sibling.pointer_mut(&place).expect("a place in it") = value;
            all.push((format!("{place} is {what}"), sibling.to_string().into_bytes()));
        }
        if let Some(sibling) = without(document, &place) {
            all.push((format!("{place} is missing"), sibling.to_string().into_bytes()));
        }
        if let Some(Value::Array(items)) = document.pointer(&place) {
            let mut sibling = document.clone();
            let many: Vec<_> = items.iter().cycle().take(1_500).cloned().collect();
            *sibling.pointer_mut(&place).expect("a place in it") = many.into();
            all.push((format!("{place} is many"), sibling.to_string().into_bytes()));
        }
    }
    all.extend(damaged(&document.to_string()));
    all
}

/// The same text, damaged in ways that no format survives or that some reader survives by chance.
pub(crate) fn damaged(text: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = text.as_bytes();
    let mut all = vec![
        ("empty".to_owned(), Vec::new()),
        (
            "after a byte order mark".to_owned(),
            ["\u{feff}".as_bytes(), bytes].concat(),
        ),
        ("not UTF-8".to_owned(), [bytes, b"\xff\xfe\x80"].concat()),
        ("twice".to_owned(), [bytes, bytes].concat()),
        (
            "UTF-16".to_owned(),
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
        ("zeros".to_owned(), vec![0; 4_096]),
        ("endlessly nested".to_owned(), vec![b'['; 200_000]),
        ("nested objects".to_owned(), br#"{"a":"#.repeat(50_000)),
    ];
    for eighth in 1..8 {
        let end = bytes.len() * eighth / 8;
        all.push((format!("cut after {end} bytes"), bytes[..end].to_vec()));
        let mut flipped = bytes.to_vec();
        flipped[end] ^= 1 << (eighth % 8);
        all.push((format!("a bit of byte {end} flipped"), flipped));
    }
    all
}

/// What may stand where anything stands.
pub(crate) fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("null", Value::Null),
        ("true", json!(true)),
        ("zero", json!(0)),
        ("minus one", json!(-1)),
        ("the greatest u64", json!(u64::MAX)),
        ("the greatest u32", json!(u32::MAX)),
        ("the least i64", json!(i64::MIN)),
        ("a great float", json!(1e308)),
        ("no text", json!("")),
        ("a hostile text", json!(HOSTILE)),
        ("a long text", json!("ü𝄞".repeat(5_000))),
        ("a path", json!("../../../etc/passwd\0")),
        ("a time in the year 10000", json!("9999-12-31T23:59:59-00:01")),
        ("a time before the year 0", json!("0000-01-01T00:00:00+00:01")),
        ("the last time", json!("9999-12-31T23:59:59.999999999Z")),
        ("the first time", json!("0000-01-01T00:00:00Z")),
        ("an address", json!("[::ffff:0.0.0.0%1]:0")),
        ("no array", json!([])),
        ("no object", json!({})),
        ("an array of itself", json!([[[[]]]])),
    ]
}

/// Markup, mentions, terminal sequences and text that turns other text around.
pub(crate) const HOSTILE: &str =
    "</script><img src=x onerror=alert(1)>\u{202e}\u{1b}[2J<!channel>\r\n\u{0}&quot;\"'`${x}%s";

/// Pointers to everything in a document (RFC 6901), itself first.
fn places(document: &Value) -> Vec<String> {
    let mut all = vec![String::new()];
    let children: Vec<(String, &Value)> = match document {
        Value::Object(members) => members.iter().map(|(name, value)| (escaped(name), value)).collect(),
        Value::Array(items) => (items.iter().enumerate())
            .map(|(index, value)| (index.to_string(), value))
            .collect(),
        _ => Vec::new(),
    };
    for (name, value) in children {
        all.extend(places(value).into_iter().map(|rest| format!("/{name}{rest}")));
    }
    all
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The document without a member of an object.
fn without(document: &Value, place: &str) -> Option<Value> {
    let (parent, name) = place.rsplit_once('/')?;
    let mut sibling = document.clone();
    let members: &mut Map<_, _> = sibling.pointer_mut(parent)?.as_object_mut()?;
    members.remove(&name.replace("~1", "/").replace("~0", "~"))?;
    Some(sibling)
}
