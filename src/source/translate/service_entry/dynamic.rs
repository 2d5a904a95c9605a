//! What `resolution: DYNAMIC_DNS` asks of an entry (Istio, "Service Entry", and its validation): wildcards of which the name that a
//! client asks for is resolved, by HTTP's host or by the server's name in TLS, at a waypoint.

use super::super::Context;
use super::super::waypoint::USE_WAYPOINT;
use crate::base::ObjectKey;
use crate::model::{Binding, Resolution};
use crate::source::objects::{FieldError, ServiceEntry, label};

/// The value of `resolution`.
pub(super) const DYNAMIC: &str = "DYNAMIC_DNS";

/// Whether the entry can be carried out; otherwise the field and the reason.
pub(super) fn check(
    object: &ServiceEntry,
    has_waypoint: bool,
) -> Result<Resolution, (&'static str, String)> {
    let spec = &object.spec;
    if !spec.addresses.is_empty() {
        let why = format!("cannot be given with {DYNAMIC}: each host gets an address of its own");
        return Err(("spec.addresses", why));
    }
    if !spec.endpoints.is_empty() {
        let why = format!("cannot be given with {DYNAMIC}: the name that is asked for is resolved");
        return Err(("spec.endpoints", why));
    }
    let is_internal = spec.location.as_deref() == Some("MESH_INTERNAL");
    if is_internal && has_waypoint {
        let why = format!("MESH_INTERNAL is not supported with {DYNAMIC} and a waypoint");
        return Err(("spec.location", why));
    }
    Ok(Resolution::Dynamic)
}

/// What Istio's validation rejects.
pub(super) fn meaningless(object: &ServiceEntry) -> Option<FieldError> {
    let spec = &object.spec;
    if spec.resolution.as_deref() != Some(DYNAMIC) {
        return None;
    }
    let named = label(&object.metadata, USE_WAYPOINT);
    let has_waypoint = named.is_some_and(|name| !name.is_empty() && name != "none");
    if let Err((field, reason)) = check(object, has_waypoint) {
        return Some(FieldError { field: field.to_owned(), reason });
    }
    let hosts = (spec.hosts.iter().enumerate())
        .filter_map(|(index, host)| Some((format!("spec.hosts[{index}]"), why_no_wildcard(host)?)));
    let ports = (spec.ports.iter().enumerate()).filter_map(|(index, port)| {
        Some((format!("spec.ports[{index}].protocol"), why_no_name(&port.protocol)?))
    });
    hosts.chain(ports).next().map(|(field, reason)| FieldError { field, reason })
}

/// Complains of what else an entry says or lacks.
pub(super) fn complain(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    object: &ServiceEntry,
    waypoint: &Binding,
) {
    if object.spec.workload_selector.is_some() {
        let reason =
            format!("has no effect with {DYNAMIC}: the name that is asked for is resolved");
        cx.warn::<ServiceEntry>(key, "spec.workloadSelector", reason);
    }
    if *waypoint == Binding::None {
        let reason = format!(
            "is missing: names are resolved at a waypoint with {DYNAMIC}, and until the entry is bound to one, what is addressed to it \
             is refused"
        );
        cx.error::<ServiceEntry>(key, format!("metadata.labels[{USE_WAYPOINT:?}]"), reason);
    }
}

/// Why a host cannot be one of the entry's.
pub(super) fn why_no_wildcard(host: &str) -> Option<String> {
    (!host.starts_with("*.")).then(|| {
        format!("{host} is no wildcard, which {DYNAMIC} wants; an entry with the resolution DNS takes it")
    })
}

