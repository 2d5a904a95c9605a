//! Istio's labels of one series: compared and hashed without being copied or formatted.

use std::fmt;
use std::hash::{Hash, Hasher};

use papaya::Equivalent;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder};

use super::{Peer, Reporter, ServiceLabels};
use crate::base::Reason;

/// What Istio writes for what is not known.
const UNKNOWN: &str = "unknown";

/// All that the labels of a series say, borrowed from a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels<'a> {
    pub(super) reporter: Reporter,
    pub(super) source: &'a Peer,
    pub(super) destination: &'a Peer,
    pub(super) service: &'a ServiceLabels,
    pub(super) mutual_tls: bool,
    /// `tcp`, `http` or `grpc`.
    pub(super) protocol: &'static str,
    pub(super) reason: Reason,
    /// `None` for connections.
    pub(super) response: Option<Response>,
}

/// The labels that only requests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Response {
    /// 0 when there was none.
    pub(super) code: u16,
    pub(super) grpc_status: Option<u32>,
}

/// [`Labels`] as the key of a series.
#[derive(Clone, Debug)]
pub(super) struct OwnedLabels {
    reporter: Reporter,
    source: Peer,
    destination: Peer,
    service: ServiceLabels,
    mutual_tls: bool,
    protocol: &'static str,
    reason: Reason,
    response: Option<Response>,
}

impl Reporter {
    pub(super) fn label(self) -> &'static str {
        match self {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
            Reporter::Waypoint => "waypoint",
        }
    }
}

impl Peer {
    /// What labels say of a side; the pod's own name is for the log alone, as a series for each pod would be too many.
    fn labels(&self) -> [&str; 8] {
        [
            &self.workload,
            &self.namespace,
            &self.principal,
            &self.canonical_service,
            &self.canonical_revision,
            &self.app,
            &self.version,
            &self.cluster,
        ]
    }
}

impl Labels<'_> {
    pub(super) fn to_owned(self) -> OwnedLabels {
        OwnedLabels {
            reporter: self.reporter,
            source: self.source.clone(),
            destination: self.destination.clone(),
            service: self.service.clone(),
            mutual_tls: self.mutual_tls,
            protocol: self.protocol,
            reason: self.reason,
            response: self.response,
        }
    }

    fn rest(&self) -> (Reporter, bool, &'static str, Reason, Option<Response>) {
        (self.reporter, self.mutual_tls, self.protocol, self.reason, self.response)
    }
}

impl PartialEq for Labels<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rest() == other.rest()
            && self.service == other.service
            && self.source.labels() == other.source.labels()
            && self.destination.labels() == other.destination.labels()
    }
}

impl Eq for Labels<'_> {}

/// Only of what differs most: hashing all of some twenty texts would cost more than the whole look-up. Equal labels
/// have equal hashes all the same.
impl Hash for Labels<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.workload.hash(state);
        self.source.namespace.hash(state);
        self.destination.workload.hash(state);
        self.destination.namespace.hash(state);
        self.service.name.hash(state);
        (self.reporter, self.reason, self.response).hash(state);
    }
}

impl OwnedLabels {
    pub(super) fn borrow(&self) -> Labels<'_> {
        Labels {
            reporter: self.reporter,
            source: &self.source,
            destination: &self.destination,
            service: &self.service,
            mutual_tls: self.mutual_tls,
            protocol: self.protocol,
            reason: self.reason,
            response: self.response,
        }
    }
}

impl PartialEq for OwnedLabels {
    fn eq(&self, other: &Self) -> bool {
        self.borrow() == other.borrow()
    }
}

impl Eq for OwnedLabels {}

impl Hash for OwnedLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl Equivalent<OwnedLabels> for Labels<'_> {
    fn equivalent(&self, key: &OwnedLabels) -> bool {
        *self == key.borrow()
    }
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> Result<(), fmt::Error> {
        put(encoder, "reporter", self.reporter.label())?;
        put_peer(encoder, &SOURCE_KEYS, self.source)?;
        put(encoder, "destination_service", known(&self.service.host))?;
        put(encoder, "destination_service_namespace", known(&self.service.namespace))?;
        put(encoder, "destination_service_name", known(&self.service.name))?;
        put_peer(encoder, &DESTINATION_KEYS, self.destination)?;
        put(encoder, "request_protocol", self.protocol)?;
        if let Some(response) = self.response {
            put(encoder, "response_code", response.code)?;
            let grpc = response.grpc_status.map(|status| status.to_string()).unwrap_or_default();
            put(encoder, "grpc_response_status", grpc)?;
        }
        put(encoder, "response_flags", self.reason.flag())?;
        let security = if self.mutual_tls { "mutual_tls" } else { UNKNOWN };
        put(encoder, "connection_security_policy", security)
    }
}

/// In the order of [`Peer::labels`].
const SOURCE_KEYS: [&str; 8] = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_canonical_service",
    "source_canonical_revision",
    "source_app",
    "source_version",
    "source_cluster",
];

const DESTINATION_KEYS: [&str; 8] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_app",
    "destination_version",
    "destination_cluster",
];

fn put_peer(
    encoder: &mut LabelSetEncoder,
    keys: &[&str; 8],
    peer: &Peer,
) -> Result<(), fmt::Error> {
    for (key, value) in keys.iter().zip(peer.labels()) {
        put(encoder, key, known(value))?;
    }
    Ok(())
}

fn put(
    encoder: &mut LabelSetEncoder,
    key: &str,
    value: impl EncodeLabelValue,
) -> Result<(), fmt::Error> {
    (key, value).encode(encoder.encode_label())
}

fn known(text: &str) -> &str {
    if text.is_empty() { UNKNOWN } else { text }
}
