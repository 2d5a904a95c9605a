//! Which connections may take a request: by client, service and endpoint, and by the TLS to the application, where an object
//! demands it of the backend.

use super::attempt::{Failed, Routed};
use crate::balance::Picked;
use crate::l7::exchange::arrived::Arrived;
use crate::l7::message::headers;
use crate::l7::upstream::Key;
use crate::l7::version::Version;
use crate::reach::{Reach, Secured};

impl Routed {
    /// How the connection to the endpoint must be encrypted.
    pub(super) async fn secured(
        &self,
        picked: &Picked,
        arrived: &Arrived,
    ) -> Result<Option<Secured>, Failed> {
        let (service, port) = &self.plan.backend;
        if service.encryption.is_empty() {
            return Ok(None);
        }
        let host = headers::name_of(headers::host(arrived.request.headers()));
        let from = self.session.downstream();
        // Boxed, because nearly no service has it.
        let to = (&**service, *port, self.plan.subset());
        let secured = Box::pin(Reach::secure(&from, to, picked, Some(host))).await;
        secured.map_err(|failure| Failed::unconnected(&failure.into()))
    }

    /// The connections that may take the request.
    pub(super) fn key(&self, picked: &Picked, version: Version, secured: Option<&Secured>) -> Key {
        let client = &self.session.client;
        let server = picked.captured();
        Key {
            client_uid: client.uid.clone(),
            client: client.identity.clone(),
            client_address: self.session.client_address.ip(),
            service: self.plan.addressed.key.clone(),
            endpoint: picked.address,
            server: server.map(|server| server.identity.clone()),
            tls: secured.map(Secured::id),
            version,
        }
    }
}
