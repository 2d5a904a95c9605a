//! Hedging: a request without an answer for a while is sent to another endpoint as well, and the first answer counts.
//!
//! The attempts run side by side. The first is that of any request ([`Routed::pass`]) and has the record; the others go to one
//! endpoint each, and the record hears of the one that wins. Those that lose are dropped: their streams are reset, and nothing is
//! said about their endpoints. What the retry policy would ask for again wins only where nothing else is left.
//!
//! Each further attempt takes a place in the destination's retry budget, or else in the hedging's own. A request with a body is
//! sent again once all of the body has come and is kept.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::again::Retries;
use super::attempt::{Outcome, Routed, late};
use crate::balance::{Ended, Picked};
use crate::base::Reason;
use crate::filter::{Hedging, HttpFilter};
use crate::l7::exchange::Exchange;
use crate::l7::exchange::arrived::Arrived;
use crate::l7::message::deadline;
use crate::traffic::{RetryPlace, attempts};

/// A request that may be hedged.
pub(super) struct Hedged<'a> {
    pub(super) routed: &'a Routed,
    pub(super) hedging: &'a Hedging,
    pub(super) again: &'a Retries,
    /// When its response must have begun.
    pub(super) due: Option<Instant>,
    /// It is the client that gives it so little time.
    pub(super) is_in_a_hurry: bool,
}

/// What happens first.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment, in a future that is boxed")]
enum Event {
    /// An attempt ended: the first one, or one of the others.
    Ended(Outcome, Which),
    /// The time has come for another one.
    Due,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    First,
    Other,
}

impl<'a> Hedged<'a> {
    /// As [`Routed::pass`].
    pub(super) async fn pass(
        &self,
        arrived: &mut Arrived,
        first: Option<Picked>,
        exchange: &mut Exchange,
    ) -> Outcome {
        let Self { routed, hedging, due, .. } = *self;
        hedging.arrives();
        let begun = Instant::now();
        let delay = hedging.delay().filter(|_| self.may_be_hedged());
        let outcome = match (delay, first) {
            (Some(delay), Some(first)) => self.race(arrived, first, delay, exchange).await,
            (_, first) => routed.pass(arrived, first, due, exchange).await,
        };
        // Where another attempt won, the first had not ended: it would have taken longer.
        hedging.took(begun.elapsed());
        outcome
    }

    /// An authorizer is asked for one request, so what it says of one is not said of another.
    fn may_be_hedged(&self) -> bool {
        let [of_rule, _] = self.routed.plan.filters();
        !of_rule.iter().any(|filter| matches!(filter, HttpFilter::ExternalAuth(_)))
    }

    async fn race(
        &self,
        arrived: &mut Arrived,
        first: Picked,
        delay: Duration,
        exchange: &mut Exchange,
    ) -> Outcome {
        let before = exchange.attempts;
        let mut tried = vec![first.address];
        let mut others = Vec::new();
        let won = {
            let mut passing = pin!(self.routed.pass(arrived, Some(first), self.due, exchange));
            let mut passing = Some(passing.as_mut());
            let mut timer = pin!(sleep(delay));
            let mut timer = Some(timer.as_mut());
            let mut own = None;
            loop {
                match next_event(&mut passing, &mut others, &mut timer).await {
                    Event::Ended(outcome, which) if self.is_good(&outcome) => {
                        break (outcome, which);
                    }
                    Event::Ended(outcome, which) => {
                        // What the first one got is what the client gets if nothing better comes.
                        if which == Which::First {
                            own = Some(outcome);
                        }
                        if passing.is_none()
                            && others.is_empty()
                            && let Some(own) = own.take()
                        {
                            break (own, Which::First);
                        }
                    }
                    Event::Due => {
                        let number = before.saturating_add(tried.len() as u32 + 1);
                        others.extend(self.other(&mut tried, number).map(Box::pin));
                        let more = tried.len() < self.hedging.max_requests as usize;
                        match timer.as_mut().filter(|_| more) {
                            Some(timer) => timer.as_mut().reset(Instant::now() + delay),
                            None => timer = None,
                        }
                    }
                }
            }
        };
        let (outcome, which) = won;
        if tried.len() > 1 {
            exchange.attempts = exchange.attempts.max(before.saturating_add(tried.len() as u32));
        }
        if let (Outcome::Got(_, picked), Which::Other) = (&outcome, which) {
            attempts::hedge_won();
            let labels = &self.routed.session.context.labels;
            let peer = labels.destination(&self.routed.world, picked.workload.as_ref());
            exchange.record.destination(peer, picked.address);
            exchange.record.mutual_tls(picked.captured().is_some());
        }
        outcome
    }

