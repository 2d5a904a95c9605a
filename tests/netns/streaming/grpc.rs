//! gRPC with tonic on both ends: the four kinds of calls, deadlines and cancellation.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use http::{Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::Service as ToConnect;
use tonic::server::StreamingService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::server::{Body, Seen, Working};
use super::{Way, soon};

/// Before the name of a method.
pub const PATH: &str = "/lab.Streams/";

#[derive(Clone, PartialEq, prost::Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;
type Codec = ProstCodec<Text, Text>;

/// The application's side: a call of one message is a stream of one.
pub async fn answer(request: http::Request<Incoming>, seen: Arc<Seen>) -> Response<Body> {
    let method = request.uri().path().trim_start_matches(PATH).to_owned();
    if method == "Never" {
        let _working = Working::on(&seen);
        return std::future::pending().await;
    }
    let mut server = tonic::server::Grpc::new(Codec::default());
    let response = server.streaming(Method(method, seen), request).await;
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

struct Method(String, Arc<Seen>);

impl StreamingService<Text> for Method {
    type Response = Text;
    type ResponseStream = Texts;
    type Future = Ready<Result<tonic::Response<Texts>, Status>>;

    fn call(&mut self, request: Request<Streaming<Text>>) -> Self::Future {
        let messages = request.into_inner();
        let texts: Texts = match self.0.as_str() {
            "Join" => Box::pin(stream::once(join(messages))),
            "Split" => Box::pin(stream::once(join(messages)).flat_map(split)),
            "Echo" => Box::pin(messages),
            "Fail" => Box::pin(
                messages.take(1).chain(stream::once(ready(Err(Status::aborted("as it should"))))),
            ),
            "Hold" => {
                let working = Working::on(&self.1);
                Box::pin(stream::poll_fn(move |_| {
                    _ = &working;
                    Poll::Pending
                }))
            }
            _ => return ready(Err(Status::unimplemented("no such method"))),
        };
        ready(Ok(tonic::Response::new(texts)))
    }
}

async fn join(messages: Streaming<Text>) -> Result<Text, Status> {
    let all: Vec<_> = messages.collect().await;
    let texts: Result<Vec<String>, Status> = all.into_iter().map(|it| Ok(it?.text)).collect();
    Ok(Text { text: texts?.concat() })
}

fn split(joined: Result<Text, Status>) -> Texts {
    match joined {
        Ok(joined) => {
            let parts: Vec<_> = joined.text.chars().map(|it| Ok(text(&it.to_string()))).collect();
            Box::pin(stream::iter(parts))
        }
        Err(status) => Box::pin(stream::once(ready(Err(status)))),
    }
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned() }
}

/// Gives out the one connection that it has.
struct Once(Option<TcpStream>);

impl ToConnect<Uri> for Once {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Ready<std::io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().ok_or_else(|| std::io::Error::other("there is only one"));
        ready(stream.map(TokioIo::new))
    }
}

async fn client(way: &Way) -> Result<Grpc<Channel>> {
    let stream = TcpStream::connect(way.to).await?;
    let endpoint = Endpoint::from_static("http://streams");
    let mut client = Grpc::new(endpoint.connect_with_connector(Once(Some(stream))).await?);
    client.ready().await?;
    Ok(client)
}

fn method(name: &'static str) -> PathAndQuery {
    PathAndQuery::try_from(format!("{PATH}{name}")).unwrap_or(PathAndQuery::from_static("/"))
}

/// The four kinds of calls, each message as soon as it was sent.
pub async fn calls(way: &Way) -> Result<()> {
    let mut client = client(way).await?;
    let one = client.unary(Request::new(text("one")), method("Join"), Codec::default());
    ensure!(soon(one).await??.into_inner().text == "one");
    client.ready().await?;
    let many = Request::new(stream::iter(["a", "b", "c"].map(text)));
    let joined = client.client_streaming(many, method("Join"), Codec::default());
    ensure!(soon(joined).await??.into_inner().text == "abc");
    client.ready().await?;
    let split =
        client.server_streaming(Request::new(text("xyz")), method("Split"), Codec::default());
    let parts: Vec<_> = soon(soon(split).await??.into_inner().collect::<Vec<_>>()).await?;
    ensure!(parts.len() == 3 && parts.iter().all(Result::is_ok), "{parts:?}");
    both_ways(&mut client).await?;
    let fails = client.server_streaming(Request::new(text("x")), method("Fail"), Codec::default());
    let mut messages = soon(fails).await??.into_inner();
    ensure!(soon(messages.next()).await?.is_some_and(|it| it.is_ok()));
    let status = soon(messages.next()).await?.context("a status")?.err().context("an error")?;
    ensure!(status.code() == Code::Aborted && status.message() == "as it should", "{status:?}");
    Ok(())
}

/// A conversation: nothing is sent before the answer to what went before has come.
async fn both_ways(client: &mut Grpc<Channel>) -> Result<()> {
    client.ready().await?;
    let (say, mut said) = mpsc::channel(1);
    let sent = stream::poll_fn(move |cx| said.poll_recv(cx));
    let call = client.streaming(Request::new(sent), method("Echo"), Codec::default());
    let mut heard = soon(call).await??.into_inner();
    for word in ["who", "is", "there"] {
        say.send(text(word)).await?;
        let answer = soon(heard.next()).await?.context("the stream ended")??;
        ensure!(answer.text == word, "{answer:?}");
    }
    drop(say);
    ensure!(soon(heard.next()).await?.is_none(), "half of it is closed, and so is the other then");
    Ok(client.ready().await?)
}

/// A client that loses its patience, and one that has a deadline: the application hears of both.
pub async fn cancels(way: &Way) -> Result<()> {
    let mut client = client(way).await?;
    let before = way.seen.cancelled.load(Ordering::SeqCst);
    let call = client.server_streaming(Request::new(text("")), method("Hold"), Codec::default());
    let held = soon(call).await??;
    drop(held);
    way.until(|seen| seen.cancelled.load(Ordering::SeqCst) > before).await.context("a reset")?;
    client.ready().await?;
    let mut request = Request::new(text(""));
    request.set_timeout(Duration::from_millis(200));
    let call = client.unary(request, method("Never"), Codec::default());
    let status = soon(call).await?.err().context("a deadline")?;
    ensure!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    way.until(|seen| seen.cancelled.load(Ordering::SeqCst) > before + 1).await.context("a deadline")
}