/// Why a port cannot be one of the entry's: nothing tells which name is meant.
pub(super) fn why_no_name(protocol: &str) -> Option<String> {
    const NAMED: [&str; 5] = ["HTTP", "HTTP2", "GRPC", "TLS", "HTTPS"];
    let is_named = NAMED.iter().any(|it| it.eq_ignore_ascii_case(protocol));
    (!is_named).then(|| {
        format!(
            "{protocol:?} names no server; with {DYNAMIC} ports are HTTP, HTTP2, GRPC, TLS or HTTPS"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::model::{AppProtocol, PortMapping, Service};
    use crate::source::tests::translated;

    const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
        metadata: {name: wp, namespace: a}\nspec: {gatewayClassName: istio-waypoint, \
        listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n---\n";
    const PORTS: &str = "ports: [{number: 80, name: http, protocol: HTTP}]";

    /// Bound to the waypoint.
    fn bound(spec: &str) -> String {
        format!("{GATEWAY}{}", entry("{istio.io/use-waypoint: wp}", spec))
    }

    fn entry(labels: &str, spec: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: e, namespace: a, labels: {labels}}}\nspec: {{resolution: DYNAMIC_DNS, {spec}}}\n"
        )
    }

    fn read(text: &str) -> (Vec<Arc<Service>>, String) {
        let translated = translated(text);
        let services = translated.mesh.services.into_iter().filter(|it| it.entry.is_some());
        let complaints = translated.complaints.iter();
        (services.collect(), complaints.map(|it| format!("{}: {it}\n", it.severity)).collect())
    }

    #[test]
    fn each_wildcard_is_a_service_with_addresses_of_its_own() {
        use AppProtocol::{Http, Http2, Tcp};
        let ports = "ports: [{number: 80, name: a, protocol: HTTP, targetPort: 8080}, {number: 81, name: b, protocol: grpc}, \
                     {number: 443, name: c, protocol: TLS}, {number: 444, name: d, protocol: https}]";
        let (services, said) =
            read(&bound(&format!("hosts: ['*.Example.org', '*.example.com'], {ports}")));
        assert_eq!(said, "");
        let hosts: Vec<_> = services.iter().map(|it| it.hostname.as_str()).collect();
        assert_eq!(hosts, ["*.example.org", "*.example.com"]);
        for service in &services {
            assert_eq!(service.resolution, Resolution::Dynamic);
            assert!(service.vips.iter().any(IpAddr::is_ipv4) && service.vips.len() == 2);
            let protocols: Vec<_> = service.ports.iter().map(|it| it.protocol).collect();
            assert_eq!(protocols, [Http, Http2, Tcp, Tcp]);
            assert_eq!(service.endpoints.len(), 1);
            assert_eq!(service.endpoints[0].ports[0], PortMapping { port: 80, target: 8080 });
        }
        assert_ne!(services[0].vips, services[1].vips);
    }

    /// Row by row what Istio's validation rejects, and what becomes of it where it was not asked.
    #[test]
    fn what_istios_validation_rejects_is_said_and_closed() {
        let host = "hosts: ['*.example.org']";
        for (spec, complaint, services, is_closed) in [
            (
                "hosts: [example.org], ".to_owned() + PORTS,
                "spec.hosts[0]: example.org is no wildcard",
                0,
                false,
            ),
            (
                format!("hosts: [a.example.org, '*.example.org'], {PORTS}"),
                "spec.hosts[0]",
                1,
                false,
            ),
            (format!("hosts: ['*'], {PORTS}"), "spec.hosts[0]: \"*\" is no host name", 0, false),
            (format!("hosts: ['*a.example.org'], {PORTS}"), "spec.hosts[0]", 0, false),
            (format!("hosts: [], {PORTS}"), "spec.hosts: is empty", 0, false),
            (
                format!("{host}, addresses: [192.0.2.1], {PORTS}"),
                "spec.addresses: cannot be given",
                1,
                true,
            ),
            (
                format!("{host}, endpoints: [{{address: 192.0.2.1}}], {PORTS}"),
                "spec.endpoints: cannot be given",
                1,
                true,
            ),
            (
                format!("{host}, location: MESH_INTERNAL, {PORTS}"),
                "spec.location: MESH_INTERNAL",
                1,
                true,
            ),
        ] {
            let (found, said) = read(&bound(&spec));
            assert!(
                said.contains(&format!(
                    "error: test.yaml, document 2: ServiceEntry a/e: {complaint}"
                )),
                "{spec}: {said}"
            );
            assert_eq!(found.len(), services, "{spec}");
            assert_eq!(found.iter().any(|it| it.endpoints.is_empty()), is_closed, "{spec}");
        }
    }

    #[test]
    fn ports_that_name_no_server_are_left_out_and_nothing_selects_endpoints() {
        let host = "hosts: ['*.example.org']";
        for protocol in ["TCP", "MONGO", "GRPC-Web", "''"] {
            let spec = format!("{host}, ports: [{{number: 80, name: x, protocol: {protocol}}}]");
            let (found, said) = read(&bound(&spec));
            assert!(said.contains("spec.ports[0].protocol: "), "{protocol}: {said}");
            assert!(found[0].ports.is_empty(), "{protocol}");
        }
        let (found, said) =
            read(&bound(&format!("{host}, workloadSelector: {{labels: {{a: b}}}}, {PORTS}")));
        assert!(
            said.contains(
                "warning: test.yaml, document 2: ServiceEntry a/e: spec.workloadSelector"
            ),
            "{said}"
        );
        assert_eq!(found[0].endpoints.len(), 1);
    }

    #[test]
    fn without_a_waypoint_the_entry_has_its_names_and_says_that_they_are_refused() {
        let spec = format!("hosts: ['*.example.org'], location: MESH_INTERNAL, {PORTS}");
        let (found, said) = read(&entry("{}", &spec));
        assert!(said.contains("metadata.labels[\"istio.io/use-waypoint\"]: is missing"), "{said}");
        assert_eq!((found[0].resolution, found[0].vips.len()), (Resolution::Dynamic, 2));
        let (_, said) = read(&bound(&format!("hosts: ['*.example.org'], {PORTS}")));
        assert!(!said.contains("use-waypoint"), "{said}");
    }

    #[test]
    fn a_files_last_version_stays_in_force_where_istio_would_reject_the_new_one() {
        let object = |spec: &str| -> ServiceEntry {
            let text = format!(
                "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, \
                 metadata: {{name: e, labels: {{istio.io/use-waypoint: wp}}}}, spec: {{{spec}}}}}"
            );
            serde_saphyr::from_str(&text).unwrap()
        };
        let good = format!("resolution: DYNAMIC_DNS, hosts: ['*.example.org'], {PORTS}");
        assert!(meaningless(&object(&good)).is_none());
        for (more, field) in [
            ("addresses: [192.0.2.1]", "spec.addresses"),
            ("endpoints: [{address: 192.0.2.1}]", "spec.endpoints"),
            ("location: MESH_INTERNAL", "spec.location"),
        ] {
            let fault = meaningless(&object(&format!("{good}, {more}"))).unwrap();
            assert_eq!(fault.field, field);
        }
        let fault = meaningless(&object(&good.replace("*.example.org", "example.org"))).unwrap();
        assert_eq!(fault.field, "spec.hosts[0]");
        let fault = meaningless(&object(&good.replace("HTTP", "TCP"))).unwrap();
        assert_eq!(fault.field, "spec.ports[0].protocol");
        assert!(meaningless(&object(&good.replace("DYNAMIC_DNS", "STATIC"))).is_none());
    }
}
