//! The other service of this port: agents exchange tokens of shared rate limits.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tonic::{Request, Response, Status, Streaming};

use super::service::Signing;
use super::standing::Standing;
use crate::controller::exchange::{Answers, Exchange};
use crate::quota::messages::{Orders, Report};

/// The service for one connection, as the gRPC library calls it.
pub(super) struct Talk {
    pub(super) signing: Arc<Signing>,
    pub(super) standing: Arc<Standing>,
    pub(super) exchange: Arc<Exchange>,
}

impl tonic::server::StreamingService<Report> for Talk {
    type Response = Orders;
    type ResponseStream = Answers;
    type Future = BoxFuture<'static, Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Report>>) -> Self::Future {
        let (signing, standing) = (self.signing.clone(), self.standing.clone());
        let exchange = self.exchange.clone();
        Box::pin(async move {
            let caller = signing.identify(&standing, request.metadata()).await;
            let caller = caller.map_err(|refusal| {
                let (peer, reason, why) =
                    (standing.address, refusal.kind.label(), refusal.message.as_str());
                tracing::debug!(%peer, reason, why, "rejected a caller that wants to exchange tokens");
                refusal.status()
            })?;
            exchange.serve(&caller.node, request.into_inner()).map(Response::new)
        })
    }
}
