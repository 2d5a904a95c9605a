//! Messages between two processes of this machine, with open sockets in them (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// The longest message, in bytes.
const MAX_MESSAGE: usize = 4096;
/// The most descriptors in one message.
const MAX_DESCRIPTORS: usize = 4;
/// The backlog: one successor, and one that was started by mistake.
const BACKLOG: i32 = 2;

/// A connection between two processes; each message arrives whole or not at all. Calls block.
pub struct Channel(Socket);

/// The listener to which other processes connect.
pub struct ChannelListener(Socket);

impl Channel {
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Self(socket))
    }

    /// The timeout of a call that waits for the other process; it then fails with `WouldBlock`.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.set_write_timeout(Some(patience))
    }

    /// The other process runs as the same user: no other user may have our sockets.
    pub fn is_same_user(&self) -> io::Result<bool> {
        // Not rustix's: it fails for a peer of another PID namespace, whose process has no number here.
        let peer = getsockopt(&self.0, PeerCredentials)?;
        Ok(peer.uid() == rustix::process::geteuid().as_raw())
    }

    /// The receiver gets its own descriptors of the same sockets.
    pub fn send(&self, message: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let flags = SendFlags::NOSIGNAL;
        let message = [IoSlice::new(message)];
        // A socket with a timeout is interrupted by any signal, such as the profiler's (signal(7)).
        retry_on_intr(|| rustix::net::sendmsg(&self.0, &message, &mut ancillary, flags))?;
        Ok(())
    }

    /// The next message; empty if the other process has gone.
    pub fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut message = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            let mut into = [IoSliceMut::new(&mut message)];
            rustix::net::recvmsg(&self.0, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })?;
        message.truncate(received.bytes);
        let mut sockets = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                sockets.extend(received);
            }
        }
        Ok((message, sockets))
    }
}

impl ChannelListener {
    /// Takes over the path from its owner in one step: there is always a listener to connect to. Only this user may
    /// connect.
    pub fn bind(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        // Agents in pods all have the process number 1, so a random number distinguishes them.
        let own = path.with_extension(format!("{:08x}", fastrand::u32(..)));
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.bind(&SockAddr::unix(&own)?)?;
        let ready = std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| socket.listen(BACKLOG))
            .and_then(|()| std::fs::rename(&own, path));
        if ready.is_err() {
            _ = std::fs::remove_file(&own);
        }
        ready.map(|()| Self(socket))
    }

    pub fn accept(&self) -> io::Result<Channel> {
        Ok(Channel(self.0.accept()?.0))
    }
}

/// A listening socket that another process created; `port` is the port that it must listen on.
pub fn adopt_listener(socket: OwnedFd, port: u16) -> io::Result<tokio::net::TcpListener> {
    if !socket2::SockRef::from(&socket).is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening socket"));
    }
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr()?;
    if address.port() != port {
        let why = format!("listens on {address} instead of port {port}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Another descriptor of the same socket, for another process.
pub fn duplicate(socket: &impl AsFd) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listening_socket_changes_hands() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below").join("socket");
        let ears = ChannelListener::bind(&path).unwrap();
        let client = Channel::connect(&path).unwrap();
        let server = ears.accept().unwrap();
        assert!(server.is_same_user().unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        server.send(b"here", &[listener.as_fd()]).unwrap();
        server.send(b"nothing", &[]).unwrap();
        let (message, mut sockets) = client.receive().unwrap();
        assert_eq!((message.as_slice(), sockets.len()), (&b"here"[..], 1));
        let socket = sockets.pop().unwrap();
        let wrong = adopt_listener(duplicate(&socket).unwrap(), address.port() ^ 1);
        assert!(wrong.unwrap_err().to_string().contains("instead of port"));
        let adopted = adopt_listener(socket, address.port()).unwrap();
        drop(listener);
        let dialled = tokio::net::TcpStream::connect(address).await.unwrap();
        let (accepted, _) = adopted.accept().await.unwrap();
        let stream: OwnedFd = accepted.into_std().unwrap().into();
        assert!(adopt_listener(stream, address.port()).is_err(), "not a listening socket");
        drop(dialled);
        let (message, sockets) = client.receive().unwrap();
        assert_eq!((message.as_slice(), sockets.len()), (&b"nothing"[..], 0));
        drop(server);
        assert!(client.receive().unwrap().0.is_empty());
    }

    #[test]
    fn the_path_is_taken_over_and_patience_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = ChannelListener::bind(&path).unwrap();
        let second = ChannelListener::bind(&path).unwrap();
        let client = Channel::connect(&path).unwrap();
        client.set_patience(Duration::from_millis(50)).unwrap();
        let _server = second.accept().unwrap();
        assert_eq!(client.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
    }
}
