//! Requests that an application over HTTP/2 says it has not looked at (RFC 9113, 8.7), and the window that streams share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::raw::*;
use super::support::{Client, Lab};
use crate::l7::WorkerSettings;
use crate::model::{HttpRule, Retry, RetryOn};
use crate::traffic::{LeastRetries, Policy, RetryBudget};
use crate::world::fixture::{self, backend as to};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
/// END_STREAM, and for SETTINGS ACK.
const LAST: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u8 = 7;
/// `:status: 200`
const OK: [u8; 1] = [0x88];

/// How the second request of the first connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    RefusedStream,
    /// It names the first request as the last that it has processed.
    GoAway,
    /// It names this one, and leaves: nobody knows what became of it.
    GoAwayAfterIt,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// An application that refuses one request; how many it has answered, and on how many connections.
async fn refusing(how: How) -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let (at, listener) = listening().await;
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counting = counts.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let number = counting[1].fetch_add(1, Ordering::SeqCst);
            let refuses = (number == 0).then_some(how);
            let counting = counting.clone();
            tokio::spawn(async move { serve(stream, refuses, &counting[0]).await });
        }
    });
    (at, counts)
}

/// The kind, the flags and the stream of the next frame.
async fn next_frame(stream: &mut TcpStream) -> std::io::Result<(u8, u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok((kind, flags, u32::from_be_bytes(id)))
}

async fn serve(
    mut stream: TcpStream,
    refuses: Option<How>,
    answered: &AtomicUsize,
) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let (kind, flags, id) = next_frame(&mut stream).await?;
        let second = id == 3;
        match (kind, refuses.filter(|_| second)) {
            (SETTINGS, _) if flags & LAST == 0 => {
                stream.write_all(&frame(SETTINGS, LAST, 0, &[])).await?;
            }
            (HEADERS, None) => {
                answered.fetch_add(1, Ordering::SeqCst);
                stream.write_all(&frame(HEADERS, LAST | END_HEADERS, id, &OK)).await?;
            }
            // Where a body follows, that has begun to flow.
            (HEADERS, Some(_)) if flags & LAST == 0 => {}
            (HEADERS | DATA, Some(How::RefusedStream)) => {
                stream.write_all(&frame(RESET, 0, id, &[0, 0, 0, REFUSED_STREAM])).await?;
            }
            (HEADERS | DATA, Some(how)) => {
                let last = if how == How::GoAway { id - 2 } else { id };
                let payload = [last.to_be_bytes(), [0; 4]].concat();
                stream.write_all(&frame(GO_AWAY, 0, 0, &payload)).await?;
                if how == How::GoAwayAfterIt {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

/// What becomes of a second request: its status, how many were answered, and on how many connections.
async fn second(
    half: Half,
    how: How,
    (method, body): (Method, &'static str),
    attempts: Option<u32>,
) -> (u16, [usize; 2]) {
    let (at, counts) = refusing(how).await;
    let mut mesh = half.mesh(at);
    if let Some(attempts) = attempts {
        let retry = Retry::new(RetryOn::default(), attempts);
        let retry = Retry { backoff: Duration::ZERO, ..retry };
        let rule = HttpRule { retry: Some(retry), ..fixture::rule(vec![to("echo", 1)]) };
        mesh = mesh.route(fixture::route("r", "echo", vec![rule]));
    }
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut client = Client::http2(half.connect(&lab, at).await).await;
    assert_eq!(client.get("/").await.status, 200);
    let answer = client.exchange(method, "/", &[], body.into()).await.unwrap();
    (answer.status.as_u16(), [0, 1].map(|at| counts[at].load(Ordering::SeqCst)))
}

#[tokio::test]
async fn what_was_refused_is_sent_again_on_another_connection() {
    for half in HALVES {
        for how in [How::RefusedStream, How::GoAway] {
            for method in [Method::GET, Method::DELETE, Method::PATCH] {
                let came = second(half, how, (method.clone(), ""), None).await;
                assert_eq!(came, (200, [2, 2]), "{half:?} {how:?} {method}");
            }
        }
        let came = second(half, How::GoAwayAfterIt, (Method::GET, ""), None).await;
        assert_eq!(came, (503, [1, 1]), "{half:?}: it may have been processed");
    }
}

#[tokio::test]
async fn a_body_that_has_begun_to_flow_is_sent_again_where_the_route_keeps_it() {
    for how in [How::RefusedStream, How::GoAway] {
        for (attempts, body, expected) in [
            (None, "body", (503, [1, 1])),
            (Some(1), "body", (200, [2, 2])),
            (Some(0), "", (503, [1, 1])),
        ] {
            let came = second(Half::Client, how, (Method::POST, body), attempts).await;
            assert_eq!(came, expected, "{how:?} {attempts:?}");
        }
    }
}

/// An application that has too much refuses all streams.
async fn refusing_all(asked: &Arc<AtomicUsize>) -> SocketAddr {
    let (at, listener) = listening().await;
    let asked = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            tokio::spawn(async move { refuse_all(&mut stream, &asked).await });
        }
    });
    at
}

async fn refuse_all(stream: &mut TcpStream, asked: &AtomicUsize) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let (kind, flags, id) = next_frame(stream).await?;
        let answer = match kind {
            SETTINGS if flags & LAST == 0 => frame(SETTINGS, LAST, 0, &[]),
            HEADERS => {
                asked.fetch_add(1, Ordering::SeqCst);
                frame(RESET, 0, id, &[0, 0, 0, REFUSED_STREAM])
            }
            _ => continue,
        };
        stream.write_all(&answer).await?;
    }
}

/// Whether a route retries or none does, an application that refuses gets no more than the requests and the budget.
#[tokio::test]
async fn what_was_refused_is_sent_again_within_the_budget() {
    const REQUESTS: usize = 20;
    let budget = |percent: u32| RetryBudget {
        by: "DestinationRule shop/echo".into(),
        per_million: percent * 10_000,
        interval: Duration::from_secs(3600),
        least: LeastRetries::AtOnce(0),
    };
    for attempts in [None, Some(2)] {
        for (percent, most) in
            [(None, 6 * REQUESTS), (Some(0), REQUESTS), (Some(20), REQUESTS * 6 / 5)]
        {
            let asked = Arc::default();
            let at = [refusing_all(&asked).await, refusing_all(&asked).await];
            let budget = percent.map(|percent| Box::new(budget(percent)));
            let policy = Policy { budget, ..Policy::default() };
            let mut mesh = super::destination_rules::mesh(&at, policy);
            if let Some(attempts) = attempts {
                let retry = Retry::new(RetryOn::default(), attempts);
                let retry = Retry { backoff: Duration::from_millis(1), ..retry };
                let rule = HttpRule { retry: Some(retry), ..fixture::rule(vec![to("echo", 1)]) };
                mesh = mesh.route(fixture::route("r", "echo", vec![rule]));
            }
            let lab = Lab::new(mesh, WorkerSettings::for_tests());
            let mut client = Client::http2(lab.dial("client", "echo").await).await;
            for _ in 0..REQUESTS {
                assert_eq!(client.get("/").await.status, 503);
            }
            let asked = asked.load(Ordering::SeqCst);
            assert!((REQUESTS..=most).contains(&asked), "{asked} under {percent:?} {attempts:?}");
            assert!(percent != Some(20) || asked > REQUESTS, "{asked}: nothing was sent again");
        }
    }
}
