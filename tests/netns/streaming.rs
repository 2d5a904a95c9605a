//! Streams of every kind with real clients and servers: through a waypoint whose policies both halves judge, and through layer 4;
//! to a pod of another node and to one of the client's own.

mod client;
mod grpc;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue};
use hyper::body::Frame;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use self::client::{Client, Version, data, parts, rest, whole};
use self::server::Seen;
use crate::frames::run_in;
use crate::support::lab::wait::{self, PATIENCE};
use crate::support::lab::{Lab, netns::Namespace};
use crate::{WAYPOINT, application, enrol};

const PORT: u16 = 8080;
/// Where early hints are told.
const HINTING: u16 = 8081;
const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

/// How a client reaches an application.
pub struct Way {
    name: &'static str,
    to: SocketAddr,
    seen: Arc<Seen>,
}

/// The services: their names, the application's pod, and whether a waypoint serves it.
const SERVICES: [(&str, &str, bool); 4] = [
    ("far", "details-v1", false),
    ("far-routed", "details-v1", true),
    ("near", "ratings-v1", false),
    ("near-routed", "ratings-v1", true),
];

fn service(name: &str, pod: &str, routed: bool) -> String {
    let app = pod.trim_end_matches("-v1");
    let labels = if routed { "istio.io/use-waypoint: waypoint" } else { "" };
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: bookinfo, labels: {{{labels}}}}}\n\
         spec: {{selector: {{app: {app}}}, \
         ports: [{{name: a, port: {PORT}}}, {{name: b, port: {HINTING}}}]}}\n---\n"
    );
    if !routed {
        return service;
    }
    // With a field of HTTP, so that the destination's half judges each request too.
    service
        + &format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: {name}, namespace: bookinfo}}\n\
             spec: {{targetRefs: [{{group: '', kind: Service, name: {name}}}], \
             rules: [{{to: [{{operation: {{methods: [GET, POST]}}}}]}}]}}\n---\n"
        )
}

/// Bookinfo with an application that streams in a pod of each node, and the ways to it.
fn lab() -> Result<(Lab, Vec<Way>)> {
    let services: String =
        SERVICES.iter().map(|(name, pod, routed)| service(name, pod, *routed)).collect();
    let mut lab = application(&[&services])?;
    lab.manifests.apply(WAYPOINT)?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    let start = |pod: &str| server::start(&lab.pod(pod)?.attachment.namespace, PORT);
    let (far, near) = (start("details-v1")?, start("ratings-v1")?);
    let mut ways = Vec::new();
    for (name, pod, routed) in SERVICES {
        let seen = if pod == "details-v1" { far.clone() } else { near.clone() };
        let to = SocketAddr::new(lab.service("bookinfo", name)?[0], PORT);
        wait::until(name, || {
            let forbidden = lab.curl("curl", &["--request", "PUT", &format!("http://{to}/")])?;
            Ok((forbidden.status == if routed { 403 } else { 404 }).then_some(()))
        })?;
        ways.push(Way { name, to, seen });
    }
    Ok((lab, ways))
}

/// What takes longer than the lab waits has failed.
pub async fn soon<T>(work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, work).await.context("it took too long")
}

