//! One request: authenticates the caller, authorizes it for the identity, and signs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::authorize::Caller;
use super::caller::Callers;
use super::pods;
use super::refusal::{Kind, Refusal};
use super::request;
use super::standing::Standing;
use super::throttle::{InFlight, Rate, Throttle};
use crate::base::{Identity, Seldom, Str};
use crate::controller::Context;
use crate::controller::ca::Authorities;
use crate::identity::ca_messages::{CertificateRequest, CertificateResponse};
use crate::identity::to_pem;

/// Concurrent requests of agents that wait for the API server.
const MAX_ASKING: usize = 64;
/// Requests of one node's agents in flight: an agent has eight, and during an upgrade there are two.
const MAX_OF_NODE: usize = 16;
/// The rate limit of one node's agents. The burst is as many as the node has pods, each with its own account, and some
/// retries; the rate is what a node can start, and far below what would load the API server.
const OF_NODE: Rate = Rate { burst: 500.0, each_second: 50.0 };
/// Visitors whose tokens the API server reviews concurrently, of all addresses and of one.
const MAX_REVIEWS: usize = 32;
const MAX_REVIEWS_OF_ADDRESS: usize = 4;
/// The rate limit of visitors by address: the first request of an agent's connection is a visitor's.
const OF_ADDRESS: Rate = Rate { burst: 50.0, each_second: 5.0 };

/// State that all requests share.
pub(super) struct Signing {
    context: Arc<Context>,
    authorities: Authorities,
    callers: Callers,
    nodes: Throttle<Str>,
    in_flight: InFlight<Str>,
    asking: Semaphore,
    visitors: Throttle<IpAddr>,
    reviews_of: InFlight<IpAddr>,
    reviewing: Semaphore,
    throttled: Seldom,
}

/// The service for one connection, as the gRPC library calls it.
pub(super) struct Create {
    pub(super) signing: Arc<Signing>,
    pub(super) standing: Arc<Standing>,
}

impl tonic::server::UnaryService<CertificateRequest> for Create {
    type Response = CertificateResponse;
    type Future = BoxFuture<'static, Result<Response<CertificateResponse>, Status>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let (signing, standing) = (self.signing.clone(), self.standing.clone());
        Box::pin(async move { signing.create(&standing, &request).await.map(Response::new) })
    }
}

impl Signing {
    pub(super) fn new(context: Arc<Context>, authorities: Authorities) -> Self {
        Self {
            callers: Callers::new(&context),
            nodes: Throttle::new(OF_NODE),
            in_flight: InFlight::new(MAX_OF_NODE),
            asking: Semaphore::new(MAX_ASKING),
            visitors: Throttle::new(OF_ADDRESS),
            reviews_of: InFlight::new(MAX_REVIEWS_OF_ADDRESS),
            reviewing: Semaphore::new(MAX_REVIEWS),
            throttled: Seldom::new(),
            context,
            authorities,
        }
    }

    async fn create(
        &self,
        standing: &Standing,
        request: &Request<CertificateRequest>,
    ) -> Result<CertificateResponse, Status> {
        let begun = Instant::now();
        let metrics = self.context.telemetry.controller();
        match self.decide(standing, request).await {
            Ok(response) => {
                metrics.sign(begun.elapsed());
                Ok(response)
            }
            Err(refusal) => {
                metrics.refuse(refusal.kind.label());
                if refusal.kind != Kind::Busy || self.throttled.is_due() {
                    let (reason, why) = (refusal.kind.label(), &refusal.message);
                    let peer = standing.address;
                    tracing::warn!(%peer, reason, why, "rejected a certificate request");
                }
                Err(refusal.status())
            }
        }
    }

