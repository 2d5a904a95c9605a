//! The destination's half: a connection to a local workload whose requests are authorized one by one.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio_util::future::FutureExt;

use super::body::ResponseBody;
use super::detect::{self, Version};
use super::guard::{Arrival, Gates};
use super::kept::KeptGates;
use super::outbound::{self, REQUEST_BUDGET};
use super::refused::Refused;
use super::seat::Order;
use super::seats::Seated;
use super::server::{self, Handler};
use super::upstream::{Lease, Sender, Shelf, UpstreamError};
use super::worker::Context;
use super::{deliver, headers, opaque, peers};
use crate::base::{Reason, Str, within_budget};
use crate::model::AppProtocol;
use crate::policy::{Denial, Permit};
use crate::reach::{self, Failure, cut_after_a_change};
use crate::sock::{Rewind, SocketFactory};
use crate::telemetry::{ConnectionStart, HttpConnection, Peer, ServiceLabels};
use crate::tunnel::{Carrier, Cut, GuardedConnection, Place};
use crate::world::{JudgementChanges, World};

/// One inbound connection, shared by its requests.
pub(super) struct Inbound {
    pub(super) context: Arc<Context>,
    pub(super) arrival: Arrival,
    gates: KeptGates,
    pub(super) source: Arc<Peer>,
    pub(super) destination: Arc<Peer>,
    pub(super) service: Arc<ServiceLabels>,
    borrow: Option<IpAddr>,
    sockets: Arc<dyn SocketFactory>,
    cut: Cut,
    /// The connection to the application: this client's alone, because it may carry the client's address.
    application: OnceLock<Arc<Shelf>>,
    /// Once it is known to carry HTTP.
    pub(super) open: OnceLock<HttpConnection>,
    /// The connection's places in the worker's and the workload's budgets, given back with its last request.
    pub(super) seat: Seated,
    _place: Place,
}

/// Serves a connection to its end.
pub(super) async fn serve(context: Arc<Context>, connection: Box<GuardedConnection>, seat: Seated) {
    let cut = connection.cut.clone();
    let (stream, session) = Inbound::new(context, *connection, seat);
    let token = cut.token().clone();
    session.serve(stream).with_cancellation_token_owned(token).await;
}

impl Handler for Inbound {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<ResponseBody> {
        within_budget::<REQUEST_BUDGET, _>(deliver::deliver(self, request)).await
    }

    fn refused(&self, refused: Refused) {
        let routed = self.gates(&self.context.dependencies.world.load()).was_routed();
        let start = self.request_start(routed, None);
        let mut record = refused.record(&self.context.dependencies.telemetry, start);
        record.destination(self.destination.clone(), self.arrival.destination);
    }

    /// What the client's half let in is not refused for what that half has added.
    fn most_fields(&self) -> usize {
        let most = self.context.dependencies.settings.max_headers;
        match self.gates(&self.context.dependencies.world.load()).was_routed() {
            true => most + headers::ADDED,
            false => most,
        }
    }
}

impl Inbound {
    fn new(
        context: Arc<Context>,
        connection: GuardedConnection,
        seat: Seated,
    ) -> (Carrier, Arc<Self>) {
        let arrival = Arrival::of(&connection);
        let world = context.dependencies.world.snapshot();
        let start = peers::arrived(&arrival, &world, &context.dependencies.cluster);
        let session = Self {
            gates: context.arrivals.gates(&arrival.workload.uid),
            source: Arc::new(start.source),
            destination: Arc::new(start.destination),
            service: Arc::new(start.service),
            borrow: connection.borrow,
            sockets: connection.sockets,
            cut: connection.cut,
            application: OnceLock::new(),
            open: OnceLock::new(),
            seat,
            _place: connection.place,
            arrival,
            context,
        };
        (connection.stream, Arc::new(session))
    }

    async fn serve(self: &Arc<Self>, stream: Carrier) {
        let (said, wait) = self.expectation();
        let detecting = async { detect::detect(outbound::adopt(stream)?, said, wait).await };
        // A client that has said nothing yet loses nothing by leaving.
        let detected = tokio::select! {
            detected = detecting => detected,
            () = self.context.drain.cancelled() => return,
            () = self.seat.told(Order::Leave) => return,
        };
        match detected {
            Ok((Some(version), stream)) => {
                let _buffers = match self.context.buffers(self.seat.share(), version) {
                    Ok(buffers) => buffers,
                    Err(why) => return self.refuse(Reason::Overflow, &why),
                };
                self.seat.head_begins();
                let telemetry = &self.context.dependencies.telemetry;
                self.open.get_or_init(|| telemetry.http_connection(self.start()));
                server::serve(&self.context, stream, version, &self.seat, self.clone()).await;
            }
            Ok((None, stream)) => self.carry(stream).await,
            Err(error) => {
                let why = format!("the client broke off before it said anything: {error}");
                self.refuse(Reason::PeerReset, &why);
            }
        }
    }

