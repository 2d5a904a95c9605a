//! The exchange without a controller: the nodes of a Service meet at one of its pods.
//!
//! All agents know the endpoints of a Service, and take the first one that is in the mesh for its broker: the agent of that pod's node
//! keeps it. They connect in the tunnels of the mesh, in the name of their own pods of the Service ([`Speaker`]), and prove these names
//! as for any connection. Whoever proves the name of an endpoint, at its address, speaks for its node, and for the limits of this
//! Service only; so nobody needs a name besides those that workloads have.
//!
//! Where the first endpoint cannot be reached the next one is tried, and after that a third; the first one is tried again every few
//! seconds. Nodes that meet at different brokers move tokens among themselves, and make none.
//!
//! No application has a way in: the authority of these connections is no address, and agents make no others of what applications dial.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::sink::SinkExt;
use futures_util::stream::StreamExt;
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::broker::Broker;
use super::messages::{Joins, MAX_MESSAGE, Report};
use super::session::{Brokerage, Judged, Session};
use crate::base::{ObjectKey, Str};
use crate::model::{Service, Workload};
use crate::world::{World, WorldStore};

/// Of a CONNECT to a broker.
pub const AUTHORITY: &str = "shared-limits.isthmus.io:15008";
/// Connections of one node to the brokers here: one for each Service. For those beyond, it tries the next endpoint.
const MAX_OF_NODE: usize = 32;
/// How many endpoints are tried, one after the other.
const CANDIDATES: usize = 3;
/// How long a node may take to read a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// A stream to a broker.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A workload of this node, in whose name brokers are connected to.
pub trait Speaker: Send + Sync + 'static {
    /// A stream to the broker at the other workload, by [`AUTHORITY`]. Why there is none.
    fn speak(
        self: Arc<Self>,
        to: Arc<Workload>,
    ) -> BoxFuture<'static, Result<Box<dyn Stream>, String>>;
}

/// The brokers of the Services whose nodes meet here, and the way to those of others.
pub struct Peers {
    world: Arc<WorldStore>,
    broker: Mutex<Broker>,
    speakers: Mutex<HashMap<Str, Weak<dyn Speaker>>>,
    /// Where brokers work, so that connections of others wait for none of it.
    runtime: Handle,
}

impl Peers {
    /// `runtime`: where brokers work.
    pub fn new(world: Arc<WorldStore>, runtime: Handle) -> Arc<Self> {
        let broker = Mutex::new(Broker::new(Instant::now()));
        Arc::new(Self { world, broker, speakers: Mutex::default(), runtime })
    }

    /// Registers a workload of this node.
    pub fn add(&self, uid: &Str, speaker: Weak<dyn Speaker>) {
        self.speakers.lock().insert(uid.clone(), speaker);
    }

    /// Removes it, but not its successor.
    pub fn remove(&self, uid: &Str, speaker: &Weak<dyn Speaker>) {
        let mut speakers = self.speakers.lock();
        if speakers.get(uid).is_some_and(|known| known.ptr_eq(speaker)) {
            speakers.remove(uid);
        }
    }

    /// Connects to the broker of a Service that has pods on this node. `failed`: how often that has just failed. Also whether it is
    /// where all should meet.
    pub(super) async fn dial(
        &self,
        service: &ObjectKey,
        failed: u32,
    ) -> Result<(Framed<Box<dyn Stream>, LengthDelimitedCodec>, bool), String> {
        let (speaker, broker, is_first) = {
            let world = self.world.load();
            let service =
                world.service(service).ok_or_else(|| format!("{service} does not exist"))?;
            let speaker =
                self.speaker(service).ok_or("no pod of the Service is in the mesh here")?;
            let broker = |failed| broker_of(&world, service, failed);
            let first = broker(0).ok_or("no pod of the Service is in the mesh")?;
            let broker = broker(failed).unwrap_or(first);
            (speaker, broker.clone(), broker.uid == first.uid)
        };
        let key = broker.key.clone();
        match timeout(PATIENCE, speaker.speak(broker)).await {
            Ok(Ok(stream)) => Ok((Framed::new(stream, codec()), is_first)),
            Ok(Err(why)) => Err(format!("the broker at {key}: {why}")),
            Err(_) => Err(format!("the broker at {key} does not answer within {PATIENCE:?}")),
        }
    }

