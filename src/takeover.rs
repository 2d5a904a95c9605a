//! Zero-downtime upgrades: an agent takes over from its predecessor, and no connection is refused.
//!
//! The successor connects to the predecessor's socket and gets its listening sockets (SCM_RIGHTS). They share the
//! kernel's accept queues, so clients notice nothing. The successor serves them and reports that; then the predecessor
//! stops accepting and drains its open connections. If the successor goes away before that, nothing changes.
//!
//! With two upgrades in quick succession, three agents may meet. One of them always answers: a successor listens before
//! its predecessor stops, and a predecessor whose successor went away listens again. A successor that asked an agent
//! which handed over to another one meanwhile asks again.
//!
//! ```text
//! successor    -> Hello { node }
//! predecessor  -> Socket { owner, port } + descriptor, for each;  All
//! successor    -> Serving
//! predecessor  -> Released
//! ```
//!
//! `app` calls both sides. This room knows neither what the sockets are for nor when to stop; it reads nothing from a
//! process that runs as another user. Everything here blocks, and so runs on its own threads.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::Str;
use crate::sock::{Channel, ChannelListener};

/// The timeout of one message: both are on this machine, and only the successor's start takes time.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time a successor may take from receiving the sockets to serving them: meanwhile it captures every workload.
const START: Duration = Duration::from_secs(120);
/// The interval between attempts, if the agent that was asked handed over to another one.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// The backoff if no successor can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A listening socket and its owner.
pub struct Listener {
    /// The workload's uid; empty for the agent's own ports.
    pub owner: Str,
    pub port: u16,
    pub socket: OwnedFd,
}

/// The sockets of a predecessor that are not claimed yet.
#[derive(Default)]
pub struct Inherited(Mutex<HashMap<(Str, u16), OwnedFd>>);

/// The side that takes over, until it serves.
pub struct Successor {
    channel: Channel,
    pub inherited: std::sync::Arc<Inherited>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Message {
    Hello {
        node: String,
    },
    Socket {
        owner: String,
        port: u16,
    },
    All,
    Serving,
    Released,
    /// Why there are no sockets.
    Refused {
        why: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("unexpected message from the other agent: {0}")]
    Unexpected(String),
    #[error("the other agent rejected the takeover: {0}")]
    Refused(String),
    #[error("the other agent has ended, or handed over to another one")]
    Gone,
}

impl TakeoverError {
    /// Another agent may be there to ask by now, or the same one may be ready.
    fn is_passing(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, WouldBlock};
        match self {
            TakeoverError::Gone => true,
            TakeoverError::Io(error) => {
                matches!(error.kind(), BrokenPipe | ConnectionReset | TimedOut | WouldBlock)
            }
            TakeoverError::Unexpected(_) | TakeoverError::Refused(_) => false,
        }
    }
}

impl Inherited {
    /// The socket of this owner on this port, once.
    pub fn take(&self, owner: &str, port: u16) -> Option<OwnedFd> {
        self.0.lock().remove(&(Str::from(owner), port))
    }

    /// Closes sockets that were not claimed.
    pub fn forget(&self) {
        self.0.lock().clear();
    }
}

impl Successor {
    /// Requests the sockets of the agent that serves at `path`; `None` if there is none. Waits for another successor
    /// that came first.
    pub fn ask(path: &Path, node: &str) -> Result<Option<Self>, TakeoverError> {
        let begun = Instant::now();
        loop {
            match Self::ask_once(path, node) {
                Err(error) if error.is_passing() && begun.elapsed() < START => {
                    tracing::debug!(%error, "requesting the sockets again");
                    std::thread::sleep(ASK_AGAIN);
                }
                asked => return asked,
            }
        }
    }

