//! The way to an endpoint without a route.

use crate::balance::Picked;
use crate::gate::Way;
use crate::model::Service;

/// The way to an endpoint of the service that was dialled, which no route changes.
pub fn direct<'a>(service: &'a Service, port: u16, to: &'a Picked) -> Way<'a> {
    Way {
        addressed: service,
        port,
        route: None,
        delegate: None,
        backend: (service, port),
        workload: to.workload.as_deref(),
        destination: to.address,
    }
}
