//! An HTTP/2 client that does what it is told, frame by frame, over mutual TLS: what a library would never send.

#![allow(dead_code, reason = "the suites use different parts")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::issued::Certificate;
use crate::support::lab::any_server;
use crate::support::lab::netns::Namespace;
use crate::support::lab::wait::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame that came.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection, of which nothing but the handshakes happened.
pub struct Peer {
    write: WriteHalf<TlsStream<TcpStream>>,
    frames: mpsc::UnboundedReceiver<Frame>,
}

impl Frame {
    /// The error code of a GOAWAY.
    pub fn go_away(&self) -> Option<u32> {
        let code = self.payload.get(4..8)?.try_into().ok()?;
        (self.kind == GO_AWAY).then(|| u32::from_be_bytes(code))
    }
}

/// Runs on a thread in this namespace, with a runtime.
pub fn run_in<T: Send, F: Future<Output = Result<T>>>(
    namespace: &Namespace,
    work: impl FnOnce() -> F + Send,
) -> Result<T> {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    })?
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The header block of a CONNECT: literals without indexing (RFC 7541, 6.2.2), whose names are in the static table.
pub fn connect(authority: &str) -> Vec<u8> {
    let mut block = vec![0x02, 7];
    block.extend(b"CONNECT");
    block.extend([0x01, authority.len() as u8]);
    block.extend(authority.as_bytes());
    block
}

impl Peer {
    /// TCP, TLS, the preface, and SETTINGS of both sides.
    pub async fn connect(to: SocketAddr, certificate: &Certificate) -> Result<Self> {
        let mut peer = Self::silent(to, certificate).await?;
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        let settings = peer.until(|frame| frame.kind == SETTINGS && frame.flags == 0).await?;
        ensure!(settings.is_some(), "no SETTINGS came");
        peer.send(&frame(SETTINGS, ACK, 0, &[])).await?;
        Ok(peer)
    }

    /// TCP and TLS.
    pub async fn silent(to: SocketAddr, certificate: &Certificate) -> Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(config(certificate)?));
        let tls = connector.connect(ServerName::IpAddress(to.ip().into()), stream).await?;
        let (read, write) = tokio::io::split(tls);
        let (sender, frames) = mpsc::unbounded_channel();
        tokio::spawn(async move { _ = receive(read, sender).await });
        Ok(Self { write, frames })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.write.write_all(bytes).await?;
        Ok(self.write.flush().await?)
    }

    /// Opens a stream and waits for its answer: whether it is 200 (index 8 of the static table).
    pub async fn open(&mut self, stream: u32, authority: &str) -> Result<bool> {
        self.send(&frame(HEADERS, END_HEADERS, stream, &connect(authority))).await?;
        let answer =
            self.until(|frame| frame.stream == stream && [HEADERS, RESET].contains(&frame.kind));
        let answer = answer.await?.context("the connection ended instead of an answer")?;
        Ok(answer.kind == HEADERS && answer.payload.first() == Some(&0x88))
    }

    /// The first frame that fits, `None` when the connection ends first. Answers pings.
    pub async fn until(&mut self, fits: impl Fn(&Frame) -> bool) -> Result<Option<Frame>> {
        self.within(PATIENCE, fits).await
    }

    pub async fn within(
        &mut self,
        time: Duration,
        fits: impl Fn(&Frame) -> bool,
    ) -> Result<Option<Frame>> {
        let wait = async {
            while let Some(frame) = self.frames.recv().await {
                if frame.kind == PING && frame.flags & ACK == 0 {
                    // One that has ended tells by its end.
                    _ = self.send(&self::frame(PING, ACK, 0, &frame.payload)).await;
                }
                if fits(&frame) {
                    return Some(frame);
                }
            }
            None
        };
        timeout(time, wait).await.with_context(|| format!("waited {time:?} for a frame, in vain"))
    }

    /// Waits for the end of the connection; returns the code of the GOAWAY that preceded it.
    pub async fn ended(&mut self, time: Duration) -> Result<Option<u32>> {
        let mut code = None;
        let wait = async {
            while let Some(frame) = self.frames.recv().await {
                code = frame.go_away().or(code);
            }
        };
        if timeout(time, wait).await.is_err() {
            bail!("the connection still stands after {time:?}");
        }
        Ok(code)
    }

    /// Sends what `bytes` makes of the number of the batch, until the connection ends, up to `time`; returns how many
    /// batches were sent and the code of the GOAWAY.
    pub async fn flood(
        &mut self,
        time: Duration,
        mut bytes: impl FnMut(u64) -> Vec<u8>,
    ) -> Result<(u64, Option<u32>)> {
        let (mut sent, mut code) = (0, None);
        let sending = async {
            loop {
                while let Ok(frame) = self.frames.try_recv() {
                    code = frame.go_away().or(code);
                }
                let part = bytes(sent);
                // A server that has sent us away no longer reads; what it said is still to be read.
                let write = timeout(Duration::from_secs(1), self.write.write_all(&part)).await;
                match write {
                    Ok(Ok(())) => sent += 1,
                    Ok(Err(_)) => return,
                    Err(_) if self.frames.is_closed() => return,
                    Err(_) => {}
                }
            }
        };
        if timeout(time, sending).await.is_err() {
            bail!("the connection still stands after {time:?} and {sent} times");
        }
        while let Some(frame) = self.frames.recv().await {
            code = frame.go_away().or(code);
        }
        Ok((sent, code))
    }
}

async fn receive(
    mut read: impl AsyncRead + Unpin,
    frames: mpsc::UnboundedSender<Frame>,
) -> std::io::Result<()> {
    loop {
        let mut head = [0; 9];
        read.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        read.read_exact(&mut payload).await?;
        if frames.send(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload }).is_err()
        {
            return Ok(());
        }
    }
}

fn config(certificate: &Certificate) -> Result<ClientConfig> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
    any_server::config(chain.collect::<Result<_, _>>()?, key)
}
