//! `neverlapse schema`: the JSON Schema of a file that people write, or of a document that programs
//! read.

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, ValueEnum};
use neverlapse::alert::sns;
use neverlapse::bucket::receipt::Receipt;
use neverlapse::inventory::Inventory;
use neverlapse::renewal::request::Request;
use neverlapse::report::Report;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::doctor::Diagnosis;
use crate::plan::Plan;
use crate::pull;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Which format
    #[arg(value_enum)]
    name: Name,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// inventory.toml, what a stack watches and renews
    Inventory,
    /// pull.toml, what an instance installs
    Pull,
    /// neverlapse.report/1, what a run of the probe saw
    Report,
    /// neverlapse.alert/1, what queues and functions receive from the alert topic
    Alert,
    /// neverlapse.receipt/1, how far an instance is with a certificate
    Receipt,
    /// neverlapse.renewal-request/1, what the renewer is asked
    RenewalRequest,
    /// What the probe is invoked with
    Event,
    /// neverlapse.plan/1, what `neverlapse plan` finds
    Plan,
    /// neverlapse.diagnosis/1, what `neverlapse doctor` finds
    Diagnosis,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let schema = schema(arguments.name)?;
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&schema)?)?;
    Ok(0)
}

fn schema(name: Name) -> Result<Schema> {
    Ok(match name {
        Name::Inventory => Inventory::schema(),
        Name::Pull => pull::schema(),
        Name::Report => of_document::<Report>(),
        Name::Alert => of_document::<sns::Document>(),
        Name::Receipt => of_document::<Receipt>(),
        // A person may write one, and leave out what has a default.
        Name::RenewalRequest => schemars::schema_for!(Request),
        // By hand, because the probe reads its event without a type of that form; its tests compare
        // both.
        Name::Event => serde_json::from_str(EVENT)?,
        Name::Plan => of_document::<Plan>(),
        Name::Diagnosis => of_document::<Diagnosis>(),
    })
}

/// What we write, in which members without a value are left out.
fn of_document<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}

const EVENT: &str = include_str!("../../events/probe.schema.json");
const EXAMPLES: &str = "\
Examples:
  neverlapse schema inventory > inventory.schema.json
  neverlapse schema report | jq '.properties | keys'

With the line `#:schema inventory.schema.json` at the top of inventory.toml, editors complete its keys and mark errors.";

#[cfg(test)]
mod tests {
    use jsonschema::Validator;
    use neverlapse::alert::{Sender, sample};
    use neverlapse::timestamp::Timestamp;
    use neverlapse_tests::fleet;
    use serde_json::{Value, json};

    use super::*;

    fn validator(name: Name) -> Validator {
        jsonschema::validator_for(&json!(schema(name).unwrap())).unwrap()
    }

    #[track_caller]
    fn assert_valid(validator: &Validator, document: &Value) {
        let errors: Vec<_> = validator
            .iter_errors(document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?} in {document:#}");
    }

    fn toml(text: &str) -> Value {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_examples_fit() {
        assert_valid(
            &validator(Name::Inventory),
            &toml(include_str!("../../docs/inventory.example.toml")),
        );
        assert_valid(
            &validator(Name::Pull),
            &toml(include_str!("../../docs/pull.example.toml")),
        );
        let request = include_str!("../../events/renewal-request.json");
        assert_valid(
            &validator(Name::RenewalRequest),
            &serde_json::from_str(request).unwrap(),
        );
    }

    #[test]
    fn real_documents_fit() {
        let now = Timestamp::now();
        assert_valid(&validator(Name::Report), &json!(fleet::shop(now)));

        let sender = Sender::of("s", "arn:aws:sns:eu-central-1:123456789012:t", "b");
        for digest in sample::digests(&sender, now) {
            let bodies: Value = serde_json::from_str(&sns::bodies(&digest, &sender)).unwrap();
            let alert = serde_json::from_str(bodies["sqs"].as_str().unwrap()).unwrap();
            assert_valid(&validator(Name::Alert), &alert);
        }

        let receipt = json!({"schema": "neverlapse.receipt/1", "name": "a.test", "instance": "i-1", "host": "web-1", "agent": "0.1.0",
            "version": "20261125T183040Z-feb14bf7", "fingerprint": "ab", "stage": "served", "since": now, "at": now, "next_by": now});
        let receipt: Receipt = serde_json::from_value(receipt).unwrap();
        assert_valid(&validator(Name::Receipt), &json!(receipt));
    }

    #[test]
    fn what_the_readers_refuse_does_not_fit() {
        let inventory = validator(Name::Inventory);
        for text in [
            "warn_dayz = 3",
            "endpoints = [3]",
            "[[endpoint]]\nport = 443",
            "[[endpoint]]\nhost = \"a\"\nport = 0",
            "[[endpoint]]\nhost = \"a\"\nstarttls = \"gopher\"",
            "[[certificate]]\nidentifiers = []",
            "[[certificate]]\nidentifiers = [\"a\"]\nkey_type = \"rsa2048\"",
            "[issuer.x]\ndirectory = \"http://x\"",
            "[issuer.x]\ncontact = [\"ops@x\"]",
        ] {
            assert!(!inventory.is_valid(&toml(text)), "{text}");
            assert!(!Inventory::parse(text).problems.is_empty(), "{text}");
        }
        for text in ["bukcket = \"x\"", "[[certificate]]\nowner = \"root\""] {
            assert!(!validator(Name::Pull).is_valid(&toml(text)), "{text}");
        }
    }
}
