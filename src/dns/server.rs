//! The listeners of one workload's stub.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::future::FutureExt;
use tokio_util::sync::CancellationToken;

use super::resolve::{Asker, Place, Resolution, resolve};
use crate::base::{Need, Room, Rooms, Str, ports};
use crate::config::DnsSettings;
use crate::model::Workload;
use crate::resolver::{Protocol, Resolvers, read_framed, write_framed};
use crate::sock::SocketFactory;
use crate::telemetry::{DnsLabels, Telemetry, query_type};
use crate::world::WorldStore;

/// The log target of queries, as in ztunnel.
const LOG: &str = "dns";
/// Concurrent queries of one workload; beyond that, a query gets SERVFAIL and the program retries.
const MAX_QUESTIONS: usize = 256;
/// Concurrent TCP connections of one workload's clients.
const MAX_CONNECTIONS: usize = 64;
/// Bytes reserved for a forwarded query, and for a connection: a TCP message has up to 64 KiB, and so may its answer.
const QUESTION_BYTES: usize = 16 * 1024;
const CONVERSATION_BYTES: usize = 192 * 1024;
/// The idle timeout of a client connection (RFC 7766, 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// Backoff after an error of a listener that is not caused by one client.
const PAUSE: Duration = Duration::from_millis(100);
/// The TTL of answers, in seconds (ztunnel's).
const TTL: u32 = 30;
/// The weight of each SRV record: all are equal.
const WEIGHT: u16 = 100;
/// The UDP size of a client without EDNS, in bytes (RFC 1035, 4.2.1), and the most that is ever sent.
const PLAIN_PAYLOAD: u16 = 512;
const MAX_PAYLOAD: u16 = 4096;

/// State that all stubs of this agent share.
pub struct Dns {
    pub settings: DnsSettings,
    pub cluster_domain: Str,
    /// No DNS server of a cluster knows the Services.
    pub alone: bool,
    pub world: Arc<WorldStore>,
    pub telemetry: Telemetry,
    /// The memory budget of queries.
    pub rooms: Rooms,
    pub runtime: Handle,
}

/// The stub of one workload; stops when dropped.
pub struct Stub {
    cancel: CancellationToken,
}

/// A port in the workload's namespace could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for DNS on {address} in the network namespace of {workload}: {source}")]
pub struct DnsError {
    address: SocketAddr,
    workload: String,
    source: io::Error,
}

/// The stub's state for one workload.
struct Server {
    shared: Arc<Dns>,
    uid: Str,
    namespace: Str,
    labels: (Str, Str),
    sockets: Arc<dyn SocketFactory>,
    resolvers: Resolvers,
    questions: Semaphore,
    room: Room,
}

impl Stub {
    /// Listens on the loopback of the workload's namespace; skips IPv6 if the namespace has none.
    pub fn start(
        shared: &Arc<Dns>,
        workload: &Workload,
        sockets: Arc<dyn SocketFactory>,
    ) -> Result<Self, DnsError> {
        let _runtime = shared.runtime.enter();
        let file = &shared.settings.resolv_conf;
        let server = Arc::new(Server {
            shared: shared.clone(),
            uid: workload.uid.clone(),
            namespace: workload.key.namespace.clone(),
            labels: (workload.canonical.service.clone(), workload.canonical.revision.clone()),
            sockets: sockets.clone(),
            resolvers: Resolvers::of(workload.network_namespace.as_deref(), file),
            questions: Semaphore::new(MAX_QUESTIONS),
            room: shared.rooms.of(&workload.uid),
        });
        let cancel = CancellationToken::new();
        let addresses: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for address in addresses.map(|address| SocketAddr::new(address, ports::DNS)) {
            let bound = sockets
                .datagrams(address)
                .and_then(|udp| Ok((udp, sockets.listen_shared(address)?)));
            let (udp, tcp) = match bound {
                Ok(bound) => bound,
                Err(error) if address.is_ipv6() => {
                    tracing::debug!(workload = %server.uid, %error, "no DNS over IPv6");
                    continue;
                }
                Err(source) => {
                    return Err(DnsError { address, workload: workload.key.to_string(), source });
                }
            };
            server.spawn(&cancel, server.clone().datagrams(udp));
            server.spawn(&cancel, server.clone().connections(tcp, cancel.clone()));
        }
        Ok(Self { cancel })
    }

