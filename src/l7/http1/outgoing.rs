//! What a server sends, and who goes on with its connection after that.

use std::fmt::Display;

use bytes::Buf;
use http_body::Body;

use super::names::Names;
use super::reader::Reader;
use super::writer::Writer;
use crate::sock::Duplex;

/// Both halves of a connection that goes on as bytes.
pub(in crate::l7) struct Halves {
    pub(in crate::l7) reader: Box<Reader>,
    pub(in crate::l7) writer: Box<Writer>,
}

/// Who goes on with a connection.
pub(in crate::l7) type TakeOver = Box<dyn FnOnce(Halves) + Send>;

/// The body of a response.
pub(in crate::l7) trait Outgoing: Body<Data: Buf, Error: Display> + Unpin {
    /// How the names of the head's fields were written, where they were written otherwise.
    fn names(&self) -> Option<&Names>;

    /// Who goes on with the connection after a 101.
    fn take_over(&mut self) -> Option<TakeOver>;
}

impl Duplex for Halves {
    type Read = Box<Reader>;
    type Write = Box<Writer>;

    fn halves(self) -> (Box<Reader>, Box<Writer>) {
        (self.reader, self.writer)
    }
}
