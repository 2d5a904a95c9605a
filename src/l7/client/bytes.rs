//! Connections that turned out not to be HTTP: carried as bytes, as layer 4 would, by either half.

use super::session::Outbound;
use crate::balance::Picked;
use crate::base::Reason;
use crate::reach::{Ask, Asked, Reached, Unreached, cut_after_a_change};
use crate::sock::{self, CopyError, Rewind};
use crate::telemetry::{ConnectionRecord, ConnectionStart, Reporter};
use crate::tunnel::Carrier;

/// The client's half: to an endpoint of the addressed service. HTTPRoutes do not apply to bytes.
pub(in crate::l7) async fn carry(session: &Outbound, stream: Rewind<Carrier>) {
    let context = &session.context;
    let telemetry = &context.dependencies.telemetry;
    let _busy = session.seat.carries_bytes();
    let from = session.downstream();
    let ask = Ask { service: Asked::Present(&session.service), dialled: session.dialled };
    match context.reach.endpoint(&from, &ask).await {
        Ok(Reached { picked, upstream, permit }) => {
            let in_process = upstream.is_local();
            let (policy, notes) = permit.map(|it| (it.policy, it.notes)).unwrap_or_default();
            let start =
                ConnectionStart { in_process, policy, notes, ..start(session, Some(&picked)) };
            let mut record = telemetry.connection(start);
            let copied = tokio::select! {
                copied = copy(stream, upstream, &record) => copied,
                denied = context.reach.until_denied(&from, &ask, &picked) => {
                    return record.fail(denied.reason, cut_after_a_change(&denied.why));
                }
            };
            finish(copied, &mut record);
        }
        Err(Unreached { picked, failure, notes }) => {
            let start = ConnectionStart { notes, ..start(session, picked.as_ref()) };
            telemetry.refused(start, failure.reason, &failure.why);
        }
    }
}

fn start(session: &Outbound, picked: Option<&Picked>) -> ConnectionStart {
    let world = session.context.dependencies.world.load();
    let endpoint = picked.and_then(|picked| picked.workload.as_ref());
    let tunnelled = picked.filter(|picked| picked.captured().is_some());
    ConnectionStart {
        reporter: Reporter::Source,
        source: (*session.source).clone(),
        destination: (*session.context.peers.destination(&world, endpoint)).clone(),
        service: (*session.labels).clone(),
        mutual_tls: tunnelled.is_some(),
        source_address: session.client_address,
        destination_address: picked.map_or(session.dialled, Picked::wire_address),
        dialled: session.dialled,
        hbone_authority: tunnelled.map(|picked| picked.address),
        waypoint_principal: None,
        policy: None,
        notes: Vec::new(),
        in_process: false,
    }
}

/// Copies both directions, counted in the record.
pub(in crate::l7) async fn copy(
    downstream: Rewind<Carrier>,
    upstream: Carrier,
    record: &ConnectionRecord,
) -> Result<(), CopyError> {
    sock::copy_bidirectional(downstream, upstream, record).await
}

/// Records how a copy ended.
pub(in crate::l7) fn finish(copied: Result<(), CopyError>, record: &mut ConnectionRecord) {
    if let Err(error) = copied {
        record.fail(Reason::PeerReset, error.to_string());
    }
}
