//! A connection as a flow.

use std::sync::Arc;
use std::time::SystemTime;

use super::facts::Seen;
use crate::base::Str;
use crate::telemetry::Telemetry;
use crate::telemetry::flow::{Flow, MAX_TEXT, Verdict, short};

/// Shows a connection that has ended, or never carried bytes, to who observes. Called only while somebody does.
pub(super) fn give(telemetry: &Telemetry, seen: &Seen<'_>) {
    let start = seen.start;
    let verdict = Verdict::of(seen.reason());
    // Of one that was cut after a change, the start knows what had allowed it.
    let policy = start.policy.as_ref().filter(|_| verdict != Verdict::Denied || !seen.began);
    let (sent, received) = seen.carried;
    telemetry.flows().give(Flow {
        at: SystemTime::now(),
        reporter: start.reporter,
        source: Arc::new(start.source.clone()),
        source_address: start.source_address,
        destination: Some(Arc::new(start.destination.clone())),
        destination_address: Some(start.application()),
        service: Arc::new(start.service.clone()),
        dialled: Some(start.dialled),
        verdict,
        policy: policy.cloned(),
        flags: seen.reason().flag(),
        why: short(seen.why().map(Str::from).unwrap_or_default(), MAX_TEXT),
        notes: start.notes.clone(),
        mutual_tls: start.mutual_tls,
        in_process: start.in_process,
        waypoint: start.waypoint_principal.clone(),
        duration: seen.age,
        sent,
        received,
        trace: seen.trace.map(|(trace, _)| trace),
        request: None,
    });
}
