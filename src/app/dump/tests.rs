//! Everything that istioctl reads is there, in its types.

use std::net::SocketAddr;

use super::*;
use crate::base::Identity;
use crate::config::Overrides;
use crate::identity::ShownCertificate;
use crate::model::{
    Action, AuthorizationPolicy, Condition, Operation, PolicyTarget, Preference, Rule, Scope,
    Source, StringMatch, Values,
};
use crate::telemetry::{ConnectionStart, Peer, Reporter, ServiceLabels, Telemetry};
use crate::world::fixture::{Fixture, bound_to, key, policy, service, waypoint, workload};

#[path = "../../../tests/support/istioctl.rs"]
mod istioctl;

fn values<T>(any: Vec<T>, none: Vec<T>) -> Values<T> {
    Values { any, none }
}

/// One rule with every kind of field.
fn full() -> AuthorizationPolicy {
    let source = Source {
        principals: values(vec![StringMatch::Prefix("cluster.local/".into())], vec![]),
        namespaces: values(vec![], vec![StringMatch::Present]),
        service_accounts: values(vec![key("web")], vec![]),
        ip_blocks: values(vec!["10.0.0.0/8".parse().unwrap()], vec![]),
        ..Source::default()
    };
    let operation = Operation {
        ports: values(vec![80], vec![81]),
        hosts: values(vec![StringMatch::Suffix(".com".into())], vec![]),
        ..Operation::default()
    };
    let when = Condition::DestinationIp(values(vec!["10.1.0.0/16".parse().unwrap()], vec![]));
    let rule = Rule { from: vec![source], to: vec![operation], when: vec![when] };
    policy("full", Action::Deny, Scope::Workloads, vec![rule])
}

fn world() -> std::sync::Arc<World> {
    let mut web = workload("web", "10.0.0.1");
    web.policies = vec![key("full")];
    let mut api = workload("api", "10.0.0.2");
    api.waypoint = bound_to("gate");
    api.ready = false;
    let mut front = service("api", "10.96.0.1", &[&web, &api]);
    front.waypoint = bound_to("gate");
    front.balancing.preference = Preference::SameZone;
    let targets = Scope::Targets(vec![PolicyTarget::Service("api".into())]);
    Fixture::default()
        .workload(web)
        .workload(api)
        .service(front)
        .waypoint(waypoint("gate"))
        .policy(full())
        .policy(policy("targeted", Action::Allow, targets, vec![]))
        .build()
}

fn connection(reporter: Reporter) -> ConnectionStart {
    let peer = |name: &str| Peer {
        name: name.into(),
        namespace: "shop".into(),
        principal: format!("spiffe://cluster.local/ns/shop/sa/{name}").into(),
        ..Peer::default()
    };
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    ConnectionStart {
        reporter,
        source: peer("web"),
        destination: peer("api"),
        service: ServiceLabels { host: "api.shop.svc.cluster.local".into(), ..Default::default() },
        mutual_tls: true,
        source_address: address("10.0.0.1:4000"),
        destination_address: address("10.0.0.2:15008"),
        dialled: address("10.96.0.1:80"),
        hbone_authority: Some(address("10.0.0.2:8080")),
        server_name: None,
        waypoint_principal: None,
        policy: Some(key("full")),
        notes: Vec::new(),
        in_process: false,
        rules: None,
    }
}

fn status(uid: &str, captured: bool) -> WorkloadStatus {
    let error = (!captured).then(|| "no namespace".to_owned());
    WorkloadStatus { uid: uid.into(), captured, tasks: 3, full: false, error }
}

fn dump(telemetry: &Telemetry) -> Value {
    let shown = ShownCertificate {
        pem: "LS0=".into(),
        serial_number: "305554775863395697262503895661564044819".into(),
        valid_from: "2026-01-01T00:00:00Z".into(),
        expiration_time: "2026-01-02T00:00:00Z".into(),
    };
    let parts = Parts {
        settings: &Settings::parse("", &Overrides::default()).unwrap(),
        world: &world(),
        names: Vec::new(),
        certificates: vec![CertificateDump {
            identity: Identity::new("cluster.local", "shop", "web"),
            state: "Available".into(),
            cert_chain: vec![shown.clone()],
            root_certs: vec![shown],
        }],
        workloads: vec![
            status("Kubernetes//Pod/shop/web", true),
            status("Kubernetes//Pod/shop/api", false),
        ],
        connections: &telemetry.open_connections(|_| true),
        complaints: &[],
    };
    parts.dump()
}

