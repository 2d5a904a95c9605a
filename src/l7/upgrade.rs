//! Upgrades of HTTP/1.1, such as WebSocket (RFC 9110, 7.8): once the request was permitted and the application
//! answered 101, both sides are copied as bytes. What passes is counted in the request's record, and the connection
//! keeps its place in every budget until it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::respond::Answer;
use super::worker::Context;
use crate::base::Reason;
use crate::sock::{self, Rewind, Transferred};
use crate::tunnel::Carrier;

/// The client's wish, and the way to its connection once it was answered 101.
pub(super) struct Upgrade {
    protocol: HeaderValue,
    downstream: OnUpgrade,
}

/// Both connections on their way to be copied.
struct Switched {
    exchange: Box<Exchange>,
    downstream: OnUpgrade,
    upstream: OnUpgrade,
}

/// A request that asks for an upgrade. `h2c` is not one: clients that know HTTP/2 without TLS start with it
/// (RFC 9113, 3.1, has withdrawn the upgrade), and going on with HTTP/1.1 is always allowed.
pub(super) fn requested(request: &mut Request<Incoming>) -> Option<Upgrade> {
    let protocol = wanted(request.version(), request.headers())?;
    Some(Upgrade { protocol, downstream: hyper::upgrade::on(request) })
}

pub(super) fn wanted(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case("upgrade")));
    let is_h2c = protocol.to_str().is_ok_and(|text| text.trim().eq_ignore_ascii_case("h2c"));
    (version == Version::HTTP_11 && asked && !is_h2c).then(|| protocol.clone())
}

impl Upgrade {
    /// Asks the application for what the client asked for.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }

    /// Passes the application's 101 on, and copies in a task of the worker until either side ends, or `cut` tells why
    /// it must not go on. `hold` keeps the connection's place in the budgets.
    pub(super) fn switch<H: Send + Sync + 'static>(
        self,
        context: &Context,
        mut response: Response<Incoming>,
        exchange: Box<Exchange>,
        cut: impl Future<Output = (Reason, String)> + Send + 'static,
        hold: Arc<H>,
    ) -> Response<ResponseBody> {
        let upstream = hyper::upgrade::on(&mut response);
        let switched = Switched { exchange, downstream: self.downstream, upstream };
        context.spawn("upgraded connection", async move {
            switched.copy(cut).await;
            drop(hold);
        });
        let protocol = response.headers().get(UPGRADE).cloned().unwrap_or(self.protocol);
        let (mut head, _) = response.into_parts();
        super::headers::strip_hop_by_hop(&mut head.headers);
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol);
        Response::from_parts(head, ResponseBody::none())
    }
}

/// The answer to a 101 that nobody asked for.
pub(super) fn unasked() -> Answer {
    let why = "the application switched protocols without being asked";
    Answer::unreachable(Reason::PeerReset, why)
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
    let (Some((read, rewind)), Some((front, stream))) =
        (take::<Rewind<Carrier>>(downstream), take::<Carrier>(upstream))
    else {
        return Err("an upgraded connection is of a kind that cannot be copied".to_owned());
    };
    sock::copy_bidirectional(put_back(read, rewind), Rewind { front, stream }, passed)
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

    #[test]
    fn knows_who_asks() {
        let headers = |connection: &'static str, upgrade: &'static str| {
            HeaderMap::from_iter([
                (CONNECTION, HeaderValue::from_static(connection)),
                (UPGRADE, HeaderValue::from_static(upgrade)),
            ])
        };
        let websocket = headers("keep-alive, Upgrade", "websocket");
        assert_eq!(wanted(Version::HTTP_11, &websocket).unwrap(), "websocket");
        assert_eq!(wanted(Version::HTTP_10, &websocket), None);
        assert_eq!(wanted(Version::HTTP_11, &headers("close", "websocket")), None);
        assert_eq!(wanted(Version::HTTP_11, &headers("Upgrade, HTTP2-Settings", "h2c")), None);
    }

    #[test]
    fn keeps_the_order_of_what_was_read() {
        let rewind = Rewind { front: Bytes::from_static(b"later"), stream: () };
        assert_eq!(put_back(Bytes::from_static(b"first "), rewind).front, "first later");
    }
}
