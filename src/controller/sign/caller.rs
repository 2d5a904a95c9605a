//! The caller of a token: asked from the API server and cached for seconds.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::authorize::{self, AUDIENCE, Caller};
use super::refusal::{Kind, Refusal};
use crate::controller::Context;
use crate::controller::cluster::told;

/// The cache time of an answer: an agent that starts requests certificates for all of its pods at once, with one token.
/// A token that is revoked meanwhile stays valid for so much longer.
const REMEMBER: Duration = Duration::from_secs(10);
/// Cached agents: some answers for each node of a large cluster.
const MAX_REMEMBERED: usize = 20_000;
/// The timeout of the API server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Identifies callers.
pub(super) struct Callers {
    reviews: Api<TokenReview>,
    /// The agents' user name.
    agent: String,
    known: Mutex<HashMap<String, (Caller, Instant)>>,
}

impl Callers {
    pub(super) fn new(context: &Context) -> Self {
        let settings = &context.settings;
        let (namespace, account) = (&settings.namespace, &settings.agent_account);
        Self {
            reviews: Api::all(context.client.clone()),
            agent: format!("system:serviceaccount:{namespace}:{account}"),
            known: Mutex::default(),
        }
    }

    /// The agent to which the token belongs, asked from the API server.
    pub(super) async fn review(&self, token: &str) -> Result<Caller, Refusal> {
        let spec =
            TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let parameters = PostParams::default();
        let asked = Instant::now();
        let answer = timeout(PATIENCE, self.reviews.create(&parameters, &review)).await;
        let unavailable = |why: String| {
            let advice = "check the API server, and that the controller may create tokenreviews";
            Refusal::new(Kind::ApiServer, format!("cannot review the token: {why}; {advice}"))
        };
        let review = answer
            .map_err(|_| unavailable(format!("no answer within {PATIENCE:?}")))?
            .map_err(|error| unavailable(told(&error)))?;
        let caller = authorize::caller(&review.status.unwrap_or_default(), &self.agent)?;
        self.remember(token, &caller, asked);
        Ok(caller)
    }

    /// The agent to which the token belonged seconds ago.
    pub(super) fn recall(&self, token: &str) -> Option<Caller> {
        let known = self.known.lock();
        let (caller, asked) = known.get(token)?;
        (asked.elapsed() < REMEMBER).then(|| caller.clone())
    }

    /// Only valid tokens of agents are cached, so that others cannot fill the cache.
    fn remember(&self, token: &str, caller: &Caller, asked: Instant) {
        let mut known = self.known.lock();
        known.retain(|_, (_, asked)| asked.elapsed() < REMEMBER);
        if known.len() < MAX_REMEMBERED {
            known.insert(token.to_owned(), (caller.clone(), asked));
        }
    }
}