    fn speaker(&self, service: &Service) -> Option<Arc<dyn Speaker>> {
        let speakers = self.speakers.lock();
        let uids = service.endpoints.iter().filter_map(|it| it.workload.as_ref());
        uids.filter_map(|uid| speakers.get(uid)).find_map(Weak::upgrade)
    }

    /// Serves a connection in the name of a workload, to its end.
    pub async fn serve(self: &Arc<Self>, stream: impl Stream + 'static, from: &Workload) {
        let place = Place { peers: self.clone(), uid: from.uid.clone() };
        let serving = place.serve(stream, from.node.clone());
        _ = AbortOnDropHandle::new(self.runtime.spawn(serving)).await;
    }
}

/// Its messages, each after its length.
fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_MESSAGE).new_codec()
}

/// The endpoint where the nodes of the Service meet: the first one in the mesh by its unique name, or one of the next two.
fn broker_of<'a>(world: &'a World, service: &Service, failed: u32) -> Option<&'a Arc<Workload>> {
    let uids = service.endpoints.iter().filter_map(|it| it.workload.as_ref());
    let workloads = uids.filter_map(|uid| world.workload(uid));
    let mut candidates: Vec<_> = workloads.filter(|it| it.is_captured()).collect();
    candidates.sort_by(|one, other| one.uid.cmp(&other.uid));
    candidates.dedup_by(|one, other| one.uid == other.uid);
    candidates.truncate(CANDIDATES);
    let turn = usize::try_from(failed).unwrap_or_default() % candidates.len().max(1);
    candidates.get(turn).copied()
}

/// One connection's view of the broker.
struct Place {
    peers: Arc<Peers>,
    /// The workload in whose name the node has connected.
    uid: Str,
}

