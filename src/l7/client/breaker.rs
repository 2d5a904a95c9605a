//! Circuit breakers of endpoints: those whose circuit is open or full are passed over.

use super::attempt::Routed;
use crate::balance::Picked;
use crate::filter::{self, Held};
use crate::l7::exchange::answer::Answer;

impl Routed {
    /// The call of an endpoint, where a policy has circuits for them; or the answer where no other is left.
    pub(super) fn call(&self, picked: &Picked) -> Result<Option<Box<Held>>, Answer> {
        let ([of_rule, _], of_service) = (self.plan.filters(), self.plan.filters_of_service());
        if of_rule.is_empty() && of_service.is_empty() {
            return Ok(None);
        }
        let breaker = filter::circuit_breaker(of_rule.iter().chain(of_service));
        let Some(breaker) = breaker else { return Ok(None) };
        let (backend, _) = &self.plan.backend;
        breaker.call(&backend.key, picked.address).map_err(Answer::of_filter)
    }
}
