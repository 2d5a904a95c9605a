//! A conversation with one subsystem of the kernel, in the network namespace of the thread that opens it.

use std::{io, time::Duration};

use netlink_sys::{SocketAddr, protocols};
use nix::errno::Errno;

use super::{
    super::error::Error,
    message::{self, Content, Request},
};

/// The timeout of the kernel's answer. It answers within the call, so only a lock that another process holds for that
/// long (the commit of a very large table) can exceed this.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers are an errno, the head of the request and perhaps a sentence; a table's description is as small.
const ANSWER_CAPACITY: usize = 16 * 1024;

/// The subsystem of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    Netfilter,
    Route,
}

/// The kernel's answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The object, as its subsystem describes it.
    Object(Vec<u8>),
    /// Done, without an object.
    Acknowledged,
}

/// A netlink socket, used for one request or transaction after the other.
pub struct Socket {
    socket: netlink_sys::Socket,
    subsystem: Subsystem,
    /// The sequence number of the next request. Numbers are not reused, so a late answer to an earlier request is not
    /// taken for an answer to this one.
    sequence: u32,
}

impl Subsystem {
    fn protocol(self) -> isize {
        match self {
            Subsystem::Netfilter => protocols::NETLINK_NETFILTER,
            Subsystem::Route => protocols::NETLINK_ROUTE,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Subsystem::Netfilter => "netfilter",
            Subsystem::Route => "routing",
        }
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Open`], for example because the kernel lacks the subsystem.
    pub fn open(subsystem: Subsystem) -> Result<Self, Error> {
        let open = || {
            let socket = netlink_sys::Socket::new(subsystem.protocol())?;
            // From here on only the kernel can answer.
            socket.connect(&SocketAddr::new(0, 0))?;
            socket2::SockRef::from(&socket).set_read_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(socket)
        };
        let socket = open()
            .map_err(|error| Error::Open { subsystem: subsystem.name(), errno: errno(&error) })?;
        // Explanations help, but older kernels have none.
        let _ = socket.set_ext_ack(true);
        Ok(Self { socket, subsystem, sequence: 1 })
    }

    /// Sends the requests as one datagram (which nf_tables treats as a transaction) and waits until the last
    /// [awaited](Request::awaited) one is answered or any fails; the kernel reports failures in any case.
    ///
    /// # Errors
    /// The first failure, with the object of its request; or the timeout.
    pub fn transact(&mut self, requests: &[Request]) -> Result<Answer, Error> {
        let first = self.sequence;
        let mut datagram = Vec::new();
        for request in requests {
            request.frame(self.sequence, &mut datagram);
            self.sequence = self.sequence.wrapping_add(1);
        }
        retry(|| self.socket.send(&datagram, 0)).map_err(|error| self.broken(&error))?;
        loop {
            if let Some(answer) = self.receive(first, requests)? {
                return Ok(answer);
            }
        }
    }

    /// Handles one datagram of answers to requests that are numbered from `first`; the answer to the awaited one
    /// decides. `None`: continue reading.
    fn receive(&self, first: u32, requests: &[Request]) -> Result<Option<Answer>, Error> {
        let awaited = requests.iter().rposition(Request::is_awaited);
        let object = || {
            awaited
                .and_then(|at| requests.get(at))
                .map(|one| one.object.to_string())
                .unwrap_or_default()
        };
        let mut buffer = Vec::with_capacity(ANSWER_CAPACITY);
        match retry(|| self.socket.recv(&mut buffer, 0)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let seconds = ANSWER_TIMEOUT.as_secs();
                return Err(Error::Timeout { object: object(), seconds });
            }
            Err(error) => return Err(self.broken(&error)),
        }
        let replies =
            message::parse(&buffer).map_err(|what| Error::Malformed { object: object(), what })?;
        for reply in replies {
            let position = reply.sequence.wrapping_sub(first) as usize;
            let Some(request) = requests.get(position) else { continue };
            let answer = match reply.content {
                Content::Refused(errno, detail) => {
                    return Err(Error::Refused {
                        object: request.object.to_string(),
                        errno,
                        detail,
                    });
                }
                Content::Acknowledged => Answer::Acknowledged,
                Content::Object(body) => Answer::Object(body),
            };
            if Some(position) == awaited {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    fn broken(&self, error: &io::Error) -> Error {
        Error::Conversation { subsystem: self.subsystem.name(), errno: errno(error) }
    }
}

/// Signals interrupt calls; the call is repeated.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
