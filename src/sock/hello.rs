//! The first message of a client that speaks TLS (ClientHello: RFC 8446, 4.1.2), as far as the name of the server in it (SNI: RFC
//! 6066, 3). Nothing within TLS is read.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::base::{Reason, Str};

/// How much of the message is read, in bytes. With post-quantum key shares it has about two thousand; a record of TLS holds at most
/// 16 KiB.
const LONGEST: usize = 16 * 1024;
/// Read at once.
const CHUNK: usize = 2 * 1024;
/// What every connection of TLS begins with: the type of a record of a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// What a client begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// TLS, and the name of the server that it asks for, as it was sent.
    Tls(Option<String>),
    /// Anything else.
    Other,
}

/// Why it is not known what a client begins with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("the client closed before it named a server (TLS, SNI)")]
    Closed,
    #[error("{0}")]
    Broken(String),
    #[error(
        "the client sent no complete first message of TLS in time, which names the server ({} bytes came within {} s)",
        .came, .wait.as_secs()
    )]
    Late { came: usize, wait: Duration },
    #[error("the first message of TLS is longer than 16 KiB")]
    TooLong,
    #[error("the first message of TLS: {0}")]
    Malformed(String),
}

impl Opening {
    /// The name as policies compare it: in lower case, and empty where no server is asked for.
    pub fn server_name(&self) -> Str {
        match self {
            Self::Tls(Some(name)) => name.trim_end_matches('.').to_ascii_lowercase().into(),
            Self::Tls(None) | Self::Other => Str::default(),
        }
    }
}

impl Unread {
    /// For the record of the connection; `unclear` for what cannot be understood.
    pub fn reason(&self, unclear: Reason) -> Reason {
        match self {
            Self::Closed | Self::Broken(_) => Reason::PeerReset,
            Self::Late { .. } => Reason::Timeout,
            Self::TooLong | Self::Malformed(_) => unclear,
        }
    }
}

/// Reads until it is known what the client begins with, for no longer than `wait`. All that was read is given in any case.
pub async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    wait: Duration,
) -> (Result<Opening, Unread>, Bytes) {
    let mut read = BytesMut::new();
    let opening = match tokio::time::timeout(wait, read_into(stream, &mut read)).await {
        Ok(opening) => opening,
        Err(_) => Err(Unread::Late { came: read.len(), wait }),
    };
    (opening, read.freeze())
}

async fn read_into<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut BytesMut,
) -> Result<Opening, Unread> {
    let mut acceptor = Acceptor::default();
    loop {
        let known = read.len();
        read.reserve(CHUNK);
        match stream.read_buf(read).await {
            Ok(0) => return Err(Unread::Closed),
            Ok(_) => {}
            Err(error) => return Err(Unread::Broken(error.to_string())),
        }
        if read.first() != Some(&HANDSHAKE) {
            return Ok(Opening::Other);
        }
        if let Some(name) = parse(&mut acceptor, &read[known..])? {
            return Ok(Opening::Tls(name));
        }
        if read.len() >= LONGEST {
            return Err(Unread::TooLong);
        }
    }
}

/// Goes on with the next bytes: the server's name, if there is one, once the message is complete.
pub fn parse(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Result<Option<Option<String>>, Unread> {
    while !bytes.is_empty() {
        let taken = acceptor.read_tls(&mut bytes);
        taken.map_err(|error| Unread::Malformed(error.to_string()))?;
        let accepted =
            acceptor.accept().map_err(|(error, _)| Unread::Malformed(error.to_string()))?;
        if let Some(accepted) = accepted {
            return Ok(Some(accepted.client_hello().server_name().map(str::to_owned)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    /// What a client sends first to a server of this name.
    fn first_message(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut message = Vec::new();
        client.write_tls(&mut message).unwrap();
        message
    }

    /// Cut into pieces of `size` bytes. The client stays.
    async fn in_pieces(bytes: &[u8], size: usize) -> (Result<Opening, Unread>, Bytes) {
        let (mut client, mut server) = duplex(64 * 1024);
        let sending = async {
            for piece in bytes.chunks(size) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        };
        tokio::join!(sending, read(&mut server, WAIT)).1
    }

    fn tls(name: &str) -> Result<Opening, Unread> {
        Ok(Opening::Tls(Some(name.to_owned())))
    }

    #[tokio::test(start_paused = true)]
    async fn the_name_is_found_whole_or_in_pieces_and_nothing_is_lost() {
        let message = first_message("cart.example.org");
        for size in [1, 7, 100, message.len()] {
            let (opening, front) = in_pieces(&message, size).await;
            assert_eq!((opening, &front[..]), (tls("cart.example.org"), &message[..]));
        }
        let with_more = [&message[..], b"early data"].concat();
        let (opening, front) = in_pieces(&with_more, with_more.len()).await;
        assert_eq!((opening, &front[..]), (tls("cart.example.org"), &with_more[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_known_in_time_is_not_taken_for_something_else() {
        let message = first_message("cart.example.org");
        let late = |came| Err(Unread::Late { came, wait: WAIT });
        let cut = message.len() - 1;
        // A message that promises more than comes.
        let long = [&[22, 3, 1, 64, 0, 1, 0, 255, 255, 3, 3][..], &[0; 16 * 1024]].concat();
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Ok(Opening::Other)),
            (&first_message("192.0.2.1"), Ok(Opening::Tls(None))),
            (b"", late(0)),
            (&message[..1], late(1)),
            (&message[..cut], late(cut)),
        ] {
            let (opening, front) = in_pieces(bytes, 4096).await;
            assert_eq!((opening, &front[..]), (expected, bytes));
        }
        let (opening, _) = in_pieces(&long, 4096).await;
        assert!(matches!(opening, Err(Unread::Malformed(_) | Unread::TooLong)), "{opening:?}");
        let (opening, _) = in_pieces(b"\x16\x03\x01\x00\x04oops", 4096).await;
        assert!(matches!(opening, Err(Unread::Malformed(_))), "{opening:?}");
        let (client, mut server) = duplex(64);
        drop(client);
        assert_eq!(read(&mut server, WAIT).await, (Err(Unread::Closed), Bytes::new()));
    }

    #[test]
    fn policies_compare_names_without_case() {
        for (opening, name) in [
            (Opening::Tls(Some("Cart.Example.ORG".to_owned())), "cart.example.org"),
            (Opening::Tls(None), ""),
            (Opening::Other, ""),
        ] {
            assert_eq!(opening.server_name(), name);
        }
    }
}
