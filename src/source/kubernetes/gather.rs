//! When what changed is published.
//!
//! Changes are gathered until the tenant that made them is quiet for a moment, so that what belongs together is one change. Each
//! namespace is waited for by itself: one that writes without pause delays its own changes and nobody else's. The more often
//! it had something published, the longer it is waited for, so that it costs few translations; and translations together take
//! at most half of the thread, however many tenants write.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::Str;

/// How long a tenant must be quiet before its changes are published: a `kubectl apply` of several objects, or a rollout's
/// burst, is one change; short enough not to be noticed.
const QUIET: Duration = Duration::from_millis(10);
/// How long a tenant's changes may be gathered, when it never gets quiet or has had much published: as soon as a rollout's
/// endpoints should be in force.
const GATHER_AT_MOST: Duration = Duration::from_millis(200);
/// A tenant that had nothing published for that long is waited for as at first.
const FORGET_AFTER: Duration = Duration::from_secs(1);

/// Every tenant's changes that wait, and when they are due.
#[derive(Default)]
pub(super) struct Gather {
    tenants: BTreeMap<Str, Tenant>,
    /// When to look: no later than the first of them is due.
    look_at: Option<Instant>,
    /// Not before this time, so that others get their turn.
    rest_until: Option<Instant>,
}

struct Tenant {
    /// How long it must be quiet.
    quiet: Duration,
    published: Instant,
    waiting: Option<Waiting>,
}

struct Waiting {
    since: Instant,
    due: Instant,
}

impl Gather {
    /// A tenant, a namespace, changed something. What belongs to none is the tenant with an empty name.
    pub(super) fn changed(&mut self, tenant: &Str, now: Instant) {
        let new = || Tenant { quiet: QUIET, published: now, waiting: None };
        let tenant = self.tenants.entry(tenant.clone()).or_insert_with(new);
        if tenant.waiting.is_none() && now - tenant.published >= FORGET_AFTER {
            tenant.quiet = QUIET;
        }
        let since = tenant.waiting.as_ref().map_or(now, |waiting| waiting.since);
        let due = (now + tenant.quiet).min(since + GATHER_AT_MOST);
        tenant.waiting = Some(Waiting { since, due });
        self.look_at = Some(self.look_at.map_or(due, |first| first.min(due)));
    }

    /// When to ask whether there is something to publish.
    pub(super) fn due(&self) -> Option<Instant> {
        let first = self.look_at?;
        Some(self.rest_until.map_or(first, |rest| first.max(rest)))
    }

    /// Whether all that waits is to be published now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let waiting = self.tenants.values().filter_map(|tenant| tenant.waiting.as_ref());
        self.look_at = waiting.map(|waiting| waiting.due).min();
        self.due().is_some_and(|due| due <= now)
    }

    /// All was published, which began at this time and is done now.
    pub(super) fn published(&mut self, begun: Instant, now: Instant) {
        self.look_at = None;
        self.rest_until = Some(now + (now - begun));
        self.tenants.retain(|_, tenant| {
            let waited = tenant.waiting.take();
            if waited.is_some() {
                tenant.quiet = (tenant.quiet * 2).min(GATHER_AT_MOST);
                tenant.published = now;
            }
            waited.is_some() || now - tenant.published < FORGET_AFTER
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What happens in a time of tenants that change something at these intervals: how often all is published, and the longest
    /// that a change of each tenant waited. A translation takes `cost`.
    fn run(tenants: &[(&str, Duration)], cost: Duration, long: Duration) -> (usize, Vec<Duration>) {
        let (start, mut gather) = (Instant::now(), Gather::default());
        let (mut now, end) = (start, start + long);
        let mut next: Vec<Instant> = tenants.iter().map(|_| start).collect();
        let mut waiting: Vec<Vec<Instant>> = tenants.iter().map(|_| Vec::new()).collect();
        let (mut published, mut longest) = (0, vec![Duration::ZERO; tenants.len()]);
        while now < end {
            for (at, (name, every)) in tenants.iter().enumerate() {
                while next[at] <= now {
                    gather.changed(&Str::from(*name), now);
                    waiting[at].push(next[at]);
                    next[at] += *every;
                }
            }
            if gather.due().is_some_and(|due| due <= now) && gather.is_due(now) {
                gather.published(now, now + cost);
                published += 1;
                now += cost;
                for (at, waiting) in waiting.iter_mut().enumerate() {
                    let waited = waiting.drain(..).map(|since| now - since).max();
                    longest[at] = longest[at].max(waited.unwrap_or_default());
                }
            }
            now += MS;
        }
        (published, longest)
    }

    /// A thousand events a second, of one namespace: endpoints that flap, policies that are edited.
    #[test]
    fn a_tenant_that_writes_without_pause_delays_nobody_else_and_costs_few_translations() {
        let ten = Duration::from_secs(10);
        let (published, longest) = run(&[("evil", MS)], MS, ten);
        assert!(published <= 60, "{published} times in ten seconds");
        assert!(longest[0] <= GATHER_AT_MOST + 2 * MS, "{longest:?}");
        let quiet = Duration::from_millis(1_500);
        let (_, longest) = run(&[("evil", MS), ("shop", quiet)], MS, ten);
        assert!(longest[1] <= QUIET + 3 * MS, "{longest:?}");
        // Just slow enough to be quiet between any two.
        let (published, _) = run(&[("evil", 11 * MS)], MS, ten);
        assert!(published <= 70, "{published} times in ten seconds");
    }

    #[test]
    fn a_burst_is_one_change_and_a_single_one_is_soon_in_force() {
        let (now, mut gather) = (Instant::now(), Gather::default());
        let shop = Str::from("shop");
        assert_eq!(gather.due(), None);
        gather.changed(&shop, now);
        gather.changed(&shop, now + 3 * MS);
        assert!(!gather.is_due(now + QUIET));
        assert_eq!(gather.due(), Some(now + 3 * MS + QUIET));
        assert!(gather.is_due(now + 3 * MS + QUIET));
        gather.published(now + 13 * MS, now + 14 * MS);
        assert_eq!(gather.due(), None);
        // Once in a while it is as at first.
        let later = now + FORGET_AFTER + 20 * MS;
        gather.changed(&shop, later);
        assert_eq!(gather.due(), Some(later + QUIET));
    }

    /// A hundred namespaces, each of which is waited for by itself.
    #[test]
    fn translations_take_half_of_the_thread_at_most() {
        let names: Vec<String> = (0..100).map(|at| format!("evil-{at}")).collect();
        let tenants: Vec<_> = names.iter().map(|name| (name.as_str(), 7 * MS)).collect();
        let cost = 20 * MS;
        let (published, longest) = run(&tenants, cost, Duration::from_secs(10));
        assert!(published <= 250, "{published} times in ten seconds");
        assert!(longest.iter().all(|it| *it <= GATHER_AT_MOST + 3 * cost), "{longest:?}");
    }

    #[test]
    fn tenants_that_are_quiet_are_forgotten() {
        let (now, mut gather) = (Instant::now(), Gather::default());
        for at in 0..10_000 {
            gather.changed(&Str::from(format!("{at}")), now);
        }
        gather.published(now, now);
        gather.published(now, now + FORGET_AFTER);
        assert!(gather.tenants.is_empty());
    }
}
