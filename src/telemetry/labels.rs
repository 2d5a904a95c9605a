//! Istio's labels of one series: compared and hashed without being copied or formatted.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use papaya::Equivalent;

use super::budget::Charged;
use super::clamp::{Code, Grpc, OTHER, fits};
use super::exposition::{Pairs, WriteLabels};
use super::series::{Fold, SeriesLabels};
use super::{Peer, Reporter, ServiceLabels};
use crate::base::{Reason, Str};

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
    /// As [`Reason::flag`] writes it.
    pub(super) flags: &'static str,
    /// `None` for connections.
    pub(super) response: Option<Response>,
}

/// The labels that only requests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Response {
    code: Code,
    grpc_status: Option<Grpc>,
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
    flags: &'static str,
    response: Option<Response>,
}

impl Response {
    /// `code`: 0 when there was none.
    pub(super) fn new(code: u16, grpc_status: Option<u32>) -> Self {
        Self { code: Code::of(code), grpc_status: grpc_status.map(Grpc::of) }
    }

    fn folded(self) -> Self {
        Self { code: self.code.folded(), grpc_status: self.grpc_status.map(Grpc::folded) }
    }
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
    fn rest(&self) -> (Reporter, bool, &'static str, &'static str, Option<Response>) {
        (self.reporter, self.mutual_tls, self.protocol, self.flags, self.response)
    }

    /// The namespace that is served.
    fn served(&self) -> &str {
        let service = &self.service.namespace;
        if service.is_empty() { &self.destination.namespace } else { service }
    }
}

impl SeriesLabels for Labels<'_> {
    type Owned = OwnedLabels;

    fn own(&self) -> OwnedLabels {
        OwnedLabels {
            reporter: self.reporter,
            source: self.source.clone(),
            destination: self.destination.clone(),
            service: self.service.clone(),
            mutual_tls: self.mutual_tls,
            protocol: self.protocol,
            flags: self.flags,
            response: self.response,
        }
    }

    /// Whoever reports stands on this node or, for a waypoint, is the one whose services it serves.
    fn charged(&self) -> Charged<'_> {
        let source = &*self.source.namespace;
        match self.reporter {
            Reporter::Source => Charged { owner: source, other: self.served() },
            Reporter::Destination => Charged { owner: &self.destination.namespace, other: source },
            Reporter::Waypoint => Charged { owner: self.served(), other: source },
        }
    }

    fn fit(&self) -> bool {
        let ServiceLabels { host, name, namespace } = self.service;
        let peers = self.source.labels().into_iter().chain(self.destination.labels());
        peers.chain([&**host, &**name, &**namespace]).all(fits)
    }

    fn folded(&self, fold: Fold) -> OwnedLabels {
        let namespace = |it: &Str| if fold == Fold::All { OTHER.into() } else { it.clone() };
        let other = Str::from(OTHER);
        let peer = |of: &Peer| Peer {
            workload: other.clone(),
            name: Str::new(),
            namespace: namespace(&of.namespace),
            principal: other.clone(),
            canonical_service: other.clone(),
            canonical_revision: other.clone(),
            app: other.clone(),
            version: other.clone(),
            cluster: other.clone(),
        };
        OwnedLabels {
            reporter: self.reporter,
            source: peer(self.source),
            destination: peer(self.destination),
            service: ServiceLabels {
                host: other.clone(),
                name: other.clone(),
                namespace: namespace(&self.service.namespace),
            },
            mutual_tls: self.mutual_tls,
            protocol: self.protocol,
            flags: if self.flags == Reason::None.flag() { self.flags } else { OTHER },
            response: self.response.map(Response::folded),
        }
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
        (self.reporter, self.flags, self.response).hash(state);
    }
}

impl OwnedLabels {
    fn borrow(&self) -> Labels<'_> {
        Labels {
            reporter: self.reporter,
            source: &self.source,
            destination: &self.destination,
            service: &self.service,
            mutual_tls: self.mutual_tls,
            protocol: self.protocol,
            flags: self.flags,
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

impl Equivalent<Arc<OwnedLabels>> for Labels<'_> {
    fn equivalent(&self, key: &Arc<OwnedLabels>) -> bool {
        *self == key.borrow()
    }
}

impl WriteLabels for OwnedLabels {
    fn write(&self, pairs: &mut Pairs<'_>) {
        pairs.put("reporter", self.reporter.label());
        put_peer(pairs, &SOURCE_KEYS, &self.source);
        pairs.put("destination_service", known(&self.service.host));
        pairs.put("destination_service_namespace", known(&self.service.namespace));
        pairs.put("destination_service_name", known(&self.service.name));
        put_peer(pairs, &DESTINATION_KEYS, &self.destination);
        pairs.put("request_protocol", self.protocol);
        if let Some(response) = self.response {
            pairs.put("response_code", &response.code.text());
            let grpc = response.grpc_status.map(Grpc::text).unwrap_or_default();
            pairs.put("grpc_response_status", &grpc);
        }
        pairs.put("response_flags", self.flags);
        let security = if self.mutual_tls { "mutual_tls" } else { UNKNOWN };
        pairs.put("connection_security_policy", security);
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

fn put_peer(pairs: &mut Pairs<'_>, keys: &[&str; 8], peer: &Peer) {
    for (key, value) in keys.iter().zip(peer.labels()) {
        pairs.put(key, known(value));
    }
}

fn known(text: &str) -> &str {
    if text.is_empty() { UNKNOWN } else { text }
}