impl Place {
    async fn serve(self, stream: impl Stream, node: Str) {
        let (mut orders, frames) = Framed::new(stream, codec()).split();
        let mut reports = frames.map(|frame| match frame {
            Ok(bytes) => Report::decode(bytes).map_err(|it| Status::internal(it.to_string())),
            Err(error) => Err(Status::unavailable(error.to_string())),
        });
        let Ok(mut session) = Session::enter(Arc::new(self), &node) else { return };
        while let Some(Ok(message)) = session.next(&mut reports).await {
            let bytes = Bytes::from(message.encode_to_vec());
            if !matches!(timeout(PATIENCE, orders.send(bytes)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

impl Brokerage for Place {
    fn broker(&self) -> &Mutex<Broker> {
        &self.peers.broker
    }

    fn most_of_node(&self) -> usize {
        MAX_OF_NODE
    }

    fn serves(&self) -> Result<(), Status> {
        Ok(())
    }

    /// Those of Services of the workload's namespace that have it for an endpoint.
    async fn judge(&self, node: &Str, joins: &Joins) -> Judged {
        let world = self.peers.world.load();
        let workload = world.workload(&self.uid).filter(|it| it.node == *node);
        let own: HashMap<ObjectKey, Arc<Service>> = workload
            .into_iter()
            .flat_map(|it| world.leading_to(&it.key.namespace, it))
            .map(|(served, _)| (served.service.key.clone(), served.service))
            .collect();
        let (mut granted, mut refused) = (Vec::new(), Vec::new());
        for limit in &joins.limits {
            let id = limit.id();
            let service = id.as_ref().and_then(|id| own.get(&id.service));
            let pods = service.map(|service| service.pods(node)).filter(|pods| pods.here > 0);
            match id.zip(pods) {
                Some((id, pods)) => granted.push((limit.number, id, pods)),
                None => refused.push(limit.number),
            }
        }
        (granted, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Str;
    use crate::filter::Rate;
    use crate::quota::messages::{Limit, LimitId};
    use crate::world::fixture::{self, Fixture, key, service, workload};

    fn on(node: &str, name: &str, address: &str) -> Workload {
        Workload { node: node.into(), ..workload(name, address) }
    }

    fn fixture() -> (Arc<Peers>, Arc<World>) {
        let outside = Workload { enrolled: false, ..on("n1", "a-outside", "10.0.0.1") };
        let pods = [
            on("n1", "web-1", "10.0.0.2"),
            on("n2", "web-2", "10.0.0.3"),
            on("n3", "web-3", "10.0.0.4"),
            on("n4", "web-4", "10.0.0.5"),
        ];
        let [one, two, three, four] = &pods;
        // In another order on each node, perhaps.
        let web = service("web", "10.96.0.1", &[three, &outside, two, four, one]);
        let other = service("other", "10.96.0.2", &[four]);
        let mut mesh = Fixture::default().service(web).service(other).workload(outside.clone());
        for pod in &pods {
            mesh = mesh.workload(pod.clone());
        }
        let store = fixture::store();
        store.publish(mesh.mesh);
        let world = store.snapshot();
        (Peers::new(store, Handle::current()), world)
    }

    #[tokio::test]
    async fn all_nodes_meet_at_the_same_pod_and_at_the_next_one_where_it_is_away() {
        let (_, world) = fixture();
        let web = world.service(&key("web")).unwrap();
        let names: Vec<&str> = (0..4)
            .map(|failed| broker_of(&world, web, failed).unwrap().key.name.as_str())
            .collect();
        assert_eq!(names, ["web-1", "web-2", "web-3", "web-1"]);
        let nobody = service("nobody", "10.96.0.3", &[]);
        assert!(broker_of(&world, &nobody, 0).is_none());
    }

    #[tokio::test]
    async fn an_endpoint_speaks_for_its_node_and_its_service_alone() {
        let (peers, _) = fixture();
        let limit = |number: u32, service: &str| {
            let rate = Rate { tokens: 10, interval: Duration::from_secs(1), burst: 10 };
            let (service, policy) = (key(service), key("limit"));
            Limit::new(number, &LimitId { service, policy, name: Str::default(), rate })
        };
        let limits = vec![limit(1, "web"), limit(2, "other"), limit(3, "none")];
        let joins = Joins { limits };
        for (name, node, expected) in [
            ("web-1", "n1", &[1][..]),
            ("web-4", "n4", &[1, 2]),
            ("client", "n1", &[]),
            // Its name, from where it is not.
            ("web-1", "n2", &[]),
        ] {
            let uid = on(node, name, "10.0.0.9").uid;
            let place = Place { peers: peers.clone(), uid };
            let (granted, refused) = place.judge(&node.into(), &joins).await;
            let numbers: Vec<u32> = granted.iter().map(|(number, ..)| *number).collect();
            assert_eq!((&numbers[..], refused.len()), (expected, 3 - expected.len()), "{name}");
            for (_, id, pods) in granted {
                let all = if id.service == key("web") { 5 } else { 1 };
                let here = if (node, &id.service) == ("n1", &key("web")) { 2 } else { 1 };
                assert_eq!((pods.here, pods.all), (here, all), "{name}");
            }
        }
    }

    /// Two nodes at one broker: what one lacks and the other one has is asked for.
    #[tokio::test(start_paused = true)]
    async fn messages_pass_both_ways_and_rubbish_ends_a_connection() {
        let (peers, world) = fixture();
        let served = |name: &str| {
            let (client, server) = tokio::io::duplex(64 * 1024);
            let uid = on("any", name, "10.0.0.9").uid;
            let from = world.workload(&uid).unwrap().clone();
            let peers = peers.clone();
            tokio::spawn(async move { peers.serve(server, &from).await });
            Framed::new(client, codec())
        };
        let rate = Rate { tokens: 100, interval: Duration::from_secs(1), burst: 100 };
        let (service, policy) = (key("web"), key("limit"));
        let id = LimitId { service, policy, name: Str::default(), rate };
        let joins = Some(Joins { limits: vec![Limit::new(1, &id)] });
        let want = super::super::messages::Amount { limit: 1, key: 7, amount: 5_000 };
        let (mut one, mut two) = (served("web-1"), served("web-2"));
        let report =
            |number, wants| Report { number, joins: joins.clone(), wants, ..Report::default() };
        two.send(Bytes::from(report(1, Vec::new()).encode_to_vec())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        one.send(Bytes::from(report(1, vec![want]).encode_to_vec())).await.unwrap();
        let frame = two.next().await.unwrap().unwrap();
        let orders = super::super::messages::Orders::decode(frame).unwrap();
        assert_eq!(
            orders.asks.iter().map(|it| (it.key, it.amount)).collect::<Vec<_>>(),
            [(7, 5_000)]
        );
        one.send(Bytes::from_static(b"rubbish")).await.unwrap();
        assert!(one.next().await.is_none(), "it is closed");
        assert!(timeout(Duration::from_secs(1), two.next()).await.is_err(), "the other one is not");
    }
}
