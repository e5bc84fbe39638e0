//! The documents: what they tell people to write is what the program reads, and their links lead
//! somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use neverlapse::inventory::Inventory;
use serde_json::Value;

const FINDINGS: &str = include_str!("../../docs/findings.md");
const RENEWAL: &str = include_str!("../../docs/renewal.md");

/// The indented blocks, without their indentation.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(code) => blocks.last_mut().unwrap().extend([code, "\n"]),
            None if blocks.last().unwrap().is_empty() => {}
            None => blocks.push(String::new()),
        }
    }
    blocks
}

#[test]
fn every_entry_for_the_inventory_is_understood() {
    let is_entry = |block: &&String| block.starts_with("[[") || block.starts_with("[issuer.");
    let all = blocks(RENEWAL);
    let entries: Vec<_> = all.iter().filter(is_entry).collect();
    assert!(entries.len() >= 6, "{entries:?}");
    for entry in &entries {
        let inventory = Inventory::parse(entry);
        assert!(inventory.problems.is_empty(), "{:?} in\n{entry}", inventory.problems);
    }
    let all: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
    let inventory = Inventory::parse(&all);
    assert!(inventory.problems.is_empty(), "together: {:?}", inventory.problems);
    assert_eq!(inventory.certificates[0].name, "example.com");
}

/// The template gives the renewer the same rights in the stack's own account.
#[test]
fn the_policies_are_json_and_allow_what_the_template_does() {
    let fenced = RENEWAL.split("```json\n").skip(1);
    let policies: Vec<Value> = fenced
        .map(|rest| serde_json::from_str(rest.split("```").next().unwrap()).unwrap())
        .collect();
    let [trust, permissions] = policies.as_slice() else {
        panic!("a trust policy and permissions, but {}", policies.len());
    };
    let trusted = &trust["Statement"][0];
    assert_eq!(trusted["Action"], "sts:AssumeRole");
    assert_eq!(trusted["Condition"]["StringEquals"]["sts:ExternalId"], "neverlapse-7");
    let template = include_str!("../../template.yaml");
    let words = template.split_whitespace().collect::<Vec<_>>().join(" ");
    let statements = permissions["Statement"].as_array().unwrap();
    assert_eq!(statements.len(), 5);
    for statement in statements {
        assert_eq!(statement["Effect"], "Allow");
        let (sid, action) = (
            statement["Sid"].as_str().unwrap(),
            statement["Action"].as_str().unwrap(),
        );
        let same = format!("- Sid: {sid} Effect: Allow Action: {action} ");
        assert!(words.contains(&same), "the template has no {same}");
    }
    let writes = statements
        .iter()
        .find(|statement| statement["Action"] == "route53:ChangeResourceRecordSets");
    let condition = &writes.unwrap()["Condition"];
    for (operator, key, values) in [
        (
            "ForAllValues:StringEquals",
            "route53:ChangeResourceRecordSetsRecordTypes",
            "[TXT]",
        ),
        (
            "ForAllValues:StringEquals",
            "route53:ChangeResourceRecordSetsActions",
            "[CREATE, DELETE]",
        ),
    ] {
        let written = condition[operator][key].to_string().replace('"', "").replace(',', ", ");
        assert_eq!(written, values);
        assert!(
            template.contains(&format!("{key}: {values}")),
            "the template has no {key}: {values}"
        );
    }
}

/// A person looks up a code; the anchor of its entry is the code.
#[test]
fn every_code_of_a_finding_has_an_entry() {
    let entries: Vec<_> = FINDINGS
        .split("\n### ")
        .skip(1)
        .filter_map(|entry| entry.split_once('\n'))
        .collect();
    // The match that gives each code its name is exhaustive.
    let codes = include_str!("../src/finding/code.rs").lines().filter_map(|line| {
        let (variant, name) = line.trim().strip_prefix("Self::")?.split_once(" => \"")?;
        variant
            .chars()
            .all(char::is_alphanumeric)
            .then_some(name.strip_suffix("\",")?)
    });
    let families = ["expiry", "issuer_expiry", "unreachable", "instance"];
    let codes: Vec<_> = codes.filter(|code| !families.contains(code)).collect();
    assert!(codes.len() >= 36, "{codes:?}");
    for code in &codes {
        let entry = entries.iter().find(|(heading, _)| heading == code);
        assert!(
            entry.is_some_and(|(_, text)| text.len() > 60),
            "docs/findings.md has no entry for {code}"
        );
    }
    for (heading, _) in &entries {
        assert!(
            codes.contains(heading),
            "docs/findings.md has an entry for {heading}, which is no code"
        );
    }
}

/// `sam deploy --guided` asks for each by its name alone.
#[test]
fn every_parameter_of_the_template_is_explained() {
    let page = include_str!("../../docs/parameters.md");
    let template = include_str!("../../template.yaml");
    let (_, parameters) = template.split_once("\nParameters:\n").unwrap();
    let (parameters, _) = parameters.split_once("\nRules:\n").unwrap();

    let mut count = 0;
    for line in parameters.lines() {
        let name = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':'));
        let Some(name) = name.filter(|name| name.starts_with(char::is_alphabetic)) else {
            continue;
        };
        count += 1;
        let row = page
            .lines()
            .find(|row| row.starts_with('|') && row.contains(&format!("`{name}`")));
        assert!(row.is_some(), "docs/parameters.md has no row for {name}");
    }
    assert!(count > 30, "{count} parameters");
}

/// Every document for people, in the repository's root and in docs/.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut documents = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        documents.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    documents
}

/// The name of a heading in a link, as forges make it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for rest in text.split("](").skip(1) {
            let link = rest.split([')', ' ']).next().unwrap();
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;

            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if !fragment.is_empty() {
                let headings = fs::read_to_string(&target).unwrap();
                let is_there = headings
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == fragment);
                assert!(is_there, "{}: {link}: no such heading", path.display());
            }
        }
    }
    assert!(count > 40, "{count} links");
}
