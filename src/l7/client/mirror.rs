//! Copies of requests for mirrors (Gateway API, HTTPRequestMirrorFilter).
//!
//! A copy goes to one endpoint of the mirror's Service, as the client: with its identity, through a tunnel of its own
//! where the endpoint is in the mesh, and judged there as if that Service had been addressed. What becomes of it is
//! nobody's concern: it never waits for the original, nor the original for it. The worker bounds how many are on their
//! way and what they buffer; beyond that requests are not mirrored.

use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt;

use super::attempt::Routed;
use super::plan::Plan;
use crate::base::{Reason, Str};
use crate::filter::{self, BackendRef, HttpFilter, Mirror, Seen};
use crate::l7::budget::MirrorPermit;
use crate::l7::exchange::arrived::Arrived;
use crate::l7::message::headers;
use crate::l7::message::sent::Sent;
use crate::model::Binding;

/// How long a copy may take: as long as Envoy gives one.
const LIMIT: Duration = Duration::from_secs(15);

/// Sends the copies that the plan's filters want.
pub(in crate::l7) fn send_copies(routed: &Routed, arrived: &mut Arrived) {
    let [of_rule, of_backend] = routed.plan.filters();
    // Copies would leave before the destination has the authorizer asked.
    if of_rule.iter().any(|filter| matches!(filter, HttpFilter::ExternalAuth(_))) {
        return;
    }
    for mirror in mirrors(of_rule) {
        // Without what concerns the backend alone.
        let sent = routed.before.as_ref().map(|before| before.filtered([of_rule, &[]]));
        send_copy(routed, mirror, sent, arrived);
    }
    for mirror in mirrors(of_backend) {
        send_copy(routed, mirror, None, arrived);
    }
}

fn mirrors(filters: &[HttpFilter]) -> impl Iterator<Item = &Mirror> {
    filters.iter().filter_map(|filter| match filter {
        HttpFilter::Mirror(mirror) => Some(mirror),
        _ => None,
    })
}

fn send_copy(routed: &Routed, mirror: &Mirror, sent: Option<Sent>, arrived: &mut Arrived) {
    let (session, world) = (&routed.session, &routed.world);
    let BackendRef::Service { service: key, port } = &mirror.target else { return };
    if arrived.upgrade.is_some() || !mirror.takes_this() {
        return;
    }
    let metrics = session.context.dependencies.telemetry.mirror();
    let Some(service) =
        world.service(key).filter(|it| !matches!(it.waypoint, Binding::Unusable { .. }))
    else {
        metrics.failed.inc();
        return;
    };
    let names_subset = |name: &Str| service.subset(&session.client, name).is_some();
    if !mirror.subset.as_ref().is_none_or(names_subset) {
        metrics.failed.inc();
        return;
    }
    let has_body = !arrived.request.body().is_empty();
    let Ok(permit) = session.seat.share().mirror(has_body) else {
        metrics.dropped.inc();
        tracing::debug!(service = %key, "a request is not mirrored: too many copies are on their way");
        return;
    };
    let mut request = Request::new(arrived.request.body_mut().copy());
    let sent = sent.unwrap_or_else(|| Sent::of(&arrived.request));
    *request.method_mut() = arrived.request.method().clone();
    *request.uri_mut() = sent.uri;
    *request.headers_mut() = sent.headers;
    if mirror.shadow {
        add_shadow(request.headers_mut());
    }
    let copy = Arrived::again(request, (arrived.version, arrived.protocol, arrived.form));
    let lent = routed.plan.lent_to(world, &session.client, &key.namespace);
    let copied = Routed {
        session: session.clone(),
        world: world.clone(),
        plan: Plan::straight_to(service, *port, mirror.subset.clone(), lent),
        before: None,
        seen: Seen::default(),
        asked: None,
    };
    let metrics = metrics.clone();
    session.context.tasks.drive("mirrored request", async move {
        let delivered = Box::pin(deliver(copied, copy, permit));
        let outcome = match tokio::time::timeout(LIMIT, delivered).await {
            Ok(true) => &metrics.answered,
            Ok(false) => &metrics.failed,
            Err(_) => {
                tracing::debug!("a mirrored request took too long and was given up");
                &metrics.timed_out
            }
        };
        outcome.inc();
    });
}

/// Puts `-shadow` behind the host and before its port, as Envoy does.
fn add_shadow(headers: &mut HeaderMap) {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return };
    let bare = filter::without_port(host);
    let port = host.get(bare.len()..).unwrap_or_default();
    if let Ok(shadow) = HeaderValue::try_from(format!("{bare}-shadow{port}")) {
        headers.insert(HOST, shadow);
    }
}

/// Sends a copy to an endpoint, and reads what comes back, so that the connection can be used again. Whether there was an
/// answer.
async fn deliver(mut routed: Routed, copy: Arrived, _permit: MirrorPermit) -> bool {
    let service = &routed.plan.backend.0;
    let host = headers::host(copy.request.headers());
    match routed.session.resolve(service, host).await {
        Ok(resolved) => routed.plan.backend.0 = resolved,
        Err(answer) => return give_up(answer.reason, &answer.why),
    }
    match routed.send_once(copy).await {
        Ok((response, lease)) => {
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                if let Err(error) = frame {
                    return give_up(Reason::PeerReset, &error.to_string());
                }
            }
            lease.give_back();
            true
        }
        Err(answer) => give_up(answer.reason, &answer.why),
    }
}

fn give_up(reason: Reason, why: &str) -> bool {
    tracing::debug!(reason = reason.flag(), "a request could not be mirrored: {why}");
    false
}
