//! Circuit breakers of endpoints: those whose circuit is open or full are passed over.

use std::net::SocketAddr;

use super::attempt::Routed;
use crate::balance::{Ended, Picked};
use crate::filter::{self, Held};
use crate::l7::exchange::answer::Answer;
use crate::reach::Attempts;

/// So many endpoints are passed over for one attempt. Each selection costs more than the one before, and where all circuits of a large
/// service are open, every request would go through all of them.
const MOST_PASSED_OVER: usize = 32;

impl Routed {
    /// The next endpoint that may be called, and its call. `last` hears why there is none.
    pub(super) fn let_in(
        &self,
        next: Option<Picked>,
        attempts: &mut Attempts,
        last: &mut Option<(Answer, Ended, SocketAddr)>,
    ) -> Option<(Picked, Option<Box<Held>>)> {
        let mut picked = next?;
        for _ in 0..MOST_PASSED_OVER {
            match self.call(&picked) {
                Ok(call) => return Some((picked, call)),
                Err(answer) => _ = last.get_or_insert((answer, Ended::NotTried, picked.address)),
            }
            attempts.pass_over(picked);
            picked = self.plan.endpoint(&self.world, &self.session, attempts)?;
        }
        None
    }

    /// An endpoint that may be called beside those that are: none of `tried`.
    pub(super) fn let_in_beside(
        &self,
        tried: &[SocketAddr],
    ) -> Option<(Picked, Option<Box<Held>>)> {
        let mut avoided = tried.to_vec();
        for _ in 0..MOST_PASSED_OVER {
            let picked = self.plan.endpoint_again(&self.world, &self.session, &avoided)?;
            if avoided.contains(&picked.address) {
                return None;
            }
            match self.call(&picked) {
                Ok(call) => return Some((picked, call)),
                Err(_) => avoided.push(picked.address),
            }
        }
        None
    }

    /// The call of an endpoint, where a policy has circuits for them; or the answer where no other is left.
    fn call(&self, picked: &Picked) -> Result<Option<Box<Held>>, Answer> {
        let ([of_rule, _], of_service) = (self.plan.filters(), self.plan.filters_of_service());
        if of_rule.is_empty() && of_service.is_empty() {
            return Ok(None);
        }
        let breaker = filter::circuit_breaker(of_rule.iter().chain(of_service));
        let Some(breaker) = breaker else { return Ok(None) };
        let (backend, _) = &self.plan.backend;
        breaker.call(&backend.key, picked.address).map_err(|answer| Answer::of_filter(*answer))
    }
}