    /// Stops at once: a successor answers.
    pub fn stop(&self) {
        self.cancel.cancel();
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    fn spawn(&self, cancel: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.runtime.spawn(task.with_cancellation_token_owned(cancel.clone()));
    }

    async fn datagrams(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; usize::from(MAX_PAYLOAD)];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(workload = %self.uid, %error, "DNS");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let (server, socket, query) = (self.clone(), socket.clone(), buffer[..length].to_vec());
            // Bounded: a query beyond the limit of `questions` is answered at once.
            self.shared.runtime.spawn(async move {
                if let Some(answer) = server.answer(&query, Protocol::Udp).await {
                    _ = socket.send_to(&answer, from).await;
                }
            });
        }
    }

    async fn connections(self: Arc<Self>, listener: TcpListener, cancel: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Without memory the connection is closed, and the client retries.
                    let Some(held) = self.room.take(CONVERSATION_BYTES, Need::Place) else {
                        continue;
                    };
                    let server = self.clone();
                    self.spawn(&cancel, async move {
                        server.conversation(stream).await;
                        drop((place, held));
                    });
                }
                Err(error) => {
                    tracing::debug!(workload = %self.uid, %error, "DNS over TCP");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn conversation(&self, mut stream: TcpStream) {
        while let Ok(Ok(query)) = timeout(IDLE, read_framed(&mut stream)).await {
            let Some(answer) = self.answer(&query, Protocol::Tcp).await else { return };
            if write_framed(&mut stream, &answer).await.is_err() {
                return;
            }
        }
    }

    fn resolve(&self, asked: (&str, RecordType, DNSClass)) -> Resolution {
        let world = self.shared.world.load();
        let asker = Asker {
            world: &world,
            namespace: &self.namespace,
            cluster_domain: &self.shared.cluster_domain,
            alone: self.shared.alone,
        };
        resolve(&asker, asked)
    }

    /// `None` for a message that is not a query: answering it would let a sender direct answers elsewhere.
    async fn answer(&self, bytes: &[u8], protocol: Protocol) -> Option<Vec<u8>> {
        let query = Message::from_vec(bytes).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        if query.metadata.op_code != OpCode::Query || query.queries.len() != 1 {
            return encode(&response(&query, ResponseCode::NotImp), &query, protocol);
        }
        let question = query.queries.first()?;
        let (name, kind) = (question.name.to_ascii(), question.query_type);
        let counted = self.shared.telemetry.dns().questions(&DnsLabels {
            namespace: self.namespace.clone(),
            request_query_type: query_type(kind),
            request_protocol: protocol.as_str(),
            source_canonical_service: self.labels.0.clone(),
            source_canonical_revision: self.labels.1.clone(),
        });
        counted.asked();
        let asked = (name.as_str(), kind, question.query_class);
        let resolution = self.resolve(asked);
        let own = matches!(resolution, Resolution::Addresses { .. } | Resolution::Places { .. });
        let by = if own { "mesh" } else { "resolvers" };
        tracing::debug!(target: LOG, workload = %self.uid, name, %kind, answered_by = by, "question");
        if own {
            let answer = of_the_mesh(&query, question.name.clone(), &resolution)?;
            return encode(&answer, &query, protocol);
        }
        let held = self.room.take(QUESTION_BYTES, Need::Place);
        let (Ok(_place), Some(_held)) = (self.questions.try_acquire(), held) else {
            return encode(&response(&query, ResponseCode::ServFail), &query, protocol);
        };
        let started = tokio::time::Instant::now();
        let answered = self.resolvers.ask(self.sockets.as_ref(), protocol, bytes).await;
        counted.passed_on(started.elapsed());
        match answered {
            Ok(answer) if resolution == Resolution::ForwardKnown => {
                Some(existing(answer, &query, protocol)?)
            }
            Ok(answer) => Some(answer),
            Err(error) => {
                counted.failed();
                tracing::debug!(target: LOG, workload = %self.uid, name, %kind, %error, "no resolver answers");
                encode(&response(&query, ResponseCode::ServFail), &query, protocol)
            }
        }
    }
}

/// An answer from the mesh. `None` if the mesh has none, or the name cannot be encoded.
pub(super) fn of_the_mesh(query: &Message, asked: Name, found: &Resolution) -> Option<Message> {
    let (Resolution::Addresses { canonical, .. } | Resolution::Places { canonical, .. }) = found
    else {
        return None;
    };
    let mut answer = response(query, ResponseCode::NoError);
    let mut owner = asked;
    if let Some(canonical) = canonical {
        let canonical = Name::from_ascii(canonical).ok()?;
        let alias = RData::CNAME(CNAME(canonical.clone()));
        answer.add_answer(Record::from_rdata(owner, TTL, alias));
        owner = canonical;
    }
    match found {
        Resolution::Addresses { addresses, .. } => {
            addresses.iter().for_each(|it| _ = answer.add_answer(address(&owner, *it)));
        }
        Resolution::Places { places, .. } => {
            for Place { port, target, addresses } in places {
                let target = Name::from_ascii(target).ok()?;
                let data = RData::SRV(SRV::new(0, WEIGHT, *port, target.clone()));
                answer.add_answer(Record::from_rdata(owner.clone(), TTL, data));
                addresses.iter().for_each(|it| _ = answer.add_additional(address(&target, *it)));
            }
        }
        _ => {}
    }
    Some(answer)
}

fn address(owner: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    };
    Record::from_rdata(owner.clone(), TTL, data)
}

/// NXDOMAIN is wrong for a name that the mesh knows.
pub(super) fn existing(answer: Vec<u8>, query: &Message, protocol: Protocol) -> Option<Vec<u8>> {
    let unknown = Message::from_vec(&answer)
        .is_ok_and(|answer| answer.metadata.response_code == ResponseCode::NXDomain);
    match unknown {
        true => encode(&response(query, ResponseCode::NoError), query, protocol),
        false => Some(answer),
    }
}

pub(super) fn response(query: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.add_queries(query.queries.iter().cloned());
    if let Some(edns) = &query.edns {
        let mut own = hickory_proto::op::Edns::new();
        own.set_max_payload(MAX_PAYLOAD);
        own.set_dnssec_ok(edns.flags().dnssec_ok);
        answer.set_edns(own);
    }
    answer
}

/// Truncates an answer that exceeds the client's UDP size, and sets TC: the client retries over TCP.
pub(super) fn encode(answer: &Message, query: &Message, protocol: Protocol) -> Option<Vec<u8>> {
    let limit = match (protocol, &query.edns) {
        (Protocol::Tcp, _) => u16::MAX,
        (Protocol::Udp, None) => PLAIN_PAYLOAD,
        (Protocol::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_PAYLOAD, MAX_PAYLOAD),
    };
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= usize::from(limit) {
        return Some(bytes);
    }
    let mut short = answer.truncate();
    short.metadata.message_type = MessageType::Response;
    short.to_vec().ok()
}
