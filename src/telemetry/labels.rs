//! Istio's labels of one series: compared and hashed without being copied or formatted.

use std::borrow::Cow;
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

const MUTUAL_TLS: &str = "mutual_tls";

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
    /// Where the series is charged to other namespaces than those that the labels say.
    pub(super) charged: Option<Charged<'a>>,
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

    fn labels_mut(&mut self) -> [&mut Str; 8] {
        [
            &mut self.workload,
            &mut self.namespace,
            &mut self.principal,
            &mut self.canonical_service,
            &mut self.canonical_revision,
            &mut self.app,
            &mut self.version,
            &mut self.cluster,
        ]
    }
}

impl<'a> Labels<'a> {
    fn rest(&self) -> (Reporter, bool, &'static str, &'static str, Option<Response>) {
        (self.reporter, self.mutual_tls, self.protocol, self.flags, self.response)
    }

    /// The namespace that is served.
    fn served(&self) -> &'a str {
        let service = &self.service.namespace;
        if service.is_empty() { &self.destination.namespace } else { service }
    }

    /// For a series that a Telemetry of the client's makes: it takes room from the client's namespace first.
    pub(super) fn charged_to_client(self) -> Self {
        let charged = Charged { owner: &self.source.namespace, other: self.served() };
        Self { charged: Some(charged), ..self }
    }

    /// All labels with their values, in the order in which they are shown.
    pub(super) fn each(&self, mut put: impl FnMut(&'static str, Cow<'a, str>)) {
        put("reporter", self.reporter.label().into());
        each_of_peer(&SOURCE_KEYS, self.source, &mut put);
        let ServiceLabels { host, name, namespace } = self.service;
        for (key, value) in SERVICE_KEYS.into_iter().zip([host, namespace, name]) {
            put(key, known(value).into());
        }
        each_of_peer(&DESTINATION_KEYS, self.destination, &mut put);
        put("request_protocol", self.protocol.into());
        if let Some(response) = self.response {
            put("response_code", response.code.text());
            put("grpc_response_status", response.grpc_status.map(Grpc::text).unwrap_or_default());
        }
        put("response_flags", self.flags.into());
        put(
            "connection_security_policy",
            if self.mutual_tls { MUTUAL_TLS } else { UNKNOWN }.into(),
        );
    }
}

fn each_of_peer<'a>(
    keys: &[&'static str; 8],
    peer: &'a Peer,
    put: &mut impl FnMut(&'static str, Cow<'a, str>),
) {
    for (key, value) in keys.iter().zip(peer.labels()) {
        put(key, known(value).into());
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
        if let Some(charged) = self.charged {
            return charged;
        }
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
    /// Changes a label. False if a series of this kind cannot have it with this value.
    pub(super) fn set(&mut self, name: &str, value: &str) -> bool {
        let texts = SOURCE_KEYS.into_iter().zip(self.source.labels_mut());
        let texts = texts.chain(DESTINATION_KEYS.into_iter().zip(self.destination.labels_mut()));
        let ServiceLabels { host, name: of_service, namespace } = &mut self.service;
        let service = SERVICE_KEYS.into_iter().zip([host, namespace, of_service]);
        if let Some((_, text)) = texts.chain(service).find(|(key, _)| *key == name) {
            *text = if value == UNKNOWN { Str::new() } else { value.into() };
            return !value.is_empty();
        }
        match (name, &mut self.response) {
            ("reporter", _) => replace(&mut self.reporter, reporter(value)),
            ("request_protocol", _) => replace(&mut self.protocol, one_of(PROTOCOLS, value)),
            ("response_code", Some(response)) => replace(&mut response.code, Code::read(value)),
            ("grpc_response_status", Some(response)) if value.is_empty() => {
                response.grpc_status = None;
                true
            }
            ("grpc_response_status", Some(response)) => {
                replace(&mut response.grpc_status, Grpc::read(value).map(Some))
            }
            ("response_flags", _) => {
                let flags = Reason::all_flags().chain([OTHER]);
                replace(&mut self.flags, one_of(flags, value))
            }
            ("connection_security_policy", _) => {
                let value = one_of([MUTUAL_TLS, UNKNOWN], value);
                replace(&mut self.mutual_tls, value.map(|value| value == MUTUAL_TLS))
            }
            _ => false,
        }
    }

    pub(super) fn borrow(&self) -> Labels<'_> {
        Labels {
            reporter: self.reporter,
            source: &self.source,
            destination: &self.destination,
            service: &self.service,
            mutual_tls: self.mutual_tls,
            protocol: self.protocol,
            flags: self.flags,
            response: self.response,
            charged: None,
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
        self.borrow().each(|key, value| pairs.put(key, &value));
    }
}

const PROTOCOLS: [&str; 3] = ["tcp", "http", "grpc"];

const SERVICE_KEYS: [&str; 3] =
    ["destination_service", "destination_service_namespace", "destination_service_name"];

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

/// Whether a label says who speaks with whom.
pub fn names_a_side(label: &str) -> bool {
    let mut sides = SOURCE_KEYS.iter().chain(&DESTINATION_KEYS).chain(&SERVICE_KEYS);
    label == "reporter" || sides.any(|key| *key == label)
}

fn replace<T>(place: &mut T, value: Option<T>) -> bool {
    let is_known = value.is_some();
    if let Some(value) = value {
        *place = value;
    }
    is_known
}

fn one_of(values: impl IntoIterator<Item = &'static str>, wanted: &str) -> Option<&'static str> {
    values.into_iter().find(|value| *value == wanted)
}

fn reporter(label: &str) -> Option<Reporter> {
    let all = [Reporter::Source, Reporter::Destination, Reporter::Waypoint];
    all.into_iter().find(|reporter| reporter.label() == label)
}

fn known(text: &str) -> &str {
    if text.is_empty() { UNKNOWN } else { text }
}
