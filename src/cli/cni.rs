//! `isthmus cni`: the plugin, and its removal by hand.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output::show;

use crate::cni::{self, Entry, Installer};
use crate::redirect::{self, Place};
use crate::sock::NetworkNamespace;

/// Where the network namespaces of pods have their names.
const NAMESPACES: &str = "/run/netns";

#[derive(Args)]
pub(super) struct Cni {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Remove the plugin and all rules from this node, when its agent is gone for good; run it as root on the node
    Uninstall(Uninstall),
}

#[derive(Args)]
struct Uninstall {
    /// Where the container runtime looks for network configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_directory: PathBuf,
    /// Where the container runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_directory: PathBuf,
}

/// Without a subcommand it is what a container runtime runs.
pub(super) fn run(cni: &Cni) -> ExitCode {
    match &cni.action {
        None => cni::plugin(),
        Some(Action::Uninstall(uninstall)) => show(uninstall.carry_out()),
    }
}

impl Uninstall {
    fn carry_out(&self) -> anyhow::Result<String> {
        let installer = Installer {
            conf_directory: self.conf_directory.clone(),
            bin_directory: self.bin_directory.clone(),
            program: PathBuf::new(),
            entry: Entry { socket: PathBuf::new(), exclude_namespaces: Vec::new() },
        };
        let removed = installer.uninstall();
        let freed = free_pods(Path::new(NAMESPACES));
        redirect::remove(Place::Node)?;
        removed?;
        Ok(format!(
            "removed the plugin, and the rules of this node and {} network namespaces\n",
            freed?
        ))
    }
}

/// Takes the rules out of every namespace; returns of how many.
fn free_pods(directory: &Path) -> anyhow::Result<usize> {
    let mut freed = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        // One that vanishes meanwhile needs nothing.
        let Some(Ok(namespace)) = path.to_str().map(NetworkNamespace::open) else { continue };
        let removed = namespace.run(|| {
            let had = redirect::is_applied(Place::Workload)?;
            redirect::remove(Place::Workload).map(|()| had)
        })?;
        freed += usize::from(removed?);
    }
    Ok(freed)
}
