//! What fuzzers try on what layer 4 reads of its clients: the first message of TLS, for TLSRoutes.

use rustls::server::Acceptor;

use crate::sock::hello;

/// The server's name is the same however the message was cut.
pub fn hello(bytes: &[u8]) {
    let whole = hello::parse(&mut Acceptor::default(), bytes);
    let mut acceptor = Acceptor::default();
    let mut in_pieces = bytes.chunks(7).map(|piece| hello::parse(&mut acceptor, piece));
    let in_pieces = in_pieces.find(|read| !matches!(read, Ok(None)));
    if let (Ok(Some(whole)), Some(Ok(Some(in_pieces)))) = (whole, in_pieces) {
        assert_eq!(whole, in_pieces);
    }
}
