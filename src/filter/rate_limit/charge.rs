//! What a response costs: tokens that are taken once the application tells how many (`cost.response`).

use std::sync::Arc;

use http::HeaderMap;

use super::ResponseCost;
use super::buckets::{Buckets, Rate};

/// What is still to be taken for one request.
#[derive(Debug, Default)]
pub struct Charges(Vec<Charge>);

#[derive(Debug)]
struct Charge {
    buckets: Arc<Buckets>,
    hash: u64,
    rate: Rate,
    /// What the buckets count for a token.
    unit: u64,
    cost: ResponseCost,
}

impl Charges {
    pub(super) fn add(
        &mut self,
        buckets: &Arc<Buckets>,
        hash: u64,
        rate: Rate,
        unit: u64,
        cost: &ResponseCost,
    ) {
        let (buckets, cost) = (buckets.clone(), cost.clone());
        self.0.push(Charge { buckets, hash, rate, unit, cost });
    }

    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes what the response costs, by its headers. A response that does not say costs nothing; what is no number costs
    /// the most, as does what is more than that.
    pub fn settle(self, response: &HeaderMap) {
        for Charge { buckets, hash, rate, unit, cost } in self.0 {
            let told = response.get_all(&cost.header).iter();
            let told = told.map(|value| {
                let number = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
                number.unwrap_or(cost.most)
            });
            let tokens = told.fold(0, u64::saturating_add).min(cost.most);
            buckets.costs(tokens);
            if tokens > 0 {
                let owed = cost.most.saturating_mul(unit);
                buckets.charge(hash, rate, tokens.saturating_mul(unit), owed);
            }
        }
    }

    /// Takes what a request costs whose client broke it off, so that nobody uses an application for nothing by leaving just before
    /// the response: the most that the policy states, or else that a response of the limit has cost so far.
    pub fn abandon(self) {
        for Charge { buckets, hash, rate, unit, cost } in self.0 {
            let tokens = match cost.is_stated {
                true => cost.most,
                false => buckets.dearest().clamp(1, cost.most.max(1)),
            };
            let owed = cost.most.saturating_mul(unit);
            buckets.charge(hash, rate, tokens.saturating_mul(unit), owed);
        }
    }
}
