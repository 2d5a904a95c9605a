//! Sending a request again that may have reached an application, where its route, or the mesh, wants that
//! ([`again`](super::again)).

use std::net::SocketAddr;
use std::time::Duration;

use http_body::Body;
use tokio::time::Instant;

use super::again::Retries;
use super::attempt::{Got, Outcome, Routed, late};
use super::hedge::Hedged;
use crate::balance::{self, Ended, Picked};
use crate::base::Reason;
use crate::l7::exchange::Exchange;
use crate::l7::exchange::answer::Form;
use crate::l7::exchange::arrived::Arrived;
use crate::l7::message::{asked, deadline};
use crate::model::Timeouts;
use crate::traffic::{Balancer, RetryPlace, attempts};

/// Sends the request until there is a response to pass on, or an answer of our own. The request is lent down to the connection
/// that takes it, because every future between would hold it twice.
pub(in crate::l7) async fn run(
    routed: &Routed,
    arrived: &mut Arrived,
    first: Option<Picked>,
    exchange: &mut Exchange,
) -> Outcome {
    let whole = routed.timeouts(arrived).0.request.map(|limit| exchange.deadline(limit));
    let mut hedging =
        routed.plan.hedging().filter(|hedging| hedging.takes(arrived.request.method()));
    let wanted = routed.retry_if_any().is_some() || hedging.is_some();
    let mut retry = wanted.then(|| Retries::of(arrived, routed.session.seat.share())).flatten();
    first.iter().for_each(Picked::arrives);
    let mut next = first;
    loop {
        let one = |limit: Option<Duration>| limit.map(|limit| Instant::now() + limit);
        let due = {
            // Looked up again for each attempt, because every request in flight would hold it.
            let (timeouts, stream) = routed.timeouts(arrived);
            let timeout = deadline::earlier(whole, one(timeouts.backend_request));
            exchange.lasts_until(timeout, one(stream));
            exchange.is_in_a_hurry =
                stream.is_some() || timeouts != routed.plan.timeouts(&routed.world);
            deadline::earlier(exchange.due, one(timeouts.per_try))
        };
        let passed = match (hedging.take(), &retry) {
            // Boxed, because it is large and few requests are hedged.
            (Some(hedging), Some(again)) => {
                let is_in_a_hurry = exchange.is_in_a_hurry;
                let hedged = Hedged { routed, hedging, again, due, is_in_a_hurry };
                Box::pin(hedged.pass(arrived, next, exchange)).await
            }
            _ => routed.pass(arrived, next, due, exchange).await,
        };
        // Moved, because what awaiting gives would be held beside the future that gave it.
        let outcome = passed;
        let Some(again) = retry.as_mut().filter(|_| !deadline::is_over(whole)) else {
            return outcome;
        };
        let Some((request, wait)) = routed.retried(again, &outcome, exchange) else {
            return outcome;
        };
        outcome.discard();
        if deadline::within(whole, tokio::time::sleep(wait)).await.is_none() {
            return Outcome::Failed(late(Reason::Timeout), Ended::TimedOut, None);
        }
        *arrived = request;
        next = routed.endpoint_again(again);
    }
}

impl Routed {
    /// How long the request may take: as the rule says, or the client where it says less. And how long each attempt may last, with its
    /// response, as only a client says.
    fn timeouts(&self, arrived: &Arrived) -> (Timeouts, Option<Duration>) {
        let mut timeouts = self.plan.timeouts(&self.world);
        if arrived.form == Form::Grpc {
            let given = asked::grpc_timeout(arrived.request.headers());
            // 0 stands for none, as in Envoy.
            shorten(&mut timeouts.request, given.filter(|it| !it.is_zero()));
        }
        let Some(asked) = &self.asked else { return (timeouts, None) };
        shorten(&mut timeouts.request, asked.timeout);
        shorten(&mut timeouts.per_try, asked.per_try);
        (timeouts, asked.stream)
    }

    /// The request once more, when its policy wants that, and how long to wait.
    fn retried(
        &self,
        again: &mut Retries,
        outcome: &Outcome,
        exchange: &mut Exchange,
    ) -> Option<(Arrived, Duration)> {
        let retry = self.retry_if_any()?;
        let wanted = again.wants(retry, outcome);
        if !wanted {
            if again.sent > 0 && matches!(outcome, Outcome::Got(..)) {
                attempts::retry_succeeded();
            }
            return None;
        }
        if again.is_exhausted(retry) {
            attempts::retries_exhausted();
            let why = format!("it was sent {} times, as often as it may be", retry.attempts + 1);
            exchange.record.mark(Reason::RetryLimit, why);
            return None;
        }
        // Before it takes a place, so that what cannot be sent again costs others none.
        if !again.is_kept() {
            return None;
        }
        if let Some(destination) = self.plan.destination(&self.session)
            && let Err(overflow) = again.take_place(destination)
        {
            tracing::debug!("a request is not retried: {overflow}");
            attempts::retry_overflowed();
            exchange.record.mark(Reason::Overflow, overflow.to_string());
            return None;
        }
        if let Some(endpoint) = outcome.endpoint() {
            again.sent_to(endpoint);
        }
        let next = again.next(retry)?;
        exchange.calls_again();
        attempts::retried();
        Some(next)
    }

    /// Whether what was not processed may go on to another endpoint. What the application has `refused` takes a place in the
    /// destination's budget of retries, where there is one: an application that refuses what is too much for it must not get more of
    /// it for that. It is told where no retry policy is asked next.
    pub(super) fn once_more(
        &self,
        refused: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Box<RetryPlace>>, ()> {
        let destination = self.plan.destination(&self.session).filter(|_| refused);
        let Some(destination) = destination.filter(|it| it.limits_retries()) else {
            return Ok(None);
        };
        destination.retry().map(|place| Some(Box::new(place))).map_err(|overflow| {
            if self.retry_if_any().is_none() {
                attempts::retry_overflowed();
                exchange.record.mark(Reason::Overflow, overflow.to_string());
            }
        })
    }

    /// An endpoint to send the request to again: in another locality where the policy wants that and there is one.
    fn endpoint_again(&self, again: &Retries) -> Option<Picked> {
        let retry = self.retry()?;
        let destination = self.plan.destination(&self.session);
        let sticks = destination.is_some_and(|it| matches!(it.balancer(), Some(Balancer::Hash(_))));
        let picked =
            |avoided: &[SocketAddr]| self.plan.endpoint_again(&self.world, &self.session, avoided);
        if retry.leaves_locality {
            let (service, port) = &self.plan.backend;
            let near = balance::neighbours(service, *port, again.tried());
            if let Some(far) = picked(&near).filter(|picked| !near.contains(&picked.address)) {
                return Some(far);
            }
        }
        picked(again.avoided(retry, sticks))
    }
}

impl Outcome {
    /// The endpoint that the request was sent to last.
    fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Outcome::Got(_, picked) => Some(picked.address),
            Outcome::Failed(_, _, endpoint) => *endpoint,
        }
    }

    /// Nobody gets to see it. The connection goes on when nothing more can come over it.
    fn discard(self) {
        if let Outcome::Got(Got { response, lease, .. }, _) = self
            && response.body().is_end_stream()
        {
            lease.give_back();
        }
    }
}

fn shorten(limit: &mut Option<Duration>, by: Option<Duration>) {
    *limit = match (*limit, by) {
        (Some(limit), Some(by)) => Some(limit.min(by)),
        (limit, by) => limit.or(by),
    };
}
