//! An application's connection in the hands of the client's side, over real sockets.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::base::Reason;
use crate::telemetry::{ConnectionStart, Peer, Reporter, ServiceLabels, Telemetry};
use crate::tunnel::joined::{Joined, JoinedStream, join};

/// The server's side, what the client's side got, the application's end, and what was counted.
struct Lab {
    stream: JoinedStream,
    joined: Joined,
    application: TcpStream,
    telemetry: Telemetry,
}

impl Lab {
    async fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (application, _) = listener.accept().await.unwrap();
        let telemetry = Telemetry::without_log();
        let (stream, joined) = join(ours, telemetry.connection(start()));
        Self { stream, joined, application, telemetry }
    }
}

fn start() -> ConnectionStart {
    ConnectionStart {
        reporter: Reporter::Destination,
        source: Peer::default(),
        destination: Peer::default(),
        service: ServiceLabels::default(),
        mutual_tls: true,
        source_address: ([10, 0, 0, 1], 40_000).into(),
        destination_address: ([10, 0, 0, 2], 15_008).into(),
        dialled: ([10, 0, 0, 2], 15_008).into(),
        policy: None,
        hbone_authority: None,
        server_name: None,
        waypoint_principal: None,
        notes: Vec::new(),
        in_process: true,
        rules: None,
    }
}

/// The sum of a metric's series.
fn counted(telemetry: &Telemetry, name: &str) -> f64 {
    let scraped = telemetry.scrape().unwrap();
    let series = scraped.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn both_directions_pass_are_counted_and_end() {
    let Lab { mut stream, mut joined, mut application, telemetry } = Lab::new().await;
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut question = String::new();
    application.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    application.write_all(b"the answer").await.unwrap();
    drop(application);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "the answer");
    assert_eq!(counted(&telemetry, "istio_tcp_connections_closed_total"), 0.0);
    drop(stream);
    timeout(SOON, joined.ended()).await.unwrap();
    assert_eq!(counted(&telemetry, "istio_tcp_connections_closed_total"), 1.0);
    assert_eq!(counted(&telemetry, "istio_tcp_received_bytes_total"), 8.0);
    assert_eq!(counted(&telemetry, "istio_tcp_sent_bytes_total"), 10.0);
    assert_eq!(counted(&telemetry, "istio_tcp_connections_failed_total"), 0.0);
}

#[tokio::test]
async fn a_client_that_breaks_off_resets_the_application() {
    let Lab { mut stream, mut joined, mut application, telemetry } = Lab::new().await;
    stream.write_all(b"half a quest").await.unwrap();
    drop(stream);
    timeout(SOON, joined.ended()).await.unwrap();
    let mut heard = Vec::new();
    let error = application.read_to_end(&mut heard).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(counted(&telemetry, "istio_tcp_connections_failed_total"), 1.0);
}

#[tokio::test]
async fn the_servers_side_cuts_a_connection_that_is_being_copied() {
    let Lab { mut stream, joined, mut application, telemetry } = Lab::new().await;
    let (mut client, mut ours) = tokio::io::duplex(64);
    let copying = tokio::spawn(async move { copy_bidirectional(&mut ours, &mut stream).await });
    client.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    application.read_exact(&mut hello).await.unwrap();
    timeout(SOON, joined.cut(Reason::Denied, "no more".to_owned())).await.unwrap();
    let error = copying.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = application.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let scraped = telemetry.scrape().unwrap();
    assert!(scraped.contains("response_flags=\"DENY\""), "{scraped}");
}

#[tokio::test]
async fn a_servers_side_that_is_dropped_cuts_too() {
    let Lab { mut stream, joined, mut application, .. } = Lab::new().await;
    let reading = tokio::spawn(async move { stream.read_u8().await.unwrap_err().kind() });
    tokio::task::yield_now().await;
    drop(joined);
    assert_eq!(timeout(SOON, reading).await.unwrap().unwrap(), ErrorKind::ConnectionReset);
    assert_eq!(application.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_application_that_refuses_early_gets_its_answer_through() {
    let Lab { stream, mut joined, mut application, .. } = Lab::new().await;
    let (mut client, ours) = tokio::io::duplex(64 * 1024);
    let telemetry = Telemetry::without_log();
    let record = telemetry.connection(start());
    let copying = tokio::spawn(async move {
        _ = crate::sock::copy_bidirectional(crate::sock::Split(ours), stream, &record).await;
    });
    application.write_all(b"no").await.unwrap();
    drop(application);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "no");
    drop(client);
    copying.await.unwrap();
    timeout(SOON, joined.ended()).await.unwrap();
}
