//! How long the API server may leave a request without an answer, and which watches it has forgotten.
//!
//! A watch is silent by nature, so that its silence tells nothing. Two bounds find the ones that will never speak:
//!
//! - The head of the answer must come within [`PATIENCE`]. The server sends a watch's head at once when it has accepted it;
//!   one that starts may hold the request until its cache is filled.
//! - When a request is answered after others were not, the server was away. Watches that have said nothing since before that
//!   are ended: their connection may lead to a server or a load balancer that no longer exists. They go on from where
//!   they were.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use hyper::body::{Frame, SizeHint};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::codegen::Service;

/// How long the server may take to begin the answer to what reads, and to go on with a list. A healthy one takes less than
/// a second, and queues what is too much for at most 15.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// The same for what writes: the server ends these itself after 60 seconds, and webhooks may take 30 of them.
const PATIENCE_TO_WRITE: Duration = Duration::from_secs(65);
/// One request that always fails among others that do not must not end the watches all the time.
const CALM: Duration = Duration::from_secs(30);

/// The client with these bounds.
pub(super) fn bounded(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(Bounded { client, outages: Arc::default() }, namespace)
}

/// When the server was away.
#[derive(Default)]
struct Outages {
    now: Mutex<Now>,
    /// When the last outage began that is over.
    over: watch::Sender<Option<Instant>>,
}

#[derive(Default)]
struct Now {
    /// When the first request failed that no answer to another has followed.
    since: Option<Instant>,
    /// When watches were last ended.
    ended: Option<Instant>,
}

impl Outages {
    fn failed(&self) {
        self.now.lock().since.get_or_insert_with(Instant::now);
    }

    fn answered(&self) {
        let mut now = self.now.lock();
        if now.since.is_none() || now.ended.is_some_and(|ended| ended.elapsed() < CALM) {
            return;
        }
        now.ended = Some(Instant::now());
        let since = now.since.take();
        drop(now);
        tracing::debug!(
            "the API server answers again; watches that have been silent since are begun again"
        );
        self.over.send_replace(since);
    }
}

struct Bounded {
    client: Client,
    outages: Arc<Outages>,
}

impl Service<Request<Body>> for Bounded {
    type Response = Response<Watched>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, outages) = (self.client.clone(), self.outages.clone());
        let patience = match *request.method() {
            Method::GET => PATIENCE,
            _ => PATIENCE_TO_WRITE,
        };
        let is_watch = is_watch(&request);
        Box::pin(async move {
            let answer = timeout(patience, client.send(request)).await;
            match answer.unwrap_or_else(|_| Err(unanswered(patience))) {
                Ok(answer) => {
                    outages.answered();
                    let over = is_watch.then(|| over(outages.over.subscribe()));
                    Ok(answer.map(|body| Watched { body, heard: Instant::now(), over }))
                }
                Err(error) => {
                    outages.failed();
                    Err(error)
                }
            }
        })
    }
}

fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "watch" && matches!(&*value, "true" | "1"))
}

fn unanswered(patience: Duration) -> kube::Error {
    let waited = format!("no answer within {} s", patience.as_secs());
    kube::Error::Service(Box::new(io::Error::new(io::ErrorKind::TimedOut, waited)))
}

type Over = BoxFuture<'static, (Option<Instant>, watch::Receiver<Option<Instant>>)>;

/// Waits for the end of the next outage.
fn over(mut outages: watch::Receiver<Option<Instant>>) -> Over {
    Box::pin(async move {
        if outages.changed().await.is_err() {
            // The client is gone; the connection lives on.
            return std::future::pending().await;
        }
        let since = *outages.borrow_and_update();
        (since, outages)
    })
}

/// The body of an answer. That of a watch ends when the server was away and has said nothing here since.
struct Watched {
    body: Body,
    heard: Instant,
    /// Of a watch.
    over: Option<Over>,
}

impl Watched {
    /// Ready when the watch is one that the server has forgotten.
    fn poll_forgotten(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(waiting) = &mut self.over else { return Poll::Pending };
            let (since, outages) = ready!(waiting.as_mut().poll(context));
            self.over = Some(over(outages));
            if since.is_some_and(|since| self.heard < since) {
                return Poll::Ready(());
            }
        }
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = kube::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.heard = Instant::now();
            return Poll::Ready(frame);
        }
        self.poll_forgotten(context).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
