//! A client in the network namespace of a pod, that asks again and again.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use isthmus::sock::NetworkNamespace;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// An answer that takes longer failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two requests: the machine has other work too.
const PAUSE: Duration = Duration::from_millis(1);

/// How to ask.
#[derive(Clone, Copy)]
pub struct Ask {
    pub service: &'static str,
    /// On one connection, as long as it lasts.
    pub keep: bool,
}

/// What an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Nothing,
    /// No answer: the connection was refused, closed or reset.
    Refused,
    Status(u16),
    /// The number in the header `x-round`.
    Round(u32),
}

/// What is seen now and since when; and how many requests there were, once nobody listens any more.
type Answers = (watch::Receiver<(Seen, Instant)>, JoinHandle<Result<u64>>);

/// Asks `service` from the pod with the address `pod`, until nobody listens.
pub fn start(pod: &str, service: SocketAddr, ask: Ask) -> Result<Answers> {
    let namespace = namespace_of(pod.parse()?)?;
    let (tell, seen) = watch::channel((Seen::Nothing, Instant::now()));
    // A thread of its own, whose sockets are all made in that namespace.
    let thread = spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        namespace
            .run(|| runtime.block_on(ask_on(service, ask, &tell)))
            .context("enter the pod's network namespace")
    });
    Ok((seen, thread))
}

/// An address can only be bound where it is.
fn namespace_of(pod: IpAddr) -> Result<NetworkNamespace> {
    for entry in fs::read_dir("/run/netns").context("the network namespaces of the node")? {
        let name = entry?.file_name();
        let Ok(namespace) = NetworkNamespace::open(&name.to_string_lossy()) else { continue };
        if namespace.run(|| TcpListener::bind((pod, 0)))?.is_ok() {
            return Ok(namespace);
        }
    }
    anyhow::bail!("the network namespace of {pod} is not on this node")
}

async fn ask_on(service: SocketAddr, ask: Ask, tell: &watch::Sender<(Seen, Instant)>) -> u64 {
    let (mut asked, mut kept) = (0, None);
    while !tell.is_closed() {
        let seen = match timeout(PATIENCE, once(service, &mut kept)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(_)) => Seen::Refused,
            Err(_) => Seen::Nothing,
        };
        if !ask.keep || seen == Seen::Refused {
            kept = None;
        }
        asked += 1;
        tell.send_if_modified(|now| {
            let is_new = now.0 != seen;
            if is_new {
                *now = (seen, Instant::now());
            }
            is_new
        });
        sleep(PAUSE).await;
    }
    asked
}

async fn once(service: SocketAddr, kept: &mut Option<SendRequest<Empty<Bytes>>>) -> Result<Seen> {
    let mut sender = match kept.take() {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(service).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    sender.ready().await?;
    let request = Request::get("/details/0").header("host", "effect").body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let seen = seen(&response);
    response.into_body().map_err(drop).collect().await.map_err(|()| anyhow::anyhow!("no body"))?;
    *kept = Some(sender);
    Ok(seen)
}

fn seen(response: &Response<Incoming>) -> Seen {
    let round = response.headers().get("x-round").and_then(|it| it.to_str().ok()?.parse().ok());
    round.map_or(Seen::Status(response.status().as_u16()), Seen::Round)
}