    /// What the port is said to speak, and how long the client may stay silent. Where bytes would be refused, a server
    /// cannot speak first either, so waiting on for a request costs nobody anything.
    fn expectation(&self) -> (AppProtocol, Duration) {
        let gates = self.gates(&self.context.dependencies.world.load());
        let said = gates.protocol();
        let http = matches!(said, AppProtocol::Http | AppProtocol::Http2);
        if http || gates.authorize_bytes(&self.arrival).is_err() {
            self.seat.head_begins();
            return (said, self.context.dependencies.settings.head_timeout);
        }
        (said, self.context.dependencies.settings.detect_timeout)
    }

    /// What this world, the present one, demands of the connection.
    pub(super) fn gates(&self, world: &World) -> Arc<Gates> {
        self.gates.of(&self.context.dependencies.world, world, &self.arrival)
    }

    /// The connection to the application; made anew when the application has closed it.
    pub(super) async fn lease(&self, version: Version) -> Result<Lease, UpstreamError> {
        let address = self.arrival.destination;
        let shelf = self.application.get_or_init(|| Arc::new(Shelf::new(version)));
        let dial = || async {
            let connected = self.connect_application().await;
            let stream = connected.map_err(|error| Failure::connect(address, error))?;
            let share = self.seat.share();
            Sender::connect(&self.context, share, version, Carrier::Tcp(stream), address).await
        };
        shelf.lease(dial).await
    }

    /// Connects to the application, with the client's address where the kernel lets us.
    fn connect_application(&self) -> impl Future<Output = io::Result<TcpStream>> {
        let timeout = self.context.dependencies.connect_timeout;
        let (sockets, to) = (self.sockets.as_ref(), self.arrival.destination);
        reach::connect_application(sockets, to, self.borrow, timeout)
    }

    /// Waits for the workload to leave, or for one of the `changes` after which `permitted` refuses.
    pub(super) async fn until_cut(
        &self,
        mut changes: JudgementChanges,
        permitted: impl Fn(&World, &Gates) -> Result<Permit, Denial>,
    ) -> (Reason, String) {
        let store = &self.context.dependencies.world;
        let denied = async {
            loop {
                let judged = {
                    let world = store.load();
                    permitted(&world, &self.gates(&world))
                };
                if let Err(denial) = judged {
                    return denial;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            denial = denied => (Reason::Denied, cut_after_a_change(&denial.why)),
            () = self.cut.token().cancelled() => {
                let (reason, why) = self.cut.reason();
                (reason, why.to_owned())
            }
        }
    }

    /// Tells when a request that was permitted for as long as it lasts must be judged anew, which routes have a say in: by what
    /// the workload's own namespace says, and where a service of another one was addressed, which restricts its own
    /// traffic, by anything.
    pub(super) fn changes(&self) -> JudgementChanges {
        let store = &self.context.dependencies.world;
        let gates = self.gates(&store.load());
        let workload = &self.arrival.workload;
        match gates.service() {
            Some(service) if service.key.namespace != workload.key.namespace => store.subscribe(),
            _ => store.judgement_changes(&workload.uid),
        }
    }

    /// Bytes that are not HTTP: authorized at layer 4, and again after changes that concern it.
    async fn carry(&self, stream: Rewind<Carrier>) {
        let _busy = self.seat.carries_bytes();
        let gates = self.gates(&self.context.dependencies.world.load());
        let permit = match gates.authorize_bytes(&self.arrival) {
            Ok(permit) => permit,
            Err(denial) => {
                let start = ConnectionStart { notes: denial.notes, ..self.start() };
                let telemetry = &self.context.dependencies.telemetry;
                return telemetry.refused(start, Reason::Denied, &denial.why);
            }
        };
        let application = match self.connect_application().await {
            Ok(application) => application,
            Err(error) => {
                let to = self.arrival.destination;
                let why = format!("connect to the application at {to}: {error}");
                return self.refuse(Reason::ConnectFailure, &why);
            }
        };
        let start = ConnectionStart {
            waypoint_principal: principal(&permit),
            policy: permit.policy,
            notes: permit.notes,
            ..self.start()
        };
        let mut record = self.context.dependencies.telemetry.connection(start);
        let (reason, why) = tokio::select! {
            copied = opaque::copy(stream, Carrier::Tcp(application), &record) => {
                return opaque::finish(copied, &mut record);
            }
            cut = self.until_cut(self.gates.changes(&self.arrival), |_, gates| {
                gates.authorize_bytes(&self.arrival)
            }) => cut,
        };
        record.fail(reason, why);
    }

    fn start(&self) -> ConnectionStart {
        let world = self.context.dependencies.world.load();
        peers::arrived(&self.arrival, &world, &self.context.dependencies.cluster)
    }

    fn refuse(&self, reason: Reason, why: &str) {
        self.context.dependencies.telemetry.refused(self.start(), reason, why);
    }
}

/// The waypoint whose policies were passed, for the log.
pub(super) fn principal(permit: &Permit) -> Option<Str> {
    permit.waypoint.as_ref().map(|waypoint| Str::from(waypoint.to_string()))
}
