//! istiod's CA, or the controller's: `istio.v1.auth.IstioCertificateService/CreateCertificate`, called as ztunnel does.
//!
//! The agent authenticates with its own service account token, and names the workload's identity in the request. istiod
//! signs if the agent is a trusted node agent and a pod with that account runs on the agent's node. The token and the
//! roots of the connection are read at each use, because both are replaced while agents run. The controller's roots are
//! also watched: they are the only roots of its certificates.

mod connect;
mod files;
mod follow;
mod link;
pub mod messages;
mod server;
mod settings;

pub use link::ControllerLink;
pub use settings::{CONNECT_TIMEOUT, CaServer, IstioIssuerSettings, REQUEST_TIMEOUT};

use std::error::Error;
use std::sync::Arc;

use http::uri::PathAndQuery;
use parking_lot::Mutex;
use rcgen::CertificateSigningRequest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use self::connect::{Connector, Target};
use self::files::Token;
use self::messages::{
    CLUSTER_ID, CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY,
    Struct, Value,
};
use super::{Clock, IdentityError, IssueFuture, Issued, Issuer};
use crate::base::Identity;

/// The header with the caller's cluster (istio, `kubeauth/kube_jwt.go`): where istiod has the token reviewed.
const CLUSTER_HEADER: &str = "clusterid";

/// Has certificates signed by istiod.
pub struct IstioIssuer {
    name: String,
    cluster: AsciiMetadataValue,
    lifetime: i64,
    settings: IstioIssuerSettings,
    connector: Connector,
    /// Shared by the requests in flight. Made at the first request, since it needs the store's runtime; given up
    /// after a failure of the network, so that the next request connects again.
    channel: Mutex<Option<Channel>>,
    /// See [`Issuer::revisions`]; moves only where the roots are followed.
    revisions: watch::Sender<u64>,
}

impl IstioIssuer {
    /// Checks the settings. Nothing is read or connected until a certificate is wanted.
    pub fn new(
        settings: IstioIssuerSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IdentityError> {
        let name = format!("the CA at {}", settings.address);
        let unusable = |reason: String| {
            IdentityError::Refused(format!("{name} cannot be used: {reason}; check the settings"))
        };
        let target = Target::parse(&settings.address).map_err(unusable)?;
        let cluster = AsciiMetadataValue::try_from(settings.cluster.as_str())
            .map_err(|_| unusable("the cluster's name does not fit into a header".to_owned()))?;
        let lifetime = i64::try_from(settings.lifetime.as_secs())
            .map_err(|_| unusable("the lifetime is too long".to_owned()))?;
        let connector = Connector {
            target,
            ca_root: settings.ca_root.clone(),
            limit: settings.connect_timeout,
            clock,
        };
        let (channel, revisions) = (Mutex::new(None), watch::Sender::new(0));
        Ok(Self { name, cluster, lifetime, settings, connector, channel, revisions })
    }

    async fn ask(
        &self,
        identity: &Identity,
        request: &CertificateSigningRequest,
    ) -> Result<Issued, IdentityError> {
        let refused = IdentityError::Refused;
        let csr = request.pem().map_err(|error| refused(format!("no request: {error}")))?;
        let token = Token::read(&self.settings.token_file).await.map_err(refused)?;
        let mut message = Request::new(self.message(identity, csr));
        let headers = message.metadata_mut();
        headers.insert("authorization", token.bearer().map_err(refused)?);
        headers.insert(CLUSTER_HEADER, self.cluster.clone());
        let limit = self.settings.request_timeout;
        match timeout(limit, self.call(message)).await {
            Ok(Ok(response)) => read(&response),
            Ok(Err(status)) => {
                if is_network(&status) {
                    self.channel.lock().take();
                }
                let reason = format!("{}; {}", told(&status), self.advice(&status, identity));
                Err(refused(token.redact(&reason)))
            }
            Err(_) => {
                self.channel.lock().take();
                Err(refused(format!(
                    "no answer within {limit:?}; check that {} is healthy and not overloaded",
                    self.settings.server.name()
                )))
            }
        }
    }

    fn message(&self, identity: &Identity, csr: String) -> CertificateRequest {
        let field = |key: &str, text: String| (key.to_owned(), Value { string_value: Some(text) });
        let fields = [
            field(IMPERSONATED_IDENTITY, identity.to_string()),
            field(CLUSTER_ID, self.settings.cluster.to_string()),
        ]
        .into();
        CertificateRequest {
            csr,
            validity_duration: self.lifetime,
            metadata: Some(Struct { fields }),
        }
    }

    async fn call(
        &self,
        message: Request<CertificateRequest>,
    ) -> Result<CertificateResponse, Status> {
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
        let mut client = Grpc::new(self.channel());
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
        client.unary(message, path, codec).await.map(tonic::Response::into_inner)
    }

    fn channel(&self) -> Channel {
        let make = || {
            Endpoint::from(self.connector.target.uri.clone())
                .connect_with_connector_lazy(self.connector.clone())
        };
        self.channel.lock().get_or_insert_with(make).clone()
    }

    /// What to look at for an answer of this kind.
    fn advice(&self, status: &Status, identity: &Identity) -> String {
        let settings = &self.settings;
        if is_network(status) {
            return settings.server.away(settings);
        }
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                settings.server.refused(settings, identity)
            }
            Code::Unimplemented => {
                format!("no CA is served there; check the address {}", settings.address)
            }
            _ => format!("check {}'s log", settings.server.name()),
        }
    }
}

impl Issuer for IstioIssuer {
    fn name(&self) -> &str {
        &self.name
    }

    fn issue<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a CertificateSigningRequest,
    ) -> IssueFuture<'a> {
        Box::pin(self.ask(identity, request))
    }

    fn revisions(&self) -> Option<watch::Receiver<u64>> {
        Some(self.revisions.subscribe())
    }
}

/// The answer's parts. Whether they fit together and to the request is judged by the store, for all issuers.
pub(super) fn read(response: &CertificateResponse) -> Result<Issued, IdentityError> {
    let unusable = |why: String| IdentityError::Unusable(why);
    let [leaf, parents @ .., roots] = response.cert_chain.as_slice() else {
        let count = response.cert_chain.len();
        return Err(unusable(format!(
            "the answer holds {count} elements, not a certificate and its roots"
        )));
    };
    let mut chain = certificates(leaf).map_err(unusable)?;
    if chain.is_empty() {
        return Err(unusable("the first element holds no certificate in PEM".to_owned()));
    }
    for parent in parents {
        chain.extend(certificates(parent).map_err(unusable)?);
    }
    Ok(Issued { chain, roots: certificates(roots).map_err(unusable)? })
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the answer is not PEM: {error}"))
}

/// Whether the request may never have reached the CA, or the CA is going away.
fn is_network(status: &Status) -> bool {
    status.source().is_some() || status.code() == Code::Unavailable
}

/// The status in words, with the causes that it does not tell by itself.
fn told(status: &Status) -> String {
    let mut text = format!("{}: {}", status.code().description(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
