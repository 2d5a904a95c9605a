//! A connection or request that has ended, or was refused, as a value: for whoever observes (`observe`).
//!
//! While nobody wants flows, a record pays for one relaxed load, and no flow is made.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use super::{Peer, Reporter, ServiceLabels};
use crate::base::{ObjectKey, PolicyNote, Reason, Str};
use crate::trace::TraceId;

/// The longest text of a flow that peers or tenants choose, in bytes: a path, an explanation.
pub(super) const MAX_TEXT: usize = 512;
/// The longest host: names of DNS are no longer.
pub(super) const MAX_HOST: usize = 256;

/// What became of a connection or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It reached the application, whatever that answered.
    Permitted,
    /// A policy, or another rule of the mesh, refused it.
    Denied,
    /// It was permitted, and came to nothing or broke off.
    Failed,
}

/// A connection or request that has ended.
#[derive(Clone, Debug)]
pub struct Flow {
    /// When it ended.
    pub at: SystemTime,
    /// Whose half of it this is: the client's node's or the server's.
    pub reporter: Reporter,
    pub source: Arc<Peer>,
    pub source_address: SocketAddr,
    /// `None` where nothing was reached.
    pub destination: Option<Arc<Peer>>,
    /// Where the application listens, as far as it is known.
    pub destination_address: Option<SocketAddr>,
    pub service: Arc<ServiceLabels>,
    /// As the client dialled it, where that is still known.
    pub dialled: Option<SocketAddr>,
    pub verdict: Verdict,
    /// The policy that decided, where one did and is known here.
    pub policy: Option<ObjectKey>,
    /// As in the access log (`response_flags`).
    pub flags: &'static str,
    /// Why it was denied or failed; empty if it was not.
    pub why: Str,
    /// What policies that decide nothing have to say.
    pub notes: Vec<PolicyNote>,
    pub mutual_tls: bool,
    /// Between workloads of one node, and so without a tunnel.
    pub in_process: bool,
    pub waypoint: Option<Str>,
    /// From its beginning to its end.
    pub duration: Duration,
    /// Bytes from the side that dialled; of HTTP the request's body.
    pub sent: u64,
    /// Bytes to the side that dialled; of HTTP the response's body.
    pub received: u64,
    pub trace: Option<TraceId>,
    /// `None` for a connection.
    pub request: Option<RequestFlow>,
}

/// What only requests have.
#[derive(Clone, Debug)]
pub struct RequestFlow {
    pub method: http::Method,
    /// With its query, tokens in it made unreadable as in the access log.
    pub path: Str,
    pub authority: Str,
    pub protocol: &'static str,
    /// The route, or its rule, where one was chosen.
    pub route: Str,
    /// 0 if the client was sent none.
    pub status: u16,
    pub grpc_status: Option<u32>,
    /// How long the application took until its response began.
    pub upstream_time: Option<Duration>,
}

/// Who takes flows. Called on the threads of the data path: it must neither wait nor take long.
pub trait FlowSink: Send + Sync {
    fn take(&self, flow: Flow);
}

/// Where flows go, once somebody takes them.
#[derive(Default)]
pub(super) struct Outlet {
    wanted: Arc<AtomicBool>,
    sink: OnceLock<Arc<dyn FlowSink>>,
}

impl Verdict {
    /// By why it failed, if it did.
    pub fn of(reason: Reason) -> Self {
        match reason {
            // What ends a connection in time is no failure of it.
            Reason::None | Reason::DelayInjected | Reason::TooOld | Reason::TooIdle => {
                Verdict::Permitted
            }
            Reason::Denied
            | Reason::Unauthorized
            | Reason::NotRegistered
            | Reason::WaypointUnusable
            | Reason::Unencrypted
            | Reason::RateLimited => Verdict::Denied,
            _ => Verdict::Failed,
        }
    }

    /// As it is asked for and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Permitted => "permitted",
            Verdict::Denied => "denied",
            Verdict::Failed => "failed",
        }
    }
}

impl Flow {
    /// The layer that it is of: 4 for connections, 7 for requests.
    pub fn layer(&self) -> u8 {
        if self.request.is_some() { 7 } else { 4 }
    }
}

impl Outlet {
    /// One relaxed load.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    pub(super) fn wanted(&self) -> Arc<AtomicBool> {
        self.wanted.clone()
    }

    pub(super) fn lead_to(&self, sink: Arc<dyn FlowSink>) -> bool {
        self.sink.set(sink).is_ok()
    }

    pub(super) fn give(&self, flow: Flow) {
        if let Some(sink) = self.sink.get() {
            sink.take(flow);
        }
    }
}

/// Not longer than a flow may hold.
pub(super) fn short(text: Str, most: usize) -> Str {
    match text.get(..text.floor_char_boundary(most)) {
        Some(shown) if shown.len() < text.len() => Str::from(format!("{shown}…")),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_verdict_and_what_policies_refuse_is_denied() {
        assert_eq!(Verdict::of(Reason::None), Verdict::Permitted);
        for reason in [Reason::Denied, Reason::Unauthorized, Reason::NotRegistered] {
            assert_eq!(Verdict::of(reason), Verdict::Denied, "{reason:?}");
        }
        for reason in [Reason::PeerReset, Reason::Timeout, Reason::NoHealthyUpstream] {
            assert_eq!(Verdict::of(reason), Verdict::Failed, "{reason:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(short("/a".into(), MAX_TEXT), "/a");
        let long = short("ä".repeat(MAX_TEXT).into(), MAX_TEXT);
        assert!(long.ends_with('…') && long.len() <= MAX_TEXT + 4, "{}", long.len());
    }
}
