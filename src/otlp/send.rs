//! One export: OTLP over gRPC, or over HTTP with protobuf.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use super::signal::Signal;
use crate::base::driven;
use crate::trace::{Protocol, Provider};

/// The longest answer that is read; it is a number and a message.
const ANSWER: usize = 64 * 1024;

/// Why a batch was not exported.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the Service of the collector has no endpoint that is ready")]
    NoEndpoint,
    #[error("the endpoint {0} {1}, where no policy may have the agent connect to")]
    Refused(IpAddr, &'static str),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the connection failed: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the collector answered {0}")]
    Answered(StatusCode),
    #[error("the collector answered {0}")]
    Grpc(#[source] Box<tonic::Status>),
    #[error("the request cannot be made: {0}")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Failed {
    /// Whether another attempt may succeed (OTLP, "Failures").
    pub(super) fn may_pass(&self) -> bool {
        use tonic::Code;
        match self {
            Failed::Connect(_) | Failed::NoEndpoint | Failed::Late(_) | Failed::Broken(_) => true,
            Failed::Request(_) | Failed::Refused(..) => false,
            Failed::Answered(status) => matches!(status.as_u16(), 429 | 502..=504),
            Failed::Grpc(status) => matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled
            ),
        }
    }

    fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Failed::Broken(error.into())
    }

    fn request(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Failed::Request(error.into())
    }
}

/// Sends a batch over a connection for it alone, and tells how many of it the collector has rejected.
pub(super) async fn send<S: Signal>(
    provider: &Provider,
    address: SocketAddr,
    request: &S::Request,
) -> Result<u64, Failed> {
    match &provider.protocol {
        Protocol::Grpc => grpc::<S>(provider, address, request).await,
        Protocol::Http { path } => http::<S>(provider, path, address, request).await,
    }
}

async fn grpc<S: Signal>(
    provider: &Provider,
    address: SocketAddr,
    request: &S::Request,
) -> Result<u64, Failed> {
    let origin = authority(provider);
    let origin = format!("http://{origin}").parse().map_err(Failed::request)?;
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(Failed::request)?.origin(origin);
    let channel = endpoint.connect().await.map_err(Failed::broken)?;
    let mut call = tonic::Request::new(request.clone());
    for (name, value) in &provider.headers {
        let name = MetadataKey::from_bytes(name.as_bytes()).map_err(Failed::request)?;
        let value = MetadataValue::try_from(value.as_str()).map_err(Failed::request)?;
        call.metadata_mut().insert(name, value);
    }
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(Failed::broken)?;
    let codec = ProstCodec::<S::Request, S::Answer>::default();
    let answer = client.unary(call, PathAndQuery::from_static(S::METHOD), codec).await;
    let answer = answer.map_err(|status| Failed::Grpc(Box::new(status)))?;
    Ok(rejected::<S>(answer.get_ref()))
}

async fn http<S: Signal>(
    provider: &Provider,
    path: &str,
    address: SocketAddr,
    request: &S::Request,
) -> Result<u64, Failed> {
    let body = Full::new(Bytes::from(request.encode_to_vec()));
    let mut call = http::Request::new(body);
    *call.method_mut() = Method::POST;
    *call.uri_mut() = path.parse().map_err(Failed::request)?;
    let headers = call.headers_mut();
    headers.insert(HOST, authority(provider).try_into().map_err(Failed::request)?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    for (name, value) in &provider.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(Failed::request)?;
        headers.insert(name, HeaderValue::from_str(value).map_err(Failed::request)?);
    }
    let stream = TcpStream::connect(address).await.map_err(Failed::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(Failed::broken)?;
    let exchange = async {
        let response = sender.send_request(call).await.map_err(Failed::broken)?;
        if !response.status().is_success() {
            return Err(Failed::Answered(response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER);
        let body = body.collect().await.map_err(Failed::Broken)?.to_bytes();
        // What cannot be read rejects nothing: some collectors answer in JSON.
        Ok(S::Answer::decode(body).map_or(0, |answer| rejected::<S>(&answer)))
    };
    driven(connection, exchange, Failed::broken).await
}

/// What the collector is called.
fn authority(provider: &Provider) -> String {
    let Provider { host, port, .. } = provider;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn rejected<S: Signal>(answer: &S::Answer) -> u64 {
    u64::try_from(S::rejected(answer)).unwrap_or(0)
}
