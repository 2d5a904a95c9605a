//! Many workloads on one node: namespaces with nothing in them but their loopback.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::command::{feed_command, run};
use super::netns::Namespace;
use super::private::NETWORK_NAMESPACES;
use super::{Lab, process, wait};

/// How long the agent may take for some hundred of them, on a slow machine that does something else besides.
const A_HUNDRED: Duration = Duration::from_secs(60);
/// The file with their manifests.
const FILE: &str = "many.yaml";

/// Makes `count` network namespaces; they are no workloads yet.
pub fn prepare(count: usize) -> Result<()> {
    (0..count).try_for_each(|number| make_namespace(&name(number)))
}

/// Makes them pods of node-a in the mesh, and waits until they are captured.
pub fn join(lab: &mut Lab, count: usize) -> Result<()> {
    let mut text = String::from(
        "apiVersion: v1\nkind: Namespace\n\
         metadata: {name: many, labels: {istio.io/dataplane-mode: ambient}}\n",
    );
    for number in 0..count {
        text += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {0}, namespace: many, \
             annotations: {{isthmus.io/node: node-a, isthmus.io/network-namespace: {0}}}}}\n\
             spec: {{serviceAccountName: many, containers: [{{name: app}}]}}\n\
             status: {{podIP: 10.99.{1}.{2}}}\n",
            name(number),
            number / 250,
            number % 250 + 1
        );
    }
    lab.manifests.write(FILE, &text)?;
    until_captured(count, true)
}

/// Takes them out of the mesh again, and waits until they are captured no more.
pub fn leave(lab: &mut Lab, count: usize) -> Result<()> {
    lab.manifests.remove(FILE)?;
    until_captured(count, false)
}

/// Waits until the first, the last and some between have rules, or none.
fn until_captured(count: usize, captured: bool) -> Result<()> {
    for number in (0..count).step_by(97).chain([count - 1]) {
        let namespace = Namespace::named(&name(number))?;
        let what = format!("the rules of {} (captured: {captured})", name(number));
        wait::within(A_HUNDRED, &what, || {
            let mut nft = process::command(&namespace, "nft");
            let rules = feed_command(&mut nft, "nft", &["list", "ruleset"], "")?;
            Ok((rules.is_empty() != captured).then_some(()))
        })?;
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("many-{number}")
}

fn make_namespace(name: &str) -> Result<()> {
    let path = Path::new(NETWORK_NAMESPACES).join(name);
    fs::write(&path, "")?;
    let make = || -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        run("ip", &["link", "set", "lo", "up"])?;
        let own = Path::new("/proc/thread-self/ns/net");
        mount(Some(own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(make).join())
        .map_err(|_| anyhow!("making a namespace panicked"))?
        .with_context(|| format!("make the namespace {name}"))
}
