//! Bounds the HTTP/2 frames that cost work without carrying data: PING, SETTINGS, RST_STREAM, WINDOW_UPDATE, PRIORITY
//! and the like. HTTP/2 bounds the number of streams and of their bytes, and nothing else; a peer that floods a
//! connection with these frames keeps a thread busy (CVE-2019-9512, 9514, 9515, CVE-2023-44487).
//!
//! The frames are counted below h2, which has no such bound, by their heads of nine bytes: a token bucket, from which
//! every such frame takes a token. Time refills it, and so do bytes that were sent to the peer, because a peer that
//! receives much has to open many windows.
//!
//! The fields of heads are counted as well ([`fields`](super::fields)), because h2 bounds only their text.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::fields::Fields;
use crate::base::{FIELD_BYTES, MAX_FIELDS};

/// The size of a frame's head, in bytes (RFC 9113, 4.1).
const HEAD: usize = 9;
/// What a client sends before its first frame, in bytes (RFC 9113, 3.4).
pub const PREFACE: u32 = 24;
/// The frame types that are bounded elsewhere: DATA by windows and h2's budgets for small and empty ones, HEADERS by
/// the number of streams (RFC 9113, 6.1 and 6.2).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
/// Settings, and the flag of their acknowledgement, which changes none (RFC 9113, 6.5).
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
/// The frame that continues a head, and the flag of a head's last frame (RFC 9113, 6.2 and 6.10).
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// The flags of a head that ends its stream, and of its padding and priority.
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// A priority's size, in bytes (RFC 9113, 6.2).
const PRIORITY_SIZE: u32 = 5;

/// The bits of a stream ID (RFC 9113, 4.1).
const STREAM: u32 = (1 << 31) - 1;

/// The burst: 50 frames for each of 200 streams.
const BURST: u32 = 10_000;
/// The sustained rate in frames per second: more than the connections that one tunnel opens and resets in a second; h2
/// spends some 1 % of a CPU on them.
const RATE: f64 = 5_000.0;
/// The cost of SETTINGS: a change of the initial window applies to each of the peer's streams, so that a few bytes keep a
/// thread busy for long. Peers change their settings a few times in all; gRPC does so when it has measured the path.
const SETTINGS_COST: u32 = 100;
/// Bytes sent to the peer that allow it one more frame. Go's HTTP/2 opens windows after 4 KiB, of the stream and of the
/// connection.
const BYTES: u32 = 1024;

/// A connection whose incoming frames are counted. Once the limit is exceeded, nothing more is read.
pub struct Counted<S> {
    io: S,
    frames: Frames,
    exceeded: Exceeded,
}

/// Tells the driver of the connection that the peer sent too many frames.
#[derive(Clone, Default)]
pub struct Exceeded(Arc<AtomicBool>);

/// The position in the stream of frames, and the tokens that are left.
struct Frames {
    head: [u8; HEAD],
    /// Bytes of `head` that have arrived.
    have: usize,
    /// Remaining bytes until the next head.
    skip: u32,
    /// The last frame, if there was one.
    kind: Option<u8>,
    /// The next frame continues a message's head.
    continues: bool,
    block: Block,
    /// The last stream that the peer, a client, has opened: further heads for it and earlier streams are trailers.
    last: u32,
    /// How many streams it has opened.
    streams: usize,
    /// Fields of all heads so far.
    fields: usize,
    /// The memory of heads that may wait for their reader, in bytes.
    last_heads: usize,
    tokens: u32,
    /// When elapsed time was last converted to tokens.
    filled: Instant,
    /// Bytes sent that are not yet converted to tokens.
    sent: u32,
}

impl<S> Counted<S> {
    /// `before`: bytes that precede the first frame.
    pub fn new(io: S, before: u32) -> (Self, Exceeded) {
        let exceeded = Exceeded::default();
        let frames = Frames {
            head: [0; HEAD],
            have: 0,
            skip: before,
            kind: None,
            continues: false,
            block: Block::default(),
            last: if before > 0 { 0 } else { u32::MAX },
            streams: 0,
            fields: 0,
            last_heads: 0,
            tokens: BURST,
            filled: Instant::now(),
            sent: 0,
        };
        (Self { io, frames, exceeded: exceeded.clone() }, exceeded)
    }

