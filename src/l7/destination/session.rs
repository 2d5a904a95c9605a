//! What the requests of one connection to a local workload share.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpStream;

use super::gates::{Gates, Inbound};
use super::kept::{Arrivals, KeptGates};
use super::labels;
use crate::base::{Reason, Str};
use crate::gate::Permit;
use crate::l7::budget::seats::Seated;
use crate::l7::upstream::{Lease, Shelf, UpstreamError};
use crate::l7::version::Version;
use crate::l7::worker::context::Context;
use crate::model::AppProtocol;
use crate::policy::Denial;
use crate::reach::{self, Downstream, Failure, cut_after_a_change};
use crate::sock::SocketFactory;
use crate::telemetry::{ConnectionStart, HttpConnection, Peer, ServiceLabels};
use crate::tunnel::{Carrier, Cut, GuardedConnection, Place};
use crate::world::{JudgementChanges, World};

/// One inbound connection, shared by its requests.
pub(in crate::l7) struct Session {
    pub(in crate::l7) context: Arc<Context>,
    pub(in crate::l7) inbound: Inbound,
    pub(in crate::l7) gates: KeptGates,
    pub(in crate::l7) source: Arc<Peer>,
    pub(in crate::l7) destination: Arc<Peer>,
    pub(in crate::l7) service: Arc<ServiceLabels>,
    borrow: Option<IpAddr>,
    sockets: Arc<dyn SocketFactory>,
    cut: Cut,
    /// The connection to the application: this client's alone, because it may carry the client's address.
    application: OnceLock<Arc<Shelf>>,
    /// Once it is known to carry HTTP.
    pub(in crate::l7) open: OnceLock<HttpConnection>,
    /// The connection's places in the worker's and the workload's budgets, given back with its last request.
    pub(in crate::l7) seat: Seated,
    _place: Place,
}

impl Session {
    pub(in crate::l7) fn new(
        context: Arc<Context>,
        arrivals: &Arrivals,
        connection: GuardedConnection,
        seat: Seated,
    ) -> (Carrier, Arc<Self>) {
        let inbound = Inbound::of(&connection);
        let world = context.dependencies.world.snapshot();
        let start = labels::arrived(&inbound, &world, &context.dependencies.cluster);
        let session = Self {
            gates: arrivals.gates(&inbound.workload.uid),
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
            inbound,
            context,
        };
        (connection.stream, Arc::new(session))
    }

    /// What the port is said to speak, and how long the client may stay silent. Where bytes would be refused, a server
    /// cannot speak first either, so waiting on for a request costs nobody anything.
    pub(in crate::l7) fn expectation(&self) -> (AppProtocol, Duration) {
        let gates = self.gates(&self.context.dependencies.world.load());
        let said = gates.protocol();
        let http = matches!(said, AppProtocol::Http | AppProtocol::Http2);
        if http || gates.authorize_bytes(&self.inbound, None).is_err() {
            self.seat.head_begins();
            return (said, self.context.dependencies.settings.head_timeout);
        }
        (said, self.context.dependencies.settings.detect_timeout)
    }

    /// What this world, the present one, demands of the connection.
    pub(in crate::l7) fn gates(&self, world: &World) -> Arc<Gates> {
        self.gates.of(&self.context.dependencies.world, world, &self.inbound)
    }

    /// The connection to the application; made anew when the application has closed it.
    pub(in crate::l7) async fn lease(&self, version: Version) -> Result<Lease, UpstreamError> {
        let address = self.inbound.destination;
        let shelf = self.application.get_or_init(|| Arc::new(Shelf::new(version)));
        let dial = || async {
            let connected = self.connect_application().await;
            let stream = connected.map_err(|error| Failure::connect(address, error))?;
            let share = self.seat.share();
            self.context.connect(share, version, Carrier::Tcp(stream), address).await
        };
        shelf.lease(dial).await
    }

    /// The workload, as it reaches others.
    pub(in crate::l7) fn as_client(&self) -> Downstream<'_> {
        let address = SocketAddr::new(self.inbound.destination.ip(), 0);
        let client = &self.inbound.workload;
        Downstream { client, address, sockets: &self.sockets, server_name: None }
    }

    /// Connects to the application, with the client's address where the kernel lets us.
    pub(in crate::l7) fn connect_application(&self) -> impl Future<Output = io::Result<TcpStream>> {
        let timeout = self.context.dependencies.connect_timeout;
        let (sockets, to) = (self.sockets.as_ref(), self.inbound.destination);
        reach::connect_application(sockets, to, self.borrow, timeout)
    }

    /// Waits for the workload to leave, or for one of the `changes` after which `permitted` refuses.
    pub(in crate::l7) async fn until_cut(
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
    pub(in crate::l7) fn changes(&self) -> JudgementChanges {
        let store = &self.context.dependencies.world;
        let gates = self.gates(&store.load());
        let workload = &self.inbound.workload;
        match gates.service() {
            Some(service) if service.key.namespace != workload.key.namespace => store.subscribe(),
            _ => store.judgement_changes(&workload.uid),
        }
    }

    pub(in crate::l7) fn start(&self) -> ConnectionStart {
        let world = self.context.dependencies.world.load();
        labels::arrived(&self.inbound, &world, &self.context.dependencies.cluster)
    }

    pub(in crate::l7) fn refuse(&self, reason: Reason, why: &str) {
        self.context.dependencies.telemetry.refused(self.start(), reason, why);
    }
}

/// The waypoint whose policies were passed, for the log.
pub(in crate::l7) fn principal(permit: &Permit) -> Option<Str> {
    permit.waypoint.as_ref().map(|waypoint| Str::from(waypoint.to_string()))
}
