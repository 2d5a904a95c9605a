//! Requests over HTTP/2, one after the other on each of some streams of some connections: h2 on one thread.

use std::net::SocketAddr;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use h2::client::{Builder, SendRequest};
use http::{Method, Request, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Client, Progress, Target, runtime};
use crate::http::{HOST, MESSAGE, size_of};
use crate::record::case::SMALL;

/// What a client announces: enough never to wait.
const WINDOW: u32 = 4 * 1024 * 1024;

pub fn clients(target: &Target, connections: usize, streams: usize, post: bool) -> Vec<Client> {
    let server = target.server;
    vec![Box::new(move |progress: &Progress| {
        let work = async {
            let clients = (0..connections).map(|_| connection(progress, server, streams, post));
            try_join_all(clients).await.map(drop)
        };
        runtime()?.block_on(work)
    })]
}

async fn connection(
    progress: &Progress,
    server: SocketAddr,
    streams: usize,
    post: bool,
) -> Result<()> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut builder = Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let clients = (0..streams).map(|_| client(progress, sender.clone(), post));
    try_join_all(clients).await.map(drop)
}

async fn client(progress: &Progress, mut sender: SendRequest<Bytes>, post: bool) -> Result<()> {
    ask(&mut sender, post).await?;
    progress.ready();
    loop {
        let begun = SystemTime::now();
        ask(&mut sender, post).await?;
        progress.timed(begun)?;
    }
}

async fn ask(sender: &mut SendRequest<Bytes>, post: bool) -> Result<()> {
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
    let method = if post { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(method).uri(format!("http://{HOST}{SMALL}"));
    if post {
        request = request.header("content-type", "application/grpc").header("te", "trailers");
    }
    let (response, mut stream) = sender.send_request(request.body(())?, !post)?;
    if post {
        stream.send_data(Bytes::from_static(MESSAGE), true)?;
    }
    let response = response.await.context("an answer")?;
    let (status, mut body) = (response.status(), response.into_body());
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        length += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    let expected = if post { MESSAGE.len() } else { size_of(SMALL) };
    ensure!(status == StatusCode::OK && length == expected, "answered {status}, {length} bytes");
    let trailers = body.trailers().await?;
    ensure!(trailers.is_some_and(|it| it.contains_key("grpc-status")) == post, "trailers");
    Ok(())
}
