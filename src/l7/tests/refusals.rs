//! What is refused because it is not carried out: tokens, and TLS to applications.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::destination::captured;
use super::raw::{HALVES, accept, head, listening, read, rest};
use super::support::*;
use crate::base::Str;
use crate::jwt::fixture::Issuer;
use crate::jwt::{KeySource, KeysUri, Known};
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::policy::fixture;
use crate::world::fixture::{Fixture, identity};

const BEARER: [(&str, &str); 1] = [("authorization", "Bearer a.b.c")];

/// A RequestAuthentication for all of the namespace, or for the service.
fn tokens(scope: Scope) -> AuthorizationPolicy {
    let rule = fixture::token_rule(&Issuer::new("k"));
    fixture::tokens(&crate::world::fixture::key("jwt"), scope, vec![rule])
}

fn on_echo() -> Scope {
    Scope::Targets(vec![PolicyTarget::Service("echo".into())])
}

async fn is_refused_with_a_token(client: &mut Client) {
    let refused = client.send(Method::GET, "/", &BEARER).await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let challenge = "Bearer realm=\"http://echo/\", error=\"invalid_token\"";
    assert_eq!(refused.headers["www-authenticate"], challenge);
    assert_eq!(refused.body, "Jwt header is an invalid Base64url encoded");
    let basic = [("authorization", "Basic eDp5")];
    for headers in [&[][..], &basic] {
        let passed = client.send(Method::GET, "/", headers).await.unwrap();
        assert_eq!(passed.status, StatusCode::OK, "{headers:?}");
    }
}

#[tokio::test]
async fn the_destination_refuses_tokens_that_nobody_verified() {
    let at = application("app").await;
    for scope in [Scope::Namespace, on_echo()] {
        let lab = Lab::new(captured(at).policy(tokens(scope)), WorkerSettings::for_tests());
        for (client, host) in [
            (Some(identity("client")), Some("echo.shop.svc.cluster.local")),
            (Some(identity("client")), None),
            (None, None),
        ] {
            let stream = lab.arrive("echo", at, client, host).await;
            is_refused_with_a_token(&mut Client::http1(stream).await).await;
        }
        let stream = lab.arrive("echo", at, Some(identity("client")), None).await;
        let headers = [("content-type", "application/grpc"), BEARER[0]];
        let mut client = Client::http2(stream).await;
        let refused = client.send(Method::POST, "/service/method", &headers).await.unwrap();
        assert_eq!(refused.headers["grpc-status"], "16");
    }
}

/// The destination is in no mesh, so the client's half judges.
#[tokio::test]
async fn the_clients_half_refuses_them_where_nobody_else_judges() {
    let mesh = shop(application("app").await).policy(tokens(on_echo()));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let stream = lab.dial("client", "echo").await;
    is_refused_with_a_token(&mut Client::http1(stream).await).await;
}

/// Rules whose keys are fetched: a request with a token waits until they are there, at whichever half judges.
#[tokio::test]
async fn a_request_waits_for_the_keys_of_its_token() {
    let at = application("app").await;
    let issuer = Issuer::new("k");
    let claims = serde_json::json!({"iss": "https://issuer", "sub": "alice"});
    let bearer = format!("Bearer {}", issuer.token(&claims));
    let uri = Arc::new(KeysUri::parse("https://issuer.example/keys").unwrap());
    let timeout = Duration::from_secs(30);
    let source = KeySource { uri: uri.clone(), namespace: "shop".into(), timeout };
    let mut rule = fixture::token_rule(&issuer);
    rule.keys = IssuerKeys::Remote(Arc::new(source));
    let key = crate::world::fixture::key("jwt");
    for judges in ["destination", "client"] {
        let policy = fixture::tokens(&key, on_echo(), vec![rule.clone()]);
        let mesh = if judges == "client" { shop(at) } else { captured(at) };
        let lab = Lab::new(mesh.policy(policy), WorkerSettings::for_tests());
        let stream = match judges {
            "client" => lab.dial("client", "echo").await,
            _ => lab.arrive("echo", at, Some(identity("client")), None).await,
        };
        let mut client = Client::http1(stream).await;
        let ring = lab.store.load().keys.clone();
        let mut added = ring.added().unwrap();
        let learns = async {
            let set = added.recv().await.unwrap();
            set.wanted().await;
            let now = Instant::now();
            set.learn(Known {
                keys: Some(issuer.keys()),
                begun: Some(now),
                next: now,
                failure: None,
            });
        };
        let headers = [("authorization", &*bearer)];
        let (got, ()) = tokio::join!(client.send(Method::GET, "/", &headers), learns);
        assert_eq!(got.unwrap().status, StatusCode::OK, "{judges}");
        assert_eq!(ring.sets().len(), 1);
        // Others do not wait, whatever is known.
        ring.remove(&uri);
        let got = client.send(Method::GET, "/", &[]).await.unwrap();
        assert_eq!(got.status, StatusCode::OK, "{judges}");
        assert!(ring.sets().is_empty());
    }
}