#[test]
fn istioctl_reads_every_part() {
    let telemetry = Telemetry::without_log();
    let _out = telemetry.connection(connection(Reporter::Source));
    let _in = telemetry.connection(connection(Reporter::Destination));
    let text = dump(&telemetry).to_string();
    let read: istioctl::Dump = serde_json::from_str(&text).unwrap();

    let api = read.workloads.iter().find(|it| it.name == "api").unwrap();
    assert_eq!(
        (&*api.status, &*api.protocol, &*api.workload_ips[0]),
        ("Unhealthy", "HBONE", "10.0.0.2")
    );
    assert_eq!(read.waypoint_name(api.waypoint.as_ref().unwrap()), Some("gate"));
    let web = read.workloads.iter().find(|it| it.name == "web").unwrap();
    assert_eq!(web.authorization_policies, ["shop/full"]);

    let front = &read.services[0];
    assert_eq!((&*front.vips[0], front.ports["80"]), ("/10.96.0.1", 8080));
    assert_eq!(read.waypoint_name(front.waypoint.as_ref().unwrap()), Some("gate"));
    let endpoint = &front.endpoints["Kubernetes//Pod/shop/web:/10.0.0.1"];
    assert_eq!((endpoint.port[&80], &*endpoint.workload_uid), (8080, &*web.uid));
    assert_eq!(front.load_balancer.as_ref().unwrap().mode, "Failover");

    let scopes: Vec<&str> = read.policies.iter().map(|it| it.scope.as_str()).collect();
    assert_eq!(scopes, ["WorkloadSelector", "TargetRefs"]);
    assert_eq!(read.certificates[0].identity, "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(read.workload_state["Kubernetes//Pod/shop/api"].state, "Pending");
}

#[test]
fn a_rule_keeps_its_three_levels_and_looks_no_wider_than_it_is() {
    let dump = dump(&Telemetry::without_log());
    let read: istioctl::Dump = serde_json::from_str(&dump.to_string()).unwrap();
    let [from, to, when] = &read.policies[0].rules[0][..] else { panic!("{:?}", read.policies) };
    assert_eq!(from[0].principals[0].prefix, "cluster.local/");
    assert!(from[0].not_namespaces[0].presence.is_some());
    assert_eq!(from[0].service_accounts[0].service_account, "web");
    assert_eq!(from[0].source_ips, ["10.0.0.0/8"]);
    assert_eq!((&to[0].destination_ports, &to[0].not_destination_ports), (&vec![80], &vec![81]));
    assert_eq!(when[0].destination_ips, ["10.1.0.0/16"]);
    assert_eq!(dump["policies"][0]["rules"][0][1][0]["hosts"][0]["Suffix"], ".com");
}

#[test]
fn connections_are_listed_at_their_local_end() {
    let telemetry = Telemetry::without_log();
    let out = telemetry.connection(connection(Reporter::Source));
    let arrived = telemetry.connection(connection(Reporter::Destination));
    out.sent(5);
    arrived.sent(7);
    let read: istioctl::Dump = serde_json::from_str(&dump(&telemetry).to_string()).unwrap();
    let of = |name: &str| &read.workload_state[&format!("Kubernetes//Pod/shop/{name}")].connections;
    let (web, api) = (of("web"), of("api"));
    assert!(web.inbound.is_empty() && api.outbound.is_empty());
    let shown = |it: &istioctl::Connection| {
        [&*it.src, &*it.original_dst, &*it.actual_dst, &*it.protocol].map(str::to_owned)
    };
    assert_eq!(
        shown(&web.outbound[0]),
        ["10.0.0.1:4000", "10.96.0.1:80", "10.0.0.2:15008", "HBONE"]
    );
    assert_eq!(
        shown(&api.inbound[0]),
        ["10.0.0.1:4000", "api.shop.svc.cluster.local", "10.0.0.2:8080", "HBONE"]
    );

    let rows: Vec<Value> = telemetry.open_connections(|_| true).iter().map(row).collect();
    assert_eq!(rows[0]["direction"], "outbound");
    assert_eq!((&rows[0]["bytesSent"], &rows[1]["bytesReceived"]), (&json!(5), &json!(7)));
    assert_eq!(rows[1]["policy"], "shop/full");
    assert_eq!(rows[1]["workload"], "shop/api");
    drop(out);
    assert_eq!(telemetry.open_connections(|_| true).len(), 1, "gone when it ends");
}
