//! An application that does what a test tells it, request by request, and remembers what came.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Status(u16),
    /// With this field in its head.
    Head(u16, &'static str, &'static str),
    /// 200 after this long.
    Slow(Duration),
    /// Read, and never answered: the connection is closed.
    Reset,
    /// A head, and a body that does not come to its end.
    Stall,
    /// Not even read.
    Ignore,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Came {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: http::HeaderMap,
    /// `None` when it broke off.
    pub(super) body: Option<Bytes>,
}

#[derive(Default)]
pub(super) struct Script {
    /// Once they are used up, the last goes on.
    steps: Mutex<VecDeque<Step>>,
    came: Mutex<Vec<Came>>,
    connections: AtomicUsize,
}

impl Script {
    /// Listens, over HTTP/1.1 and HTTP/2.
    pub(super) async fn start(steps: &[Step]) -> (SocketAddr, Arc<Self>) {
        let script = Arc::new(Self { steps: Mutex::new(steps.to_vec().into()), ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = script.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let script = serving.clone();
                let service = service_fn(move |request| script.clone().answer(request));
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (address, script)
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn came(&self) -> Vec<Came> {
        self.came.lock().clone()
    }

    /// Waits until this many requests have come.
    pub(super) async fn wait_for(&self, count: usize) -> Vec<Came> {
        let enough = async {
            while self.came.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), enough).await;
        assert!(waited.is_ok(), "{count} requests did not come: {:?}", self.came());
        self.came()
    }

    /// What becomes of requests from now on.
    pub(super) fn goes_on(&self, step: Step) {
        *self.steps.lock() = [step].into();
    }

    fn step(&self) -> Step {
        let mut steps = self.steps.lock();
        match steps.len() {
            0 => Step::Status(200),
            1 => steps[0],
            _ => steps.pop_front().unwrap(),
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, std::io::Error>>, std::io::Error> {
        let step = self.step();
        if matches!(step, Step::Ignore) {
            return std::future::pending().await;
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.ok().map(|body| body.to_bytes());
        let target = head.uri.path_and_query().unwrap().to_string();
        let method = head.method.to_string();
        self.came.lock().push(Came { method, target, headers: head.headers, body });
        let text = Full::from("done").map_err(|never| match never {}).boxed();
        let mut response = Response::new(text);
        match step {
            Step::Status(status) => *response.status_mut() = status.try_into().unwrap(),
            Step::Head(status, name, value) => {
                *response.status_mut() = status.try_into().unwrap();
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            Step::Slow(time) => tokio::time::sleep(time).await,
            Step::Reset => return Err(std::io::Error::other("told to")),
            Step::Stall => {
                let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"a")))]);
                let rest = futures_util::StreamExt::chain(first, stream::pending());
                *response.body_mut() = StreamBody::new(rest).boxed();
            }
            Step::Ignore => {}
        }
        Ok(response)
    }
}
