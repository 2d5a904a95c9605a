//! What the connections and requests of one worker share.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Response;
use tokio_util::sync::CancellationToken;

use super::circuit::Circuits;
use super::labels::Labels;
use crate::base::{Reason, Str};
use crate::l7::Dependencies;
use crate::l7::budget::buffers::Buffers;
use crate::l7::budget::seats::Seats;
use crate::l7::budget::{Full, Reserved, Scope, Share};
use crate::l7::exchange::answer::Answer;
use crate::l7::exchange::arrived::Limits;
use crate::l7::message::connection_error::ConnectionError;
use crate::l7::message::framing;
use crate::l7::tasks::Tasks;
use crate::l7::upstream::{Sender, UpstreamError, Upstreams};
use crate::l7::version::Version;
use crate::reach::Reach;
use crate::traffic::PerConnection;
use crate::tunnel::Carrier;

/// What the tasks of one worker share.
pub(in crate::l7) struct Context {
    pub(in crate::l7) dependencies: Dependencies,
    pub(in crate::l7) tasks: Arc<Tasks>,
    pub(in crate::l7) seats: Arc<Seats>,
    pub(in crate::l7) upstreams: Upstreams,
    pub(in crate::l7) labels: Labels,
    /// Of the providers of external authorization.
    pub(in crate::l7) authorizers: Circuits,
    /// The way to endpoints.
    pub(in crate::l7) reach: Reach,
    pub(in crate::l7) drain: CancellationToken,
}

impl Context {
    pub(in crate::l7) fn new(namespace: Str, dependencies: Dependencies) -> Self {
        Self {
            tasks: Tasks::new(namespace),
            seats: Seats::new(&dependencies.settings, dependencies.telemetry.clone()),
            upstreams: Upstreams::default(),
            labels: Labels::new(dependencies.cluster.clone()),
            authorizers: Circuits::default(),
            reach: dependencies.reach(),
            drain: CancellationToken::new(),
            dependencies,
        }
    }

    pub(in crate::l7) fn namespace(&self) -> &Str {
        &self.tasks.namespace
    }

    /// What a request may have, with so many fields in its head.
    pub(in crate::l7) fn limits(&self, fields: usize) -> Limits<'_> {
        Limits { fields, upgrades: &self.dependencies.settings.upgrades }
    }

    /// What a connection may buffer, of either side, or why it cannot have it. Then others that rest give way.
    pub(in crate::l7) fn buffers(
        &self,
        share: &Arc<Share>,
        version: Version,
    ) -> Result<Reserved, String> {
        let reserved = share.connection(version).or_else(|full| {
            self.make_room(share, full);
            share.connection(version)
        });
        reserved.map_err(|full| share.why(full))
    }

    /// Sets up HTTP on a stream to `address`, for a client that has this share.
    pub(in crate::l7) async fn connect(
        &self,
        share: &Arc<Share>,
        version: Version,
        stream: Carrier,
        address: SocketAddr,
    ) -> Result<Sender, UpstreamError> {
        let limits = PerConnection::default();
        self.connect_under(limits, share, version, stream, address).await
    }

    /// The same, under what a policy says of connections.
    pub(in crate::l7) async fn connect_under(
        &self,
        limits: PerConnection,
        share: &Arc<Share>,
        version: Version,
        stream: Carrier,
        address: SocketAddr,
    ) -> Result<Sender, UpstreamError> {
        let reserved = self.buffers(share, version).map_err(UpstreamError::Overflow)?;
        let buffers = Buffers::new(share.clone(), reserved);
        let most_fields = self.dependencies.settings.max_headers;
        Sender::connect(&self.tasks, most_fields, buffers, version, stream, address, limits).await
    }

    /// Why a response cannot be passed on.
    pub(in crate::l7) fn check_response<B>(&self, response: &Response<B>) -> Result<(), String> {
        framing::check_response(response, self.dependencies.settings.max_headers)
    }

    /// The answer where a request got no response from `address`: it left, or what it sent is none.
    pub(in crate::l7) fn broken(&self, address: SocketAddr, error: &ConnectionError) -> Answer {
        if !error.breaks_rules() {
            return Answer::unreachable(Reason::PeerReset, format!("{address}: {error}"));
        }
        let found = error.told(self.dependencies.settings.max_headers);
        Answer::bad_gateway(format!("{address}: the application's response: {found}"))
    }

    /// Has what rests give way: the client's own connections to applications at once, all of them when there is nothing
    /// left for anybody, and a connection of a client's.
    fn make_room(&self, share: &Arc<Share>, full: Full) {
        if share.may_make_room() {
            let client = (full.scope == Scope::Client).then_some(&share.client);
            if self.upstreams.make_room(client) == 0 {
                share.has_no_room();
            }
            self.seats.make_room(share, full);
        }
    }
}
