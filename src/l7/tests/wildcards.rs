//! Requests to a wildcard: what the client claims is checked before a name is resolved, and a route does not change what it means.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::world::fixture::{self, Fixture, bound_to, key};

/// The service `echo` as a wildcard beside the host of another entry.
fn mesh() -> Fixture {
    let wildcard = |name: &str, hostname: &str, vip: &str| Service {
        entry: Some(name.into()),
        hostname: hostname.into(),
        resolution: Resolution::Dynamic,
        waypoint: bound_to("waypoint"),
        ..fixture::service(name, vip, &[])
    };
    let exact = wildcard("exact", "admin.example.org", "10.96.0.2");
    Fixture::default()
        .workload(fixture::workload("client", "127.0.0.9"))
        .waypoint(fixture::waypoint("waypoint"))
        .service(wildcard("echo", "*.example.org", "10.96.0.1"))
        .service(Service { resolution: Resolution::Names, ..exact })
}

#[tokio::test]
async fn what_a_client_claims_must_be_a_name_below_the_wildcard() {
    let lab = Lab::new(mesh(), WorkerSettings::for_tests());
    for host in [
        "example.org",
        "evil.example",
        "a.example.org.evil.example",
        "admin.example.org",
        "ADMIN.example.org.",
        "admin.example.org:8080",
        "127.0.0.1",
        "169.254.169.254",
        "[::1]:80",
        "[fe80::1]",
        "localhost",
    ] {
        let mut client = lab.dial("client", "echo").await;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{host}: {answer}");
    }
    lab.counted(&["response_flags=\"NR\"", "destination_service=\"*.example.org\""], 11).await;
}

/// Nothing tells which server bytes are for.
#[tokio::test]
async fn bytes_name_no_server() {
    let mut mesh = mesh();
    let mut service = mesh.mesh.services[0].as_ref().clone();
    assert_eq!(service.key, key("echo"));
    service.ports[0].protocol = AppProtocol::Detect;
    mesh.mesh.services[0] = service.into();
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut client = lab.dial("client", "echo").await;
    client.write_all(b"\x00binary\n").await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
}
