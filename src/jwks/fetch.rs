//! One fetch.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fresh::{self, Validators};
use super::{Fetcher, tls};
use crate::base::driven;
use crate::base::reachable;
use crate::jwt::{Keys, KeysUri, MAX_FETCHED_BYTES};

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 3;
/// How long one may take to accept a connection, so that the next one is tried in time.
const CONNECT: Duration = Duration::from_secs(2);

/// Keys that a server gave.
#[derive(Debug)]
pub(super) struct Fetched {
    /// `None`: those that it gave before.
    pub(super) keys: Option<Keys>,
    pub(super) lifetime: Duration,
    pub(super) validators: Validators,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("cannot resolve the host: {0}")]
    Resolve(#[source] io::Error),
    #[error("{0} {1}; an agent does not connect there (jwks.allowed_addresses)")]
    Refused(SocketAddr, &'static str),
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the connection failed: {0}")]
    Broken(#[source] hyper::Error),
    #[error(
        "the server answers {0}, and redirects are not followed; write the address that it leads to"
    )]
    Redirect(StatusCode),
    #[error("the server answers {0}")]
    Answered(StatusCode),
    #[error("the answer has more than {MAX_FETCHED_BYTES} bytes or breaks off")]
    Body,
    #[error("the answer {0}")]
    Keys(String),
    #[error("the request cannot be made: {0}")]
    Request(#[source] http::Error),
}

impl Fetcher {
    /// Asks for the keys at an address; the server may say that they are those of `validators`.
    pub(super) async fn fetch(
        &self,
        uri: &KeysUri,
        validators: &Validators,
        limit: Duration,
    ) -> Result<Fetched, Failed> {
        let fetched = timeout(limit, self.fetch_slowly(uri, validators)).await;
        fetched.unwrap_or(Err(Failed::Late(limit)))
    }

    async fn fetch_slowly(
        &self,
        uri: &KeysUri,
        validators: &Validators,
    ) -> Result<Fetched, Failed> {
        let request = request(uri, validators).map_err(Failed::Request)?;
        let tcp = self.connect(uri).await?;
        if !uri.tls {
            return exchange(tcp, request, validators).await;
        }
        let prepare = || async { tls::connector(&self.settings) };
        let connector = self.tls.get_or_try_init(prepare).await.map_err(Failed::Tls)?;
        let name = ServerName::try_from(uri.host.to_string());
        let name = name.map_err(|error| Failed::Tls(error.to_string()))?;
        let stream = connector.connect(name, tcp).await;
        let stream = stream.map_err(|error| Failed::Tls(error.to_string()))?;
        exchange(stream, request, validators).await
    }

    /// To the first address that accepts and may be connected to. What was judged is connected to: nothing is resolved twice.
    async fn connect(&self, uri: &KeysUri) -> Result<TcpStream, Failed> {
        let addresses = self.addresses(uri).await.map_err(Failed::Resolve)?;
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "it has no address");
        let mut failed = Failed::Resolve(nothing());
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            if let Some(why) = reachable::refused(address.ip(), &self.settings.allowed) {
                failed = Failed::Refused(address, why);
                continue;
            }
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = Failed::Connect(address, error),
                Err(_) => failed = Failed::Connect(address, io::ErrorKind::TimedOut.into()),
            }
        }
        Err(failed)
    }
}

fn request(uri: &KeysUri, validators: &Validators) -> http::Result<Request<Empty<Bytes>>> {
    let mut request = Request::get(&*uri.target)
        .header(HOST, uri.authority())
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, "isthmus")
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Empty::new())?;
    validators.ask(request.headers_mut());
    Ok(request)
}

async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
    validators: &Validators,
) -> Result<Fetched, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connected = hyper::client::conn::http1::Builder::new()
        .max_headers(100)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = connected.map_err(Failed::Broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(Failed::Broken)?;
        read(response, validators).await
    };
    driven(connection, exchange, Failed::Broken).await
}

async fn read(response: Response<Incoming>, validators: &Validators) -> Result<Fetched, Failed> {
    let lifetime = fresh::lifetime(response.headers());
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if validators.are_there() => {
            return Ok(Fetched { keys: None, lifetime, validators: validators.clone() });
        }
        status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
            return Err(Failed::Redirect(status));
        }
        status => return Err(Failed::Answered(status)),
    }
    let validators = Validators::of(response.headers());
    if response.body().size_hint().lower() > MAX_FETCHED_BYTES as u64 {
        return Err(Failed::Body);
    }
    let body = Limited::new(response.into_body(), MAX_FETCHED_BYTES).collect().await;
    let body = body.map_err(|_| Failed::Body)?.to_bytes();
    let keys = Keys::fetched(&body).map_err(Failed::Keys)?;
    Ok(Fetched { keys: Some(keys), lifetime, validators })
}
