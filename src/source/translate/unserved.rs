//! Kinds of Gateway API and Istio that are not carried out: each object says so, so that nobody takes what it says for what
//! happens.

use super::{Context, is_of_other_revision};
use crate::base::ObjectKey;
use crate::source::objects::{
    BackendTlsPolicy, DestinationRule, EnvoyFilter, Kind, Labelled, TcpRoute, Telemetry, TlsRoute,
    Typed, VirtualService, WasmPlugin,
};
use crate::source::{Complaint, Severity};

/// Objects of one kind that are named one by one; of the others only their number is told.
const NAMED: usize = 20;

/// Complains of all of them.
pub(super) fn complain(cx: &mut Context<'_>) {
    complain_of::<VirtualService>(cx);
    complain_of::<DestinationRule>(cx);
    complain_of::<BackendTlsPolicy>(cx);
    complain_of::<EnvoyFilter>(cx);
    complain_of::<WasmPlugin>(cx);
    complain_of::<Telemetry>(cx);
    complain_of::<TcpRoute>(cx);
    complain_of::<TlsRoute>(cx);
}

fn complain_of<T: Typed + Labelled>(cx: &mut Context<'_>) {
    let ours = cx.objects.all::<T>().filter(|(_, it)| !is_of_other_revision(cx.settings, *it));
    let keys: Vec<ObjectKey> = ours.map(|(key, _)| key.clone()).collect();
    let severity = severity(T::KIND);
    for key in keys.iter().take(NAMED) {
        cx.complain(severity, T::KIND, key, String::new(), what_follows(T::KIND).to_owned());
    }
    let others = keys.len().saturating_sub(NAMED);
    if others > 0 {
        cx.complaints.push(Complaint {
            origin: None,
            kind: T::KIND.name().into(),
            object: None,
            field: String::new(),
            severity,
            reason: format!("{others} more objects: {}", what_follows(T::KIND)),
            condition: None,
        });
    }
}

/// A BackendTLSPolicy refuses traffic, always; what a DestinationRule refuses, it says of its field `tls`.
fn severity(kind: Kind) -> Severity {
    match kind {
        Kind::BackendTLSPolicy => Severity::Error,
        _ => Severity::Warning,
    }
}

/// What is not done for an object of a kind that is not carried out, what happens instead, and what to do.
pub fn what_follows(kind: Kind) -> &'static str {
    match kind {
        Kind::VirtualService => {
            "is not carried out: traffic goes on as if it were not there. Write an HTTPRoute or a GRPCRoute with the Service \
             as its parent"
        }
        Kind::DestinationRule => {
            "is not carried out: load balancing, limits, outlier detection and subsets have no effect, and what its `tls` \
             would encrypt is refused. Use the fields of the Service (trafficDistribution, sessionAffinity) and one Service \
             for each subset"
        }
        Kind::BackendTLSPolicy => {
            "is not carried out: what is addressed to its targets is refused rather than sent without TLS. Let clients speak \
             TLS themselves, and delete it"
        }
        Kind::TCPRoute | Kind::TLSRoute => {
            "is not carried out: connections go to the endpoints of the Service that was addressed. Address the backend's \
             Service instead"
        }
        Kind::Telemetry => {
            "is not carried out: metrics and logs are those that the settings of Isthmus say (docs/observability.md)"
        }
        Kind::EnvoyFilter | Kind::WasmPlugin => {
            "is not carried out: there is no Envoy here that it could extend; what it would check or change is neither checked \
             nor changed"
        }
        _ => "is not carried out",
    }
}
