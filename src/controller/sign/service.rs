//! One request: who asks, for whom, may it, and the certificate.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::authorize::Caller;
use super::caller::Callers;
use super::pods;
use super::refusal::{Kind, Refusal};
use super::request;
use super::throttle::Throttle;
use crate::base::{Identity, Seldom};
use crate::controller::Context;
use crate::controller::ca::Authorities;
use crate::identity::ca_messages::{CertificateRequest, CertificateResponse};
use crate::identity::to_pem;

/// Requests that wait for the API server at one time.
const MAX_ASKING: usize = 64;

/// What all requests share.
pub(super) struct Signing {
    context: Arc<Context>,
    authorities: Authorities,
    callers: Callers,
    throttle: Throttle,
    asking: Semaphore,
    throttled: Seldom,
}

/// The service for one caller's address, as the gRPC library calls it.
pub(super) struct Create {
    pub(super) signing: Arc<Signing>,
    pub(super) peer: IpAddr,
}

impl tonic::server::UnaryService<CertificateRequest> for Create {
    type Response = CertificateResponse;
    type Future = BoxFuture<'static, Result<Response<CertificateResponse>, Status>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let (signing, peer) = (self.signing.clone(), self.peer);
        Box::pin(async move { signing.create(peer, &request).await.map(Response::new) })
    }
}

impl Signing {
    pub(super) fn new(context: Arc<Context>, authorities: Authorities) -> Self {
        Self {
            callers: Callers::new(&context),
            throttle: Throttle::default(),
            asking: Semaphore::new(MAX_ASKING),
            throttled: Seldom::new(),
            context,
            authorities,
        }
    }

    async fn create(
        &self,
        peer: IpAddr,
        request: &Request<CertificateRequest>,
    ) -> Result<CertificateResponse, Status> {
        let begun = Instant::now();
        let metrics = self.context.telemetry.controller();
        match self.decide(peer, request).await {
            Ok(response) => {
                metrics.sign(begun.elapsed());
                Ok(response)
            }
            Err(refusal) => {
                metrics.refuse(refusal.kind.label());
                if refusal.kind != Kind::Busy || self.throttled.is_due() {
                    let (reason, why) = (refusal.kind.label(), &refusal.message);
                    tracing::warn!(%peer, reason, why, "a certificate is refused");
                }
                Err(refusal.status())
            }
        }
    }

    /// What costs nothing is checked first; nothing is signed before all is.
    async fn decide(
        &self,
        peer: IpAddr,
        request: &Request<CertificateRequest>,
    ) -> Result<CertificateResponse, Refusal> {
        if !self.throttle.admits(peer) {
            return Err(Refusal::new(
                Kind::Busy,
                format!("{peer} asks too often; try again later"),
            ));
        }
        let token = request::token(request.metadata())?;
        let message = request.get_ref();
        let identity = request::identity(message, &self.context.trust_domain)?;
        let _place = self.asking.acquire().await.map_err(|_| {
            Refusal::new(Kind::Busy, "the controller is shutting down; another replica signs")
        })?;
        let caller = self.callers.caller(token).await?;
        pods::check(&self.context.client, &identity, &caller).await.map_err(|refusal| Refusal {
            message: format!("{caller} asks for {identity}: {}", refusal.message),
            ..refusal
        })?;
        self.sign(message, &identity, &caller)
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
        tracing::debug!(%identity, %caller, ?lifetime, "a certificate is signed");
        let mut cert_chain: Vec<String> =
            issued.chain.iter().map(|it| to_pem(std::slice::from_ref(it))).collect();
        cert_chain.push(to_pem(&current.trusted));
        Ok(CertificateResponse { cert_chain })
    }
}
