//! Requests over HTTP/1.1 on connections that stay open: hyper on one thread.

use std::net::SocketAddr;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Client, Progress, Target, runtime};
use crate::http::{HOST, size_of};

pub fn clients(target: &Target, connections: usize, path: &'static str) -> Vec<Client> {
    let server = target.server;
    vec![Box::new(move |progress: &Progress| {
        let work = async {
            let clients = (0..connections).map(|_| client(progress, server, path));
            futures_util::future::try_join_all(clients).await.map(drop)
        };
        runtime()?.block_on(work)
    })]
}

async fn client(progress: &Progress, server: SocketAddr, path: &'static str) -> Result<()> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    ask(&mut sender, path).await?;
    progress.ready();
    loop {
        let begun = SystemTime::now();
        ask(&mut sender, path).await?;
        progress.timed(begun)?;
    }
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Result<()> {
    sender.ready().await?;
    let request = Request::get(path).header("host", HOST).body(Empty::new())?;
    let response: Response<Incoming> =
        sender.send_request(request).await.context("send a request")?;
    let status = response.status();
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    ensure!(
        status == StatusCode::OK && length == size_of(path),
        "answered {status}, {length} bytes"
    );
    Ok(())
}
