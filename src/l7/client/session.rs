//! The client's half: a connection of a local client to a service with a waypoint.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio_util::future::FutureExt;

use super::{bytes, request};
use crate::base::{ObjectKey, Reason, Str, within_budget};
use crate::l7::budget::seat::Order;
use crate::l7::budget::seats::Seated;
use crate::l7::exchange::answer::Answer;
use crate::l7::exchange::response::ResponseBody;
use crate::l7::message::detect::{self, Version};
use crate::l7::message::refused::Refused;
use crate::l7::worker::serve::{self, Handler};
use crate::l7::worker::{Context, labels};
use crate::model::{AppProtocol, Service, Workload};
use crate::reach::Downstream;
use crate::sock::SocketFactory;
use crate::telemetry::{HttpConnection, Peer, RequestStart, ServiceLabels};
use crate::tunnel::{Carrier, Place, RoutedConnection};

/// What the future of a request in flight may take, in bytes: twice what it does take, to notice when that grows.
pub(in crate::l7) const REQUEST_BUDGET: usize = 8 * 1024;

/// One connection of a client, shared by its requests.
pub(in crate::l7) struct Outbound {
    pub(in crate::l7) context: Arc<Context>,
    pub(in crate::l7) client: Arc<Workload>,
    pub(in crate::l7) client_address: SocketAddr,
    pub(in crate::l7) dialled: SocketAddr,
    /// The addressed service; looked up anew for each request.
    pub(in crate::l7) service: ObjectKey,
    /// The addressed port is said to speak HTTP/2.
    pub(in crate::l7) speaks_http2: bool,
    pub(in crate::l7) source: Arc<Peer>,
    pub(in crate::l7) labels: Arc<ServiceLabels>,
    sockets: Arc<dyn SocketFactory>,
    /// Once it is known to carry HTTP.
    open: OnceLock<HttpConnection>,
    /// The connection's places in the worker's and the workload's budgets, given back with its last request.
    pub(in crate::l7) seat: Seated,
    _place: Place,
}

/// Serves a connection to its end, or until its workload has left.
pub(in crate::l7) async fn serve(
    context: Arc<Context>,
    connection: Box<RoutedConnection>,
    seat: Seated,
) {
    let cancel = connection.cancel.clone();
    serve_session(context, connection, seat).with_cancellation_token_owned(cancel).await;
}

async fn serve_session(context: Arc<Context>, connection: Box<RoutedConnection>, seat: Seated) {
    let start = labels::routed(&connection, &context.dependencies.cluster);
    let said = connection.service.port(connection.dialled.port()).map(|port| port.protocol);
    let said = said.unwrap_or_default();
    let connection = *connection;
    let session = Arc::new(Outbound {
        source: Arc::new(start.source.clone()),
        labels: Arc::new(start.service.clone()),
        client: connection.client,
        client_address: connection.client_address,
        dialled: connection.dialled,
        service: connection.service.key.clone(),
        speaks_http2: said == AppProtocol::Http2,
        sockets: connection.sockets,
        open: OnceLock::new(),
        seat,
        _place: connection.place,
        context: context.clone(),
    });
    let wait = match said {
        AppProtocol::Detect | AppProtocol::Tcp => context.dependencies.settings.detect_timeout,
        AppProtocol::Http | AppProtocol::Http2 => {
            session.seat.head_begins();
            context.dependencies.settings.head_timeout
        }
    };
    let stream = Carrier::Tcp(connection.stream);
    let detected = async { detect::detect(adopt(stream)?, said, wait).await };
    // A client that has said nothing yet loses nothing by leaving.
    let detected = tokio::select! {
        detected = detected => detected,
        () = context.drain.cancelled() => return,
        () = session.seat.told(Order::Leave) => return,
    };
    let telemetry = &context.dependencies.telemetry;
    let refuse = |reason, why: &str| telemetry.refused(start.clone(), reason, why);
    let (version, stream) = match detected {
        Ok((Some(version), stream)) => (version, stream),
        Ok((None, stream)) => return bytes::carry(&session, stream).await,
        Err(error) => {
            let why = format!("the client broke off before it said anything: {error}");
            return refuse(Reason::PeerReset, &why);
        }
    };
    let _buffers = match context.buffers(session.seat.share(), version) {
        Ok(buffers) => buffers,
        Err(why) => return refuse(Reason::Overflow, &why),
    };
    session.seat.head_begins();
    session.open.get_or_init(|| telemetry.http_connection(start));
    let seat = session.seat.clone();
    server::serve(&context, stream, version, &seat, session).await;
}

/// Takes the stream from the runtime of layer 4 to the worker's own, so that its events wake nobody else.
pub(in crate::l7) fn adopt(stream: Carrier) -> std::io::Result<Carrier> {
    Ok(match stream {
        Carrier::Tcp(stream) => Carrier::Tcp(TcpStream::from_std(stream.into_std()?)?),
        // Its events come from its tunnel, which stays where it is.
        Carrier::Hbone(stream) => Carrier::Hbone(stream),
        // Its events come from its other end.
        Carrier::Local(stream) => Carrier::Local(stream),
        // It is no client's.
        Carrier::Joined(stream) => Carrier::Joined(stream),
    })
}

impl Handler for Outbound {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<ResponseBody> {
        within_budget::<REQUEST_BUDGET, _>(request::route(self, request)).await
    }

    fn refused(&self, refused: Refused) {
        drop(refused.record(&self.context.dependencies.telemetry, self.request_start()));
    }

    fn most_fields(&self) -> usize {
        self.context.dependencies.settings.max_headers
    }
}

impl Outbound {
    /// The client, as endpoints are reached on its behalf.
    pub(in crate::l7) fn downstream(&self) -> Downstream<'_> {
        Downstream { client: &self.client, address: self.client_address, sockets: &self.sockets }
    }

    /// The service with the addresses of its endpoints.
    pub(in crate::l7) async fn resolve(
        &self,
        service: &Arc<Service>,
    ) -> Result<Arc<Service>, Answer> {
        let resolved = self.context.reach.resolve(&self.downstream(), service).await;
        resolved.map_err(|failure| Answer::no_healthy_upstream(failure.why))
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
            AppProtocol::Detect if self.speaks_http2 => Version::Http2,
            _ => downstream,
        }
    }
}
