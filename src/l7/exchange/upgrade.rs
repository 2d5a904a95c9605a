//! Upgrades of HTTP/1.1, such as WebSocket (RFC 9110, 7.8): once the request was permitted and the application
//! answered 101, both sides are copied as bytes. What passes is counted in the request's record, and the connection
//! keeps its place in every budget until it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::answer::Answer;
use super::{Exchange, ResponseBody};
use crate::base::{Reason, Str};
use crate::l7::message::{headers, watched};
use crate::l7::tasks::Tasks;
use crate::l7::upstream::{Hearing, UpstreamBody};
use crate::sock::{self, Rewind, Transferred};

/// Whose requests are `GET` (RFC 6455, 4.1).
const WEBSOCKET: &str = "websocket";

/// The client's wish, and the way to its connection once it was answered 101.
pub(in crate::l7) struct Upgrade {
    /// What the client asks for and the settings allow.
    offered: Vec<Str>,
    downstream: Downstream,
}

/// The client's connection once hyper lets go of it. hyper takes every connection whose client has asked for an upgrade for an
/// upgraded one when it ends, and leaves it to us to shut it down: without that a tunnel would reset its stream, and
/// the last response in it be lost.
struct Downstream(Option<(Arc<Tasks>, OnUpgrade)>);

/// Both connections on their way to be copied.
struct Switched {
    exchange: Box<Exchange>,
    downstream: OnUpgrade,
    upstream: OnUpgrade,
}

/// A request that asks for an upgrade that the settings allow (in lower case). Any other wish is passed over, as it
/// always may be (RFC 9110, 7.8): the header is removed with those of its kind, and the request goes on as one of
/// HTTP/1.1. After a 101 nobody judges what the connection carries, so only protocols that cannot carry further requests
/// to the application belong on the list; `h2c` can, and is never on it.
pub(in crate::l7) fn requested(
    request: &mut Request<Incoming>,
    tasks: &Arc<Tasks>,
    allowed: &[Str],
) -> Option<Upgrade> {
    let wished = request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT;
    if !wished || request.version() == Version::HTTP_2 {
        return None;
    }
    let offered = offered(request, allowed);
    let downstream = Downstream(Some((tasks.clone(), hyper::upgrade::on(&mut *request))));
    let asks = !offered.is_empty() && request.body().is_end_stream();
    asks.then_some(Upgrade { offered, downstream })
}

pub(in crate::l7) fn offered<B>(request: &Request<B>, allowed: &[Str]) -> Vec<Str> {
    let headers = request.headers();
    if request.version() != Version::HTTP_11 || !headers.contains_key(UPGRADE) {
        return Vec::new();
    }
    // Where servers end the body is nobody's guess when the protocol changes after it.
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    let asked = tokens(headers, CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    if has_body || !asked {
        return Vec::new();
    }
    let mut offered = Vec::new();
    for token in tokens(headers, UPGRADE) {
        let known = allowed.iter().find(|known| known.eq_ignore_ascii_case(token));
        let known = known.filter(|known| *known != WEBSOCKET || request.method() == Method::GET);
        if let Some(known) = known.filter(|known| !offered.contains(*known)) {
            offered.push(known.clone());
        }
    }
    offered
}

/// The parts of all headers of this name. One that is no text has none.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

impl Upgrade {
    /// Whether a 101 names one protocol, and one that was offered.
    pub(in crate::l7) fn is_granted(&self, headers: &HeaderMap) -> bool {
        self.granted(headers).is_some()
    }

    fn granted(&self, headers: &HeaderMap) -> Option<&Str> {
        if headers.get_all(UPGRADE).iter().any(|value| value.to_str().is_err()) {
            return None;
        }
        let mut named = tokens(headers, UPGRADE);
        match (named.next(), named.next()) {
            (Some(name), None) => self.offered.iter().find(|one| one.eq_ignore_ascii_case(name)),
            _ => None,
        }
    }

    /// Asks the application for what the client asked for.
    pub(in crate::l7) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Ok(offered) = HeaderValue::from_str(&self.offered.join(", ")) {
            headers.insert(UPGRADE, offered);
        }
    }

    /// Passes the application's 101 on, and copies in a task of the worker until either side ends, or `cut` tells why
    /// it must not go on. `hold` keeps the connection's place in the budgets.
    pub(in crate::l7) fn switch<H: Send + Sync + 'static>(
        mut self,
        tasks: &Tasks,
        mut response: Response<UpstreamBody>,
        exchange: Box<Exchange>,
        cut: impl Future<Output = (Reason, String)> + Send + 'static,
        hold: Arc<H>,
    ) -> Response<ResponseBody> {
        let protocol =
            self.granted(response.headers()).and_then(|it| HeaderValue::from_str(it).ok());
        let upstream = hyper::upgrade::on(&mut response);
        if let Some((_, downstream)) = self.downstream.0.take() {
            let switched = Switched { exchange, downstream, upstream };
            tasks.spawn("upgraded connection", async move {
                switched.copy(cut).await;
                drop(hold);
            });
        }
        let (mut head, _) = response.into_parts();
        headers::strip_hop_by_hop(&mut head.headers);
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            head.headers.insert(UPGRADE, protocol);
        }
        Response::from_parts(head, ResponseBody::none())
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        let Some((tasks, downstream)) = self.0.take() else { return };
        // A worker that has ended shuts nothing down.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        tasks.spawn("connection that was not upgraded", async move {
            if let Ok(connection) = downstream.await {
                _ = TokioIo::new(connection).shutdown().await;
            }
        });
    }
}

