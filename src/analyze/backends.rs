//! Backends in other namespaces.

use super::code::Code;
use super::finding::Finding;
use super::snapshot::Snapshot;
use crate::base::ObjectKey;
use crate::source::objects::{
    GATEWAY_GROUP, GrpcRoute, HttpRoute, Kind, ReferenceGrant, RouteBackendRef, TcpRoute, TlsRoute,
    Typed,
};

pub(super) fn find(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    for (key, route) in cx.objects.all::<HttpRoute>() {
        for (index, rule) in route.spec.rules.iter().enumerate() {
            requests::<HttpRoute>(cx, found, (key, index), &rule.backend_refs);
        }
    }
    for (key, route) in cx.objects.all::<GrpcRoute>() {
        for (index, rule) in route.spec.rules.iter().enumerate() {
            requests::<GrpcRoute>(cx, found, (key, index), &rule.backend_refs);
        }
    }
    for (key, route) in cx.objects.all::<TcpRoute>() {
        for (index, rule) in route.spec.rules.iter().enumerate() {
            let refs = rule.backend_refs.iter().map(|it| &it.object);
            all::<TcpRoute>(cx, found, (key, index), refs);
        }
    }
    for (key, route) in cx.objects.all::<TlsRoute>() {
        for (index, rule) in route.spec.rules.iter().enumerate() {
            let refs = rule.backend_refs.iter().map(|it| &it.object);
            all::<TlsRoute>(cx, found, (key, index), refs);
        }
    }
}

fn requests<T: Typed>(
    cx: &Snapshot<'_>,
    found: &mut Vec<Finding>,
    rule: (&ObjectKey, usize),
    backends: &[RouteBackendRef],
) {
    all::<T>(cx, found, rule, backends.iter().map(|it| &it.object));
}

fn all<'a, T: Typed>(
    cx: &Snapshot<'_>,
    found: &mut Vec<Finding>,
    (key, rule): (&ObjectKey, usize),
    backends: impl Iterator<Item = &'a crate::filter::BackendObject>,
) {
    for (index, backend) in backends.enumerate() {
        let is_service = matches!(backend.group.as_str(), "" | "core") && backend.kind == "Service";
        let Some(namespace) = backend.namespace.as_deref().filter(|_| is_service) else { continue };
        if namespace == key.namespace.as_str()
            || is_granted(cx, (T::KIND, key), namespace, &backend.name)
        {
            continue;
        }
        let field = format!("spec.rules[{rule}].backendRefs[{index}]");
        let message = format!(
            "leads to the Service {namespace}/{}, and no ReferenceGrant of {namespace} admits a {} of {}; in the mesh none is needed",
            backend.name,
            T::KIND,
            key.namespace
        );
        found.push(Finding::of::<T>(cx.objects, key, Code::BackendElsewhere, field, message));
    }
}

fn is_granted(cx: &Snapshot<'_>, (kind, key): (Kind, &ObjectKey), to: &str, name: &str) -> bool {
    let grants = cx.objects.all::<ReferenceGrant>().filter(|(grant, _)| grant.namespace == to);
    grants.into_iter().any(|(_, grant)| {
        let admits = grant.spec.from.iter().any(|from| {
            from.group == GATEWAY_GROUP
                && from.kind == kind.name()
                && from.namespace == key.namespace.as_str()
        });
        let covers = grant.spec.to.iter().any(|to| {
            matches!(to.group.as_str(), "" | "core")
                && to.kind == "Service"
                && to.name.as_deref().is_none_or(|of| of.is_empty() || of == name)
        });
        admits && covers
    })
}
