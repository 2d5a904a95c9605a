//! A connection of a local client to a service with a waypoint: what it speaks, and its requests.

use std::sync::Arc;

use http::{Request, Response};
use tokio_util::future::FutureExt;

use super::session::Session;
use super::{bytes, labels, request};
use crate::l7::budget::seats::Seated;
use crate::l7::exchange::ResponseBody;
use crate::l7::message::body::RequestBody;
use crate::l7::message::refused::Refused;
use crate::l7::worker::context::Context;
use crate::l7::worker::serve::{self, Carries, Handler};
use crate::model::AppProtocol;
use crate::tunnel::RoutedConnection;

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
    seat.share().turn().await;
    let start = labels::routed(
        &connection,
        &context.dependencies.world.load(),
        &context.dependencies.cluster,
    );
    let (stream, session) = Session::new(context.clone(), *connection, &start, seat);
    let wait = match session.said {
        AppProtocol::Detect | AppProtocol::Tcp => context.dependencies.settings.detect_timeout,
        AppProtocol::Http | AppProtocol::Http2 => {
            session.seat.head_begins();
            context.dependencies.settings.head_timeout
        }
    };
    let begun = serve::begin(&context, &session.seat, stream, session.said, wait).await;
    let telemetry = &context.dependencies.telemetry;
    match begun {
        Some(Ok(Carries::Http(version, stream, _buffers))) => {
            session.open.get_or_init(|| telemetry.http_connection(start));
            let seat = session.seat.clone();
            serve::serve(&context, stream, version, &seat, session).await;
        }
        Some(Ok(Carries::Bytes(stream))) => bytes::carry(&session, stream).await,
        Some(Err((reason, why))) => telemetry.refused(start, reason, &why),
        None => {}
    }
}

impl Handler for Session {
    async fn handle(self: Arc<Self>, request: Request<RequestBody>) -> Response<ResponseBody> {
        request::route(self, request).await
    }

    fn refused(&self, refused: Refused) {
        drop(refused.record(&self.context.dependencies.telemetry, self.request_start()));
    }

    fn most_fields(&self) -> usize {
        self.context.dependencies.settings.max_headers
    }
}
