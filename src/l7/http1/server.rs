//! The server's side: one connection of a client, whose requests are answered one after the other by its own task. While one is in
//! flight, the client is watched: its end is passed on, and a reset ends the request.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::header::TE;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::task::coop;
use tokio_util::sync::CancellationToken;

use super::body::RequestStream;
use super::decode::Decoder;
use super::downstream::{Downstream, Returned};
use super::encode::Framing;
use super::error::Error;
use super::head::{self, RequestHead};
use super::names::Names;
use super::outgoing::{Halves, Outgoing, TakeOver};
use super::reader::Reader;
use super::respond::{self, Asked};
use super::writer::Writer;
use crate::l7::budget::seat::{Order, Seat};
use crate::sock::{Duplex, Rewind};
use crate::tunnel::Carrier;

/// How much of further requests is read while one is in flight, in bytes.
const PIPELINED: usize = 16 * 1024;

/// How much of a body that nobody wants is read for the sake of the connection, in bytes.
const UNWANTED: usize = 64 * 1024;

/// How long a client may go on sending what nobody wants after its answer, so that a reset does not overtake the answer
/// (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// A request's body, with what goes with the request.
pub(in crate::l7) struct Incoming {
    pub(in crate::l7) names: Option<Names>,
    pub(in crate::l7) downstream: Downstream,
    /// `None`: there is none.
    pub(in crate::l7) stream: Option<RequestStream>,
}

/// How a connection ends that was not closed in order.
pub(in crate::l7) enum Ended {
    /// For this head, which was answered.
    Refused(Error, Bytes),
    Broken(Error),
}

/// What the connection is told to do.
struct Orders<'a> {
    leave: Told<'a>,
    end: Told<'a>,
    is_leaving: bool,
}

/// Ends when the order comes.
type Told<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

struct Server<'a> {
    /// `None` while a body has it.
    reader: Option<Box<Reader>>,
    /// Of a body that was not read to its end.
    rest: Option<Decoder>,
    writer: Box<Writer>,
    downstream: Downstream,
    seat: &'a Seat,
    has_left: bool,
}

/// How a connection goes on after a response.
enum Next {
    Request,
    End,
    Switched(TakeOver),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.into())
    }
}

impl Orders<'_> {
    /// To take no further request.
    fn leaves(&mut self, cx: &mut Context<'_>) -> bool {
        self.is_leaving = self.is_leaving || self.leave.as_mut().poll(cx).is_ready();
        self.is_leaving
    }

    /// To end now.
    fn ends(&mut self, cx: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(cx).is_ready()
    }
}

/// However the connection ends, a request whose body is still read ends with it.
struct Ending(Downstream);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Serves the requests of a connection until it ends: by itself, or when `drain` or the seat's orders want that.
pub(in crate::l7) async fn serve<F, B>(
    stream: Rewind<Carrier>,
    seat: &Seat,
    drain: &CancellationToken,
    most_fields: usize,
    service: impl Fn(Request<Incoming>) -> F,
) -> Result<(), Ended>
where
    F: Future<Output = Response<B>>,
    B: Outgoing,
{
    let (read, write) = stream.stream.halves();
    let reader = Some(Box::new(Reader::new(read, stream.front)));
    let (writer, downstream) = (Box::new(Writer::new(write)), Downstream::default());
    let _ending = Ending(downstream.clone());
    let mut server = Server { reader, rest: None, writer, downstream, seat, has_left: false };
    let leave = pin!(async {
        tokio::select! {
            biased;
            () = drain.cancelled() => {}
            () = seat.told(Order::Leave) => {}
        }
    });
    let end = pin!(seat.told(Order::End));
    let mut orders = Orders { leave, end, is_leaving: false };
    // Once for all requests, as it is large.
    let mut handling = Box::pin(None);
    loop {
        let head = match poll_fn(|cx| server.poll_head(cx, &mut orders, most_fields)).await {
            Ok(Some(head)) => head,
            Ok(None) => break,
            Err(error) => return Err(server.refuse(error, &mut orders).await),
        };
        let (request, asked) = server.begin(head);
        handling.as_mut().set(Some(service(request)));
        let handled = poll_fn(|cx| server.poll_handled(cx, handling.as_mut(), &mut orders)).await;
        handling.as_mut().set(None);
        let Some(response) = handled? else { break };
        match server.respond(response, asked, &mut orders).await? {
            Next::Request => {}
            Next::End => break,
            Next::Switched(take_over) => {
                let Server { reader, writer, .. } = server;
                if let Some(reader) = reader {
                    take_over(Halves { reader, writer });
                }
                return Ok(());
            }
        }
    }
    server.finish(&mut orders).await;
    Ok(())
}

