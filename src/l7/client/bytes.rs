//! Connections that turned out not to be HTTP: carried as bytes, as layer 4 would, by either half.

use super::session::Session;
use crate::balance::Picked;
use crate::base::Str;
use crate::l7::message::copy;
use crate::l7::worker::serve;
use crate::reach::{self, Ask, Asked, Reached, Unreached, cut_after_a_change};
use crate::sock::Rewind;
use crate::telemetry::{ConnectionStart, Reporter};
use crate::trace::Kind;
use crate::tunnel::Carrier;

/// The client's half: to an endpoint of the addressed service. HTTPRoutes do not apply to bytes.
pub(in crate::l7) async fn carry(session: &Session, mut stream: Rewind<Carrier>) {
    let context = &session.context;
    let telemetry = &context.dependencies.telemetry;
    let _busy = session.seat.carries_bytes();
    let mut from = session.downstream();
    let server_name;
    let (service, dialled) = (Asked::Present(&session.service), session.dialled);
    let ask = Ask { service, dialled, routed: None, subset: None, claim: None, lent: None };
    let mut reached = context.reach.endpoint(&from, &ask).await;
    if reached.as_ref().is_err_and(|unreached| unreached.unread) {
        match Box::pin(serve::server_name(context, &mut stream)).await {
            Ok(name) => server_name = name,
            Err((reason, why)) => return telemetry.refused(start(session, None), reason, &why),
        }
        from.server_name = Some(&server_name);
        reached = context.reach.endpoint(&from, &ask).await;
    }
    match reached {
        Ok(Reached { picked, upstream, permit, tls }) => {
            let in_process = upstream.is_local();
            let server_name = from.server_name.filter(|name| !name.is_empty()).map(Str::from);
            let (policy, notes) = permit.map(|it| (it.policy, it.notes)).unwrap_or_default();
            let start = ConnectionStart {
                in_process,
                policy,
                notes,
                server_name,
                ..start(session, Some(&picked))
            };
            let mut record = telemetry.connection(start);
            let copied = tokio::select! {
                copied = copy::copy(stream, upstream, &record) => copied,
                // In memory of its own, since it is larger than what is copied with.
                denied = Box::pin(context.reach.until_denied(&from, &ask, (&picked, tls.as_ref()))) => {
                    return record.fail(denied.reason, cut_after_a_change(&denied.why));
                }
                over = reach::until_over(picked.limits(), || record.carried()) => {
                    return record.fail(over.reason, over.why);
                }
            };
            copy::finish(copied, &mut record);
        }
        Err(Unreached { picked, failure, notes, unread: _ }) => {
            let start = ConnectionStart { notes, ..start(session, picked.as_ref()) };
            telemetry.refused(start, failure.reason, &failure.why);
        }
    }
}

fn start(session: &Session, picked: Option<&Picked>) -> ConnectionStart {
    let world = session.context.dependencies.world.load();
    let endpoint = picked.and_then(|picked| picked.workload.as_ref());
    let tunnelled = picked.filter(|picked| picked.captured().is_some());
    ConnectionStart {
        reporter: Reporter::Source,
        source: (*session.source).clone(),
        destination: (*session.context.labels.destination(&world, endpoint)).clone(),
        service: (*session.labels).clone(),
        mutual_tls: tunnelled.is_some(),
        source_address: session.client_address,
        destination_address: picked.map_or(session.dialled, Picked::wire_address),
        dialled: session.dialled,
        hbone_authority: tunnelled.map(|picked| picked.address),
        server_name: None,
        waypoint_principal: None,
        policy: None,
        notes: Vec::new(),
        in_process: false,
        rules: world.rules(Kind::Client, &session.client, Some(&session.service)),
    }
}
