//! Metrics, access log and logs. Knows labels as texts, not models.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{Reason, Str};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    Source,
    Destination,
    Waypoint,
}

/// One side of a connection, as labels. Empty means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    pub workload: Str,
    /// The pod's own name, for the log.
    pub name: Str,
    pub namespace: Str,
    /// `spiffe://…`, only when proven by mutual TLS.
    pub principal: Str,
    pub canonical_service: Str,
    pub canonical_revision: Str,
    pub app: Str,
    pub version: Str,
    pub cluster: Str,
}

/// The addressed service as labels. Empty means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceLabels {
    pub host: Str,
    pub name: Str,
    pub namespace: Str,
}

/// What is known of a connection when it starts.
#[derive(Clone, Debug)]
pub struct ConnectionStart {
    pub reporter: Reporter,
    pub source: Peer,
    pub destination: Peer,
    pub service: ServiceLabels,
    pub mutual_tls: bool,
    pub source_address: SocketAddr,
    /// As dialled on the wire (`…:15008` for a tunnel).
    pub destination_address: SocketAddr,
    /// The authority of the tunnel's request.
    pub hbone_authority: Option<SocketAddr>,
    /// The waypoint whose policies were passed.
    pub waypoint_principal: Option<Str>,
}

/// What is known of a request when it starts.
#[derive(Clone, Debug)]
pub struct RequestStart {
    /// Whether the metrics are this half's to record (one half does).
    pub count: bool,
    /// `source` or `destination` half, for the log's `direction`.
    pub outbound: bool,
    pub source: Arc<Peer>,
    pub service: Arc<ServiceLabels>,
    pub mutual_tls: bool,
    pub source_address: SocketAddr,
    pub method: http::Method,
    pub path: Str,
    pub authority: Str,
    pub protocol: &'static str,
    pub grpc: bool,
    pub waypoint_principal: Option<Str>,
}

/// The metrics registry and the sinks; cheap to clone.
#[derive(Clone)]
pub struct Telemetry;

impl Telemetry {
    pub fn connection(&self, _start: ConnectionStart) -> ConnectionRecord {
        todo!()
    }
    /// A connection that was refused or failed before it carried bytes.
    pub fn refused(&self, _start: ConnectionStart, _reason: Reason, _why: &str) {
        todo!()
    }
    pub fn request(&self, _start: RequestStart) -> RequestRecord {
        todo!()
    }
}

/// One open connection: counted and logged once, when dropped at the latest.
pub struct ConnectionRecord;
impl ConnectionRecord {
    pub fn sent(&self, _bytes: usize) {}
    pub fn received(&self, _bytes: usize) {}
    /// The first cause stays.
    pub fn fail(&mut self, _reason: Reason, _why: String) {}
}

/// One request in flight: counted and logged once, when dropped at the latest.
pub struct RequestRecord;
impl RequestRecord {
    pub fn destination(&mut self, _peer: Arc<Peer>, _address: SocketAddr) {}
    pub fn route(&mut self, _name: Str) {}
    pub fn request_bytes(&mut self, _bytes: usize) {}
    pub fn response_bytes(&mut self, _bytes: usize) {}
    pub fn response(&mut self, _code: http::StatusCode) {}
    pub fn grpc_status(&mut self, _status: u32) {}
    /// The first cause stays; `why` names the policy or the failure (`response_code_details`).
    pub fn fail(&mut self, _reason: Reason, _why: String) {}
    pub fn upstream_time(&mut self, _time: Duration) {}
}
