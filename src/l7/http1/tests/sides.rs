//! What both sides are tested with: pipes in memory, bodies, a seat.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::base::Room;
use crate::l7::WorkerSettings;
use crate::l7::budget::client::Client;
use crate::l7::budget::seat::Seat;
use crate::l7::budget::{Pool, Share, Tenancy};
use crate::l7::http1::client;
use crate::l7::http1::names::Names;
use crate::l7::http1::outgoing::{self, TakeOver};
use crate::sock::Rewind;
use crate::telemetry::Telemetry;
use crate::tunnel::{Carrier, LocalStream};

/// A pipe, and its other end for the engine.
pub(super) fn pair() -> (LocalStream, Rewind<Carrier>) {
    let (there, here) = LocalStream::pair(&Room::boundless());
    (there, Rewind { front: Bytes::new(), stream: Carrier::Local(here) })
}

/// The seat of a connection that nobody tells anything.
pub(super) fn seat() -> Seat {
    let pool = Pool::new(&WorkerSettings::for_tests(), Telemetry::without_log());
    let client = Client::new(None, [10, 0, 0, 1].into());
    Seat::new(Share::new(client, pool, Arc::<Tenancy>::default()))
}

pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(test)
}

/// A body that is there at once.
#[derive(Default)]
pub(super) struct Answer(Option<Bytes>);

impl Answer {
    pub(super) fn new(text: &'static str) -> Self {
        Self(Some(Bytes::from_static(text.as_bytes())).filter(|text| !text.is_empty()))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}

impl outgoing::Outgoing for Answer {
    fn names(&self) -> Option<&Names> {
        None
    }

    fn take_over(&mut self) -> Option<TakeOver> {
        None
    }
}

impl client::Outgoing for Answer {
    fn names(&self) -> Option<&Names> {
        None
    }
}

/// A body that may be none.
pub(super) struct Stream<B>(pub(super) Option<B>);

impl<B: Body<Data = Bytes> + Unpin> Body for Stream<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
}