    /// A response that nobody wants to be asked for again.
    fn is_good(&self, outcome: &Outcome) -> bool {
        let retry = self.routed.retry_if_any();
        let is_wanted = retry.is_some_and(|retry| self.again.wants(retry, outcome));
        matches!(outcome, Outcome::Got(..)) && !is_wanted
    }

    /// One attempt more at another endpoint, if there is one, and the budget permits it.
    fn other(
        &self,
        tried: &mut Vec<SocketAddr>,
        number: u32,
    ) -> Option<impl Future<Output = Outcome> + use<'a>> {
        let Routed { session, world, plan, .. } = self.routed;
        let picked = plan.endpoint_again(world, session, tried);
        let picked = picked.filter(|picked| !tried.contains(&picked.address))?;
        let Some(place) = self.place() else {
            attempts::hedge_overflowed();
            return None;
        };
        let copy = self.again.copy()?;
        attempts::hedged();
        tried.push(picked.address);
        let late = if self.is_in_a_hurry { Ended::GivenUp } else { Ended::TimedOut };
        Some(send(self.routed, copy, picked, number, (self.due, late), place))
    }

    fn place(&self) -> Option<RetryPlace> {
        let destination = self.routed.plan.destination(&self.routed.session);
        match destination.filter(|it| it.limits_retries()) {
            Some(destination) => destination.retry().ok(),
            None => self.hedging.one_more().map(RetryPlace::from),
        }
    }
}

/// One of the other attempts, the `number`-th of the request.
async fn send(
    routed: &Routed,
    mut arrived: Arrived,
    mut picked: Picked,
    number: u32,
    (due, heard): (Option<Instant>, Ended),
    _place: RetryPlace,
) -> Outcome {
    let mut count = number - 1;
    let sent = {
        let attempt = pin!(routed.attempt_at(&mut picked, &mut arrived, &mut count, due));
        deadline::within(due, attempt).await
    };
    match sent {
        Some(Ok(got)) => Outcome::Got(got, picked),
        Some(Err(answer)) => Outcome::Failed(answer, Ended::Broken, Some(picked.address)),
        None => {
            picked.ended(heard);
            Outcome::Failed(late(Reason::Timeout), Ended::TimedOut, Some(picked.address))
        }
    }
}

/// Waits for whatever comes first. What has ended is gone.
async fn next_event<F: Future<Output = Outcome>, O: Future<Output = Outcome>>(
    first: &mut Option<Pin<&mut F>>,
    others: &mut Vec<Pin<Box<O>>>,
    timer: &mut Option<Pin<&mut Sleep>>,
) -> Event {
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = poll_first(first, cx) {
            return Poll::Ready(Event::Ended(outcome, Which::First));
        }
        for place in 0..others.len() {
            if let Some(Poll::Ready(outcome)) =
                others.get_mut(place).map(|other| other.as_mut().poll(cx))
            {
                drop(others.swap_remove(place));
                return Poll::Ready(Event::Ended(outcome, Which::Other));
            }
        }
        match timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| Event::Due),
            None => Poll::Pending,
        }
    })
    .await
}

fn poll_first<F: Future<Output = Outcome>>(
    first: &mut Option<Pin<&mut F>>,
    cx: &mut Context<'_>,
) -> Poll<Outcome> {
    let Some(running) = first else { return Poll::Pending };
    let polled = running.as_mut().poll(cx);
    if polled.is_ready() {
        *first = None;
    }
    polled
}