impl Way {
    /// Waits until the application has seen something.
    async fn until(&self, seen: impl Fn(&Seen) -> bool) -> Result<()> {
        soon(async {
            while !seen(&self.seen) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Runs `work` over each version of HTTP.
    async fn each(&self, what: &str, work: impl AsyncFn(Version) -> Result<()>) -> Result<()> {
        for version in VERSIONS {
            let context = || format!("{what}, {}, {version:?}", self.name);
            work(version).await.with_context(context)?;
        }
        Ok(())
    }
}

fn curl_of(lab: &Lab) -> Result<&Namespace> {
    Ok(&lab.pod("curl")?.attachment.namespace)
}

#[test]
fn streams_pass_as_they_are_sent() -> Result<()> {
    let (lab, ways) = lab()?;
    run_in(curl_of(&lab)?, || async {
        for way in &ways {
            way.each("events", async |version| events(way, version).await).await?;
            way.each("echo", async |version| echo(way, version).await).await?;
            way.each("large bodies", async |version| large(way, version).await).await?;
            way.each("early answers", async |version| early(way, version).await).await?;
            chat(way).await.with_context(|| format!("WebSocket, {}", way.name))?;
            grpc::calls(way).await.with_context(|| format!("gRPC, {}", way.name))?;
        }
        Ok(())
    })?;
    // What the four kinds of calls sent either way, each through a waypoint once.
    wait::until("the messages of gRPC", || {
        let metrics = lab.metrics()?;
        let count = |name, service| {
            let labels = [("destination_service_name", service), ("request_protocol", "grpc")];
            metrics.sum(name, &labels)
        };
        let all = ["far-routed", "near-routed"].map(|service| {
            let request = count("istio_request_messages_total", service);
            (request, count("istio_response_messages_total", service))
        });
        Ok((all == [(9.0, 9.0); 2]).then_some(()))
    })
}

#[test]
fn expectations_hints_and_farewells_pass() -> Result<()> {
    let (lab, ways) = lab()?;
    for pod in ["details-v1", "ratings-v1"] {
        server::start_hinting(&lab.pod(pod)?.attachment.namespace, HINTING)?;
    }
    for way in &ways {
        expects(&lab, way).with_context(|| format!("100, {}", way.name))?;
        let hinted = lab.curl("curl", &[&format!("http://{}:{HINTING}/", way.to.ip())])?;
        let hints = hinted.head.starts_with("HTTP/1.1 103 ") && hinted.head.contains("</a.css>");
        ensure!(hints && hinted.body.starts_with("HTTP/1.1 200 "), "{} {hinted:?}", way.name);
    }
    run_in(curl_of(&lab)?, || async {
        for way in ways.iter().filter(|way| way.name.ends_with("-routed")) {
            way.each("farewells", async |version| farewells(way, version).await).await?;
        }
        Ok(())
    })
}

#[test]
fn each_end_hears_that_the_other_has_given_up() -> Result<()> {
    let (lab, ways) = lab()?;
    run_in(curl_of(&lab)?, || async {
        for way in &ways {
            way.each("a client leaves", async |version| leaves(way, version).await).await?;
            way.each("a break", async |version| breaks(way, version).await).await?;
            grpc::cancels(way).await.with_context(|| format!("gRPC, {}", way.name))?;
        }
        Ok(())
    })
}

#[test]
fn a_reader_that_stops_stops_its_writer() -> Result<()> {
    let (mut lab, ways) = lab()?;
    let agents: Vec<u32> = lab.agents().iter_mut().map(|agent| agent.process().id()).collect();
    let before = resident(&agents)?;
    let after = run_in(curl_of(&lab)?, || async {
        let mut held = Vec::new();
        for way in &ways {
            for version in VERSIONS {
                let context = || format!("{}, {version:?}", way.name);
                held.push(unread(way, version).await.with_context(context)?);
                held.push(unsent(way, version).await.with_context(context)?);
            }
        }
        resident(&agents)
    })?;
    ensure!(after < before + MOST, "{before} {after}");
    Ok(())
}

/// What 16 streams that stand still may take at the agents, in bytes.
const MOST: u64 = 128 << 20;

/// What the agents have in memory, in bytes.
fn resident(agents: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for agent in agents {
        let statm = std::fs::read_to_string(format!("/proc/{agent}/statm"))?;
        let pages = statm.split_whitespace().nth(1).context("statm")?;
        sum += pages.parse::<u64>()? * 4096;
    }
    Ok(sum)
}

/// Server-sent events: each arrives before the next is sent.
async fn events(way: &Way, version: Version) -> Result<()> {
    let mut client = Client::connect(way.to, version).await?;
    let mut body = client.get("/events").await?.into_body();
    for number in 0..3 {
        let event = Bytes::from(format!("data: {number}\n\n"));
        way.seen.events.send(event.clone()).ok().context("nobody listens")?;
        ensure!(data(&mut body).await? == event);
    }
    Ok(())
}

/// A conversation over one request, with trailers at the end.
async fn echo(way: &Way, version: Version) -> Result<()> {
    let mut client = Client::connect(way.to, version).await?;
    let (say, body) = parts();
    let mut heard = client.post("/echo", body).await?.into_body();
    for word in ["who", "is", "there"] {
        say.send(Frame::data(Bytes::from_static(word.as_bytes()))).await?;
        ensure!(data(&mut heard).await? == word);
    }
    let sum = HeaderMap::from_iter([("x-sum".parse()?, HeaderValue::from_static("3"))]);
    say.send(Frame::trailers(sum.clone())).await?;
    drop(say);
    let (left, trailers) = rest(heard).await?;
    ensure!(left.is_empty() && trailers == Some(sum), "{left:?} {trailers:?}");
    Ok(())
}

/// A large body either way, and a request's trailers.
async fn large(way: &Way, version: Version) -> Result<()> {
    const LENGTH: usize = 4 << 20;
    let mut client = Client::connect(way.to, version).await?;
    let bytes: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    let (answer, _) = rest(client.post("/digest", whole(bytes.clone())).await?.into_body()).await?;
    ensure!(answer == format!("{LENGTH} {sum} "), "{answer:?}");
    let (say, body) = parts();
    let sends = async {
        say.send(Frame::data(Bytes::from_static(b"a"))).await?;
        let trailers = HeaderMap::from_iter([("x-sum".parse()?, HeaderValue::from_static("97"))]);
        say.send(Frame::trailers(trailers)).await?;
        drop(say);
        Ok::<_, anyhow::Error>(())
    };
    let (sent, answer) = tokio::join!(sends, client.post("/digest", body));
    sent?;
    let (answer, _) = rest(answer?.into_body()).await?;
    ensure!(answer == "1 97 97", "{answer:?}");
    let (back, _) = rest(client.post("/echo", whole(bytes.clone())).await?.into_body()).await?;
    ensure!(back == bytes, "{} bytes", back.len());
    Ok(())
}

/// curl asks whether its body is wanted: it is, and it is not.
fn expects(lab: &Lab, way: &Way) -> Result<()> {
    let body = "x".repeat(2 << 10);
    let ask = |path: &str| {
        let url = format!("http://{}{path}", way.to);
        let expect = ["--header", "expect: 100-continue", "--expect100-timeout", "8"];
        lab.curl("curl", &[&expect[..], &["--data", &body, &url]].concat())
    };
    let wanted = ask("/digest")?;
    ensure!(wanted.head.starts_with("HTTP/1.1 100 "), "{wanted:?}");
    ensure!(wanted.status == 200 && wanted.body.contains("2048 "), "{wanted:?}");
    let refused = ask("/early")?;
    ensure!(refused.head.starts_with("HTTP/1.1 413 "), "{refused:?}");
    // Neither waited until it lost its patience.
    ensure!(wanted.time + refused.time < Duration::from_secs(6), "{wanted:?} {refused:?}");
    Ok(())
}

/// An application that ends each connection with its first request (GOAWAY): the client hears nothing of it.
async fn farewells(way: &Way, version: Version) -> Result<()> {
    let mut client = Client::connect(way.to, version).await?;
    for _ in 0..10 {
        let answer = client.post("/leave", whole(b"x".to_vec())).await?;
        let status = answer.status();
        let (text, _) = rest(answer.into_body()).await?;
        ensure!(status == 200 && text == "bye", "{status} {text:?}");
    }
    Ok(())
}

/// An answer that comes while the client is still sending.
async fn early(way: &Way, version: Version) -> Result<()> {
    let mut client = Client::connect(way.to, version).await?;
    let (say, body) = parts();
    say.send(Frame::data(Bytes::from(vec![b'x'; 64 * 1024]))).await?;
    let answer = client.post("/early", body).await?;
    let status = answer.status();
    let (text, _) = rest(answer.into_body()).await?;
    ensure!(status == 413 && text == "too large", "{status} {text:?}");
    Ok(())
}

async fn chat(way: &Way) -> Result<()> {
    let stream = TcpStream::connect(way.to).await?;
    let (mut socket, _) = soon(client_async("ws://streams/chat", stream)).await??;
    let large = Message::binary(vec![7; 1 << 20]);
    for message in [Message::text("hello"), large, Message::text("again")] {
        socket.send(message.clone()).await?;
        ensure!(soon(socket.next()).await?.context("it ended")?? == message);
    }
    socket.close(None).await?;
    let last = soon(socket.next()).await?.context("it ended")??;
    ensure!(last.is_close(), "{last:?}");
    ensure!(soon(socket.next()).await?.is_none(), "it is closed in order");
    Ok(())
}

/// A client that leaves is noticed by the application although nothing is sent, whether it waits for a response or in one.
async fn leaves(way: &Way, version: Version) -> Result<()> {
    let (cancelled, came) =
        (|| way.seen.cancelled.load(Ordering::SeqCst), || way.seen.came.load(Ordering::SeqCst));
    let before = cancelled();
    let mut client = Client::connect(way.to, version).await?;
    let body = client.get("/events").await?.into_body();
    drop(body);
    client.leave().await;
    way.until(|seen| seen.cancelled.load(Ordering::SeqCst) > before).await.context("within")?;
    for path in ["/hold", "/read"] {
        let (before, arrived) = (cancelled(), came());
        let mut client = Client::connect(way.to, version).await?;
        let (say, body) = parts();
        {
            let body = if path == "/read" { body } else { whole(Vec::new()) };
            let asked = std::pin::pin!(client.post(path, body));
            let there = way.until(|seen| seen.came.load(Ordering::SeqCst) > arrived);
            tokio::select! {
                answer = asked => ensure!(false, "{answer:?}"),
                there = there => there.context("the request")?,
            }
        }
        client.leave().await;
        way.until(|seen| seen.cancelled.load(Ordering::SeqCst) > before).await.context(path)?;
        drop(say);
    }
    Ok(())
}

/// A response that breaks off is no response that has ended.
async fn breaks(way: &Way, version: Version) -> Result<()> {
    let mut client = Client::connect(way.to, version).await?;
    let mut body = client.get("/break").await?.into_body();
    ensure!(data(&mut body).await? == "part");
    ensure!(rest(body).await.is_err(), "it ended as if it were whole");
    Ok(())
}

/// A response that nobody reads: its writer is stopped. Gives what holds it.
async fn unread(way: &Way, version: Version) -> Result<Client> {
    let mut client = Client::connect(way.to, version).await?;
    let before = way.seen.produced.load(Ordering::SeqCst);
    let body = client.get("/flood").await?.into_body();
    let most = standing(|| way.seen.produced.load(Ordering::SeqCst)).await? - before;
    ensure!(most < BUFFERED, "{most} bytes of a response that nobody reads");
    // The connection goes on, and so does the stream.
    std::mem::forget(body);
    Ok(client)
}

/// A request that nobody reads: its writer is stopped.
async fn unsent(way: &Way, version: Version) -> Result<Client> {
    let mut client = Client::connect(way.to, version).await?;
    let (say, body) = parts();
    let sent = std::sync::atomic::AtomicU64::new(0);
    let sends = async {
        loop {
            let chunk = Bytes::from(vec![b'x'; server::CHUNK]);
            let length = chunk.len() as u64;
            if say.send(Frame::data(chunk)).await.is_err() {
                break;
            }
            sent.fetch_add(length, Ordering::SeqCst);
        }
    };
    let stands = standing(|| sent.load(Ordering::SeqCst));
    let most = tokio::select! {
        answer = client.post("/sink", body) => anyhow::bail!("{answer:?}"),
        () = sends => anyhow::bail!("the stream ended"),
        most = stands => most?,
    };
    ensure!(most < BUFFERED, "{most} bytes of a request that nobody reads");
    Ok(client)
}

/// What sockets, windows and agents may hold of one stream, in bytes: Linux lets a socket's buffers grow to 6 MiB on one side and 4 MiB
/// on the other, and there are three connections.
const BUFFERED: u64 = 48 << 20;

/// The count when it has stood still for a while.
async fn standing(count: impl Fn() -> u64) -> Result<u64> {
    soon(async {
        let (mut last, mut since) = (count(), Instant::now());
        while since.elapsed() < Duration::from_millis(300) || last == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if count() != last {
                (last, since) = (count(), Instant::now());
            }
        }
        last
    })
    .await
}
