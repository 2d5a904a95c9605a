//! The body of a response as the server of HTTP/1 takes it.

use super::{Content, ResponseBody};
use crate::l7::http1::names::Names;
use crate::l7::http1::outgoing::{Outgoing, TakeOver};

impl Outgoing for ResponseBody {
    fn names(&self) -> Option<&Names> {
        match &self.content {
            Content::Own(_) => None,
            Content::Streamed(incoming) => incoming.names(),
        }
    }

    fn take_over(&mut self) -> Option<TakeOver> {
        self.take_over.take()
    }
}
