//! Fields of a waypoint's Gateway that have no effect, because nothing is deployed for it and it takes whatever is bound to it.

use serde_json::Value;

use super::super::Context;
use crate::base::{ObjectKey, ports};
use crate::source::objects::{Gateway, Listener};

/// Complains of each such field of a Gateway that is a waypoint.
pub(super) fn complain(cx: &mut Context<'_>, key: &ObjectKey, gateway: &Gateway) {
    let spec = &gateway.spec;
    for (index, listener) in spec.listeners.iter().enumerate() {
        let place = format!("spec.listeners[{index}]");
        if !listener.is_hbone() {
            let reason = format!(
                "has no effect: a waypoint listens for {} on port {} only; use a Gateway of another class for other \
                 traffic, such as ingress",
                Listener::HBONE,
                ports::HBONE
            );
            cx.warn::<Gateway>(key, place, reason);
            continue;
        }
        for (field, reason) in of_listener(listener) {
            cx.warn::<Gateway>(key, format!("{place}.{field}"), reason);
        }
    }
    let parameters = spec.infrastructure.as_ref().and_then(|it| it.get("parametersRef"));
    for (field, value, reason) in [
        (
            "addresses",
            spec.addresses.as_ref(),
            "has no effect: a waypoint has no address, since each agent serves it on its own node",
        ),
        (
            "infrastructure.parametersRef",
            parameters,
            "has no effect: nothing is deployed for a waypoint; its resources are settings of the agents ([layer7])",
        ),
        (
            "allowedListeners",
            spec.allowed_listeners.as_ref(),
            "has no effect: a waypoint takes no listeners of ListenerSets",
        ),
        (
            "tls",
            spec.tls.as_ref(),
            "has no effect: clients of a waypoint are verified by their certificates of the mesh",
        ),
        (
            "backendTLS",
            spec.backend_tls.as_ref(),
            "has no effect: what leaves a waypoint is encrypted by the mesh, or by the client itself",
        ),
        (
            "defaultScope",
            spec.default_scope.as_ref().filter(|scope| *scope != "None"),
            "has no effect: routes of a mesh have Services as parents",
        ),
    ] {
        if value.is_some_and(says_something) {
            cx.warn::<Gateway>(key, format!("spec.{field}"), reason);
        }
    }
}

/// What an HBONE listener says that has no effect.
fn of_listener(listener: &Listener) -> impl Iterator<Item = (&'static str, &'static str)> {
    let kinds = listener.allowed_routes.as_ref().and_then(|routes| routes.kinds.as_ref());
    let fields = [
        (
            "hostname",
            listener.hostname.as_ref(),
            "has no effect: a waypoint takes requests for all hosts of what is bound to it; restrict them with an \
             AuthorizationPolicy",
        ),
        (
            "tls",
            listener.tls.as_ref(),
            "has no effect: traffic of a waypoint is encrypted with certificates of the mesh",
        ),
        (
            "allowedRoutes.kinds",
            kinds,
            "has no effect: no route attaches to a waypoint; routes have Services as parents",
        ),
    ];
    let said = fields.into_iter().filter(|(_, value, _)| value.is_some_and(says_something));
    said.map(|(field, _, reason)| (field, reason))
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}
