//! What makes two flows of one pair: compared and hashed without being copied.

use std::hash::{Hash, Hasher};

use papaya::Equivalent;

use crate::base::{ObjectKey, Str};
use crate::observe::line::{End, Service, reporter};
use crate::observe::summary::PairLine;
use crate::telemetry::{Flow, Reporter, Verdict};

/// Methods that are told apart; all others are one.
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
const OTHER: &str = "OTHER";

/// What a flow has in common with others of its pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Parts<'a> {
    reporter: Reporter,
    verdict: Verdict,
    /// 0 if it is not known.
    port: u16,
    /// Empty for connections.
    method: &'static str,
    flags: &'static str,
    source: [&'a Str; 3],
    service: [&'a Str; 3],
    /// What was reached, by the workload rather than by the pod.
    destination: [&'a Str; 2],
    route: &'a Str,
    policy: Option<&'a ObjectKey>,
}

/// The same, kept.
#[derive(Clone)]
pub(super) struct Key {
    reporter: Reporter,
    verdict: Verdict,
    port: u16,
    method: &'static str,
    flags: &'static str,
    source: [Str; 3],
    service: [Str; 3],
    destination: [Str; 2],
    route: Str,
    policy: Option<ObjectKey>,
}

static NOTHING: Str = Str::new();

impl<'a> Parts<'a> {
    pub(super) fn of(flow: &'a Flow) -> Self {
        let (source, service) = (&flow.source, &flow.service);
        let request = flow.request.as_ref();
        let port = flow.dialled.or(flow.destination_address).map_or(0, |address| address.port());
        Self {
            reporter: flow.reporter,
            verdict: flow.verdict,
            port,
            method: request.map_or("", |request| method(request.method.as_str())),
            flags: flow.flags,
            source: [&source.namespace, &source.workload, &source.principal],
            service: [&service.namespace, &service.name, &service.host],
            destination: match &flow.destination {
                Some(peer) => [&peer.namespace, &peer.workload],
                None => [&NOTHING, &NOTHING],
            },
            route: request.map_or(&NOTHING, |request| &request.route),
            policy: flow.policy.as_ref(),
        }
    }

    pub(super) fn own(&self) -> Key {
        Key {
            reporter: self.reporter,
            verdict: self.verdict,
            port: self.port,
            method: self.method,
            flags: self.flags,
            source: self.source.map(Str::clone),
            service: self.service.map(Str::clone),
            destination: self.destination.map(Str::clone),
            route: self.route.clone(),
            policy: self.policy.cloned(),
        }
    }
}

impl Key {
    fn parts(&self) -> Parts<'_> {
        let Self { source: [a, b, c], service: [d, e, f], destination: [g, h], .. } = self;
        Parts {
            reporter: self.reporter,
            verdict: self.verdict,
            port: self.port,
            method: self.method,
            flags: self.flags,
            source: [a, b, c],
            service: [d, e, f],
            destination: [g, h],
            route: &self.route,
            policy: self.policy.as_ref(),
        }
    }

    /// Without the counts.
    pub(super) fn line(&self) -> PairLine {
        let [namespace, workload, identity] = self.source.clone();
        let source = End { namespace, workload, identity, ..End::default() };
        let [namespace, workload] = self.destination.clone();
        let destination = End { namespace, workload, ..End::default() };
        let [namespace, name, host] = self.service.clone();
        PairLine {
            reporter: Str::from(reporter(self.reporter)),
            layer: if self.method.is_empty() { 4 } else { 7 },
            source,
            destination,
            service: Service { namespace, name, host, dialled: None },
            port: self.port,
            method: Str::from(self.method),
            route: self.route.clone(),
            verdict: self.verdict,
            policy: self.policy.as_ref().map(ToString::to_string),
            flags: Str::from(self.flags),
            ..PairLine::default()
        }
    }
}

fn method(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER)
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl Equivalent<Key> for Parts<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.parts()
    }
}
