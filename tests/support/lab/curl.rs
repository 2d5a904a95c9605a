//! The real curl, run in a namespace.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::netns::Namespace;
use super::process::command;

/// After this many seconds a request has failed.
const MAX_TIME: &str = "10";

/// Comes before the figures that curl writes after the body; no body of the lab contains it.
const FIGURES: &str = "\n--lab-figures--";

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// 0 when there was no HTTP answer.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
    pub time: Duration,
    /// What curl says about a request that failed.
    pub error: Option<String>,
}

impl Answer {
    /// For a reader: the status, or why there is none.
    pub fn summary(&self) -> String {
        match &self.error {
            Some(error) => format!("no answer: {error}"),
            None => {
                let line = self.head.lines().next().unwrap_or_default().trim();
                format!("{line} in {:.1} ms", self.time.as_secs_f64() * 1e3)
            }
        }
    }

    /// The body as JSON, `null` when it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Runs `curl ARGUMENTS...` inside `namespace`; a request that fails is an answer too.
pub fn curl(namespace: &Namespace, arguments: &[&str]) -> Result<Answer> {
    let figures = format!("{FIGURES}%{{json}}");
    let output = command(namespace, "curl")
        .args(["--silent", "--show-error", "--include", "--max-time", MAX_TIME])
        .args(["--noproxy", "*", "--write-out", &figures])
        .args(arguments)
        .output()
        .context("run curl: is it installed? scripts/setup does so")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (content, figures) = text.rsplit_once(FIGURES).unwrap_or((&text, ""));
    let figures: Value = serde_json::from_str(figures).unwrap_or_default();
    let (head, body) = content.split_once("\r\n\r\n").unwrap_or((content, ""));
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(Answer {
        status: figures["http_code"].as_u64().and_then(|code| code.try_into().ok()).unwrap_or(0),
        head: head.to_owned(),
        body: body.to_owned(),
        time: Duration::from_secs_f64(figures["time_total"].as_f64().unwrap_or_default()),
        error: (!output.status.success()).then_some(error),
    })
}