    /// Checks that cost nothing come first; nothing is signed before all have passed.
    async fn decide(
        &self,
        standing: &Standing,
        request: &Request<CertificateRequest>,
    ) -> Result<CertificateResponse, Refusal> {
        let caller = self.identify(standing, request.metadata()).await?;
        let of = |what: &str| format!("the agents of node {} {what}; try again later", caller.node);
        if !self.nodes.admits(caller.node.clone()) {
            return Err(Refusal::new(Kind::Busy, of("exceed their rate limit")));
        }
        let Some(_turn) = self.in_flight.begin(caller.node.clone()) else {
            return Err(Refusal::new(Kind::Busy, of("have too many requests in flight")));
        };
        let message = request.get_ref();
        let identity = request::identity(message, &self.context.trust_domain)?;
        let _place = self.asking.acquire().await.map_err(|_| shutting_down())?;
        pods::check(&self.context.client, &identity, &caller).await.map_err(|refusal| Refusal {
            message: format!("{caller} asks for {identity}: {}", refusal.message),
            ..refusal
        })?;
        self.sign(message, &identity, &caller)
    }

    /// Identifies the caller. A cached token costs nothing; any other one is a visitor's, unless the connection is an
    /// agent's.
    pub(super) async fn identify(
        &self,
        standing: &Standing,
        headers: &MetadataMap,
    ) -> Result<Caller, Refusal> {
        let token = request::token(headers);
        let known = || token.as_ref().ok().and_then(|token| self.callers.recall(token));
        if let Some(caller) = known() {
            standing.prove(&caller);
            return Ok(caller);
        }
        // An agent that starts requests several certificates at once: the first request identifies the caller of the
        // others.
        let _turn = standing.identifying.lock().await;
        if let Some(caller) = known() {
            return Ok(caller);
        }
        let caller = match standing.is_proven() {
            true => {
                let _place = self.asking.acquire().await.map_err(|_| shutting_down())?;
                self.callers.review(token?).await?
            }
            false => self.review_visitor(standing, token).await?,
        };
        standing.prove(&caller);
        Ok(caller)
    }

    async fn review_visitor(
        &self,
        standing: &Standing,
        token: Result<&str, Refusal>,
    ) -> Result<Caller, Refusal> {
        let address = standing.address;
        let busy = |what| Refusal::new(Kind::Busy, format!("{address} {what}; try again later"));
        if !self.visitors.admits(address) {
            return Err(busy("exceeds the rate limit of unauthenticated callers"));
        }
        let token = token?;
        let turn = self.reviews_of.begin(address);
        let _turn = turn.ok_or_else(|| busy("has too many tokens under review"))?;
        standing.works();
        let _place = self.reviewing.acquire().await.map_err(|_| shutting_down())?;
        let reviewed = self.callers.review(token).await;
        standing.waits();
        reviewed
    }

    fn sign(
        &self,
        message: &CertificateRequest,
        identity: &Identity,
        caller: &Caller,
    ) -> Result<CertificateResponse, Refusal> {
        let current = self.authorities.current().ok_or_else(|| {
            Refusal::new(Kind::Ca, "there is no CA yet; check the controller's log and its Secret")
        })?;
        let now = SystemTime::now();
        if now >= current.authority.validity().1 {
            let advice = "put another one into the Secret";
            return Err(Refusal::new(
                Kind::Ca,
                format!("the CA's certificate has expired; {advice}"),
            ));
        }
        let csr = request::signing_request(message)?;
        let lifetime = request::lifetime(message, self.context.settings.max_lifetime);
        let issued = current
            .authority
            .certify(identity, &csr, lifetime, now)
            .map_err(|error| Refusal::new(Kind::Request, format!("{caller}: {error}")))?;
        tracing::debug!(%identity, %caller, ?lifetime, "signed a certificate");
        let mut cert_chain: Vec<String> =
            issued.chain.iter().map(|it| to_pem(std::slice::from_ref(it))).collect();
        cert_chain.push(to_pem(&current.trusted));
        Ok(CertificateResponse { cert_chain })
    }
}

fn shutting_down() -> Refusal {
    Refusal::new(Kind::Busy, "the controller is shutting down; another replica signs")
}