/// The answer to a 101 that nobody asked for, or that names another protocol than was asked for.
pub(in crate::l7) fn unasked() -> Answer {
    Answer::bad_gateway("the application switched to a protocol that it was not asked for")
}

impl Switched {
    async fn copy(mut self, cut: impl Future<Output = (Reason, String)>) {
        let passed = Passed::default();
        let ended = tokio::select! {
            copied = copy(self.downstream, self.upstream, &passed) => {
                copied.map_err(|why| (Reason::PeerReset, why))
            }
            cut = cut => Err(cut),
        };
        self.exchange.record.request_bytes(passed.sent.into_inner());
        self.exchange.record.response_bytes(passed.received.into_inner());
        match ended {
            Ok(()) => self.exchange.finish(),
            Err((reason, why)) => self.exchange.fail(reason, why),
        }
    }
}

async fn copy(downstream: OnUpgrade, upstream: OnUpgrade, passed: &Passed) -> Result<(), String> {
    let (downstream, upstream) = tokio::try_join!(downstream, upstream)
        .map_err(|error| format!("the upgrade was not completed: {error}"))?;
    let (Some((read, watched)), Some((front, hearing))) =
        (take::<watched::Http1>(downstream), take::<Hearing>(upstream))
    else {
        return Err("an upgraded connection is of a kind that cannot be copied".to_owned());
    };
    let upstream = Rewind { front, stream: hearing.into_inner() };
    sock::copy_bidirectional(put_back(read, watched.into_inner()), upstream, passed)
        .await
        .map_err(|error| error.to_string())
}

/// The stream that hyper was given, and what it had read beyond the head.
fn take<S>(upgraded: Upgraded) -> Option<(Bytes, S)>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let parts = upgraded.downcast::<TokioIo<S>>().ok()?;
    Some((parts.read_buf, parts.io.into_inner()))
}

/// What hyper had read came before what detection had put back and hyper had not read yet.
fn put_back<S>(read: Bytes, rewind: Rewind<S>) -> Rewind<S> {
    let front = match (read.is_empty(), rewind.front.is_empty()) {
        (_, true) => read,
        (true, false) => rewind.front,
        (false, false) => {
            let mut both = BytesMut::with_capacity(read.len() + rewind.front.len());
            both.put(read);
            both.put(rewind.front);
            both.freeze()
        }
    };
    Rewind { front, stream: rewind.stream }
}

#[derive(Default)]
struct Passed {
    sent: AtomicUsize,
    received: AtomicUsize,
}

impl Transferred for Passed {
    fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: [Str; 2] = [arcstr::literal!("websocket"), arcstr::literal!("chat/2")];

    fn asked(version: Version, method: &str, headers: &[(&'static str, &'static str)]) -> Vec<Str> {
        let mut request = Request::builder().version(version).method(method).body(()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        offered(&request, &ALLOWED)
    }

    #[test]
    fn only_what_is_allowed_is_offered() {
        let upgrade = ("connection", "keep-alive, Upgrade");
        let get = |headers: &[_]| asked(Version::HTTP_11, "GET", headers);
        let websocket = [upgrade, ("upgrade", "WebSocket")];
        assert_eq!(get(&websocket), ["websocket"]);
        assert_eq!(get(&[upgrade, ("upgrade", "h2c, websocket")]), ["websocket"]);
        assert_eq!(
            get(&[upgrade, ("upgrade", "chat/2"), ("upgrade", "websocket,websocket")]),
            ["chat/2", "websocket"]
        );
        assert_eq!(
            asked(Version::HTTP_11, "POST", &[upgrade, ("upgrade", "chat/2, websocket")]),
            ["chat/2"]
        );
        let none: [Str; 0] = [];
        for headers in [
            &[upgrade, ("upgrade", "h2c")][..],
            &[upgrade, ("upgrade", "H2C, foo")],
            &[upgrade, ("upgrade", "foo"), ("upgrade", "h2c")],
            &[upgrade, ("upgrade", "websocket/13")],
            &[upgrade, ("upgrade", "web socket")],
            &[upgrade, ("upgrade", "")],
            &[upgrade],
            &[("upgrade", "websocket")],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrades"), ("upgrade", "websocket")],
            &[upgrade, ("upgrade", "websocket"), ("content-length", "5")],
            &[upgrade, ("upgrade", "websocket"), ("transfer-encoding", "chunked")],
        ] {
            assert_eq!(get(headers), none, "{headers:?}");
        }
        assert_eq!(asked(Version::HTTP_10, "GET", &websocket), none);
        assert_eq!(asked(Version::HTTP_2, "GET", &websocket), none);
        assert_eq!(asked(Version::HTTP_11, "POST", &websocket), none);
    }

    #[test]
    fn a_101_names_one_that_was_offered() {
        let upgrade = Upgrade { offered: ALLOWED.to_vec(), downstream: Downstream(None) };
        let granted = |named: &[&'static str]| {
            let named = named.iter().map(|it| (UPGRADE, HeaderValue::from_static(it)));
            upgrade.is_granted(&named.collect())
        };
        assert!(granted(&["WebSocket"]) && granted(&["chat/2"]));
        for named in
            [&[][..], &[""], &["h2c"], &["websocket, h2c"], &["chat/2, websocket"], &["chat"]]
        {
            assert!(!granted(named), "{named:?}");
        }
    }

    #[test]
    fn keeps_the_order_of_what_was_read() {
        let rewind = Rewind { front: Bytes::from_static(b"later"), stream: () };
        assert_eq!(put_back(Bytes::from_static(b"first "), rewind).front, "first later");
    }
}