    fn ask_once(path: &Path, node: &str) -> Result<Option<Self>, TakeoverError> {
        let channel = match Channel::connect(path) {
            Ok(channel) => channel,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        // Its turn comes after that of another successor.
        channel.set_patience(START)?;
        say(&channel, &Message::Hello { node: node.to_owned() }, &[])?;
        let mut sockets = HashMap::new();
        loop {
            let heard = hear(&channel)?;
            channel.set_patience(PATIENCE)?;
            match heard {
                (Message::Socket { owner, port }, mut received) => {
                    let socket = received.pop().ok_or_else(|| {
                        TakeoverError::Unexpected(format!("no socket for port {port} of {owner}"))
                    })?;
                    sockets.insert((Str::from(owner), port), socket);
                }
                (Message::All, _) => break,
                (Message::Refused { why }, _) => return Err(TakeoverError::Refused(why)),
                (other, _) => return Err(TakeoverError::Unexpected(format!("{other:?}"))),
            }
        }
        let inherited = std::sync::Arc::new(Inherited(Mutex::new(sockets)));
        Ok(Some(Self { channel, inherited }))
    }

    /// Every socket is served: the predecessor may stop. Returns when it no longer accepts.
    pub fn serving(self) -> Result<(), TakeoverError> {
        self.inherited.forget();
        say(&self.channel, &Message::Serving, &[])?;
        match hear(&self.channel)? {
            (Message::Released, _) => Ok(()),
            (other, _) => Err(TakeoverError::Unexpected(format!("{other:?}"))),
        }
    }
}

/// The socket at which the agent of a node waits for its successor.
pub fn socket_path(directory: &Path, node: &str) -> PathBuf {
    directory.join(format!("{node}.sock"))
}

/// The path at which a successor finds this agent.
pub struct Ears {
    path: PathBuf,
    listener: ChannelListener,
    /// Device and inode of the socket's file.
    file: (u64, u64),
}

impl Ears {
    /// Takes the place of the agent that listens at `path`, if there is one; call it before that agent stops.
    ///
    /// # Errors
    /// The socket at `path` cannot be created.
    pub fn open(path: &Path) -> io::Result<Self> {
        let listener = ChannelListener::bind(path)?;
        Ok(Self { path: path.to_owned(), listener, file: file_at(path)? })
    }

    /// The side that hands over: waits for a successor, passes it the listeners and returns when it serves them.
    ///
    /// `pause` stops all changes and returns the listeners with a guard that keeps changes stopped. If the successor
    /// fails, the guard is dropped and the next successor is awaited. `release` stops accepting, before the successor
    /// is told.
    pub fn wait_for_successor<P>(
        mut self,
        node: &str,
        pause: impl Fn() -> io::Result<(Vec<Listener>, P)>,
        release: impl FnOnce(P),
    ) {
        loop {
            let channel = match self.listener.accept() {
                Ok(channel) => channel,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a successor; will retry");
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            match hand_over(&channel, node, &pause) {
                Ok(paused) => {
                    release(paused);
                    // The successor serves whether it receives that or not.
                    _ = say(&channel, &Message::Released, &[]);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "a successor did not take over; this agent continues to serve");
                    self.listen_again();
                }
            }
        }
    }

    /// The successor may have taken the path before it went away.
    fn listen_again(&mut self) {
        if file_at(&self.path).is_ok_and(|file| file == self.file) {
            return;
        }
        match Self::open(&self.path) {
            Ok(ears) => *self = ears,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot restore the takeover socket: successors cannot find this agent");
            }
        }
    }
}

fn file_at(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn hand_over<P>(
    channel: &Channel,
    node: &str,
    pause: impl Fn() -> io::Result<(Vec<Listener>, P)>,
) -> Result<P, TakeoverError> {
    channel.set_patience(PATIENCE)?;
    if !channel.is_same_user()? {
        return Err(refuse(channel, "it runs as another user".to_owned()));
    }
    match hear(channel)? {
        (Message::Hello { node: other }, _) if other == node => {}
        (Message::Hello { node: other }, _) => {
            let why = format!("this is the agent of node {node}, not of {other}");
            return Err(refuse(channel, why));
        }
        (other, _) => return Err(TakeoverError::Unexpected(format!("{other:?}"))),
    }
    let (listeners, paused) = pause()?;
    for Listener { owner, port, socket } in &listeners {
        let message = Message::Socket { owner: owner.to_string(), port: *port };
        say(channel, &message, &[socket.as_fd()])?;
    }
    say(channel, &Message::All, &[])?;
    channel.set_patience(START)?;
    match hear(channel)? {
        (Message::Serving, _) => Ok(paused),
        (other, _) => Err(TakeoverError::Unexpected(format!("{other:?}"))),
    }
}

fn refuse(channel: &Channel, why: String) -> TakeoverError {
    _ = say(channel, &Message::Refused { why: why.clone() }, &[]);
    TakeoverError::Refused(why)
}

fn say(
    channel: &Channel,
    message: &Message,
    sockets: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(), TakeoverError> {
    let text = serde_json::to_vec(message).map_err(io::Error::from)?;
    Ok(channel.send(&text, sockets)?)
}

fn hear(channel: &Channel) -> Result<(Message, Vec<OwnedFd>), TakeoverError> {
    let (text, sockets) = channel.receive()?;
    if text.is_empty() {
        return Err(TakeoverError::Gone);
    }
    let message = serde_json::from_slice(&text).map_err(|_| {
        TakeoverError::Unexpected(String::from_utf8_lossy(&text).chars().take(200).collect())
    })?;
    Ok((message, sockets))
}

#[cfg(test)]
mod tests;