    /// The peer has begun something and not completed it: the head of a message, another frame than DATA, or, at the
    /// beginning, its settings.
    pub fn is_within_head(&self) -> bool {
        self.frames.is_within_head()
    }

    /// The number of streams that the peer, a client, has opened or begun to open.
    pub fn streams(&self) -> usize {
        self.frames.streams
    }

    /// The last of them.
    pub fn last_stream(&self) -> u32 {
        self.frames.last
    }

    /// A head has arrived in part, and h2 has decoded frames of it.
    pub fn is_between_frames_of_head(&self) -> bool {
        self.frames.continues
    }

    /// The number of header fields so far.
    pub fn fields(&self) -> usize {
        self.frames.fields
    }

    /// The approximate memory, in bytes, of heads that arrived since the last call and may wait until their reader has
    /// consumed what precedes them: trailers, and from a server every head that ends its stream.
    pub fn last_heads(&mut self) -> usize {
        std::mem::take(&mut self.frames.last_heads)
    }
}

/// The head of a message that is being read.
#[derive(Default)]
struct Block {
    fields: Fields,
    /// Remaining bytes before it begins in its frame; the first of them is the length of the padding.
    before: u32,
    is_padded: bool,
    padding: u32,
    bytes: usize,
    /// It may not be read soon.
    waits: bool,
}

impl Exceeded {
    /// Waits for it, in the task that reads: only the reader has to be woken.
    pub async fn happened(&self) {
        let poll = |_: &mut Context<'_>| if self.get() { Poll::Ready(()) } else { Poll::Pending };
        std::future::poll_fn(poll).await;
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Frames {
    /// Whether these bytes of the peer are still within bounds.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = bytes.len().min(self.skip as usize);
                if self.is_head() && !self.read_head(&bytes[..skipped]) {
                    return false;
                }
                // At most `skip`, so it fits.
                self.skip -= skipped as u32;
                bytes = &bytes[skipped..];
                continue;
            }
            let more = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + more].copy_from_slice(&bytes[..more]);
            self.have += more;
            bytes = &bytes[more..];
            if self.have == HEAD {
                self.have = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]);
                self.kind = Some(kind);
                if self.is_head() {
                    self.begin_head();
                }
                if !self.spend(cost(kind, flags)) {
                    return false;
                }
            }
        }
        true
    }

    /// The last frame holds a message's head, or a part of it.
    fn is_head(&self) -> bool {
        matches!(self.kind, Some(HEADERS | CONTINUATION))
    }

    fn begin_head(&mut self) {
        let [_, _, _, kind, flags, a, b, c, d] = self.head;
        self.continues = flags & END_HEADERS == 0;
        if kind == CONTINUATION {
            (self.block.before, self.block.padding) = (0, 0);
            return;
        }
        let is_padded = flags & PADDED != 0;
        let priority = if flags & PRIORITY != 0 { PRIORITY_SIZE } else { 0 };
        let stream = u32::from_be_bytes([a, b, c, d]) & STREAM;
        self.streams += usize::from(stream > self.last);
        let waits = flags & END_STREAM != 0 && stream <= self.last;
        self.last = self.last.max(stream);
        self.block =
            Block { before: u32::from(is_padded) + priority, is_padded, waits, ..Block::default() };
    }

    /// Whether these bytes of a head are within bounds; at its end its memory is known.
    fn read_head(&mut self, mut bytes: &[u8]) -> bool {
        let block = &mut self.block;
        let mut left = self.skip;
        while let Some((&byte, rest)) = bytes.split_first().filter(|_| block.before > 0) {
            if std::mem::take(&mut block.is_padded) {
                block.padding = u32::from(byte);
            }
            (block.before, left, bytes) = (block.before - 1, left - 1, rest);
        }
        let of_block = left.saturating_sub(block.padding) as usize;
        let (part, is_end) = (&bytes[..bytes.len().min(of_block)], bytes.len() == left as usize);
        let before = block.fields.count();
        block.fields.take(part);
        block.bytes += part.len();
        self.fields += (block.fields.count() - before) as usize;
        if is_end && !self.continues && block.waits {
            self.last_heads += block.bytes + block.fields.count() as usize * FIELD_BYTES;
        }
        block.fields.count() <= MAX_FIELDS
    }

    fn is_within_head(&self) -> bool {
        self.continues || self.have > 0 || self.kind.is_none_or(|it| it != DATA && self.skip > 0)
    }

    /// Takes tokens. The clock is read only if there are too few, so that frames at a normal rate cost nothing.
    fn spend(&mut self, cost: u32) -> bool {
        if self.tokens < cost {
            // A conversion from a float saturates.
            let earned = (self.filled.elapsed().as_secs_f64() * RATE) as u32;
            let tokens = self.tokens.saturating_add(earned).min(BURST);
            if tokens < cost {
                return false;
            }
            (self.tokens, self.filled) = (tokens, Instant::now());
        }
        self.tokens -= cost;
        true
    }

    fn sent(&mut self, bytes: usize) {
        let sent = self.sent.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.tokens = self.tokens.saturating_add(sent / BYTES).min(BURST);
        self.sent = sent % BYTES;
    }
}

