//! Requests over HTTP/1.1, on connections that stay open: the server and the client.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::turn;
use super::wire::SILENCE;

/// Answers every request; also the port of the Services.
pub const HTTP: u16 = 9003;

/// What an answer carries.
const BODY: &[u8] = &[0x2a; 128];
/// How many connections send requests at the same time.
const CONNECTIONS: usize = 8;

/// Serves for ever.
pub fn serve() -> Result<()> {
    runtime()?.block_on(async {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, HTTP)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(BODY))))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(connection);
        }
    })
}

/// Requests a second, one after the other on each of some connections.
pub fn requests(server: SocketAddr, time: Duration) -> Result<f64> {
    run(time, async {
        let start = SystemTime::now();
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn(async move {
                let (mut client, mut done) = (Client::connect(server).await?, 0_u32);
                while start.elapsed()? < time {
                    client.ask().await?;
                    done += 1;
                }
                anyhow::Ok(done)
            });
        }
        let mut total = 0;
        while let Some(done) = clients.join_next().await {
            total += done??;
        }
        Ok(f64::from(total) / start.elapsed()?.as_secs_f64())
    })
}

/// The times of requests on one connection; with a rate, each from the moment at which it was due.
pub fn latency(server: SocketAddr, time: Duration, rate: Option<u32>) -> Result<Vec<Duration>> {
    run(time, async {
        let mut client = Client::connect(server).await?;
        client.ask().await?;
        let start = SystemTime::now();
        let mut times = Vec::new();
        while start.elapsed()? < time {
            // Blocks, as timers of the runtime are coarser; nothing else runs here.
            let begin = turn(start, times.len(), rate)?;
            client.ask().await?;
            times.push(begin.elapsed()?);
        }
        Ok(times)
    })
}

/// A load of so long, which fails when the server falls silent.
fn run<T>(time: Duration, load: impl Future<Output = Result<T>>) -> Result<T> {
    let limited = async { timeout(time + SILENCE, load).await };
    runtime()?.block_on(limited).context("the server does not answer any more")?
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

struct Client(SendRequest<Empty<Bytes>>);

impl Client {
    async fn connect(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn ask(&mut self) -> Result<()> {
        self.0.ready().await?;
        let request = Request::get("/items/1").header("host", "server").body(Empty::new())?;
        let response: Response<Incoming> =
            self.0.send_request(request).await.context("send a request")?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status == StatusCode::OK && body == BODY,
            "answered {status}, {} bytes",
            body.len()
        );
        Ok(())
    }
}