/// Applications that join trailers with the headers would take the client's word for an agent's.
#[tokio::test]
async fn nobody_but_the_agent_tells_of_claims_in_trailers() {
    let (at, listener) = listening().await;
    let mut rule = fixture::token_rule(&Issuer::new("k"));
    rule.payload_header = Some("x-jwt-payload".parse().unwrap());
    rule.claim_headers = vec![ClaimHeader { name: "x-user".parse().unwrap(), claim: "sub".into() }];
    for half in HALVES {
        let key = crate::world::fixture::key("jwt");
        let policy = fixture::tokens(&key, on_echo(), vec![rule.clone()]);
        let lab = Lab::new(half.mesh(at).policy(policy), WorkerSettings::for_tests());
        let mut client = half.connect(&lab, at).await;
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                       2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-User: root\r\nX_User: root\r\nX-JWT-Payload: e30\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut application = accept(&listener).await;
        head(&mut application).await;
        let expected = "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n";
        assert_eq!(read(&mut application, expected.len()).await, expected, "{half:?}");
    }
}

fn encrypted(mut mesh: Fixture, clients: Option<&str>, demand: Demand) -> Fixture {
    let mut service = mesh.mesh.services[0].as_ref().clone();
    let by = "DestinationRule shop/echo".into();
    let wish = Wish { by, rest: demand, ports: Default::default(), subsets: Default::default() };
    service.encryption.add(clients.map(Str::from).as_ref(), wish.into());
    mesh.mesh.services[0] = service.into();
    mesh
}

#[tokio::test]
async fn what_should_be_encrypted_is_not_sent_in_the_clear() {
    let at = application("app").await;
    for (clients, demand, status) in [
        (None, Demand::Impossible("x".into()), StatusCode::SERVICE_UNAVAILABLE),
        (None, Demand::Mesh, StatusCode::SERVICE_UNAVAILABLE),
        (None, Demand::Nothing, StatusCode::OK),
        (Some("shop"), Demand::Impossible("x".into()), StatusCode::SERVICE_UNAVAILABLE),
        // Another namespace's object is a matter of that namespace's clients.
        (Some("evil"), Demand::Impossible("x".into()), StatusCode::OK),
    ] {
        let lab =
            Lab::new(encrypted(shop(at), clients, demand.clone()), WorkerSettings::for_tests());
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        assert_eq!(client.get("/").await.status, status, "{clients:?} {demand:?}");
        let mut bytes = lab.dial("client", "echo").await;
        bytes.write_all(b"\x00binary\n").await.unwrap();
        if status != StatusCode::OK {
            assert_eq!(bytes.read(&mut [0; 8]).await.unwrap_or(0), 0, "{clients:?} {demand:?}");
            assert!(lab.requests(&["response_flags=\"NO_TLS\""]) > 0);
        }
    }
}

/// A wish that comes while a body is being sent, which has no end.
#[tokio::test]
async fn a_request_that_lasts_ends_when_it_is_wanted_encrypted() {
    let at = application("app").await;
    let lab = Lab::new(shop(at), WorkerSettings::for_tests());
    let mut client = lab.dial("client", "echo").await;
    let begun = b"POST / HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
    client.write_all(begun).await.unwrap();
    let mut answer = [0; 12];
    let early = tokio::time::timeout(Duration::from_millis(300), client.read(&mut answer));
    assert!(early.await.is_err(), "it goes on");
    lab.store.publish(encrypted(shop(at), None, Demand::Impossible("x".into())).mesh);
    let ended = tokio::time::timeout(Duration::from_secs(5), client.read_exact(&mut answer));
    ended.await.expect("it ends").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    lab.counted(&["response_flags=\"NO_TLS\""], 1).await;
}

/// The same once the response has begun: what the client goes on to send reaches nobody.
#[tokio::test]
async fn a_body_ends_with_a_response_that_is_cut() {
    let (at, listener) = listening().await;
    let lab = Lab::new(shop(at), WorkerSettings::for_tests());
    let mut client = lab.dial("client", "echo").await;
    let begun = b"POST / HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
    client.write_all(begun).await.unwrap();
    let mut application = accept(&listener).await;
    head(&mut application).await;
    assert_eq!(read(&mut application, 7).await, "2\r\nhi\r\n");
    let begins = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    application.write_all(begins).await.unwrap();
    head(&mut client).await;
    lab.store.publish(encrypted(shop(at), None, Demand::Impossible("x".into())).mesh);
    rest(&mut client).await;
    _ = client.write_all(b"4\r\nlate\r\n").await;
    assert_eq!(rest(&mut application).await, "");
}
