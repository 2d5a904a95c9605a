//! Response bodies: whole ones, and the metrics and flows part by part, each produced when there is room for it.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::observe::Watch;
use crate::telemetry::Scrape;

/// Concurrent scrapes: a pair of Prometheus servers and an operator. More wait. Each holds a list of the series, some
/// 16 bytes per series.
pub const MAX_SCRAPES: usize = 4;
/// The timeout of one scrape: several times Prometheus's default timeout (10 s).
const SCRAPE_LIMIT: Duration = Duration::from_secs(60);

/// The body of a page.
pub(super) enum PageBody {
    Whole(Full<Bytes>),
    Scrape(ScrapeBody),
    Flows(Watch),
}

/// The metrics.
pub(super) struct ScrapeBody {
    scrape: Scrape,
    started: Instant,
    _place: OwnedSemaphorePermit,
}

/// Limits concurrent scrapes.
#[derive(Clone)]
pub struct Scrapes(Arc<Semaphore>);

impl Default for Scrapes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_SCRAPES)))
    }
}

impl Scrapes {
    /// Waits for a slot.
    pub(super) async fn place(&self) -> io::Result<OwnedSemaphorePermit> {
        self.0.clone().acquire_owned().await.map_err(io::Error::other)
    }
}

impl PageBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }

    /// It lasts until the client leaves.
    pub(super) fn lasts(&self) -> bool {
        matches!(self, Self::Flows(watch) if watch.follows())
    }

    pub(super) fn scrape(scrape: Scrape, place: OwnedSemaphorePermit) -> Self {
        Self::Scrape(ScrapeBody { scrape, started: Instant::now(), _place: place })
    }
}

impl Body for PageBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                frame.map(|it| it.map(|it| it.map_err(|never: Infallible| match never {})))
            }
            Self::Scrape(body) if body.started.elapsed() > SCRAPE_LIMIT => {
                Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
            }
            Self::Flows(watch) => {
                watch.poll_lines(cx).map(|lines| lines.map(|it| Ok(Frame::data(it))))
            }
            Self::Scrape(body) => Poll::Ready(body.scrape.next().map(|it| Ok(Frame::data(it)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Scrape(_) | Self::Flows(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Scrape(_) | Self::Flows(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::telemetry::{Telemetry, TextFormat};

    async fn body(scrapes: &Scrapes) -> PageBody {
        let scrape = Telemetry::without_log().scrape_in_parts(TextFormat::Prometheus).unwrap();
        PageBody::scrape(scrape, scrapes.place().await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_too_long_is_cut_off_and_others_wait_for_a_place() {
        let scrapes = Scrapes::default();
        let mut held = Vec::new();
        for _ in 0..MAX_SCRAPES {
            held.push(body(&scrapes).await);
        }
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, scrapes.place()).await.is_err());
        assert!(held[0].frame().await.unwrap().is_ok());
        tokio::time::advance(SCRAPE_LIMIT + second).await;
        let late = held[0].frame().await.unwrap().unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        held.clear();
        let whole = body(&scrapes).await.collect().await.unwrap().to_bytes();
        assert!(whole.ends_with(b"# EOF\n"));
    }
}
