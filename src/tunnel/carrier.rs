//! A connection over plain TCP, over a tunnel or within the process, perhaps under TLS to the application, for rooms that do not
//! need to distinguish them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::joined::{JoinedRead, JoinedStream, JoinedWrite};
use super::local::{LocalRead, LocalStream, LocalWrite};
use super::stream::{HboneRead, HboneStream, HboneWrite};
use crate::filter::Meter;
use crate::sock::{
    ChunkRead, ChunkWrite, Duplex, Paced, PacedRead, PacedWrite, Split, SplitRead, SplitWrite,
    TcpRead, TcpWrite,
};
use crate::tls;

/// The carrier of a connection's bytes.
pub enum Carrier {
    Tcp(TcpStream),
    Hbone(HboneStream),
    /// Between workloads of this node.
    Local(LocalStream),
    /// Between workloads of this node, with the application's own connection.
    Joined(JoinedStream),
    /// Whose bytes wait for their limits.
    Paced(Box<Paced<Carrier>>),
    /// Under TLS to the application, over one of the others.
    Tls(Box<tls::Stream<Carrier>>),
}

/// The receiving half of a [`Carrier`].
pub enum CarrierRead {
    Tcp(TcpRead),
    Hbone(HboneRead),
    Local(LocalRead),
    Joined(JoinedRead),
    Paced(Box<PacedRead<CarrierRead>>),
    Tls(SplitRead<Box<tls::Stream<Carrier>>>),
}

/// The sending half of a [`Carrier`].
pub enum CarrierWrite {
    Tcp(TcpWrite),
    Hbone(HboneWrite),
    Local(LocalWrite),
    Joined(JoinedWrite),
    Paced(Box<PacedWrite<CarrierWrite>>),
    Tls(SplitWrite<Box<tls::Stream<Carrier>>>),
}

/// Calls a method of the carrier.
macro_rules! forward {
    ($carrier:expr, $inner:ident => $call:expr) => {
        match $carrier {
            Self::Tcp($inner) => $call,
            Self::Hbone($inner) => $call,
            Self::Local($inner) => $call,
            Self::Joined($inner) => $call,
            Self::Paced($inner) => $call,
            Self::Tls($inner) => $call,
        }
    };
}

impl Carrier {
    /// The other end is in this process.
    pub fn is_local(&self) -> bool {
        match self {
            Carrier::Local(_) | Carrier::Joined(_) => true,
            Carrier::Tls(stream) => stream.get_ref().0.is_local(),
            Carrier::Tcp(_) | Carrier::Hbone(_) => false,
            Carrier::Paced(paced) => paced.get_ref().is_local(),
        }
    }

    /// Its bytes wait for what a meter, where there is one, has room for.
    pub fn paced(self, meter: Option<Meter>) -> Self {
        match meter {
            Some(meter) => Carrier::Paced(Box::new(Paced::new(self, meter))),
            None => self,
        }
    }

    /// An agent of the mesh is at the other end.
    pub fn leads_to_an_agent(&self) -> bool {
        match self {
            Carrier::Tcp(_) => false,
            Carrier::Tls(stream) => stream.get_ref().0.leads_to_an_agent(),
            Carrier::Paced(paced) => paced.get_ref().leads_to_an_agent(),
            Carrier::Hbone(_) | Carrier::Local(_) | Carrier::Joined(_) => true,
        }
    }
}

impl Duplex for Carrier {
    type Read = CarrierRead;
    type Write = CarrierWrite;

    fn halves(self) -> (CarrierRead, CarrierWrite) {
        match self {
            Carrier::Tcp(stream) => {
                let (read, write) = stream.halves();
                (CarrierRead::Tcp(read), CarrierWrite::Tcp(write))
            }
            Carrier::Hbone(stream) => {
                let (read, write) = stream.halves();
                (CarrierRead::Hbone(read), CarrierWrite::Hbone(write))
            }
            Carrier::Local(stream) => {
                let (read, write) = stream.halves();
                (CarrierRead::Local(read), CarrierWrite::Local(write))
            }
            Carrier::Joined(stream) => {
                let (read, write) = stream.halves();
                (CarrierRead::Joined(read), CarrierWrite::Joined(write))
            }
            Carrier::Paced(paced) => {
                let (read, write) = paced.halves();
                (CarrierRead::Paced(Box::new(read)), CarrierWrite::Paced(Box::new(write)))
            }
            Carrier::Tls(stream) => {
                let (read, write) = Split(stream).halves();
                (CarrierRead::Tls(read), CarrierWrite::Tls(write))
            }
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        forward!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl ChunkRead for CarrierRead {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>> {
        forward!(self, half => half.poll_chunk(cx, hint))
    }
}

impl ChunkWrite for CarrierWrite {
    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        forward!(self, half => half.poll_write_chunk(cx, chunk))
    }

    fn poll_write_both(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut BytesMut,
        second: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        forward!(self, half => half.poll_write_both(cx, first, second))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, half => half.poll_flush(cx))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, half => half.poll_finish(cx))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        forward!(self, half => half.poll_broken(cx))
    }
}
