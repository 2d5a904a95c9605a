//! Which flows are wanted: one pure predicate, which the agent applies for everybody who asks.

use std::str::FromStr;

use crate::base::ObjectKey;
use crate::telemetry::{Flow, Peer, Verdict};

/// Which flows are wanted; what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Either end, or the service, is of this namespace.
    pub namespace: Option<String>,
    /// Either end is this pod, or a pod of this workload.
    pub workload: Option<ObjectKey>,
    /// The service that was called.
    pub service: Option<ObjectKey>,
    pub verdict: Option<Verdict>,
    /// Of requests only.
    pub status: Option<Status>,
    /// 4 for connections, 7 for requests.
    pub layer: Option<u8>,
}

/// Statuses of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `404`
    Code(u16),
    /// `5xx`: the hundreds.
    Class(u16),
}

impl Filter {
    /// Whether a flow is wanted.
    pub fn wants(&self, flow: &Flow) -> bool {
        self.wants_names(flow)
            && self.verdict.is_none_or(|verdict| flow.verdict == verdict)
            && self.layer.is_none_or(|layer| flow.layer() == layer)
            && self.status.is_none_or(|status| {
                flow.request.as_ref().is_some_and(|request| status.is(request.status))
            })
    }

    fn wants_names(&self, flow: &Flow) -> bool {
        let ends = || [Some(&flow.source), flow.destination.as_ref()].into_iter().flatten();
        let service = &flow.service;
        let namespace = |wanted: &String| {
            service.namespace == wanted.as_str()
                || ends().any(|end| end.namespace == wanted.as_str())
        };
        let called = |wanted: &ObjectKey| {
            service.namespace == wanted.namespace && service.name == wanted.name
        };
        self.namespace.as_ref().is_none_or(namespace)
            && self.workload.as_ref().is_none_or(|wanted| ends().any(|end| is(end, wanted)))
            && self.service.as_ref().is_none_or(called)
    }
}

fn is(end: &Peer, wanted: &ObjectKey) -> bool {
    end.namespace == wanted.namespace && (end.name == wanted.name || end.workload == wanted.name)
}

impl Status {
    fn is(self, status: u16) -> bool {
        match self {
            Status::Code(code) => status == code,
            Status::Class(class) => status / 100 == class,
        }
    }
}

impl FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| text.parse::<u16>().map_err(|_| ());
        match text.strip_suffix("xx") {
            Some(class) => match number(class)? {
                class @ 1..=5 => Ok(Status::Class(class)),
                _ => Err(()),
            },
            None => match number(text)? {
                code @ 100..=599 => Ok(Status::Code(code)),
                _ => Err(()),
            },
        }
    }
}
