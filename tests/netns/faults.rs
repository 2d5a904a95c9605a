//! Faults under load: what goes wrong around the agents must neither crash them, nor leak, nor put a STRICT
//! workload's bytes on the wire in the clear. How long recovery takes is printed, never judged.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};

use crate::support::lab::command::{feed_command, run};
use crate::support::lab::{Lab, PORT, process, wait};
use crate::{meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookinfo}
spec: {mtls: {mode: STRICT}}
";

/// Clients that ask again and again, each time on a new connection.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(lab: &Lab) -> Result<Self> {
        Self::towards(lab, "details")
    }

    /// Towards a service of bookinfo's.
    pub fn towards(lab: &Lab, service: &str) -> Result<Self> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let service = SocketAddr::new(lab.service("bookinfo", service)?[0], PORT);
        let clients = (0..4)
            .map(|_| {
                let namespace = lab.pod("curl")?.attachment.namespace.clone();
                let (stop, done) = (stop.clone(), done.clone());
                Ok(std::thread::spawn(move || {
                    namespace.enter()?;
                    while !stop.load(Ordering::Relaxed) {
                        match ask(service) {
                            Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                            Err(_) => std::thread::sleep(Duration::from_millis(5)),
                        }
                    }
                    Ok(())
                }))
            })
            .collect::<Result<_>>()?;
        Ok(Self { stop, done, clients })
    }

    /// Waits for as many more answers, and returns how long that took.
    pub fn wait_for(&self, answers: u64, after: &str) -> Result<Duration> {
        let (start, before) = (SystemTime::now(), self.done.load(Ordering::Relaxed));
        wait::until(&format!("answers after {after}"), || {
            Ok((self.done.load(Ordering::Relaxed) >= before + answers).then_some(()))
        })?;
        let took = start.elapsed()?;
        println!("{after}: answered again after {took:?}");
        Ok(took)
    }

    pub fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok(())
    }
}