/// The tokens that a frame takes.
fn cost(kind: u8, flags: u8) -> u32 {
    match kind {
        DATA | HEADERS => 0,
        SETTINGS if flags & ACK == 0 => SETTINGS_COST,
        _ => 1,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.exceeded.get() {
            // The driver of the connection has been told, and ends it.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if this.frames.take(&buf.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        buf.set_filled(before);
        this.exceeded.0.store(true, Ordering::Relaxed);
        // It may have been checked before this read.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.frames.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        this.frames.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// Where the frames in these pieces end, how many tokens are left, and the content of their heads; `None` if they
/// exceed the bounds: for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn count(pieces: &[&[u8]]) -> Option<[usize; 5]> {
    let (mut counted, _) = Counted::new((), PREFACE);
    let within = pieces.iter().all(|piece| counted.frames.take(piece));
    let frames = &counted.frames;
    let (skip, tokens) = (frames.skip as usize, frames.tokens as usize);
    within.then_some([frames.have, skip, tokens, frames.fields, frames.last_heads])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        let mut frame = vec![a, b, c, kind, 0, 0, 0, 0, 0];
        frame.resize(HEAD + length, 0xff);
        frame
    }

    fn frames() -> Frames {
        Counted::new((), 0).0.frames
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_found_however_they_are_cut() {
        let (ping, data) = (frame(PING, 8), frame(DATA, 300));
        let bytes: Vec<u8> = (0..20).flat_map(|_| [ping.clone(), data.clone()].concat()).collect();
        for size in [1, 2, 8, 9, 10, 17, 100, bytes.len()] {
            let mut frames = frames();
            assert!(bytes.chunks(size).all(|part| frames.take(part)));
            assert_eq!(frames.tokens, BURST - 20, "in parts of {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_and_what_was_sent_allow_more() {
        let (mut frames, ping) = (frames(), frame(PING, 0));
        let taken = |frames: &mut Frames| (0..).take_while(|_| frames.take(&ping)).count();
        assert_eq!(taken(&mut frames), BURST as usize);
        assert_eq!(taken(&mut frames), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(&mut frames), RATE as usize);
        frames.sent(BYTES as usize / 2);
        assert_eq!(taken(&mut frames), 0);
        frames.sent(BYTES as usize / 2 + 3 * BYTES as usize);
        assert_eq!(taken(&mut frames), 4);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(&mut frames), BURST as usize, "what is not used is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn settings_cost_more_than_their_acknowledgement() {
        let (settings, mut acknowledged) = (frame(SETTINGS, 6), frame(SETTINGS, 0));
        acknowledged[4] = ACK;
        for (bytes, most) in [(settings, BURST / SETTINGS_COST), (acknowledged, BURST)] {
            let mut frames = frames();
            assert_eq!((0..).take_while(|_| frames.take(&bytes)).count(), most as usize);
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(frames.take(&bytes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_counted_once() {
        let mut frames = Counted::new((), PREFACE).0.frames;
        assert!(frames.take(&[0; PREFACE as usize]));
        for (stream, streams) in [(1, 1), (3, 2), (1, 2), (3, 2), (9, 3), (5, 3)] {
            let mut head = frame(HEADERS, 4);
            head[5..HEAD].copy_from_slice(&u32::to_be_bytes(stream));
            assert!(frames.take(&head));
            assert_eq!(frames.streams, streams, "{stream}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn data_and_headers_are_counted_elsewhere() {
        let mut frames = frames();
        let both = [frame(DATA, 1), frame(HEADERS, 30)].concat();
        assert!((0..3 * BURST).all(|_| frames.take(&both)));
    }

    /// A frame of a head, for stream 1 or 3.
    fn head(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let [.., a, b, c] = payload.len().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn fields_are_counted_beside_padding_and_priority() {
        let (plain, both) = (END_HEADERS, END_HEADERS | PADDED | PRIORITY);
        let bytes = [
            head(HEADERS, plain, 1, &[0x82; 3]),
            head(HEADERS, both, 3, &[4, 0x82, 0x82, 0x82, 0x82, 9, 0x86, 0x84, 0, 0, 0, 0]),
            head(HEADERS, 0, 5, &[0x82]),
            head(CONTINUATION, END_HEADERS, 5, &[0x82; 7]),
            frame(DATA, 200),
        ]
        .concat();
        for size in [1, 2, 5, 10, 13, bytes.len()] {
            let mut frames = frames();
            assert!(bytes.chunks(size).all(|part| frames.take(part)));
            assert_eq!(frames.fields, 3 + 2 + 8, "in parts of {size}");
            assert!(!frames.is_within_head());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_no_more_fields_than_it_may() {
        let most = MAX_FIELDS as usize;
        let heads = head(HEADERS, END_HEADERS, 1, &vec![0x82; most]).repeat(100);
        assert!(frames().take(&heads), "as many as one may have, in each of many");
        assert!(!frames().take(&head(HEADERS, END_HEADERS, 1, &vec![0x82; most + 1])));
        let mut frames = frames();
        assert!(frames.take(&head(HEADERS, 0, 1, &vec![0x82; most])));
        assert!(!frames.take(&head(CONTINUATION, END_HEADERS, 1, &[0x82])));
    }

    #[tokio::test(start_paused = true)]
    async fn heads_that_may_wait_are_weighed() {
        let (opens, ends) = (END_HEADERS, END_HEADERS | END_STREAM);
        let weight = 10 + 10 * FIELD_BYTES;
        // From a client: what comes again for a stream. From a server: what ends one.
        for (before, heads, waiting) in [
            (PREFACE, [(opens, 1), (ends, 3), (ends, 5)], 0),
            (PREFACE, [(opens, 1), (opens, 3), (ends, 1)], weight),
            (0, [(opens, 1), (opens, 3), (opens, 1)], 0),
            (0, [(opens, 1), (ends, 3), (ends, 1)], 2 * weight),
        ] {
            let mut counted = Counted::new((), before).0;
            assert!(counted.frames.take(&vec![0; before as usize]));
            for (flags, stream) in heads {
                assert!(counted.frames.take(&head(HEADERS, flags, stream, &[0x82; 10])));
            }
            assert_eq!(counted.last_heads(), waiting, "{heads:?}");
            assert_eq!(counted.last_heads(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_from_a_peer_that_sent_too_many() {
        let (mut peer, ours) = duplex(1 << 20);
        let (mut ours, exceeded) = Counted::new(ours, PREFACE);
        peer.write_all(&[0; PREFACE as usize]).await.unwrap();
        let flood = frame(PING, 0).repeat(BURST as usize + 1);
        peer.write_all(&flood).await.unwrap();
        let mut buffer = [0; 4096];
        let reading = async { while ours.read(&mut buffer).await.unwrap() > 0 {} };
        tokio::select! {
            () = reading => unreachable!("the peer has not closed"),
            () = exceeded.happened() => {}
        }
    }
}
