//! Connections to several endpoints at once, of which the first that is accepted is kept (Istio, `istio.io/connect-strategy:
//! RACE_FIRST_TCP_CONNECT`; RFC 8305).
//!
//! One endpoint after the other is dialled, the next as soon as one fails or has not answered for a while. Each of them is judged
//! before it is dialled, as without a race. The client's bytes go to the winner only; the other connections are closed, and say
//! nothing about their endpoints.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::endpoint::nobody;
use super::{Ask, Attempts, Downstream, Failure, Reach, Reached, Unreached};
use crate::balance::{Ended, Picked};
use crate::base::Reason;
use crate::gate::Permit;
use crate::model::Service;

/// How many endpoints one connection may be dialled to: two of each family are common, and a client must not fan out for ever.
const RACERS: usize = 6;

/// How long one endpoint is waited for before the next is dialled as well: Envoy's.
const HEAD_START: Duration = Duration::from_millis(300);

/// An endpoint that may be connected to.
type Racer = (Picked, Option<Permit>);

impl Reach {
    /// Connects to the endpoint that accepts first.
    pub(super) async fn race(
        &self,
        from: &Downstream<'_>,
        ask: &Ask<'_>,
        service: &Arc<Service>,
    ) -> Result<Reached, Unreached> {
        let mut waiting = self.racers(from, ask, service)?.into_iter();
        let mut running = FuturesUnordered::new();
        let mut last = None;
        loop {
            let more = waiting.len() > 0;
            if let Some(mut racer) = waiting.next() {
                match racer.0.take_connection() {
                    Ok(()) => running.push(self.run(from, ask, service, racer)),
                    Err(overflow) => {
                        let failure = Failure::new(Reason::Overflow, overflow.to_string());
                        last.get_or_insert(unreached(racer, Ended::NotTried, failure));
                    }
                }
            }
            if running.is_empty() {
                match more {
                    true => continue,
                    false => return Err(last.unwrap_or_else(|| nobody(from, ask, service))),
                }
            }
            tokio::select! {
                biased;
                Some(ended) = running.next() => match ended {
                    Ok(reached) => return Ok(reached),
                    Err((failed, goes_on)) if goes_on => last = Some(failed),
                    Err((failed, _)) => return Err(failed),
                },
                () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {}
            }
        }
    }

    /// One connection; with a failure, whether others may go on.
    async fn run(
        &self,
        from: &Downstream<'_>,
        ask: &Ask<'_>,
        service: &Service,
        mut racer: Racer,
    ) -> Result<Reached, (Unreached, bool)> {
        match self.connect_secured(from, (ask.port(), ask.subset), service, &racer.0).await {
            Ok((upstream, tls)) => {
                racer.0.ended(Ended::Served);
                let (picked, permit) = racer;
                Ok(Reached { picked, upstream, permit, tls })
            }
            Err(failure) => {
                let how = failure.ended();
                Err((unreached(racer, how, failure), how.may_go_on()))
            }
        }
    }

    /// The endpoints that may be connected to, in the order in which they are dialled. An error if that is none.
    fn racers(
        &self,
        from: &Downstream<'_>,
        ask: &Ask<'_>,
        service: &Service,
    ) -> Result<Vec<Racer>, Unreached> {
        let (mut attempts, mut racers, mut refused) = (Attempts::default(), Vec::new(), None);
        for _ in 0..RACERS {
            match self.choose(from, ask, service, &attempts) {
                Ok(None) => break,
                Ok(Some(racer)) => {
                    attempts.leave_out(racer.0.address);
                    racers.push(racer);
                }
                Err(unreached) => {
                    let Some(picked) = &unreached.picked else { return Err(unreached) };
                    attempts.leave_out(picked.address);
                    refused.get_or_insert(unreached);
                }
            }
        }
        match refused {
            Some(refused) if racers.is_empty() => Err(refused),
            _ => Ok(racers),
        }
    }
}

fn unreached((mut picked, permit): Racer, how: Ended, failure: Failure) -> Unreached {
    picked.ended(how);
    let notes = permit.map(|it| it.notes).unwrap_or_default();
    Unreached { picked: Some(picked), failure, notes, unread: false }
}
