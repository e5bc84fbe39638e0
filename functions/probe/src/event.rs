//! The forms of an event: everything, renewals alone, a few endpoints, or one batch of many.

use neverlapse::endpoint::Endpoint;
use neverlapse::text::cut;
use serde_json::Value;

/// What to probe.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// The whole inventory: a schedule's event, or `{}`.
    Everything,
    /// Nothing, but renewals are requested: the second schedule's event.
    Renewals,
    /// These only: each of them, or why it is no endpoint.
    Endpoints(Vec<Result<Endpoint, String>>),
}

impl Event {
    /// Reads an event. The error names the accepted forms.
    ///
    /// Only the known forms are accepted: a misspelt key must not probe the whole inventory.
    pub(crate) fn read(event: &Value) -> Result<Self, String> {
        let fields = match event {
            Value::Object(fields) if !fields.contains_key("endpoint") => fields,
            _ => return Ok(Self::Endpoints(vec![endpoint(event)?])),
        };

        match fields.get("endpoints").or_else(|| fields.get("Items")) {
            Some(Value::Array(items)) if !items.is_empty() => {
                let endpoints: Result<_, _> = items.iter().map(endpoint).collect();
                endpoints.map(Self::Endpoints)
            }
            Some(other) => Err(invalid(other)),
            None if fields.get("source").is_some_and(|source| source == RENEWALS) => Ok(Self::Renewals),
            None if fields.is_empty() || fields.contains_key("source") => Ok(Self::Everything),
            None => Err(invalid(event)),
        }
    }
}

/// An endpoint as a string, or an item of a Distributed Map. The outer error is of a value that is
/// neither.
fn endpoint(item: &Value) -> Result<Result<Endpoint, String>, String> {
    let text = item
        .as_str()
        .or_else(|| item.get("endpoint")?.as_str())
        .ok_or_else(|| invalid(item))?;
    Ok(text.parse::<Endpoint>().map_err(|error| error.to_string()))
}

fn invalid(value: &Value) -> String {
    format!("invalid event {} (expected {EXPECTED})", cut(&value.to_string(), SHOWN))
}

/// The template's second schedule sends it.
const RENEWALS: &str = "neverlapse.renewals";
const SHOWN: usize = 200;
const EXPECTED: &str = r#"{} for the inventory, {"source": "neverlapse.renewals"} to request renewals alone, {"endpoints": ["host:port", …]}, {"Items": [{"endpoint": "host:port"}, …]} or {"endpoint": "host:port"}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoints(event: Value) -> Vec<String> {
        match Event::read(&event).unwrap() {
            Event::Everything => vec!["everything".to_owned()],
            Event::Renewals => vec!["renewals".to_owned()],
            Event::Endpoints(endpoints) => endpoints
                .into_iter()
                .map(|endpoint| endpoint.unwrap().to_string())
                .collect(),
        }
    }

    /// What `neverlapse schema event` prints.
    fn is_by_the_schema(event: &Value) -> bool {
        let schema: Value = serde_json::from_str(include_str!("../../../events/probe.schema.json")).unwrap();
        jsonschema::is_valid(&schema, event)
    }

    #[test]
    fn every_form() {
        for (event, expected) in [
            (json!({}), vec!["everything"]),
            (
                json!({"source": "aws.scheduler", "detail-type": "Scheduled Event"}),
                vec!["everything"],
            ),
            (
                json!({"endpoints": ["a.example", "b.example:8443"]}),
                vec!["a.example:443", "b.example:8443"],
            ),
            (
                json!({"Items": [{"endpoint": "a.example"}], "BatchInput": {}}),
                vec!["a.example:443"],
            ),
            (json!({"Items": ["a.example"]}), vec!["a.example:443"]),
            (json!({"endpoint": "a.example"}), vec!["a.example:443"]),
            (json!("a.example"), vec!["a.example:443"]),
        ] {
            assert!(is_by_the_schema(&event), "{event}");
            assert_eq!(endpoints(event), expected);
        }
    }

    #[test]
    fn the_samples_in_events() {
        let read = |bytes: &[u8]| {
            let event = serde_json::from_slice(bytes).unwrap();
            assert!(is_by_the_schema(&event), "{event}");
            endpoints(event)
        };
        assert_eq!(read(include_bytes!("../../../events/schedule.json")), ["everything"]);
        assert_eq!(read(include_bytes!("../../../events/renewals.json")), ["renewals"]);
        let three = [
            "example.com:443",
            "mail.example.com:8443",
            "smtp://mail.example.com:587",
        ];
        assert_eq!(read(include_bytes!("../../../events/endpoints.json")), three);
        let two = ["example.com:443", "api.example.com:8443"];
        assert_eq!(read(include_bytes!("../../../events/map-batch.json")), two);
        assert_eq!(
            read(include_bytes!("../../../events/map-item.json")),
            ["example.com:443"]
        );
    }

    #[test]
    fn anything_else_is_refused_not_taken_for_everything() {
        for event in [
            json!({"endpont": "a"}),
            json!({"endpoints": []}),
            json!({"endpoints": "a"}),
            json!(5),
            json!({"Items": [7]}),
            json!({"endpoint": 7}),
            json!([]),
        ] {
            assert!(!is_by_the_schema(&event), "{event}");
            let error = Event::read(&event).unwrap_err();
            assert!(
                error.starts_with("invalid event ") && error.contains("expected {}"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_bad_endpoint_is_kept_beside_the_good_ones() {
        let Event::Endpoints(endpoints) = Event::read(&json!({"endpoints": ["a.example", "exmple:https"]})).unwrap()
        else {
            panic!()
        };
        assert!(endpoints[0].is_ok());
        assert!(endpoints[1].as_ref().unwrap_err().contains("exmple:https"));
    }
}
