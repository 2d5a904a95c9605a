//! Authorization by the client's half, of requests to destinations where nobody else judges them.

use http::Request;

use super::lasting::{self, End};
use super::outbound::Outbound;
use super::plan::{Chosen, Plan};
use super::sent::{self, Sent};
use crate::balance::Picked;
use crate::base::Reason;
use crate::gate::{self, Permit, Views};
use crate::policy::{Denial, speaks_for};
use crate::reach::{self, cut_after_a_change};
use crate::world::World;

/// What decides about a request, besides the endpoint and what is sent there.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) session: &'a Outbound,
    pub(super) plan: &'a Plan,
    /// The request as the client sent it, when the route's filters may have changed it.
    pub(super) before: Option<&'a Sent>,
}

impl Judge<'_> {
    /// The waypoints' policies, as [`reach::judge`] has them. What a producer's route changed is judged as it was sent, what a
    /// consumer's did as it will arrive.
    pub(super) fn judge<B>(
        &self,
        world: &World,
        picked: &Picked,
        request: &Request<B>,
    ) -> Result<Option<Permit>, Denial> {
        let Plan { addressed, port, chosen, backend: (backend, backend_port) } = self.plan;
        let way = gate::Way {
            addressed,
            port: *port,
            route: chosen.as_ref().map(Chosen::route),
            backend: (backend, *backend_port),
            workload: picked.workload.as_deref(),
            destination: picked.address,
        };
        let arrives = sent::policy_request(request.method(), request.uri(), request.headers());
        let sent = match self.before.filter(|_| self.is_producers()) {
            Some(sent) => sent::policy_request(request.method(), &sent.uri, &sent.headers),
            None => arrives,
        };
        let views = Views { arrived: &arrives, sent: &sent };
        reach::judge(world, &self.session.downstream(), &way, Some(views))
    }

    /// The route is of the addressed service's own namespace.
    pub(super) fn is_producers(&self) -> bool {
        let (service, route) = (&self.plan.addressed.key, self.plan.chosen.as_ref());
        speaks_for(service, route.map(Chosen::route), &service.namespace)
    }

    /// Ends when a request may not go on. Every change may concern it, and it is judged once in a while at most, so that a
    /// tenant's churn costs little.
    pub(super) async fn until_refused(&self, picked: &Picked, head: &Request<()>) -> End {
        let store = &self.session.context.dependencies.world;
        let mut changes = store.subscribe();
        loop {
            if let Err(denial) = self.judge(&store.snapshot(), picked, head) {
                return (Reason::Denied, cut_after_a_change(&denial.why));
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(lasting::AWHILE).await;
        }
    }
}
