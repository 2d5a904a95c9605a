//! The record of a request, from its beginning until it is counted: without a memory of flows, with recent flows, and with pairs too.

use std::sync::Arc;

use http::{Method, StatusCode};
use isthmus::base::Str;
use isthmus::observe::{Limits, Observe};
use isthmus::telemetry::{Peer, RequestStart, ServiceLabels, Telemetry};

use super::Meter;

/// What is remembered, by the name of the piece.
const MEMORIES: [(&str, Limits); 3] = [
    ("off", Limits { flows: 0, pairs: 0 }),
    ("flows", Limits { flows: 4_096, pairs: 0 }),
    ("pairs", Limits { flows: 4_096, pairs: 2_048 }),
];
/// The ring is full, so that each flow takes the place of another.
const BEFORE: usize = 5_000;

pub fn measure(meter: &mut impl Meter) {
    for (name, limits) in MEMORIES {
        let name = format!("record/{name}");
        if !meter.wants(&name) {
            continue;
        }
        let telemetry = Telemetry::without_log();
        let _observe = Observe::new(&telemetry, "node-a".into(), limits);
        let start = start();
        let server = Arc::new(peer("web"));
        let record = |start: RequestStart| {
            let mut record = telemetry.request(start);
            record.target(|| ("/items/1?page=2".into(), "web.shop.svc.cluster.local".into()));
            record.destination(server.clone(), ([10, 0, 0, 2], 8080).into());
            record.response(StatusCode::OK);
        };
        (0..BEFORE).for_each(|_| record(start.clone()));
        meter.measure(&name, || start.clone(), record);
    }
}

fn peer(name: &str) -> Peer {
    let text = |text: &str| Str::from(text);
    Peer {
        workload: text(name),
        name: Str::from(format!("{name}-7d9f4c5b6-x2x9z")),
        namespace: text("shop"),
        principal: Str::from(format!("spiffe://cluster.local/ns/shop/sa/{name}")),
        canonical_service: text(name),
        canonical_revision: text("v1"),
        app: text(name),
        version: text("v1"),
        cluster: text("Kubernetes"),
    }
}

fn start() -> RequestStart {
    RequestStart {
        count: true,
        outbound: true,
        source: Arc::new(peer("cart")),
        service: Arc::new(ServiceLabels {
            host: "web.shop.svc.cluster.local".into(),
            name: "web".into(),
            namespace: "shop".into(),
        }),
        mutual_tls: true,
        source_address: ([10, 0, 0, 1], 40_000).into(),
        method: Method::GET,
        path: Str::default(),
        authority: Str::default(),
        protocol: "HTTP/1.1",
        grpc: false,
        waypoint_principal: None,
        policy: None,
        connection: None,
    }
}
