//! A connection to a local workload whose requests are authorized one by one: what it speaks, and its requests or bytes.

use std::sync::Arc;

use http::{Request, Response};
use tokio_util::future::FutureExt;

use super::kept::Arrivals;
use super::request;
use super::session::{self, Session};
use crate::base::{Reason, Str};
use crate::l7::budget::seats::Seated;
use crate::l7::exchange::ResponseBody;
use crate::l7::message::body::RequestBody;
use crate::l7::message::refused::Refused;
use crate::l7::message::{copy, headers};
use crate::l7::worker::context::Context;
use crate::l7::worker::serve::{self, Carries, Handler};
use crate::sock::Rewind;
use crate::telemetry::ConnectionStart;
use crate::tunnel::{Carrier, GuardedConnection};

/// Serves a connection to its end. `arrivals`: what the worker knows of the connections to workloads.
pub(in crate::l7) async fn serve(
    context: Arc<Context>,
    arrivals: Arc<Arrivals>,
    connection: Box<GuardedConnection>,
    seat: Seated,
) {
    let token = connection.cut.token().clone();
    let (stream, session) = Session::new(context, &arrivals, *connection, seat);
    serve_session(session, stream).with_cancellation_token_owned(token).await;
}

async fn serve_session(session: Arc<Session>, stream: Carrier) {
    session.seat.share().turn().await;
    let (said, wait) = session.expectation();
    match serve::begin(&session.context, &session.seat, stream, said, wait).await {
        Some(Ok(Carries::Http(version, stream, _buffers))) => {
            let telemetry = &session.context.dependencies.telemetry;
            session.open.get_or_init(|| telemetry.http_connection(session.start()));
            serve::serve(&session.context, stream, version, &session.seat, session.clone()).await;
        }
        Some(Ok(Carries::Bytes(stream))) => carry(&session, stream).await,
        Some(Err((reason, why))) => session.refuse(reason, &why),
        None => {}
    }
}

impl Handler for Session {
    async fn handle(self: Arc<Self>, request: Request<RequestBody>) -> Response<ResponseBody> {
        request::deliver(self, request).await
    }

    fn refused(&self, refused: Refused) {
        let routed = self.gates(&self.context.dependencies.world.load()).was_routed();
        let start = self.request_start(routed, None);
        let mut record = refused.record(&self.context.dependencies.telemetry, start);
        record.destination(self.destination.clone(), self.inbound.destination);
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

/// Bytes that are not HTTP: authorized at layer 4, and again after changes that concern it.
async fn carry(session: &Session, mut stream: Rewind<Carrier>) {
    let _busy = session.seat.carries_bytes();
    let gates = session.gates(&session.context.dependencies.world.load());
    let mut server_name = None;
    let mut authorized = gates.authorize_bytes(&session.inbound, None);
    if authorized.as_ref().is_err_and(|denial| denial.unread) {
        match Box::pin(serve::server_name(&session.context, &mut stream)).await {
            Ok(name) => {
                authorized = gates.authorize_bytes(&session.inbound, Some(&name));
                server_name = Some(name);
            }
            Err((reason, why)) => return session.refuse(reason, &why),
        }
    }
    let server_name = server_name.as_deref();
    let permit = match authorized {
        Ok(permit) => permit,
        Err(denial) => {
            let start =
                ConnectionStart { policy: denial.policy, notes: denial.notes, ..session.start() };
            let telemetry = &session.context.dependencies.telemetry;
            return telemetry.refused(start, Reason::Denied, &denial.why);
        }
    };
    let application = match session.connect_application().await {
        Ok(application) => application,
        Err(error) => {
            let to = session.inbound.destination;
            let why = format!("connect to the application at {to}: {error}");
            return session.refuse(Reason::ConnectFailure, &why);
        }
    };
    let start = ConnectionStart {
        waypoint_principal: session::principal(&permit),
        policy: permit.policy,
        notes: permit.notes,
        server_name: server_name.filter(|name| !name.is_empty()).map(Str::from),
        ..session.start()
    };
    let mut record = session.context.dependencies.telemetry.connection(start);
    let (reason, why) = tokio::select! {
        copied = copy::copy(stream, Carrier::Tcp(application), &record) => {
            return copy::finish(copied, &mut record);
        }
        cut = session.until_cut(session.gates.changes(&session.inbound), |_, gates| {
            gates.authorize_bytes(&session.inbound, server_name)
        }) => cut,
    };
    record.fail(reason, why);
}
