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
use super::attempt::{Failed, Outcome, Routed, late};
use crate::balance::{Ended, Picked};
use crate::base::Reason;
use crate::filter::{Hedging, Held, HttpFilter};
use crate::l7::exchange::arrived::Arrived;
use crate::l7::exchange::{Exchange, in_a_hurry};
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
enum Event {
    /// The first attempt ended.
    First(Outcome),
    /// One of the others.
    Other(Ending),
    /// The time has come for another one.
    Due,
}

/// Which attempt's outcome the client gets.
enum Won {
    First(Outcome),
    Other(Ending),
}

/// How one of the other attempts ended.
struct Ending {
    outcome: Outcome,
    /// What it tells about its endpoint.
    ended: Ended,
    /// At the circuit of its endpoint.
    call: Option<Box<Held>>,
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
                let event = next_event(&mut passing, &mut others, &mut timer).await;
                match event {
                    Event::First(outcome) if self.is_good(&outcome) => break Won::First(outcome),
                    Event::Other(ending) if self.is_good(&ending.outcome) => {
                        break Won::Other(ending);
                    }
                    // What the first one got is what the client gets if nothing better comes.
                    Event::First(outcome) => own = Some(outcome),
                    Event::Other(_) => {}
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
                if passing.is_none()
                    && others.is_empty()
                    && let Some(own) = own.take()
                {
                    break Won::First(own);
                }
            }
        };
        if tried.len() > 1 {
            exchange.attempts = exchange.attempts.max(before.saturating_add(tried.len() as u32));
        }
        match won {
            Won::First(outcome) => outcome,
            Won::Other(ending) => self.takes_over(ending, exchange),
        }
    }

    /// Another attempt than the first one has won.
    fn takes_over(&self, ending: Ending, exchange: &mut Exchange) -> Outcome {
        let Ending { outcome, ended, call } = ending;
        if let Outcome::Got(_, picked) = &outcome {
            attempts::hedge_won();
            let labels = &self.routed.session.context.labels;
            let peer = labels.destination(&self.routed.world, picked.workload.as_ref());
            exchange.record.destination(peer, picked.address);
            exchange.record.mutual_tls(picked.captured().is_some());
        }
        if let Some(call) = call {
            exchange.called(*call, ended);
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
    ) -> Option<impl Future<Output = Ending> + use<'a>> {
        let (picked, call) = self.routed.let_in_beside(tried)?;
        // Before it takes a place, so that a body that is yet to come costs none.
        let copy = self.again.copy()?;
        let Some(place) = self.place() else {
            attempts::hedge_overflowed();
            return None;
        };
        attempts::hedged();
        tried.push(picked.address);
        let due = (self.due, self.is_in_a_hurry);
        Some(send(self.routed, copy, (picked, call), number, due, place))
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
    (mut picked, call): (Picked, Option<Box<Held>>),
    number: u32,
    (due, is_in_a_hurry): (Option<Instant>, bool),
    _place: RetryPlace,
) -> Ending {
    let mut count = number - 1;
    let heard = |ended: Ended| if is_in_a_hurry { in_a_hurry(ended) } else { ended };
    let sent = {
        let attempt = pin!(routed.attempt_at(&mut picked, &mut arrived, &mut count, due, heard));
        deadline::within(due, attempt).await
    };
    let (outcome, ended) = match sent {
        Some(Ok(got)) => {
            let ended = heard(got.ended());
            (Outcome::Got(got, picked), ended)
        }
        Some(Err(Failed { answer, ended, .. })) => {
            (Outcome::Failed(answer, ended, Some(picked.address)), ended)
        }
        None => {
            let (answer, ended) = (late(Reason::Timeout), heard(Ended::TimedOut));
            picked.ended(ended);
            (Outcome::Failed(answer, Ended::TimedOut, Some(picked.address)), ended)
        }
    };
    call.iter().for_each(|call| call.ended(ended.has_failed()));
    Ending { outcome, ended, call }
}

/// Waits for whatever comes first. What has ended is gone.
async fn next_event<F: Future<Output = Outcome>, O: Future<Output = Ending>>(
    first: &mut Option<Pin<&mut F>>,
    others: &mut Vec<Pin<Box<O>>>,
    timer: &mut Option<Pin<&mut Sleep>>,
) -> Event {
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = poll_first(first, cx) {
            return Poll::Ready(Event::First(outcome));
        }
        for place in 0..others.len() {
            if let Some(Poll::Ready(ending)) =
                others.get_mut(place).map(|other| other.as_mut().poll(cx))
            {
                drop(others.swap_remove(place));
                return Poll::Ready(Event::Other(ending));
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
