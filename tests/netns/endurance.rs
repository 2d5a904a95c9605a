//! What is done often or with many: nothing of it may stay behind. Memory is compared between a first round, which
//! fills what is kept for reuse, and later ones, which must not add to it.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::faults::{Load, descriptors, no_more_than, no_more_than_and, rules};
use crate::floods::{Usage, agent};
use crate::support::lab::{Lab, PORT, many, wait};
use crate::{meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";

/// How much more memory than at its start an agent may have after many of something came and went, in KiB: pools that
/// stay for a while, and pages of which a part is in use. Whether it is a leak, the rounds after the first one tell.
const MORE: u64 = 32 * 1024;
/// How much more than after the first round it may have after later ones: what is kept is used again.
const MORE_THEN: u64 = 8 * 1024;
/// The allocator gives pages back to the system over some 10 s (jemalloc's `dirty_decay_ms`).
const DECAY: Duration = Duration::from_secs(40);

/// The memory of the agents of both nodes over several rounds.
struct Memory {
    start: [u64; 2],
    first: Option<[u64; 2]>,
}

/// In KiB.
fn memory(lab: &mut Lab) -> Result<[u64; 2]> {
    let of = |lab: &mut Lab, node| Ok::<_, anyhow::Error>(Usage::of(agent(lab, node)?)?.memory);
    Ok([of(lab, "node-a")?, of(lab, "node-b")?])
}

impl Memory {
    fn of(lab: &mut Lab) -> Result<Self> {
        Ok(Self { start: memory(lab)?, first: None })
    }

    /// Waits until the agents have about as much as at the start, and as after the first round.
    fn is_back(&mut self, lab: &mut Lab) -> Result<()> {
        let limit = |at: usize| {
            let first = self.first.map_or(u64::MAX, |first| first[at] + MORE_THEN);
            first.min(self.start[at] + MORE)
        };
        let limits = [limit(0), limit(1)];
        let settled = wait::within(DECAY, &format!("memory below {limits:?} KiB"), || {
            let now = memory(lab)?;
            Ok(now.iter().zip(limits).all(|(now, limit)| *now <= limit).then_some(now))
        })?;
        println!(
            "at the start {:?} KiB, after the first round {:?}, now {settled:?}",
            self.start, self.first
        );
        self.first.get_or_insert(settled);
        Ok(())
    }
}

/// Trap 23. How many bytes each takes is measured by `scripts/bench`.
#[test]
fn ten_thousand_idle_connections_are_held_and_given_back() -> Result<()> {
    const IDLE: usize = 10_000;
    /// Of a tunnel, by default (`pool.max_streams`).
    const STREAMS: usize = 100;
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let before = descriptors(&mut lab)?;
    let service = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let client = lab.pod("curl")?.attachment.namespace.clone();
    // Each round leaves as many ports in TIME_WAIT at the client, and at the agent that connects to the server; the range
    // begins above those that the agent listens on.
    for namespace in [&client, &lab.pod("details-v1")?.attachment.namespace] {
        namespace.set("ipv4/ip_local_port_range", "16000 65000")?;
        namespace.set("ipv4/tcp_tw_reuse", "1")?;
    }
    let mut agents = Memory::of(&mut lab)?;
    for round in 1..=3 {
        // They are as many as one peer may have, so that none of those before may be left.
        wait::until("all connections to have ended", || {
            let open = lab.metrics()?.sum("istio_tcp_sockets_open", &[]);
            Ok((open == 0.0).then_some(()))
        })?;
        let held = client.run(|| {
            let connect = |_| TcpStream::connect(service);
            (0..IDLE).map(connect).collect::<Result<Vec<_>, _>>()
        })??;
        wait::until("an agent to hold them all", || {
            Ok(descriptors(&mut lab)?.iter().all(|now| *now >= IDLE).then_some(()))
        })?;
        println!("round {round}: {:?} KiB with all of them", memory(&mut lab)?);
        // Its own connections may be used up; nobody else's are.
        settle(&lab, "stranger", &[DETAILS], 200)?;
        drop(held);
        // The tunnels stay in the pool for a while.
        no_more_than_and(&mut lab, &before, 12 + IDLE / STREAMS)?;
        agents.is_back(&mut lab)?;
    }
    Ok(())
}

const WORKLOADS: usize = 1000;

#[test]
fn a_thousand_workloads_on_one_node() -> Result<()> {
    let mut lab = meshed()?;
    let before = descriptors(&mut lab)?;
    let node = node_rules(&lab)?;
    let start = SystemTime::now();
    many::prepare(WORKLOADS)?;
    println!("{WORKLOADS} namespaces: {:?}", start.elapsed()?);
    let mut agents = Memory::of(&mut lab)?;
    for round in 1..=3 {
        let start = SystemTime::now();
        many::join(&mut lab, WORKLOADS)?;
        println!("round {round}: {WORKLOADS} workloads captured: {:?}", start.elapsed()?);
        println!("{:?} KiB with all of them", memory(&mut lab)?);
        settle(&lab, "curl", &[DETAILS], 200)?;
        many::leave(&mut lab, WORKLOADS)?;
        no_more_than(&mut lab, &before)?;
        wait::until("the node's rules to be as before", || {
            Ok((node_rules(&lab)? == node).then_some(()))
        })?;
        agents.is_back(&mut lab)?;
    }
    settle(&lab, "curl", &[DETAILS], 200).map(drop)
}

/// The rules on node-a but for those of the lab, without what counts packets.
fn node_rules(lab: &Lab) -> Result<String> {
    let all = lab.node_rules("node-a")?;
    let own = all.split("table ").filter(|table| !table.contains("lab-services"));
    Ok(own.flat_map(str::lines).filter(|line| !line.contains("counter")).collect())
}

/// Servers vanish with their namespaces and come back under the same name, at any moment of a load towards them and
/// their neighbours.
#[test]
fn namespaces_vanish_at_random_moments_under_load() -> Result<()> {
    const ROUNDS: u64 = 9;
    const PODS: [&str; 3] = ["reviews-v1", "reviews-v2", "reviews-v3"];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut lab = meshed()?;
    let own: Vec<String> = PODS.iter().map(|pod| rules(&lab, pod)).collect::<Result<_>>()?;
    let (near, far) = (Load::towards(&lab, "reviews")?, Load::towards(&lab, "details")?);
    near.wait_for(50, "the start")?;
    let before = descriptors(&mut lab)?;
    let mut agents = Memory::of(&mut lab)?;
    for round in 1..=ROUNDS {
        let pod = random.usize(..PODS.len());
        // A moment that the load decides: so many answers later.
        near.wait_for(random.u64(..60), &format!("round {round}: {} goes", PODS[pod]))?;
        lab.recreate_pod(PODS[pod], random.bool())?;
        wait::until("it to be captured again", || {
            Ok((rules(&lab, PODS[pod])? == own[pod]).then_some(()))
        })?;
        far.wait_for(20, "of the neighbours")?;
        let url = format!("http://{}:{PORT}/health", lab.address(PODS[pod])?);
        settle(&lab, "curl", &["--max-time", "2", &url], 200)?;
        if round == ROUNDS / 3 {
            agents.is_back(&mut lab)?;
        }
    }
    near.wait_for(50, "the last round")?;
    near.end()?;
    far.end()?;
    no_more_than(&mut lab, &before)?;
    agents.is_back(&mut lab)
}
