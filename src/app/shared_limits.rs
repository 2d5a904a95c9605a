//! The exchange of shared rate limits: its connection, and what operators are told of it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::certificates::controller_settings;
use crate::config::{IssuerKind, Settings};
use crate::identity::{ControllerLink, SystemClock};
use crate::quota::client::{Brokers, Exchange, Link, State};
use crate::quota::peers::Peers;
use crate::source::{Complaint, Severity};
use crate::telemetry::{SharedLimitMetrics, Telemetry};
use crate::world::WorldStore;

/// Agents talk to the controller that signs for them; with another issuer they have no proof for it, and talk to each other.
pub(super) fn exchange(
    settings: &Settings,
    world: &Arc<WorldStore>,
    telemetry: &Telemetry,
    peers: &Arc<Peers>,
) -> anyhow::Result<Arc<Exchange>> {
    let brokers = match settings.identity.issuer {
        IssuerKind::Controller => {
            let link = ControllerLink::new(&controller_settings(settings), Arc::new(SystemClock))?;
            Brokers::Controller(Box::new(link))
        }
        IssuerKind::Local | IssuerKind::Istio => Brokers::Peers(peers.clone()),
    };
    let metrics = telemetry.shared_limits().clone();
    Ok(Arc::new(Exchange::new(world.clone(), settings.node.clone(), brokers, metrics)))
}

/// For `isthmus status` and the dump.
pub(super) fn status(state: &State) -> Value {
    let State { limits, exchanged, tally, .. } = state;
    json!({ "limits": limits, "exchanged": exchanged, "link": told(&state.link), "thousandths": tally })
}

/// Before a scrape.
pub(super) fn refresh(metrics: &SharedLimitMetrics, state: &State) {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.limits.set(count(state.limits));
    metrics.fallback.set(count(state.limits.saturating_sub(state.exchanged)));
    metrics.away.set(match &state.link {
        Link::Away(since, _) => since.elapsed().as_secs_f64(),
        Link::Unneeded | Link::Up => 0.0,
    });
}

/// One for each policy whose limit is not exchanged.
pub(super) fn faults(state: &State) -> Vec<Complaint> {
    let why = match &state.link {
        Link::Away(..) => format!("the exchange of tokens is away: {}", told(&state.link)),
        Link::Up if state.exchanged < state.limits => {
            "the broker does not know yet that the Service has pods here".to_owned()
        }
        Link::Unneeded | Link::Up => return Vec::new(),
    };
    let fault = |policy: &crate::base::ObjectKey| Complaint {
        origin: None,
        kind: "TrafficPolicy".into(),
        object: Some(policy.clone()),
        field: "spec.rateLimit".to_owned(),
        severity: Severity::Warning,
        reason: format!(
            "of the shared limit each node has its part, by its number of pods, and tokens that one node does not use are \
             lost to the others; {why}"
        ),
        condition: None,
        topic: None,
    };
    state.policies.iter().map(fault).collect()
}

fn told(link: &Link) -> String {
    match link {
        Link::Unneeded => "not needed".to_owned(),
        Link::Up => "up".to_owned(),
        Link::Away(since, why) => format!("{why}, for {} s", since.elapsed().as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::base::ObjectKey;

    #[tokio::test(start_paused = true)]
    async fn a_policy_is_told_of_while_its_tokens_stay_where_they_are() {
        let policies = [ObjectKey::new("shop", "limit")].into();
        let mut state =
            State { limits: 1, exchanged: 1, policies, link: Link::Up, ..State::default() };
        assert_eq!(faults(&state), []);
        state.exchanged = 0;
        let text = |state: &State| faults(state)[0].to_string();
        assert!(text(&state).contains("does not know yet"));
        state.link = Link::Away(Instant::now(), "unavailable".to_owned());
        tokio::time::advance(std::time::Duration::from_secs(7)).await;
        assert!(
            text(&state).starts_with("TrafficPolicy shop/limit: spec.rateLimit: of the shared")
        );
        assert!(text(&state).ends_with("is away: unavailable, for 7 s"), "{}", text(&state));
        let metrics = SharedLimitMetrics::default();
        refresh(&metrics, &state);
        assert_eq!((metrics.limits.get(), metrics.fallback.get()), (1, 1));
    }
}
