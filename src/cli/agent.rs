//! Finds the running agent: by the given socket, or by the settings of this machine.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http::Method;

use super::client;
use crate::admin;
use crate::config::{self, Overrides, Settings};

/// The timeout after which an agent counts as hung.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The duration of the longest profile, and some time to symbolize it.
const PROFILE_TIMEOUT: Duration = Duration::from_secs(330);

#[derive(Args)]
pub(super) struct Agent {
    /// The agent's socket, instead of the one that the settings lead to
    #[arg(long, value_name = "FILE", env = "ISTHMUS_ADMIN_SOCKET")]
    socket: Option<PathBuf>,
    /// The agent's settings; by default those of this machine's agent or controller, if there are any
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The agent of this node, where several run
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

impl Agent {
    /// A text page.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<String> {
        let body = client::ask(&self.find()?, (Method::GET, path), Vec::new(), TIMEOUT)?;
        String::from_utf8(body).context("the agent answered what is no text")
    }

    /// The lines of a page, as they come.
    pub(super) fn lines(
        &self,
        path: &str,
        take: impl FnMut(&str) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        client::lines(&self.find()?, path, TIMEOUT, take)
    }

    /// Any page.
    pub(super) fn ask(&self, post: bool, path: &str) -> anyhow::Result<Vec<u8>> {
        let method = if post { Method::POST } else { Method::GET };
        client::ask(&self.find()?, (method, path), Vec::new(), PROFILE_TIMEOUT)
    }

    /// A page that is sent something.
    pub(super) fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        client::ask(&self.find()?, (Method::POST, path), body, TIMEOUT)
    }

    /// The settings that were named.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn find(&self) -> anyhow::Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let settings = self.settings()?;
        let directory = &settings.admin.directory;
        if let Some(node) = &self.node {
            return Ok(directory.join(admin::socket_name(node)));
        }
        let names = admin::socket_names(directory).with_context(|| {
            format!(
                "look for the agent's socket in {}; does an agent run, is this its setting admin.directory, and are \
                 you root?",
                directory.display()
            )
        })?;
        choose(directory, &names, &admin::socket_name(&settings.node))
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings::load(self.file(), &Overrides::default())?)
    }

    /// The file of settings, if there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        let usual = [config::DEFAULT_FILE, config::CONTROLLER_FILE].map(Path::new);
        self.config.as_deref().or_else(|| usual.into_iter().find(|it| it.exists()))
    }
}

/// The only one, or otherwise the one of the node in the settings.
fn choose(directory: &Path, names: &[String], own: &str) -> anyhow::Result<PathBuf> {
    let chosen = match names {
        [only] => only.as_str(),
        [] => bail!("no agent has its socket in {}; does it run?", directory.display()),
        several if several.iter().any(|name| name == own) => own,
        several => bail!(
            "several agents have their sockets in {}: say --node, one of {}",
            directory.display(),
            several.join(", ").replace(".sock", "")
        ),
    };
    Ok(directory.join(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_agent_is_meant_and_else_the_one_of_this_node() {
        let choose = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            choose(Path::new("/run/x"), &names, "here.sock").map_err(|error| error.to_string())
        };
        assert_eq!(choose(&["other.sock"]), Ok("/run/x/other.sock".into()));
        assert_eq!(choose(&["a.sock", "here.sock"]), Ok("/run/x/here.sock".into()));
        assert!(choose(&[]).unwrap_err().contains("does it run"));
        let several = choose(&["a.sock", "b.sock"]).unwrap_err();
        assert!(several.ends_with("say --node, one of a, b"), "{several}");
    }
}