impl Server<'_> {
    /// The next request. `None`: the connection ends, as nothing of one has come.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        orders: &mut Orders<'_>,
        most_fields: usize,
    ) -> Poll<Result<Option<RequestHead>, Error>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(Ok(None)) };
        if let Poll::Ready(head) = reader.poll_head(cx, |bytes| head::request(bytes, most_fields)) {
            return Poll::Ready(head);
        }
        let has_begun = reader.has_part_of_a_head();
        if has_begun {
            self.seat.head_begins();
        }
        if orders.ends(cx) || orders.leaves(cx) && !has_begun {
            return Poll::Ready(Ok(None));
        }
        Poll::Pending
    }

    /// The request, which takes the receiving half along if it has a body.
    fn begin(&mut self, head: RequestHead) -> (Request<Incoming>, Asked) {
        let RequestHead { request, names, body, keeps_alive, expects } = head;
        let is_old = request.version() == Version::HTTP_10;
        let asked = Asked {
            asks: request.method().into(),
            is_old,
            keeps_alive,
            takes_trailers: super::says(request.headers(), TE, "trailers"),
        };
        self.downstream.begin(!is_old);
        let stream = body.and_then(|decoder| {
            let reader = self.reader.take()?;
            Some(RequestStream::new(reader, decoder, self.downstream.clone(), expects))
        });
        let incoming = Incoming { names, downstream: self.downstream.clone(), stream };
        (request.map(|()| incoming), asked)
    }

    /// Polls what answers the request, and looks after the client meanwhile. `None`: the connection is given up.
    fn poll_handled<F: Future>(
        &mut self,
        cx: &mut Context<'_>,
        mut handling: Pin<&mut Option<F>>,
        orders: &mut Orders<'_>,
    ) -> Poll<Result<Option<F::Output>, Error>> {
        loop {
            let Some(handling) = handling.as_mut().as_pin_mut() else {
                return Poll::Ready(Ok(None));
            };
            if let Poll::Ready(response) = handling.poll(cx) {
                return Poll::Ready(Ok(Some(response)));
            }
            if self.downstream.is_given_up() || orders.ends(cx) {
                return Poll::Ready(Ok(None));
            }
            self.put_told();
            if let Poll::Ready(Err(error)) = self.writer.poll_flush(cx) {
                return Poll::Ready(Err(error.into()));
            }
            if !self.watch(cx)? {
                return Poll::Pending;
            }
        }
    }

    /// What the application has told before its response.
    fn put_told(&mut self) {
        if let Some(told) = self.downstream.take_told() {
            self.writer.buffer(told.len()).put_slice(&told);
        }
    }

    /// Looks whether the client has ended its direction, which is then known to the request. True if that is new.
    fn watch(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        if self.reader.is_none() {
            let Poll::Ready(returned) = self.downstream.poll_returned(cx) else { return Ok(false) };
            self.take_back(returned)?;
        }
        let Some(reader) = self.reader.as_mut().filter(|_| self.rest.is_none()) else {
            return Ok(false);
        };
        while reader.left().len() < PIPELINED {
            match reader.poll_more(cx, 0)? {
                Poll::Ready(true) => {}
                Poll::Ready(false) => break,
                Poll::Pending => return Ok(false),
            }
        }
        let is_new = reader.is_at_end() && !self.has_left;
        if is_new {
            self.has_left = true;
            self.downstream.leaves();
        }
        Ok(is_new)
    }

    fn take_back(&mut self, returned: Returned) -> Result<(), Error> {
        let Returned { reader, rest } = returned;
        (self.reader, self.rest) = (reader, rest);
        if self.reader.is_some() { Ok(()) } else { Err(Error::Closed) }
    }

    /// Writes a response.
    async fn respond<B: Outgoing>(
        &mut self,
        response: Response<B>,
        asked: Asked,
        orders: &mut Orders<'_>,
    ) -> Result<Next, Ended> {
        self.put_told();
        self.downstream.answered();
        let is_leaving = poll_fn(|cx| Poll::Ready(orders.leaves(cx))).await;
        let mut keeps_alive = asked.keeps_alive && !is_leaving;
        let mut framing = respond::put(&mut self.writer, &response, &asked, &mut keeps_alive);
        let is_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let mut body = Some(response.into_body());
        let take_over = body.as_mut().filter(|_| is_switched).and_then(B::take_over);
        // No one takes it for whole who got a part of it.
        self.writer.cut(framing == Framing::Close);
        if framing == Framing::None {
            body = None;
        }
        let is_written = poll_fn(|cx| self.poll_body(cx, &mut body, &mut framing, orders)).await?;
        if !is_written {
            return Ok(Next::End);
        }
        self.writer.cut(false);
        if let Some(take_over) = take_over {
            return Ok(Next::Switched(take_over));
        }
        if !keeps_alive || is_switched || !self.is_read(orders).await? {
            return Ok(Next::End);
        }
        Ok(Next::Request)
    }

    /// Writes the body and its end. False when the connection must end now.
    fn poll_body<B: Outgoing>(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Option<B>,
        framing: &mut Framing,
        orders: &mut Orders<'_>,
    ) -> Poll<Result<bool, Error>> {
        loop {
            if let Poll::Ready(written) = self.poll_frames(cx, body, framing) {
                return Poll::Ready(written.map(|()| true));
            }
            if orders.ends(cx) {
                return Poll::Ready(Ok(false));
            }
            if !self.watch(cx)? {
                return Poll::Pending;
            }
        }
    }

    fn poll_frames<B: Outgoing>(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Option<B>,
        framing: &mut Framing,
    ) -> Poll<Result<(), Error>> {
        while let Some(frames) = body {
            ready!(self.writer.poll_room(cx))?;
            ready!(coop::poll_proceed(cx)).made_progress();
            let Poll::Ready(frame) = Pin::new(&mut *frames).poll_frame(cx) else {
                ready!(self.writer.poll_flush(cx))?;
                return Poll::Pending;
            };
            let is_last = frame.is_none() || frames.is_end_stream();
            let trailers = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(mut data) => {
                        let length = data.remaining();
                        framing.data(&mut self.writer, data.copy_to_bytes(length))?;
                        None
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
                Some(Err(error)) => {
                    tracing::debug!("a response broke off: {error}");
                    // The client gets what came before.
                    _ = self.writer.poll_flush(cx);
                    return Poll::Ready(Err(Error::Cut));
                }
                None => None,
            };
            if is_last || trailers.is_some() {
                framing.end(&mut self.writer, trailers.as_ref())?;
                // Before its last byte is written, so that who has it finds it recorded.
                *body = None;
            }
        }
        ready!(self.writer.poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Waits until nobody reads the request any more. Whether all of it was read, or is there to be thrown away.
    async fn is_read(&mut self, orders: &mut Orders<'_>) -> Result<bool, Error> {
        if self.reader.is_none() {
            let returned = poll_fn(|cx| match self.downstream.poll_returned(cx) {
                Poll::Ready(returned) => Poll::Ready(Some(returned)),
                Poll::Pending if orders.ends(cx) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            let Some(returned) = returned.await else { return Ok(false) };
            self.take_back(returned)?;
        }
        poll_fn(|cx| Poll::Ready(self.throw_away(cx))).await
    }

    /// Throws away what there is of a body that nobody wants. Whether that was all of it.
    fn throw_away(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let (Some(decoder), Some(reader)) = (&mut self.rest, &mut self.reader) else {
            return Ok(true);
        };
        let mut thrown = 0;
        while thrown < UNWANTED {
            let before = reader.left().len();
            while decoder.next(reader.left())?.is_some() {}
            thrown += before - reader.left().len();
            if decoder.is_over() {
                self.rest = None;
                return Ok(true);
            }
            if !matches!(reader.poll_more(cx, 0)?, Poll::Ready(true)) {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Answers a head that is none, and ends the connection.
    async fn refuse(&mut self, error: Error, orders: &mut Orders<'_>) -> Ended {
        let Some(status) = error.status() else { return Ended::Broken(error) };
        let head = self.reader.as_mut().map(|reader| std::mem::take(reader.left()));
        respond::put_refusal(&mut self.writer, status);
        self.rest = Some(Decoder::Close);
        self.finish(orders).await;
        Ended::Refused(error, head.unwrap_or_default())
    }

    /// Ends the connection. What the client goes on to send is read for a while, where that would overtake its answer.
    async fn finish(&mut self, orders: &mut Orders<'_>) {
        if self.writer.is_cut() {
            return;
        }
        let ended = poll_fn(|cx| {
            if self.reader.is_none()
                && let Poll::Ready(returned) = self.downstream.poll_returned(cx)
            {
                (self.reader, self.rest) = (returned.reader, returned.rest);
            }
            let finished = self.writer.poll_finish(cx).map(|finished| finished.is_ok());
            if finished.is_pending() && orders.ends(cx) { Poll::Ready(false) } else { finished }
        });
        if !ended.await || self.rest.is_none() && self.reader.is_some() {
            return;
        }
        // Boxed, because it is rare.
        let lingering =
            Box::pin(poll_fn(
                |cx| {
                    if orders.ends(cx) { Poll::Ready(()) } else { self.poll_rest(cx) }
                },
            ));
        _ = tokio::time::timeout(LINGER, lingering).await;
    }

    /// Reads to the client's end.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.reader.is_none() {
            self.reader = ready!(self.downstream.poll_returned(cx)).reader;
        }
        let Some(reader) = &mut self.reader else { return Poll::Ready(()) };
        loop {
            *reader.left() = Bytes::new();
            if !matches!(ready!(reader.poll_more(cx, 0)), Ok(true)) {
                return Poll::Ready(());
            }
            ready!(coop::poll_proceed(cx)).made_progress();
        }
    }
}
