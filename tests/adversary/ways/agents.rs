//! What happens to agents: killed, replaced, or started on a node that forgot everything. Policy holds throughout.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::{DETAILS, VICTIM, guarded, in_force, seen};
use crate::settle;
use crate::support::lab::curl::curl;
use crate::support::lab::{Lab, wait};

/// Requests that are waited for at each step.
const REQUESTS: u32 = 5;
/// For these, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Those who must not get through, asking without end by service and pod address, and one who may.
struct Siege {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    served: Arc<AtomicU32>,
    threads: Vec<std::thread::JoinHandle<Result<()>>>,
}

impl Siege {
    fn start(lab: &Lab) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, served) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let pod = format!("{}:9080", lab.address(VICTIM)?);
        let service = "details.bookinfo:9080".to_owned();
        let clients = [
            ("attacker", pod.clone()),
            ("attacker", service.clone()),
            ("outsider", pod.clone()),
            ("accomplice", pod),
            ("curl", service),
        ];
        let mut threads = Vec::new();
        for (client, to) in clients {
            let namespace = lab.pod(client)?.attachment.namespace.clone();
            let (stop, asked, served) = (stop.clone(), asked.clone(), served.clone());
            threads.push(std::thread::spawn(move || {
                let url = format!("http://{to}/details/0?siege={client}");
                while !stop.load(Ordering::Relaxed) {
                    let answer = curl(&namespace, &["--max-time", "1", &url])?;
                    let count = if client == "curl" { &served } else { &asked };
                    if client != "curl" || answer.status == 200 {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            }));
        }
        Ok(Self { stop, asked, served, threads })
    }

    /// So many more attacks, and legitimate requests that were served.
    fn wait_for_more(&self, served: bool) -> Result<()> {
        let counts = || (self.asked.load(Ordering::Relaxed), self.served.load(Ordering::Relaxed));
        let before = counts();
        wait::within(PATIENCE, "the siege to go on", || {
            let now = counts();
            let both = now.0 >= before.0 + REQUESTS && (!served || now.1 >= before.1 + REQUESTS);
            Ok(both.then_some(()))
        })
    }

    fn end(self, lab: &Lab) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        let all = seen(lab, "siege=")?;
        let through: Vec<_> = all.iter().filter(|line| !line.contains("siege=curl")).collect();
        ensure!(through.is_empty(), "{} requests got through: {through:?}", through.len());
        ensure!(!all.is_empty());
        in_force(lab)
    }
}

#[test]
fn killed_agents_open_nothing() -> Result<()> {
    let mut lab = guarded()?;
    let siege = Siege::start(&lab)?;
    siege.wait_for_more(true)?;
    for node in ["node-b", "node-a"] {
        let place = lab.kill_agent(node)?;
        siege.wait_for_more(false)?;
        lab.start_agent(place, node, "")?;
        siege.wait_for_more(true)?;
    }
    siege.end(&lab)
}

#[test]
fn an_upgrade_opens_nothing() -> Result<()> {
    let mut lab = guarded()?;
    let siege = Siege::start(&lab)?;
    siege.wait_for_more(true)?;
    // They carry their open connections to the end, and accept nothing.
    let mut retired = Vec::new();
    for node in ["node-b", "node-a"] {
        retired.push(lab.upgrade_agent(node)?);
        siege.wait_for_more(true)?;
    }
    siege.end(&lab)
}

/// Nobody drained the node: both agents are gone at once, and those that come know nothing but the manifests.
#[test]
fn a_reboot_without_a_drain_opens_nothing() -> Result<()> {
    let mut lab = guarded()?;
    let siege = Siege::start(&lab)?;
    siege.wait_for_more(true)?;
    lab.kill_agent("node-b")?;
    lab.kill_agent("node-a")?;
    siege.wait_for_more(false)?;
    // What agents keep, apart from the CA, which is the cluster's.
    for kept in ["/run/isthmus", "/var/run/isthmus"] {
        match fs::remove_dir_all(kept) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    lab.start_agents("")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    siege.wait_for_more(true)?;
    siege.end(&lab)
}
