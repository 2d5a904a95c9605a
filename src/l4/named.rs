//! Connections to a server below a wildcard, which the first message of TLS names (ServiceEntry `DYNAMIC_DNS`): the name is checked
//! against the service that was dialled, and resolved. Nothing else is read, nor anything within TLS.

use std::sync::Arc;

use super::Proxy;
use super::outbound::{Begins, Outbound};
use super::routed::read_hello;
use crate::base::{Reason, Str};
use crate::model::{Resolution, Service};
use crate::reach::Failure;
use crate::route;
use crate::sock::Rewind;

impl Proxy {
    /// Carries the connection to the server that it names, or refuses it.
    pub(super) async fn carry_by_name(&self, mut outbound: Outbound, service: Arc<Service>) {
        let wait = self.shared.settings.connect_timeout;
        let read = {
            let stream = &mut outbound.accepted.stream;
            Box::pin(read_hello(stream, wait)).await
        };
        let claimed = read.and_then(|(claim, front)| {
            let claim = Str::from(claim);
            let named = self.claims(&mut outbound, &service, claim);
            named.map(|()| front)
        });
        match claimed {
            Ok(front) => {
                let whole = |stream| Rewind { front, stream };
                self.carry_to_service(outbound, &service, whole).await;
            }
            Err(failure) => self.refuse_routed(&outbound, &service, failure),
        }
    }

    /// Notes the name of the server that the client claims, and checks it where a wildcard was dialled.
    pub(super) fn claims(
        &self,
        outbound: &mut Outbound,
        service: &Service,
        claim: Str,
    ) -> Result<(), Failure> {
        outbound.begins = Begins::Naming(claim.clone());
        if service.resolution != Resolution::Dynamic {
            return Ok(());
        }
        let world = self.shared.world.load();
        let named = route::named(&world, service, outbound.namespace(), &claim);
        let refused = |why: route::NotNamed<'_, '_>| Failure {
            reason: Reason::NoRoute,
            why: why.to_string(),
        };
        named.map(|_| ()).map_err(refused)
    }
}
