//! `neverlapse run`: has the probe run now, and prints what it saw.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result, bail};
use clap::Args;
use neverlapse::bucket::document;
use neverlapse::endpoint::Endpoint;
use neverlapse::report::Report;
use neverlapse::report::page::page;
use neverlapse::text::{counted, printable, printable_json, some_of};
use serde_json::{Value, json};

use crate::argument;
use crate::check::output::Output;
use crate::check::summary::Summary;
use crate::format::Format;
use crate::stack::{Stack, StackName};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Check only these, without alerts: host, host:port, smtp://host[:port] …; default: the whole
    /// inventory, with alerts
    #[arg(value_name = "ENDPOINT", value_parser = argument::endpoint)]
    endpoints: Vec<Endpoint>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    stack: StackName,
}

/// Invokes the function, waits for its report, prints it, and returns the exit code.
pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let answer = invoke(&stack, &event(&arguments.endpoints)).await?;
    let report: Report = document::read(answer.as_bytes()).context("the probe's answer is not a report")?;

    for problem in &report.problems {
        eprintln!("error: inventory {}", printable(&problem.to_string()));
    }
    if !report.not_reached.is_empty() {
        let endpoints = some_of(&report.not_reached, NAMED);
        eprintln!("warning: not checked before the deadline: {}", printable(&endpoints));
    }
    print(&report, &answer, arguments.format)?;
    for (omitted, one, many) in [
        (report.omitted, "endpoint does", "endpoints do"),
        (
            report.omitted_not_reached,
            "unchecked endpoint does",
            "unchecked endpoints do",
        ),
        (
            report.omitted_problems,
            "error in the inventory does",
            "errors in the inventory do",
        ),
    ] {
        if omitted > 0 {
            let omitted = counted(omitted as u64, one, many);
            eprintln!("note: {omitted} not fit into the answer; `neverlapse report` has them all");
        }
    }
    Ok(report.status().exit_code())
}

fn event(endpoints: &[Endpoint]) -> Value {
    if endpoints.is_empty() {
        return json!({});
    }
    let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    json!({ "endpoints": endpoints })
}

/// The function's answer.
async fn invoke(stack: &Stack, event: &Value) -> Result<String> {
    let function = stack.output("ProbeFunctionName")?;
    let invoked = match stack.services.invoke(function, event).await {
        Ok(invoked) => invoked,
        Err(refused) => bail!("cannot invoke {function}: {refused}"),
    };
    if invoked.failed {
        bail!("the probe failed: {}", printable(&failure(&invoked.payload)));
    }
    Ok(invoked.payload)
}

/// The message in the answer of a function that failed.
fn failure(payload: &str) -> String {
    let error: Option<Value> = serde_json::from_str(payload).ok();
    let message = error.as_ref().and_then(|error| error["errorMessage"].as_str());
    match message {
        Some(message) => message.to_owned(),
        None => payload.to_owned(),
    }
}

fn print(report: &Report, answer: &str, format: Format) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        // As it is: a later version of the probe may have written more than we know.
        Format::Json => writeln!(out, "{}", printable_json(answer.to_owned()))?,
        Format::Html => out.write_all(page(report, None)?.as_bytes())?,
        Format::Table | Format::Jsonl | Format::Prometheus | Format::Plugin => {
            let mut output = Output::new(format, out, report.started_at)?;
            for endpoint in &report.endpoints {
                output.endpoint(endpoint)?;
            }

            output.finish(&Summary {
                counts: report.counts,
                began: report.started_at,
                ended: report.finished_at,
                problem_count: (report.problems.len() + report.omitted_problems) as u64,
                problems: report.problems.iter().map(ToString::to_string).collect(),
            })?;
        }
    }
    Ok(())
}

const NAMED: usize = 10;
const HELP: &str = "\
Examples:
  neverlapse run                             everything, as the schedule does: alerts, renewals, report
  neverlapse run example.com mail.example.com:993
  neverlapse run --format json | jq .counts

`neverlapse check` checks from here; this has the probe check from where it runs.

Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown (something could not be checked, or not understood).";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_function_says_when_it_fails() {
        for (payload, expected) in [
            (r#"{"errorType":"x","errorMessage":"no bucket"}"#, "no bucket"),
            ("Task timed out", "Task timed out"),
            ("{}", "{}"),
        ] {
            assert_eq!(failure(payload), expected);
        }
    }

    #[test]
    fn without_endpoints_it_is_the_run_of_the_schedule() {
        assert_eq!(event(&[]), json!({}));
        let endpoints = ["a.example".parse().unwrap(), "smtp://b.example".parse().unwrap()];
        assert_eq!(
            event(&endpoints),
            json!({"endpoints": ["a.example:443", "smtp://b.example:25"]})
        );
    }
}
