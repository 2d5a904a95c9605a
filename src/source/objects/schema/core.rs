//! The core's validation: labels, Pods, Services, EndpointSlices.

use std::net::IpAddr;

use serde_json::Value;

use crate::base::schema::forms::{ACCOUNT, LABEL, LABEL_VALUE, any};
use crate::base::schema::{Rule, items, repeated, text};
use Rule::{Fields, List, Map, Number, OneOf, Text, With};

const PORT: Rule = Number(1, 65535);
const PROTOCOL: Rule = OneOf(&["TCP", "UDP", "SCTP"]);

pub(in super::super) const METADATA: Rule =
    Fields(&[("labels", Map(usize::MAX, any(317), &Text(LABEL_VALUE)))]);

pub(in super::super) const POD: Rule = Fields(&[
    ("spec", Fields(&[("serviceAccountName", Text(ACCOUNT))])),
    ("status", With(&Fields(&[]), &[pod_has_addresses])),
]);

pub(in super::super) const SERVICE: Rule = With(
    &Fields(&[
        ("type", OneOf(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])),
        ("sessionAffinity", OneOf(&["None", "ClientIP"])),
        ("internalTrafficPolicy", OneOf(&["Cluster", "Local"])),
        ("trafficDistribution", OneOf(&["PreferClose", "PreferSameZone", "PreferSameNode"])),
        ("selector", Map(usize::MAX, any(317), &Text(LABEL_VALUE))),
        (
            "ports",
            With(
                &List(
                    0,
                    usize::MAX,
                    &Fields(&[
                        ("name", Text(LABEL)),
                        ("port", PORT),
                        ("protocol", PROTOCOL),
                        ("targetPort", PORT),
                        ("nodePort", Number(0, 65535)),
                    ]),
                ),
                &[ports_are_named, ports_differ],
            ),
        ),
    ]),
    &[addresses_are_addresses],
);

pub(in super::super) const ENDPOINT_SLICE: Rule =
    With(&ENDPOINT_SLICE_FIELDS, &[addresses_are_of_their_type]);

const ENDPOINT_SLICE_FIELDS: Rule = Fields(&[
    ("addressType", OneOf(&["IPv4", "IPv6", "FQDN"])),
    (
        "endpoints",
        List(
            0,
            1000,
            &Fields(&[("addresses", List(1, 100, &Text(any(253)))), ("hostname", Text(LABEL))]),
        ),
    ),
    (
        "ports",
        With(
            &List(0, 20_000, &Fields(&[("port", PORT), ("protocol", PROTOCOL)])),
            &[ports_differ_by_name],
        ),
    ),
]);

fn pod_has_addresses(value: &Value) -> Option<(&'static str, String)> {
    let listed = items(value, "podIPs").iter().filter_map(|it| text(it, "ip"));
    let bad = listed.chain(text(value, "podIP")).find(|it| it.parse::<IpAddr>().is_err())?;
    Some(("podIPs", format!("{bad:?} is not an IP address")))
}

fn ports_are_named(value: &Value) -> Option<(&'static str, String)> {
    let list = value.as_array()?;
    let missing = list.len() > 1 && list.iter().any(|port| text(port, "name").is_none());
    missing.then(|| ("", "need names, as they are several".to_owned()))
}

fn ports_differ(value: &Value) -> Option<(&'static str, String)> {
    let list = value.as_array()?;
    if let Some(name) = repeated(list, "name") {
        return Some(("", format!("name {name:?} twice")));
    }
    let mut seen = std::collections::HashSet::new();
    let twice = list.iter().find_map(|port| {
        let number = port.get("port")?.as_i64()?;
        let fresh = seen.insert((number, text(port, "protocol").unwrap_or("TCP")));
        (!fresh).then_some(number)
    })?;
    Some(("", format!("have {twice} twice")))
}

fn ports_differ_by_name(value: &Value) -> Option<(&'static str, String)> {
    let twice = repeated(value.as_array()?, "name")?;
    Some(("", format!("name {twice:?} twice")))
}

fn addresses_are_of_their_type(value: &Value) -> Option<(&'static str, String)> {
    let fits: fn(&IpAddr) -> bool = match text(value, "addressType")? {
        "IPv4" => IpAddr::is_ipv4,
        "IPv6" => IpAddr::is_ipv6,
        _ => return None,
    };
    let endpoints = items(value, "endpoints").iter();
    let mut all = endpoints.flat_map(|it| items(it, "addresses")).filter_map(Value::as_str);
    let bad = all.find(|it| !it.parse().is_ok_and(|address| fits(&address)))?;
    Some(("endpoints", format!("have {bad:?}, which is no address of their addressType")))
}

fn addresses_are_addresses(value: &Value) -> Option<(&'static str, String)> {
    let listed = items(value, "clusterIPs").iter().filter_map(Value::as_str);
    let all = listed.chain(text(value, "clusterIP"));
    let mut bad = all.filter(|it| !matches!(*it, "" | "None") && it.parse::<IpAddr>().is_err());
    Some(("clusterIP", format!("{:?} is not an IP address", bad.next()?)))
}
