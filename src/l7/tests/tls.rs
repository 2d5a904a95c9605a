//! TLS to applications: requests and bytes go out under it as it is demanded, or not at all.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::support::*;
use crate::l7::WorkerSettings;
use crate::model::{Demand, Wish};
use crate::tls::fixture::{Authority, server, trusting};
use crate::tls::{Origin, TlsSettings};
use crate::world::fixture::Fixture;

/// The names that its connections asked for; `None` of those that did not get through the handshake.
type Seen = Arc<Mutex<Vec<Option<String>>>>;

/// Answers a GET with the name that was asked for, and gives other bytes back.
async fn secure(config: ServerConfig) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, seen, config) = (listener.local_addr().unwrap(), Seen::default(), Arc::new(config));
    let sees = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sees, acceptor) = (sees.clone(), TlsAcceptor::from(config.clone()));
            tokio::spawn(async move {
                let accepted = acceptor.accept(stream).await.ok();
                let name = accepted.as_ref();
                let name = name.and_then(|it| it.get_ref().1.server_name().map(str::to_owned));
                sees.lock().push(name.clone());
                let (Some(mut stream), Some(name)) = (accepted, name) else { return };
                let mut read = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut read).await {
                    let answer = match read.starts_with(b"GET ") {
                        true => format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}",
                            name.len()
                        )
                        .into_bytes(),
                        false => read[..count].to_vec(),
                    };
                    stream.write_all(&answer).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    (at, seen)
}

fn under(mut mesh: Fixture, settings: TlsSettings) -> Fixture {
    let mut service = mesh.mesh.services[0].as_ref().clone();
    let rest = Demand::Tls(Arc::new(Origin::new(settings)));
    let wish = Wish {
        by: "DestinationRule shop/echo".into(),
        rest,
        ports: Default::default(),
        subsets: Default::default(),
    };
    service.encryption.add(None, wish.into());
    mesh.mesh.services[0] = service.into();
    mesh
}

const HOST: &str = "echo.shop.svc.cluster.local";

#[tokio::test]
async fn requests_and_bytes_go_out_under_tls() {
    let authority = Authority::new();
    let (at, seen) = secure(server(&authority.issue(&[HOST]), None, &[b"http/1.1"])).await;
    let mesh = |settings| under(shop(at), settings);
    let lab = Lab::new(mesh(trusting(&authority)), WorkerSettings::for_tests());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    for _ in 0..2 {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, HOST));
    }
    assert_eq!(*seen.lock(), [Some(HOST.to_owned())], "one connection takes both");
    // By other settings, of which the server knows nothing, another connection.
    let settings = TlsSettings { by: "DestinationRule shop/newer".into(), ..trusting(&authority) };
    lab.store.publish(mesh(settings).mesh);
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    assert_eq!(seen.lock().len(), 2);
    let mut bytes = lab.dial("client", "echo").await;
    bytes.write_all(b"\x00binary\n").await.unwrap();
    let mut back = [0; 8];
    bytes.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"\x00binary\n");
    assert_eq!(seen.lock().len(), 3);
}

/// Whoever asks, and whatever host the request names.
#[tokio::test]
async fn nothing_goes_out_where_the_server_does_not_prove_its_name() {
    let (ours, others) = (Authority::new(), Authority::new());
    for (name, authority, protocols) in [
        ("other.example", &ours, &[][..]),
        (HOST, &others, &[]),
        (HOST, &ours, &[b"h2".as_slice()]),
    ] {
        let (at, seen) = secure(server(&authority.issue(&[name]), None, protocols)).await;
        let lab = Lab::new(under(shop(at), trusting(&ours)), WorkerSettings::for_tests());
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        assert_eq!(client.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        assert_eq!(*seen.lock(), [None], "{name}");
        lab.counted(&["response_flags=\"TLS_ORIGINATION\""], 1).await;
        if protocols.is_empty() {
            let mut bytes = lab.dial("client", "echo").await;
            bytes.write_all(b"\x00binary\n").await.unwrap();
            assert_eq!(bytes.read(&mut [0; 8]).await.unwrap_or(0), 0, "{name}");
        }
    }
}
