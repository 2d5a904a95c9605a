//! A flow as it goes over the wire: one JSON object a line. Fields that are not known are left out.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::base::Str;
use crate::telemetry::{Flow, Peer, Reporter, RequestFlow, Verdict, rfc3339};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// So many flows are missing here: the observer did not read fast enough.
    Lost { lost: u64 },
    /// A flow.
    Flow(Box<Line>),
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// When it ended, RFC 3339.
    pub time: String,
    /// The node whose agent tells it.
    pub node: Str,
    pub layer: u8,
    /// `source` or `destination`: whose half of it this is.
    pub reporter: Str,
    pub source: End,
    pub destination: End,
    #[serde(default, skip_serializing_if = "is_default")]
    pub service: Service,
    pub verdict: Verdict,
    /// `namespace/name` of the policy that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// As in the access log (`response_flags`).
    pub flags: Str,
    /// Why it was denied or failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reason: Str,
    /// What AUDIT and dry-run policies say: `namespace/name=would_deny`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub notes: Vec<String>,
    pub mutual_tls: bool,
    pub in_process: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<Str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    pub duration_ms: f64,
    /// From the side that dialled, and to it.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespace: Str,
    /// The pod.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod: Str,
    /// What the pod is one of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub workload: Str,
    /// Proven by mutual TLS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub identity: Str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
}

/// What was called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespace: Str,
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: Str,
    #[serde(default, skip_serializing_if = "is_default")]
    pub host: Str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled: Option<SocketAddr>,
}

/// What only requests have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    pub method: String,
    pub path: Str,
    pub host: Str,
    pub protocol: Str,
    #[serde(default, skip_serializing_if = "is_default")]
    pub route: Str,
    /// 0 if the client was sent none.
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u32>,
    /// Until the application's response began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
}

impl Line {
    /// As the agent of this node tells it.
    pub fn new(flow: &Flow, node: Str) -> Self {
        let service = &flow.service;
        let destination = flow.destination.as_deref();
        Self {
            time: rfc3339(flow.at),
            node,
            layer: flow.layer(),
            reporter: Str::from(reporter(flow.reporter)),
            source: End::new(Some(&flow.source), Some(flow.source_address)),
            destination: End::new(destination, flow.destination_address),
            service: Service {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                host: service.host.clone(),
                dialled: flow.dialled,
            },
            verdict: flow.verdict,
            policy: flow.policy.as_ref().map(ToString::to_string),
            flags: Str::from(flow.flags),
            reason: flow.why.clone(),
            notes: flow.notes.iter().map(ToString::to_string).collect(),
            mutual_tls: flow.mutual_tls,
            in_process: flow.in_process,
            waypoint: flow.waypoint.clone(),
            http: flow.request.as_ref().map(Http::new),
            duration_ms: flow.duration.as_secs_f64() * 1e3,
            bytes_sent: flow.sent,
            bytes_received: flow.received,
            trace: flow.trace.map(|trace| trace.to_string()),
        }
    }

    /// When it ended, as the system counts.
    pub fn at(&self) -> Option<SystemTime> {
        let format = &time::format_description::well_known::Rfc3339;
        time::OffsetDateTime::parse(&self.time, format).ok().map(SystemTime::from)
    }
}

impl End {
    fn new(peer: Option<&Peer>, address: Option<SocketAddr>) -> Self {
        let Some(peer) = peer else { return Self { address, ..Self::default() } };
        Self {
            namespace: peer.namespace.clone(),
            pod: peer.name.clone(),
            workload: peer.workload.clone(),
            identity: peer.principal.clone(),
            address,
        }
    }
}

impl Http {
    fn new(request: &RequestFlow) -> Self {
        Self {
            method: request.method.to_string(),
            path: request.path.clone(),
            host: request.authority.clone(),
            protocol: Str::from(request.protocol),
            route: request.route.clone(),
            status: request.status,
            grpc_status: request.grpc_status,
            upstream_ms: request.upstream_time.map(|time| time.as_secs_f64() * 1e3),
        }
    }
}

/// As it is shown.
pub(super) fn reporter(reporter: Reporter) -> &'static str {
    match reporter {
        Reporter::Source => "source",
        Reporter::Destination | Reporter::Waypoint => "destination",
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