fn ask(service: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&service, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(
        b"GET /health HTTP/1.1\r\nHost: bookinfo\r\nx-secret: under-load\r\nConnection: close\r\n\r\n",
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Open descriptors of each agent.
pub fn descriptors(lab: &mut Lab) -> Result<Vec<usize>> {
    (lab.agents().iter_mut())
        .map(|agent| Ok(fs::read_dir(format!("/proc/{}/fd", agent.process().id()))?.count()))
        .collect()
}

/// Waits until no agent has more descriptors than before, save for a few: a tunnel, a scrape.
pub fn no_more_than(lab: &mut Lab, before: &[usize]) -> Result<()> {
    const FEW: usize = 12;
    no_more_than_and(lab, before, FEW)
}

pub fn no_more_than_and(lab: &mut Lab, before: &[usize], few: usize) -> Result<()> {
    // What leaks never comes back; what drains takes its time on a busy machine.
    const DRAINED: Duration = Duration::from_secs(60);
    wait::within(DRAINED, &format!("descriptors to be about {before:?} again"), || {
        let now = descriptors(lab)?;
        let are = now.iter().zip(before).all(|(now, before)| *now <= before + few);
        Ok(are.then_some(()))
    })
}

/// The rules of a pod without what counts packets.
pub fn rules(lab: &Lab, pod: &str) -> Result<String> {
    Ok(lab.rules(pod)?.lines().filter(|line| !line.contains("counter")).collect())
}

/// A rule in a node's way between its pods and the others, until it is removed.
pub fn disturb(lab: &Lab, node: &str, rule: &str) -> Result<()> {
    let table =
        "table inet fault {\nchain forward {\ntype filter hook forward priority 0\nRULE\n}\n}\n";
    let mut nft = process::command(&lab.node(node)?.namespace, "nft");
    feed_command(nft.args(["-f", "-"]), "nft", &[], &table.replace("RULE", rule)).map(drop)
}

pub fn undisturb(lab: &Lab, node: &str) -> Result<()> {
    let mut nft = process::command(&lab.node(node)?.namespace, "nft");
    feed_command(nft.args(["-f", "-"]), "nft", &[], "delete table inet fault").map(drop)
}

/// Trap 20.
#[test]
fn killed_agents_come_back_and_nothing_is_sent_in_the_clear() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(STRICT)?;
    settle(&lab, "outsider", &[DETAILS], 0)?;
    let before = (rules(&lab, "curl")?, rules(&lab, "details-v1")?);
    let captures = [lab.capture("node-a")?, lab.capture("node-b")?];
    let load = Load::start(&lab)?;
    load.wait_for(50, "the start")?;
    let descriptors_before = descriptors(&mut lab)?;
    for node in ["node-a", "node-b", "node-a"] {
        lab.kill_and_restart_agent(node, "")?;
        load.wait_for(50, &format!("SIGKILL of {node}'s agent, since it was ready again"))?;
    }
    load.end()?;
    for capture in captures {
        let captured = capture.finish(lab.node("node-a")?, lab.node("node-b")?)?;
        assert!(!captured.contains("under-load"), "plaintext of a STRICT workload on the wire");
    }
    assert_eq!((rules(&lab, "curl")?, rules(&lab, "details-v1")?), before);
    no_more_than(&mut lab, &descriptors_before)
}

#[test]
fn a_peer_in_a_black_hole_is_given_up_and_found_again() -> Result<()> {
    let mut lab = meshed()?;
    let load = Load::start(&lab)?;
    load.wait_for(50, "the start")?;
    let before = descriptors(&mut lab)?;
    disturb(&lab, "node-b", "tcp dport 15008 drop")?;
    std::thread::sleep(Duration::from_secs(3));
    undisturb(&lab, "node-b")?;
    load.wait_for(50, "a black hole of three seconds")?;
    load.end()?;
    no_more_than(&mut lab, &before)
}

/// A network that drops whatever a tunnel sends, and nothing else.
#[test]
fn a_dead_tunnel_takes_no_new_connections_for_long() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let before = descriptors(&mut lab)?;
    let service = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let client = lab.pod("curl")?.attachment.namespace.clone();
    let mut held = client.run(|| TcpStream::connect(service))??;
    let port = wait::until("the port of the tunnel", || {
        let mut ss = process::command(&client, "ss");
        let all = feed_command(&mut ss, "ss", &["-tnH", "state", "established"], "")?;
        let tunnel = all.lines().find(|line| line.contains(":15008"));
        let own = tunnel.and_then(|line| line.split_whitespace().nth(2)?.rsplit(':').next());
        Ok(own.and_then(|port| port.parse::<u16>().ok()))
    })?;
    let start = SystemTime::now();
    disturb(&lab, "node-b", &format!("tcp sport {port} drop\ntcp dport {port} drop"))?;
    settle(&lab, "curl", &["--max-time", "1", DETAILS], 200)?;
    println!("another tunnel was taken after {:?}", start.elapsed()?);
    held.set_read_timeout(Some(Duration::from_secs(40)))?;
    let ended = held.read(&mut [0; 1]);
    println!("what was in the dead one was cut after {:?}: {ended:?}", start.elapsed()?);
    anyhow::ensure!(
        !ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        "it was not given up"
    );
    undisturb(&lab, "node-b")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    no_more_than(&mut lab, &before)
}

#[test]
fn lost_packets_slow_down_and_break_nothing() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let before = descriptors(&mut lab)?;
    disturb(&lab, "node-b", "numgen random mod 100 < 5 drop")?;
    for _ in 0..30 {
        let answer = lab.curl("curl", &["--max-time", "10", DETAILS])?;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    undisturb(&lab, "node-b")?;
    no_more_than(&mut lab, &before)
}

