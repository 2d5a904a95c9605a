//! An application that keeps every byte that it was sent, and clients that send whatever bytes they like.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;

use crate::support::lab::Lab;

/// Where the application listens.
pub const PORT: u16 = 9080;
/// How long a client or the application waits for more.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came over each connection, in the order in which they were accepted.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Vec<u8>>>>);

/// Answers each head with 200, or a path `/switch/<token>` with a 101 that names the token; after a 101 it echoes.
pub struct Recorder {
    seen: Seen,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Recorder {
    /// In the pod's network namespace, for both families.
    pub fn start(lab: &Lab, pod: &str) -> Result<Self> {
        let namespace = &lab.pod(pod)?.attachment.namespace;
        let listener = namespace.run(|| TcpListener::bind(("::", PORT)))??;
        listener.set_nonblocking(true)?;
        let (seen, stop) = (Seen::default(), Arc::<AtomicBool>::default());
        let (keeps, ends) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let keeps = keeps.clone();
                        std::thread::spawn(move || keeps.serve(stream));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(_) => return,
                }
            }
        });
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// All that came since the last time, as text in lower case.
    pub fn take(&self) -> String {
        let mut seen = self.seen.0.lock();
        let all: Vec<u8> = seen.iter_mut().flat_map(std::mem::take).collect();
        String::from_utf8_lossy(&all).to_ascii_lowercase()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

impl Seen {
    fn serve(self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let place = {
            let mut all = self.0.lock();
            all.push(Vec::new());
            all.len() - 1
        };
        let (mut head, mut switched, mut read) = (Vec::new(), false, [0; 4096]);
        loop {
            let count = stream.read(&mut read)?;
            if count == 0 {
                return Ok(());
            }
            self.0.lock()[place].extend_from_slice(&read[..count]);
            if switched {
                stream.write_all(&read[..count])?;
                continue;
            }
            head.extend_from_slice(&read[..count]);
            while let Some(end) = head.windows(4).position(|it| it == b"\r\n\r\n") {
                let rest = head.split_off(end + 4);
                let text = String::from_utf8_lossy(&head).into_owned();
                // The chunks of a body end like a head; an answer to them would be taken for that of the next request.
                if !text.lines().next().is_some_and(|line| line.contains(" HTTP/1.")) {
                    head = rest;
                    continue;
                }
                let token = text.split(' ').nth(1).and_then(|path| path.strip_prefix("/switch/"));
                match token {
                    Some(token) => {
                        let named = match token {
                            "nothing" => String::new(),
                            token => format!("Upgrade: {token}\r\n"),
                        };
                        write!(
                            stream,
                            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{named}\r\n"
                        )?;
                        switched = true;
                        stream.write_all(&rest)?;
                        head.clear();
                    }
                    None => {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
                        head = rest;
                    }
                }
            }
        }
    }
}

/// A client's connection.
pub struct Raw(TcpStream);

impl Raw {
    pub fn connect(lab: &Lab, pod: &str, to: IpAddr) -> Result<Self> {
        let to = SocketAddr::new(to, PORT);
        let namespace = &lab.pod(pod)?.attachment.namespace;
        let stream = namespace.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        let stream = stream.with_context(|| format!("{pod} to {to}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write_all(bytes)?)
    }

    /// The next head, without what follows it; empty when the connection ends first.
    pub fn head(&mut self) -> String {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            match self.0.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Whether the other side has ended the connection, as far as a moment's wait shows.
    pub fn is_over(&mut self) -> bool {
        let moment = self.0.set_read_timeout(Some(Duration::from_millis(100)));
        let read = self.0.read(&mut [0]);
        _ = moment.and(self.0.set_read_timeout(Some(PATIENCE)));
        match read {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// Whatever comes until the connection ends or nothing does.
    pub fn rest(&mut self) -> String {
        let mut all = Vec::new();
        _ = self.0.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// What comes back for these bytes and nothing more; the connection is asked to end with `Connection: close`.
pub fn ask(lab: &Lab, pod: &str, to: IpAddr, bytes: &[u8]) -> Result<String> {
    let mut raw = Raw::connect(lab, pod, to)?;
    // The other side may have refused already.
    _ = raw.send(bytes);
    _ = raw.0.shutdown(std::net::Shutdown::Write);
    Ok(raw.rest())
}

/// The status of an answer; 0 where there is none.
pub fn status(answer: &str) -> u16 {
    let rest = answer.strip_prefix("HTTP/1.1 ").or_else(|| answer.strip_prefix("HTTP/1.0 "));
    rest.and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}
