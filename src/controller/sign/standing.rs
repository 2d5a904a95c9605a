//! The class of a connection: a visitor's, until one of its requests proves to be an agent's.
//!
//! Anybody on the cluster's network can connect. Visitors have few slots, and seconds to authenticate; if all are in
//! use, the address that holds the most loses the one that is silent for longest. An authenticated agent is no longer a
//! visitor: its connection counts for its node, and neither visitors nor other nodes can evict it.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::authorize::Caller;
use crate::base::{Place, Str};

/// The time that a visitor may take from its first byte to a request with an agent's token: an agent sends one at once.
const PROOF: Duration = Duration::from_secs(10);
/// Connections of one node's agents: an agent has one, during an upgrade there are two, and some that failed unnoticed.
/// Beyond that, the oldest is closed.
const MAX_PER_NODE: usize = 8;

/// The connections of agents, by node.
#[derive(Default)]
pub(super) struct Agents(Mutex<HashMap<Str, VecDeque<Arc<Ended>>>>);

/// Cancelled when the connection is evicted.
type Ended = CancellationToken;

/// One connection.
pub(super) struct Standing {
    pub(super) address: IpAddr,
    since: Instant,
    agents: Arc<Agents>,
    /// Its visitor's slot, until it proves more.
    visit: Mutex<Option<Arc<Place<IpAddr>>>>,
    member: OnceLock<(Str, Arc<Ended>)>,
    proven: CancellationToken,
    /// Held while the API server identifies it: once for all of its requests.
    pub(super) identifying: tokio::sync::Mutex<()>,
}

impl Standing {
    pub(super) fn visitor(place: Place<IpAddr>, address: IpAddr, agents: Arc<Agents>) -> Self {
        let visit = Mutex::new(Some(Arc::new(place)));
        Self {
            address,
            since: Instant::now(),
            agents,
            visit,
            member: OnceLock::new(),
            proven: CancellationToken::new(),
            identifying: tokio::sync::Mutex::default(),
        }
    }

    /// Whether one of its requests was authenticated as an agent's.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.is_cancelled()
    }

    /// A request was authenticated as this agent's. Only the first one matters.
    pub(super) fn prove(&self, caller: &Caller) {
        if self.is_proven() {
            return;
        }
        let ended = Arc::new(Ended::new());
        if self.member.set((caller.node.clone(), ended.clone())).is_ok() {
            self.agents.join(&caller.node, ended);
            self.visit.lock().take();
            self.proven.cancel();
        }
    }

    /// While its request is processed, a visitor's slot is not evicted.
    pub(super) fn works(&self) {
        self.visit().inspect(|place| place.works());
    }

    pub(super) fn waits(&self) {
        self.visit().inspect(|place| place.waits());
    }

    fn visit(&self) -> Option<Arc<Place<IpAddr>>> {
        self.visit.lock().clone()
    }

    /// Ready when it must be closed: a visitor that lost its slot or timed out, or an agent's connection if its node
    /// has newer ones.
    pub(super) async fn over(&self) {
        if let Some(place) = self.visit() {
            tokio::select! {
                biased;
                () = self.proven.cancelled() => {}
                () = place.taken_away() => return,
                () = sleep_until(self.since + PROOF) => return,
            }
        }
        match self.member.get() {
            Some((_, ended)) => ended.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Some((node, ended)) = self.member.get() {
            self.agents.leave(node, ended);
        }
    }
}

impl Agents {
    fn join(&self, node: &Str, ended: Arc<Ended>) {
        let mut nodes = self.0.lock();
        let held = nodes.entry(node.clone()).or_default();
        held.push_back(ended);
        if held.len() > MAX_PER_NODE
            && let Some(oldest) = held.pop_front()
        {
            oldest.cancel();
        }
    }

    fn leave(&self, node: &Str, ended: &Arc<Ended>) {
        let mut nodes = self.0.lock();
        if let Some(held) = nodes.get_mut(node) {
            held.retain(|other| !Arc::ptr_eq(other, ended));
            if held.is_empty() {
                nodes.remove(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::base::Places;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn agent(node: &str) -> Caller {
        Caller { pod: "isthmus-x".into(), node: node.into() }
    }

    async fn is_over(standing: &Standing) -> bool {
        timeout(Duration::from_millis(1), standing.over()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_that_proves_nothing_goes_and_an_agent_stays() {
        let (places, agents) = (Places::new(4), Arc::new(Agents::default()));
        let visitor = || Standing::visitor(places.take(ADDRESS).unwrap(), ADDRESS, agents.clone());
        let (silent, asking) = (visitor(), visitor());
        asking.works();
        asking.prove(&agent("node1"));
        asking.prove(&agent("node2"));
        assert_eq!(places.taken(), 1, "an agent takes no place of visitors");
        let begun = Instant::now();
        silent.over().await;
        assert_eq!(begun.elapsed(), PROOF);
        assert!(timeout(100 * PROOF, asking.over()).await.is_err());
        drop((silent, asking));
        assert!(agents.0.lock().is_empty() && places.taken() == 0, "nobody is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_connections_of_a_node_make_room_and_of_no_other_node() {
        let (places, agents) = (Places::new(100), Arc::new(Agents::default()));
        let proven = |node: &str| {
            let it = Standing::visitor(places.take(ADDRESS).unwrap(), ADDRESS, agents.clone());
            it.prove(&agent(node));
            it
        };
        let other = proven("node2");
        let of_node: Vec<Standing> = (0..MAX_PER_NODE + 2).map(|_| proven("node1")).collect();
        for (number, standing) in of_node.iter().enumerate() {
            assert_eq!(is_over(standing).await, number < 2, "connection {number}");
        }
        assert!(!is_over(&other).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_at_work_keeps_its_place() {
        let (places, agents) = (Places::new(2), Arc::new(Agents::default()));
        let visitor = || Standing::visitor(places.take(ADDRESS).unwrap(), ADDRESS, agents.clone());
        let (first, second) = (visitor(), visitor());
        first.works();
        let _third = visitor();
        assert!(!is_over(&first).await && is_over(&second).await);
        first.waits();
    }
}
