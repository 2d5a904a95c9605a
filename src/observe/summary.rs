//! Counts of the last hour as they go over the wire (`/flows/summary`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::latency::Latency;
use super::line::{End, Service};
use crate::base::Str;
use crate::telemetry::{Flow, OpenConnection, Reporter, Verdict, rfc3339};

/// The pairs of the last hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub node: Str,
    /// When this was, RFC 3339.
    pub time: String,
    /// Pairs that were forgotten too early, since the agent began.
    pub evicted: u64,
    pub pairs: Vec<PairLine>,
    pub open: Vec<Open>,
}

/// One pair: who called what, how that was decided, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairLine {
    pub reporter: Str,
    pub layer: u8,
    pub source: End,
    pub destination: End,
    pub service: Service,
    /// As it was dialled.
    pub port: u16,
    /// `OTHER` for methods that are not HTTP's own; empty for connections.
    #[serde(default)]
    pub method: Str,
    #[serde(default)]
    pub route: Str,
    pub verdict: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    pub flags: Str,
    /// Within the last hour.
    pub count: u64,
    /// When one ended last, in milliseconds since 1970.
    pub last: u64,
    /// Since the pair was first seen: for differences between two summaries.
    pub total: u64,
    /// Of these, those that failed, were denied, or were answered with a status of 500 or more.
    pub unsuccessful: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub latency: Latency,
    pub example: Example,
}

/// The first flow of a pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Example {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub method: Str,
    /// Without its query.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub path: Str,
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub host: Str,
    /// Why it was denied or failed.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub reason: Str,
}

/// Connections that are open now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    pub reporter: Str,
    pub source: End,
    pub destination: End,
    pub service: Service,
    pub count: u64,
}

impl Default for PairLine {
    fn default() -> Self {
        Self {
            reporter: Str::new(),
            layer: 4,
            source: End::default(),
            destination: End::default(),
            service: Service::default(),
            port: 0,
            method: Str::new(),
            route: Str::new(),
            verdict: Verdict::Permitted,
            policy: None,
            flags: Str::new(),
            count: 0,
            last: 0,
            total: 0,
            unsuccessful: 0,
            bytes_sent: 0,
            bytes_received: 0,
            latency: Latency::default(),
            example: Example::default(),
        }
    }
}

impl Summary {
    pub(super) fn new(
        node: Str,
        mut pairs: Vec<PairLine>,
        evicted: u64,
        open: &[OpenConnection],
    ) -> Self {
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.last));
        Self { node, time: rfc3339(SystemTime::now()), evicted, pairs, open: counted(open) }
    }
}

impl Example {
    pub(super) fn of(flow: &Flow) -> Self {
        let request = flow.request.as_ref();
        let path = |path: &Str| match path.split_once('?') {
            Some((path, _)) => Str::from(path),
            None => path.clone(),
        };
        Self {
            source: Some(flow.source_address),
            dialled: flow.dialled,
            destination: flow.destination_address,
            method: request.map(|it| Str::from(it.method.as_str())).unwrap_or_default(),
            path: request.map(|it| path(&it.path)).unwrap_or_default(),
            host: request.map(|it| it.authority.clone()).unwrap_or_default(),
            reason: flow.why.clone(),
        }
    }
}

/// Open connections, counted by workloads and service.
fn counted(open: &[OpenConnection]) -> Vec<Open> {
    let mut counts = BTreeMap::<_, u64>::new();
    for connection in open {
        let start = connection.start();
        let (source, destination) = (&start.source, &start.destination);
        let (service, is_source) = (&start.service, start.reporter == Reporter::Source);
        let key = (
            is_source,
            [&source.namespace, &source.workload, &destination.namespace, &destination.workload],
            [&service.namespace, &service.name, &service.host],
        );
        *counts.entry(key).or_default() += 1;
    }
    let end = |namespace: &Str, workload: &Str| End {
        namespace: namespace.clone(),
        workload: workload.clone(),
        ..End::default()
    };
    let mut rows = Vec::new();
    for ((is_source, [a, b, c, d], [namespace, name, host]), count) in counts {
        let (namespace, name, host) = (namespace.clone(), name.clone(), host.clone());
        rows.push(Open {
            reporter: Str::from(if is_source { "source" } else { "destination" }),
            source: end(a, b),
            destination: end(c, d),
            service: Service { namespace, name, host, dialled: None },
            count,
        });
    }
    rows
}
