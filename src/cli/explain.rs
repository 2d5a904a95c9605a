//! `isthmus explain`: the whole way of a connection or request, and why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::agent::Agent;
use super::output::{Output, complain, json, print};
use crate::app::{self, Explain as Asked};
use crate::config::{Overrides, Settings};
use crate::explain::{Explanation, Http, Outcome, Question, explain, render};
use crate::source::{self, Supposed};

/// It is refused, or it depends: for scripts.
const EXIT_REFUSED: u8 = 3;

#[derive(Args)]
pub(super) struct Explain {
    /// Who connects: a pod, a workload such as a Deployment, or an address
    #[arg(long, value_name = "NAMESPACE/NAME|ADDRESS")]
    from: String,
    /// What it dials, as it would write it
    #[arg(long, value_name = "HOST[:PORT]")]
    to: String,
    /// The method of the request that it sends; GET if only something else of it is given
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// The path of the request, with its query
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// A header of the request; several times for several
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// A file with a token that the request brings
    #[arg(long, value_name = "FILE")]
    jwt: Option<PathBuf>,
    /// The server that it asks for, where it speaks TLS itself
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Decide as if these manifests were applied; several times for several
    #[arg(long = "with", value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Decide as if this object were deleted; several times for several
    #[arg(long = "without", value_name = "KIND/NAMESPACE/NAME")]
    without: Vec<String>,
    /// Decide over the manifests of a directory, without any agent
    #[arg(long, value_name = "DIR", conflicts_with_all = ["socket", "node"])]
    manifests: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    agent: Agent,
}

impl Explain {
    pub(super) fn run(&self) -> ExitCode {
        let told = self.answer().and_then(|explanation| {
            let text =
                if self.output.is_json() { json(&explanation)? } else { render(&explanation) };
            Ok((explanation.outcome, text))
        });
        let (outcome, text) = match told {
            Ok(told) => told,
            Err(error) => {
                complain(format_args!("isthmus: {error:#}"));
                return ExitCode::FAILURE;
            }
        };
        match (print(text.as_bytes()), outcome) {
            (Err(code), _) => code,
            (Ok(_), Outcome::Permitted | Outcome::Answered) => ExitCode::SUCCESS,
            (Ok(_), Outcome::Refused | Outcome::Depends) => ExitCode::from(EXIT_REFUSED),
        }
    }

    fn answer(&self) -> anyhow::Result<Explanation> {
        let supposed = supposed(&self.with, &self.without)?;
        let asked = Asked { question: self.question()?, supposed };
        match &self.manifests {
            Some(directory) => self.offline(directory, &asked),
            None => {
                let body = serde_json::to_vec(&asked)?;
                let told = self.agent.post("/explain", body)?;
                serde_json::from_slice(&told).context("the agent's answer; is it of this version?")
            }
        }
    }

    fn offline(&self, directory: &Path, asked: &Asked) -> anyhow::Result<Explanation> {
        let settings = Settings::load(self.agent.config(), &Overrides::default())?;
        let names = app::translate_settings(&settings);
        let objects = source::read(directory)?;
        let objects = objects.suppose(&asked.supposed).map_err(anyhow::Error::msg)?;
        let world = app::world_of(source::translate(&objects, &names).mesh, &settings);
        explain(&world, &asked.question).map_err(anyhow::Error::msg)
    }

    fn question(&self) -> anyhow::Result<Question> {
        let jwt = match &self.jwt {
            Some(file) => Some(
                fs::read_to_string(file).with_context(|| format!("--jwt {}", file.display()))?,
            ),
            None => None,
        };
        let headers = self.headers.iter().map(|header| match header.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => bail!("--header {header}: say name=value"),
        });
        let headers = headers.collect::<anyhow::Result<Vec<_>>>()?;
        let is_http =
            self.method.is_some() || self.path.is_some() || jwt.is_some() || !headers.is_empty();
        let (method, path) = (self.method.clone(), self.path.clone());
        let http = is_http.then_some(Http { method, path, headers, jwt });
        Ok(Question { from: self.from.clone(), to: self.to.clone(), http, sni: self.sni.clone() })
    }
}

/// The change that these manifests and deletions are.
pub(super) fn supposed(files: &[PathBuf], deleted: &[String]) -> anyhow::Result<Supposed> {
    let read = |file: &PathBuf| {
        fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
    };
    let applied = files.iter().map(read).collect::<anyhow::Result<_>>()?;
    Ok(Supposed { applied, deleted: deleted.to_vec() })
}