#[test]
fn a_namespace_may_vanish_at_any_moment() -> Result<()> {
    let mut lab = meshed()?;
    let load = Load::start(&lab)?;
    load.wait_for(50, "the start")?;
    let before = descriptors(&mut lab)?;
    // The server's first, with connections in it; then its manifest; the other pods do not notice.
    run("ip", &["netns", "delete", "reviews-v1"])?;
    load.wait_for(50, "the end of a neighbour's namespace")?;
    lab.manifests.delete(&pod("reviews-v1"))?;
    wait::until("the agent to notice", || {
        let log = lab.agents().iter_mut().map(|agent| agent.process().log()).collect::<String>();
        Ok(log.contains("no longer captured").then_some(()))
    })?;
    load.wait_for(50, "the end of its manifest")?;
    load.end()?;
    no_more_than(&mut lab, &before)
}

fn pod(name: &str) -> crate::support::lab::manifests::Key {
    crate::support::lab::manifests::Key::new("Pod", "bookinfo", name)
}

#[test]
fn an_emptied_source_keeps_the_last_state_until_it_is_restored() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(STRICT)?;
    settle(&lab, "outsider", &[DETAILS], 0)?;
    let (directory, since) = (lab.manifests.directory().to_owned(), lab.moment()?);
    let away = directory.with_extension("away");
    fs::rename(&directory, &away)?;
    fs::create_dir(&directory)?;
    wait::until("both agents to complain", || {
        let lines = lab.lines_since(&since);
        let told: BTreeSet<_> = (lines.iter())
            .filter(|(_, line)| line.contains("the last state stays in force"))
            .map(|(node, _)| node)
            .collect();
        Ok((told.len() == 2).then_some(()))
    })?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    assert_eq!(lab.curl("outsider", &[DETAILS])?.status, 0);
    fs::remove_dir(&directory)?;
    fs::rename(&away, &directory)?;
    lab.manifests.delete(&crate::support::lab::manifests::Key::new(
        "PeerAuthentication",
        "bookinfo",
        "default",
    ))?;
    settle(&lab, "outsider", &[DETAILS], 200)?;
    Ok(())
}

#[test]
fn a_full_disk_costs_lines_of_the_log_and_nothing_else() -> Result<()> {
    let mut lab = crate::bookinfo()?;
    let logs = lab.logs().to_owned();
    let (tmpfs, room) = (Some("tmpfs"), Some("size=64k"));
    mount(tmpfs, &logs, tmpfs, MsFlags::MS_NODEV, room).context("mount a small disk")?;
    lab.start_agents("")?;
    for namespace in ["bookinfo", "default"] {
        let key = crate::support::lab::manifests::Key::new("Namespace", "", namespace);
        lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
        crate::captured_in(&lab, namespace)?;
    }
    let before = descriptors(&mut lab)?;
    let dropped = |lab: &Lab| -> Result<f64> {
        Ok(lab.metrics()?.sum("isthmus_log_lines_dropped_total", &[]))
    };
    let load = Load::start(&lab)?;
    wait::until("the disk to be full", || Ok((dropped(&lab)? > 0.0).then_some(())))?;
    load.wait_for(100, "the disk is full")?;
    load.end()?;
    for agent in lab.agents() {
        fs::write(logs.join(format!("{}.log", agent.process().name())), "")?;
    }
    wait::until("a whole line after there is room again", || {
        lab.curl("curl", &[DETAILS])?;
        let log = fs::read_to_string(logs.join("agent-node-a.log"))?;
        Ok(log.lines().any(|line| line.contains("connection complete")).then_some(()))
    })?;
    let after = dropped(&lab)?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    assert_eq!(dropped(&lab)?, after, "nothing is lost any more");
    for name in ["agent-node-a.log", "agent-node-b.log"] {
        let log = fs::read_to_string(logs.join(name))?;
        // The first one may be the end of the line that was torn.
        for line in log.lines().skip(1).filter(|line| !line.is_empty()) {
            assert!(line.starts_with("20"), "{name}: no separate line: {line}");
        }
    }
    no_more_than(&mut lab, &before)
}
