//! `isthmus observe`: flows of a running agent, one line each, or counts of the last hour.

mod counts;
mod text;

use std::io::{IsTerminal, stdout};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::agent::Agent;
use super::output::{Output, print, show};
use crate::observe::Event;

/// What says something of flows, and nothing of counts.
const FILTERS: [&str; 9] =
    ["follow", "namespace", "workload", "service", "verdict", "status", "layer", "since", "last"];
/// Remembered flows that are shown where nothing else is said.
const LAST: usize = 20;

pub(super) use text::duration;

/// A flow as a line without colours.
pub(super) fn flow_line(event: &Event) -> String {
    text::line(event, false)
}

/// Arguments of `isthmus observe`.
#[derive(Args)]
pub(super) struct Observe {
    #[command(flatten)]
    from: Agent,
    /// Show new ones, too, as they end
    #[arg(short, long)]
    follow: bool,
    /// Only those whose source, destination or service is of this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only those that this pod, or a pod of this workload, is an end of
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: Option<String>,
    /// Only those that called this service
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    /// Only those that were permitted, denied, or failed
    #[arg(long, value_name = "VERDICT", value_parser = ["permitted", "denied", "failed"])]
    verdict: Option<String>,
    /// Only requests that were answered so, such as 404 or 5xx
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only connections (4) or requests (7)
    #[arg(long, value_parser = ["4", "7"])]
    layer: Option<String>,
    /// Only those that ended within this time, such as 10m
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// How many of those that are remembered, the last ones; 20, or with --since all
    #[arg(long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Who called what within the last hour instead, counted
    #[arg(long, conflicts_with_all = FILTERS)]
    summary: bool,
    #[command(flatten)]
    output: Output,
}

/// Runs it.
pub(super) fn run(asked: &Observe) -> ExitCode {
    if asked.summary {
        let text = asked.from.get("/flows/summary");
        return show(text.and_then(|text| asked.output.answer(text, counts::table)));
    }
    let mut ended = None;
    let mut shown = Ok(());
    let coloured = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let read = asked.from.lines(&path(asked), |line| {
        let line = match asked.output.is_json() {
            true => Ok(format!("{line}\n")),
            false => render(line, coloured),
        };
        match line {
            Ok(line) => match print(line.as_bytes()) {
                Ok(true) => return ControlFlow::Continue(()),
                Ok(false) => ended = Some(ExitCode::SUCCESS),
                Err(code) => ended = Some(code),
            },
            Err(error) => shown = Err(error),
        }
        ControlFlow::Break(())
    });
    let read = match (read.and(shown), ended) {
        (_, Some(code)) => return code,
        // Whoever follows does so until it is told to end.
        (Ok(()), None) if asked.follow => bail_ended(),
        (read, None) => read,
    };
    show(read.map(|()| ""))
}

fn bail_ended() -> anyhow::Result<()> {
    bail!("the agent has ended; run it again to follow its successor")
}

fn render(line: &str, coloured: bool) -> anyhow::Result<String> {
    let event: Event = serde_json::from_str(line)?;
    Ok(text::line(&event, coloured))
}

/// The path of a query that asks for what the arguments say.
fn path(asked: &Observe) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let texts = [
        ("namespace", &asked.namespace),
        ("workload", &asked.workload),
        ("service", &asked.service),
        ("verdict", &asked.verdict),
        ("status", &asked.status),
        ("layer", &asked.layer),
        ("since", &asked.since),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let last = asked.last.or_else(|| asked.since.is_none().then_some(LAST));
    if let Some(last) = last {
        query.append_pair("last", &last.to_string());
    }
    if asked.follow {
        query.append_pair("follow", "true");
    }
    format!("/flows?{}", query.finish())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::observe::Query;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        observe: Observe,
    }

    #[test]
    fn arguments_become_a_query_that_the_agent_understands() {
        let path = |arguments: &str| {
            let arguments = std::iter::once("observe").chain(arguments.split_whitespace());
            super::path(&Command::try_parse_from(arguments).ok().unwrap().observe)
        };
        assert_eq!(path(""), "/flows?last=20");
        assert_eq!(path("--since 10m"), "/flows?since=10m");
        assert_eq!(
            path(
                "-f --namespace a --workload a/b --service c/d --verdict denied --status 5xx --layer 7 --last 3"
            ),
            "/flows?namespace=a&workload=a%2Fb&service=c%2Fd&verdict=denied&status=5xx&layer=7&last=3&follow=true"
        );
        let (_, query) = path("-f --workload a/b --status 404 --since 1h")
            .split_once('?')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        assert!(Query::parse(&query).is_ok_and(|query| query.follow));
        assert!(Command::try_parse_from(["observe", "--verdict", "dropped"]).is_err());
        assert!(Command::try_parse_from(["observe", "--summary", "--last", "3"]).is_err());
    }
}
