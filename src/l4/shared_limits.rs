//! Connections of nodes that share rate limits (`quota`): to a broker at another workload, in the name of one of this node, and those that
//! arrive for the broker here.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::StatusCode;

use super::Proxy;
use crate::base::{Identity, ports};
use crate::model::Workload;
use crate::pool::TunnelKey;
use crate::quota::peers::{AUTHORITY, Speaker, Stream};
use crate::tunnel::{ConnectRequest, Cut, Incoming};

impl Speaker for Proxy {
    fn speak(
        self: Arc<Self>,
        to: Arc<Workload>,
    ) -> BoxFuture<'static, Result<Box<dyn Stream>, String>> {
        Box::pin(async move {
            let from = self.workload().ok_or("the workload is gone")?;
            let same_family = from.addresses.first().map(|address| address.is_ipv4());
            let mut addresses = to.addresses.iter();
            let address = addresses.find(|it| Some(it.is_ipv4()) == same_family);
            let address = *address.ok_or("it has no address of the same family")?;
            let key = TunnelKey {
                client: from.identity.clone(),
                client_uid: from.uid.clone(),
                server: to.identity.clone(),
                address: SocketAddr::new(address, ports::HBONE),
            };
            let request = ConnectRequest {
                authority: AUTHORITY.to_owned(),
                forwarded_for: None,
                forwarded_host: None,
                baggage: None,
            };
            let opened = self.shared.pool.open(&key, &self.sockets, &request).await;
            let stream: Box<dyn Stream> = Box::new(opened.map_err(|error| error.why)?);
            Ok(stream)
        })
    }
}

impl Proxy {
    /// Serves a node at the broker, in the name of the workload that it has proven, until it leaves.
    pub(super) async fn share_limits(
        &self,
        incoming: Incoming,
        own: &Workload,
        client: &Identity,
        peer: SocketAddr,
        cut: &Cut,
    ) {
        let from = {
            let world = self.shared.world.load();
            world.source_at(peer.ip(), Some(client)).cloned()
        };
        let Some(from) = from else {
            tracing::debug!(workload = %own.uid, %peer, %client, "shared limits: no workload has this name and address");
            return incoming.refuse(StatusCode::FORBIDDEN);
        };
        let Ok(_place) = self.stream_places(peer.ip()) else {
            return incoming.refuse(StatusCode::TOO_MANY_REQUESTS);
        };
        let Ok(stream) = incoming.accept(None) else { return };
        tokio::select! {
            () = self.shared.limit_peers.serve(stream, &from) => {}
            () = cut.revoked() => {}
            () = self.drain.cancelled() => {}
        }
    }
}
