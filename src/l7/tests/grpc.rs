//! GRPCRoutes with real gRPC on both ends.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::StatusCode;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tonic::client::Grpc;
use tonic::codegen::Service as ToConnect;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use super::support::*;
use crate::filter::{HeaderFilter, HttpFilter, RequestHeaders};
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::world::fixture::{self, Fixture, backend as to};

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// Answers with its name and the metadata `x-set`. Only HTTP/2 is understood.
async fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: http::Request<Incoming>| async move {
                let codec = ProstCodec::<Text, Text>::default();
                let response = tonic::server::Grpc::new(codec).unary(Named(name), request).await;
                Ok::<_, Infallible>(response)
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

struct Named(&'static str);

impl tonic::server::UnaryService<Text> for Named {
    type Response = Text;
    type Future = Ready<Result<Response<Text>, Status>>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        let set = request.metadata().get("x-set").map_or("", |value| value.to_str().unwrap());
        ready(Ok(Response::new(Text { text: format!("{} {set}", self.0) })))
    }
}

/// Gives out the one connection that it has.
struct Once(Option<TcpStream>);

impl ToConnect<http::Uri> for Once {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let stream = self.0.take().ok_or_else(|| std::io::Error::other("there is only one"));
        Box::pin(ready(stream.map(TokioIo::new)))
    }
}

async fn channel(lab: &Lab) -> Channel {
    let stream = lab.dial("client", "echo").await;
    let endpoint = Endpoint::from_static("http://echo");
    endpoint.connect_with_connector(Once(Some(stream))).await.unwrap()
}

async fn call(channel: &Channel, path: &'static str) -> Result<String, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let request = Request::new(Text::default());
    let codec = ProstCodec::<Text, Text>::default();
    let response = client.unary(request, PathAndQuery::from_static(path), codec).await?;
    Ok(response.into_inner().text)
}

fn exact(text: &str) -> Option<TextMatch> {
    Some(TextMatch::Exact(text.into()))
}

fn rule(service: Option<TextMatch>, method: Option<TextMatch>, backends: Vec<Backend>) -> HttpRule {
    let path = PathMatch::Grpc { service, method };
    HttpRule {
        matches: vec![HttpMatch { path, ..HttpMatch::default() }],
        ..fixture::rule(backends)
    }
}

fn grpc(name: &str, rules: Vec<HttpRule>) -> HttpRoute {
    HttpRoute { kind: RouteKind::Grpc, ..fixture::route(name, "echo", rules) }
}

/// Services `one` and `two` that do not say what they speak.
async fn mesh() -> Fixture {
    let (one, two) = (server("one").await, server("two").await);
    let (first, second) = (outsider("one", one), outsider("two", two));
    shop(one)
        .service(bound("one", "10.96.0.2", &first, one))
        .service(bound("two", "10.96.0.3", &second, two))
        .workload(first)
        .workload(second)
}

fn roomy() -> WorkerSettings {
    WorkerSettings {
        max_requests: 2000,
        max_buffered_bytes: 256 << 20,
        ..WorkerSettings::for_tests()
    }
}

#[tokio::test]
async fn streams_of_one_connection_are_split_one_by_one() {
    let missing = BackendRef::Invalid { status: StatusCode::SERVICE_UNAVAILABLE, why: "x".into() };
    let backends = vec![to("one", 70), to("two", 30), Backend { target: missing, ..to("x", 0) }];
    let set = vec![("x-set".parse().unwrap(), "seen".parse().unwrap())];
    let filter = RequestHeaders(HeaderFilter { set, ..HeaderFilter::default() });
    let filter = HttpFilter::RequestHeaders(filter);
    let rule = HttpRule { filters: vec![filter], ..rule(None, None, backends) };
    let lab = Lab::new(mesh().await.route(grpc("split", vec![rule])), roomy());
    let channel = channel(&lab).await;
    let mut counts: HashMap<String, u32> = HashMap::new();
    for _ in 0..25 {
        let calls = (0..20).map(|_| call(&channel, "/proto.Echo/Echo"));
        for answer in futures_util::future::join_all(calls).await {
            *counts.entry(answer.unwrap()).or_default() += 1;
        }
    }
    assert_eq!(counts, HashMap::from([("one seen".into(), 350), ("two seen".into(), 150)]));
    assert_eq!(lab.requests(&["grpc_response_status=\"0\"", "request_protocol=\"grpc\""]), 500);
}

#[tokio::test]
async fn services_and_methods_decide_and_the_rest_is_unimplemented() {
    let invalid = BackendRef::Invalid { status: StatusCode::SERVICE_UNAVAILABLE, why: "x".into() };
    let rules = vec![
        rule(exact("shop.Cart"), None, vec![to("one", 1)]),
        rule(exact("shop.Cart"), exact("Add"), vec![to("two", 1)]),
        rule(exact("shop.Broken"), None, vec![Backend { target: invalid, ..to("x", 1) }]),
        rule(exact("shop.Empty"), None, vec![]),
    ];
    let lab = Lab::new(mesh().await.route(grpc("methods", rules)), roomy());
    let channel = channel(&lab).await;
    assert_eq!(call(&channel, "/shop.Cart/Get").await.unwrap(), "one ");
    assert_eq!(call(&channel, "/shop.Cart/Add").await.unwrap(), "two ");
    for (path, code) in [
        ("/shop.Other/Get", Code::Unimplemented),
        ("/shop.Broken/Get", Code::Unavailable),
        ("/shop.Empty/Get", Code::Unavailable),
    ] {
        assert_eq!(call(&channel, path).await.unwrap_err().code(), code, "{path}");
    }
    // What is not gRPC is told in HTTP's words.
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(client.get("/shop.Other/Get").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_grpc_route_wins_over_an_http_route_on_its_port() {
    let http = fixture::route("http", "echo", vec![fixture::rule(vec![to("two", 1)])]);
    let of_grpc = grpc("grpc", vec![rule(exact("shop.Cart"), None, vec![to("one", 1)])]);
    let other_port = vec![RouteParent { service: fixture::key("echo"), port: Some(81) }];
    let elsewhere = HttpRoute { parents: other_port, ..of_grpc.clone() };
    let lab = Lab::new(mesh().await.route(http.clone()).route(of_grpc), roomy());
    let winner = channel(&lab).await;
    assert_eq!(call(&winner, "/shop.Cart/Get").await.unwrap(), "one ");
    let rest = call(&winner, "/shop.Other/Get").await.unwrap_err();
    assert_eq!(rest.code(), Code::Unimplemented, "the HTTPRoute has no say");
    let lab = Lab::new(mesh().await.route(http).route(elsewhere), roomy());
    let channel = channel(&lab).await;
    assert_eq!(call(&channel, "/shop.Cart/Get").await.unwrap(), "two ");
}
