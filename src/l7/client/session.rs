//! What the requests of one connection of a local client share.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};

use crate::base::{ObjectKey, Reason, Str};
use crate::l7::budget::seats::Seated;
use crate::l7::exchange::answer::Answer;
use crate::l7::message::headers;
use crate::l7::version::Version;
use crate::l7::worker::authorizer::Authorizer;
use crate::l7::worker::context::Context;
use crate::model::{AppProtocol, Resolution, Service, Workload};
use crate::reach::Downstream;
use crate::sock::SocketFactory;
use crate::telemetry::{ConnectionStart, HttpConnection, Peer, RequestStart, ServiceLabels};
use crate::tunnel::{Carrier, Place, RoutedConnection};

/// One connection of a client, shared by its requests.
pub(in crate::l7) struct Session {
    pub(in crate::l7) context: Arc<Context>,
    pub(in crate::l7) client: Arc<Workload>,
    pub(in crate::l7) client_address: SocketAddr,
    pub(in crate::l7) dialled: SocketAddr,
    /// The addressed service; looked up anew for each request.
    pub(in crate::l7) service: ObjectKey,
    /// What the addressed port is said to speak.
    pub(in crate::l7) said: AppProtocol,
    pub(in crate::l7) source: Arc<Peer>,
    pub(in crate::l7) labels: Arc<ServiceLabels>,
    sockets: Arc<dyn SocketFactory>,
    /// Once it is known to carry HTTP.
    pub(in crate::l7) open: OnceLock<HttpConnection>,
    /// The connection's places in the worker's and the workload's budgets, given back with its last request.
    pub(in crate::l7) seat: Seated,
    _place: Place,
}

impl Session {
    pub(in crate::l7) fn new(
        context: Arc<Context>,
        connection: RoutedConnection,
        start: &ConnectionStart,
        seat: Seated,
    ) -> (Carrier, Arc<Self>) {
        let said = connection.service.port(connection.dialled.port()).map(|port| port.protocol);
        let session = Self {
            source: Arc::new(start.source.clone()),
            labels: Arc::new(start.service.clone()),
            client: connection.client,
            client_address: connection.client_address,
            dialled: connection.dialled,
            service: connection.service.key.clone(),
            said: said.unwrap_or_default(),
            sockets: connection.sockets,
            open: OnceLock::new(),
            seat,
            _place: connection.place,
            context,
        };
        (Carrier::Tcp(connection.stream), Arc::new(session))
    }

    /// The client, as endpoints are reached on its behalf.
    pub(in crate::l7) fn downstream(&self) -> Downstream<'_> {
        let (client, address) = (&self.client, self.client_address);
        Downstream { client, address, sockets: &self.sockets, server_name: None }
    }

    /// Asks providers on behalf of the client, where no destination does.
    pub(in crate::l7) fn authorizer(&self) -> Authorizer<'_> {
        Authorizer {
            context: &self.context,
            from: self.downstream(),
            client: Some(&self.client.identity),
            client_address: self.client_address,
            server: None,
            server_address: self.dialled,
            share: self.seat.share(),
            checks: 0,
        }
    }

    /// The service with the addresses of its endpoints. `host`: that of the request, which says what a wildcard means.
    pub(in crate::l7) async fn resolve(
        &self,
        service: &Arc<Service>,
        host: &str,
    ) -> Result<Arc<Service>, Answer> {
        let (reach, from) = (&self.context.reach, self.downstream());
        let resolved = match service.resolution {
            // Boxed, because few services are wildcards.
            Resolution::Dynamic => {
                let claim = Some(headers::name_of(host));
                Box::pin(reach.resolve_named(&from, service, claim)).await
            }
            _ => reach.resolve(&from, service).await,
        };
        resolved.map_err(|failure| match failure.reason {
            Reason::DnsFailure => Answer::dns_failure(failure.why),
            Reason::NoRoute => Answer::no_backend(StatusCode::SERVICE_UNAVAILABLE, failure.why),
            _ => Answer::no_healthy_upstream(failure.why),
        })
    }

    /// The record of a request, but for the request. An answer of our own goes to a client whose identity is known.
    pub(in crate::l7) fn request_start(&self) -> RequestStart {
        RequestStart {
            count: true,
            outbound: true,
            source: self.source.clone(),
            service: self.labels.clone(),
            mutual_tls: true,
            source_address: self.client_address,
            method: Method::default(),
            path: Str::default(),
            authority: Str::default(),
            protocol: "",
            grpc: false,
            waypoint_principal: None,
            policy: None,
            connection: self.open.get().cloned(),
        }
    }

    /// What the backend's port is said to speak; where nothing is said, what the addressed port is said to; and
    /// otherwise what the client speaks.
    pub(in crate::l7) fn upstream_version(
        &self,
        downstream: Version,
        said: AppProtocol,
    ) -> Version {
        match said {
            AppProtocol::Http2 => Version::Http2,
            AppProtocol::Detect if self.said == AppProtocol::Http2 => Version::Http2,
            _ => downstream,
        }
    }
}
