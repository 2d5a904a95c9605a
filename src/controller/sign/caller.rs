//! The caller of a token, asked from the API server and remembered for seconds.

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

/// How long an answer counts: an agent that starts asks for all of its pods at once, with one token. A token that is
/// revoked meanwhile is good for so much longer.
const REMEMBER: Duration = Duration::from_secs(10);
/// Agents that are remembered: some answers for each node of a large cluster.
const MAX_REMEMBERED: usize = 20_000;
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks who callers are.
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

    /// The agent that the token is of, asked from the API server.
    pub(super) async fn review(&self, token: &str) -> Result<Caller, Refusal> {
        let spec =
            TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let parameters = PostParams::default();
        let asked = Instant::now();
        let answer = timeout(PATIENCE, self.reviews.create(&parameters, &review)).await;
        let unavailable = |why: String| {
            let advice = "check the API server, and that the controller may create tokenreviews";
            Refusal::new(Kind::ApiServer, format!("the token cannot be reviewed: {why}; {advice}"))
        };
        let review = answer
            .map_err(|_| unavailable(format!("no answer within {PATIENCE:?}")))?
            .map_err(|error| unavailable(told(&error)))?;
        let caller = authorize::caller(&review.status.unwrap_or_default(), &self.agent)?;
        self.remember(token, &caller, asked);
        Ok(caller)
    }

    /// The agent that the token was of seconds ago.
    pub(super) fn recall(&self, token: &str) -> Option<Caller> {
        let known = self.known.lock();
        let (caller, asked) = known.get(token)?;
        (asked.elapsed() < REMEMBER).then(|| caller.clone())
    }

    /// Only good tokens of agents are remembered, so that nobody else can fill the memory.
    fn remember(&self, token: &str, caller: &Caller, asked: Instant) {
        let mut known = self.known.lock();
        known.retain(|_, (_, asked)| asked.elapsed() < REMEMBER);
        if known.len() < MAX_REMEMBERED {
            known.insert(token.to_owned(), (caller.clone(), asked));
        }
    }
}
