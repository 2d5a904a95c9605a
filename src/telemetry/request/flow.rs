//! A request as a flow.

use std::mem::take;
use std::time::{Duration, SystemTime};

use super::RequestRecord;
use crate::base::{ObjectKey, Reason, Str};
use crate::telemetry::Reporter;
use crate::telemetry::flow::{Flow, MAX_HOST, MAX_TEXT, RequestFlow, Verdict, short};
use crate::trace::TraceId;

/// What the client's node knows of a request that the destination's agent refused: its answer, and not the policy's name.
const DENIED_THERE: &str =
    "the agent of the destination's node denied it; its flows and its log name the policy";

impl RequestRecord {
    /// The destination's agent says that it denied the request.
    pub fn denied_there(&mut self) {
        self.denied_there = true;
    }

    /// The client's half has reached an endpoint of this node without a tunnel.
    pub fn in_process(&mut self, in_process: bool) {
        self.in_process = in_process;
    }

    /// At the destination, and the client's half has a record of it as well.
    pub fn is_of_a_routed_arrival(&self) -> bool {
        !self.start.outbound && !self.start.count
    }

    /// The policy that decided, as far as it is known.
    pub fn policy(&mut self, policy: Option<ObjectKey>) {
        self.start.policy = policy;
    }

    /// The request as a flow; the record is at its end, and what it has is taken from it.
    pub(super) fn give_flow(&mut self, duration: Duration, trace: Option<TraceId>) {
        let flags = self.flags();
        let verdict = match &self.failure {
            Some((reason, _)) => Verdict::of(*reason),
            None if self.denied_there => Verdict::Denied,
            // Marks are of requests that do not fail besides.
            None => Verdict::Permitted,
        };
        let why = match self.failure.take().or_else(|| self.mark.take()) {
            Some((_, why)) => Str::from(why),
            None if self.denied_there => arcstr::literal!(DENIED_THERE),
            None => Str::new(),
        };
        let is_untold = self.denied_there && flags == Reason::None.flag();
        let (destination, destination_address) = self.destination.take().unzip();
        let start = &mut self.start;
        let connection = start.connection.as_ref().map(|it| it.start());
        let flow = Flow {
            at: SystemTime::now(),
            reporter: if start.outbound { Reporter::Source } else { Reporter::Destination },
            source: start.source.clone(),
            source_address: start.source_address,
            destination,
            destination_address,
            service: start.service.clone(),
            dialled: connection.map(|it| it.dialled),
            verdict,
            policy: start.policy.take(),
            flags: if is_untold { Reason::Denied.flag() } else { flags },
            why: short(why, MAX_TEXT),
            notes: take(&mut self.notes),
            mutual_tls: start.mutual_tls,
            in_process: self.in_process || connection.is_some_and(|it| it.in_process),
            waypoint: start.waypoint_principal.take(),
            duration,
            sent: self.request_bytes,
            received: self.response_bytes,
            trace,
            request: Some(RequestFlow {
                method: take(&mut start.method),
                path: short(take(&mut start.path), MAX_TEXT),
                authority: short(take(&mut start.authority), MAX_HOST),
                protocol: start.protocol,
                route: take(&mut self.route),
                status: self.code.map_or(0, |code| code.as_u16()),
                grpc_status: self.grpc_status,
                upstream_time: self.upstream_time,
            }),
        };
        self.telemetry.flows().give(flow);
    }
}
