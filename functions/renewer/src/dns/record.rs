//! A TXT record of ours, and the hosted zone that it is in.

use serde::{Deserialize, Serialize};

/// One value of one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TxtRecord {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A TXT record in a hosted zone: where to find it again in order to remove it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ZoneRecord {
    /// The zone's id.
    pub(crate) zone: String,
    #[serde(flatten)]
    pub(crate) record: TxtRecord,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stored_as_one_flat_object() {
        let json = r#"{"zone":"Z1","name":"_acme-challenge.example.com","value":"a"}"#;
        let record: ZoneRecord = serde_json::from_str(json).unwrap();
        assert_eq!(record.record.name, "_acme-challenge.example.com");
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
    }
}
