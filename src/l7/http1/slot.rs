//! Where the halves of a connection to an application are between its requests. Each comes back by itself: the sending half when the
//! request is written, the receiving half when the response is read.

use std::sync::Arc;
use std::task::Context;

use parking_lot::Mutex;

use super::reader::Reader;
use super::writer::Writer;

/// Shared by the connection, and by who has one of its halves.
#[derive(Clone)]
pub(super) struct Slot(Arc<Mutex<Parts>>);

struct Parts {
    reader: Option<Box<Reader>>,
    writer: Option<Box<Writer>>,
    /// The application was told that nothing more comes, or is told so when all is written.
    is_half_closed: bool,
}

impl Slot {
    pub(super) fn new(reader: Reader, writer: Writer) -> Self {
        let (reader, writer) = (Some(Box::new(reader)), Some(Box::new(writer)));
        Self(Arc::new(Mutex::new(Parts { reader, writer, is_half_closed: false })))
    }

    /// Both halves, if the application has neither closed the connection nor said anything unasked.
    pub(super) fn take(&self) -> Option<(Box<Reader>, Box<Writer>)> {
        let mut parts = self.0.lock();
        parts.is_quiet().then_some(())?;
        parts.reader.take().zip(parts.writer.take())
    }

    pub(super) fn put_reader(&self, reader: Box<Reader>) {
        self.0.lock().reader = Some(reader);
    }

    pub(super) fn put_writer(&self, writer: Box<Writer>) {
        let mut parts = self.0.lock();
        // Where nothing more is to come, this ends the direction.
        parts.writer = Some(writer).filter(|_| !parts.is_half_closed);
    }

    pub(super) fn half_closed(&self) {
        self.0.lock().is_half_closed = true;
    }

    /// Tells the application that nothing more comes.
    pub(super) fn half_close(&self, cx: &mut Context<'_>) {
        let mut parts = self.0.lock();
        parts.is_half_closed = true;
        if let Some(writer) = &mut parts.writer {
            _ = writer.poll_finish(cx);
        }
    }

    /// Both halves are there and of use.
    pub(super) fn is_whole(&self) -> bool {
        self.0.lock().is_whole()
    }

    /// The same, and there is nothing to read.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.lock().is_quiet()
    }
}

impl Parts {
    fn is_whole(&self) -> bool {
        let is_open = self.writer.as_ref().is_some_and(|writer| !writer.is_over());
        is_open && self.reader.is_some() && !self.is_half_closed
    }

    fn is_quiet(&mut self) -> bool {
        self.is_whole() && self.reader.as_mut().is_some_and(|reader| reader.is_quiet())
    }
}
