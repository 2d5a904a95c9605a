//! A stream whose bytes wait for their limits (`tcpRateLimit`): what is not read or written meanwhile holds the peer back.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::{ChunkRead, ChunkWrite, Duplex};
use crate::filter::Meter;

/// About so many bytes at once: what one connection may owe.
const CHUNK: usize = 16 * 1024;

/// Counts both directions.
pub struct Paced<S> {
    stream: S,
    reading: Pace,
    writing: Pace,
}

/// The receiving half.
pub struct PacedRead<R> {
    half: R,
    pace: Pace,
}

/// The sending half.
pub struct PacedWrite<W> {
    half: W,
    pace: Pace,
}

/// Of one direction.
struct Pace {
    meter: Arc<Meter>,
    /// Kept between waits.
    sleep: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl Pace {
    fn new(meter: &Arc<Meter>) -> Self {
        Self { meter: meter.clone(), sleep: None, waits: false }
    }

    /// Ready when bytes may pass.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waits
                && let Some(sleep) = &mut self.sleep
            {
                ready!(sleep.as_mut().poll(cx));
                self.waits = false;
            }
            let Some(wait) = self.meter.wait() else { return Poll::Ready(()) };
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(Instant::now() + wait),
                None => self.sleep = Some(Box::pin(sleep(wait))),
            }
            self.waits = true;
        }
    }
}

impl<S> Paced<S> {
    pub fn new(stream: S, meter: Meter) -> Self {
        let meter = Arc::new(meter);
        Self { stream, reading: Pace::new(&meter), writing: Pace::new(&meter) }
    }

    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The same for what the stream becomes.
    pub fn try_map<T, E>(self, change: impl FnOnce(S) -> Result<T, E>) -> Result<Paced<T>, E> {
        let Self { stream, reading, writing } = self;
        Ok(Paced { stream: change(stream)?, reading, writing })
    }
}

impl<S: Duplex> Duplex for Paced<S> {
    type Read = PacedRead<S::Read>;
    type Write = PacedWrite<S::Write>;

    fn halves(self) -> (Self::Read, Self::Write) {
        let Self { stream, reading, writing } = self;
        let (read, write) = stream.halves();
        (PacedRead { half: read, pace: reading }, PacedWrite { half: write, pace: writing })
    }
}

impl<R: ChunkRead> ChunkRead for PacedRead<R> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>> {
        ready!(self.pace.poll(cx));
        let chunk = ready!(self.half.poll_chunk(cx, hint.min(CHUNK)))?;
        self.pace.meter.pass(chunk.len());
        Poll::Ready(Ok(chunk))
    }
}

impl<W: ChunkWrite> ChunkWrite for PacedWrite<W> {
    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        ready!(self.pace.poll(cx));
        let before = chunk.len();
        ready!(self.half.poll_write_chunk(cx, chunk))?;
        self.pace.meter.pass(before.saturating_sub(chunk.len()));
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half.poll_finish(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.half.poll_broken(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.reading.poll(cx));
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.reading.meter.pass(buf.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.writing.poll(cx));
        let part = &buf[..buf.len().min(CHUNK)];
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, part))?;
        self.writing.meter.pass(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::base::{Identity, ObjectKey};
    use crate::filter::{Cx, HttpFilter, Opened, PolicySpec, RuleContext};
    use crate::sock::{Split, Transferred, copy_bidirectional};

    struct Policy;

    impl RuleContext for Policy {}

    struct Nobody;

    impl Transferred for Nobody {
        fn sent(&self, _: usize) {}
        fn received(&self, _: usize) {}
    }

    /// So many bytes a second.
    fn meter(limit: usize) -> Meter {
        let bytes = serde_json::json!({"limit": limit, "interval": "1s"});
        let target = serde_json::json!({"kind": "Service", "name": "a"});
        let spec = serde_json::json!({"targetRefs": [target], "tcpRateLimit": {"bytes": bytes}});
        let spec: PolicySpec = serde_json::from_value(spec).unwrap();
        let filter = spec.filters(&Policy).remove(0).unwrap();
        let HttpFilter::TcpRateLimit(limit) = filter else { panic!("{filter:?}") };
        let (identity, service) = (Identity::new("td", "ns", "a"), ObjectKey::new("shop", "a"));
        let (identity, service) = (Some(&identity), Some(&service));
        let cx = Cx { identity, service, ..Cx::fixture() };
        let mut opened = Opened::default();
        limit.open(&cx, &mut opened);
        opened.meter.unwrap()
    }

    /// The times are exact: nothing but the limit takes any.
    #[tokio::test(start_paused = true)]
    async fn a_copy_takes_the_time_that_its_bytes_have() {
        const BYTES: usize = 500_000;
        let (mut client, downstream) = duplex(4096);
        let (upstream, mut server) = duplex(4096);
        let begun = Instant::now();
        let paced = Paced::new(Split(downstream), meter(100_000));
        let copying = tokio::spawn(copy_bidirectional(paced, Split(upstream), &Nobody));
        let sending = tokio::spawn(async move {
            client.write_all(&vec![1; BYTES]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer.len()
        });
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), BYTES);
        // A second's bytes are there at once, the rest as they come, and a chunk is owed.
        let took = begun.elapsed();
        let (least, most) = (Duration::from_millis(3700), Duration::from_millis(4100));
        assert!(took >= least && took <= most, "{took:?}");
        server.write_all(&vec![2; BYTES]).await.unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        assert_eq!(sending.await.unwrap(), BYTES);
        copying.await.unwrap().unwrap();
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(8700), "both directions count: {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn reads_and_writes_wait() {
        let (mut client, server) = duplex(1 << 20);
        let mut paced = Paced::new(server, meter(1000));
        client.write_all(&[1; 3000]).await.unwrap();
        let begun = Instant::now();
        let mut read = [0; 500];
        for _ in 0..6 {
            paced.read_exact(&mut read).await.unwrap();
        }
        paced.write_all(&[2; 500]).await.unwrap();
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(2000), "{took:?}");
        assert!(took <= Duration::from_millis(2100), "{took:?}");
    }
}
