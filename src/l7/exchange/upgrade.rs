//! Upgrades of HTTP/1.1, such as WebSocket (RFC 9110, 7.8): once the request was permitted and the application
//! answered 101, both sides are copied as bytes. What passes is counted in the request's record, and the connection
//! keeps its place in every budget until it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, Version};

use super::answer::Answer;
use super::{Exchange, ResponseBody};
use crate::base::{Reason, Str};
use crate::l7::http1::outgoing::Halves;
use crate::l7::message::body::RequestBody;
use crate::l7::message::headers;
use crate::l7::tasks::Tasks;
use crate::l7::upstream::UpstreamBody;
use crate::sock::{self, Transferred};

/// Whose requests are `GET` (RFC 6455, 4.1).
const WEBSOCKET: &str = "websocket";

/// The client's wish.
pub(in crate::l7) struct Upgrade {
    /// What the client asks for and the settings allow.
    offered: Vec<Str>,
}

/// A request that asks for an upgrade that the settings allow (in lower case). Any other wish is passed over, as it
/// always may be (RFC 9110, 7.8): the header is removed with those of its kind, and the request goes on as one of
/// HTTP/1.1. After a 101 nobody judges what the connection carries, so only protocols that cannot carry further requests
/// to the application belong on the list; `h2c` can, and is never on it.
pub(in crate::l7) fn requested(request: &Request<RequestBody>, allowed: &[Str]) -> Option<Upgrade> {
    let offered = offered(request, allowed);
    let asks = !offered.is_empty() && request.body().is_empty();
    asks.then_some(Upgrade { offered })
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
        self,
        tasks: &Arc<Tasks>,
        mut response: Response<UpstreamBody>,
        exchange: Box<Exchange>,
        cut: impl Future<Output = (Reason, String)> + Send + 'static,
        hold: Arc<H>,
    ) -> Response<ResponseBody> {
        let protocol =
            self.granted(response.headers()).and_then(|it| HeaderValue::from_str(it).ok());
        let upstream = response.body_mut().upgraded();
        let (mut head, _) = response.into_parts();
        headers::strip_hop_by_hop(&mut head.headers);
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            head.headers.insert(UPGRADE, protocol);
        }
        let tasks = tasks.clone();
        let body = ResponseBody::switching(Box::new(move |downstream| {
            tasks.spawn("upgraded connection", async move {
                carry(downstream, upstream, exchange, cut).await;
                drop(hold);
            });
        }));
        Response::from_parts(head, body)
    }
}

/// The answer to a 101 that nobody asked for, or that names another protocol than was asked for.
pub(in crate::l7) fn unasked() -> Answer {
    Answer::bad_gateway("the application switched to a protocol that it was not asked for")
}

/// Copies until either side ends, or `cut` tells why it must not go on.
async fn carry(
    downstream: Halves,
    upstream: Option<Halves>,
    mut exchange: Box<Exchange>,
    cut: impl Future<Output = (Reason, String)>,
) {
    let passed = Passed::default();
    let copied = async {
        let Some(upstream) = upstream else {
            return Err("the application's connection is gone".to_owned());
        };
        let copied = sock::copy_bidirectional(downstream, upstream, &passed).await;
        copied.map_err(|error| error.to_string())
    };
    let ended = tokio::select! {
        copied = copied => copied.map_err(|why| (Reason::PeerReset, why)),
        cut = cut => Err(cut),
    };
    exchange.record.request_bytes(passed.sent.into_inner());
    exchange.record.response_bytes(passed.received.into_inner());
    match ended {
        Ok(()) => exchange.finish(),
        Err((reason, why)) => exchange.fail(reason, why),
    }
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
        let upgrade = Upgrade { offered: ALLOWED.to_vec() };
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
}
