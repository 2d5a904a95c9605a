//! Messages or requests at a fixed rate, each on a connection and thread that blocks: timers of a runtime are too coarse for times
//! of some hundred microseconds. A time counts from the moment at which it was due.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::sys::prctl::set_timerslack;

use super::{Client, Progress, Target};
use crate::http::{HOST, size_of};
use crate::record::case::SMALL;
use crate::server::echo;
use crate::wire::{SILENCE, Wire};

/// Threads, with a connection each.
pub const CLIENTS: usize = 16;

pub fn clients(target: &Target, rate: u32, http: bool) -> Vec<Client> {
    (0..CLIENTS)
        .map(|number| {
            let target = target.clone();
            let run = move |progress: &Progress| {
                if http {
                    let mut stream = connect(&target)?;
                    turns(progress, number, rate, || request(&mut stream))
                } else {
                    let mut stream = Wire::connect(target.server, target.tls.as_ref())?;
                    turns(progress, number, rate, || echo(&mut stream))
                }
            };
            Box::new(run) as Client
        })
        .collect()
}

fn turns(
    progress: &Progress,
    number: usize,
    rate: u32,
    mut exchange: impl FnMut() -> Result<()>,
) -> Result<()> {
    // Without this, Linux wakes a sleeper up to 50 us late.
    set_timerslack(1)?;
    exchange()?;
    progress.ready();
    let start = SystemTime::now();
    for turn in (u32::try_from(number)?..).step_by(CLIENTS) {
        let due = start + Duration::from_secs(1) * turn / rate;
        thread::sleep(due.duration_since(SystemTime::now()).unwrap_or_default());
        exchange()?;
        progress.timed(due)?;
    }
    Ok(())
}

fn connect(target: &Target) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target.server, SILENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// One request over HTTP/1.1, whose answer has a length and fits a buffer.
pub fn request(stream: &mut TcpStream) -> Result<()> {
    write!(stream, "GET {SMALL} HTTP/1.1\r\nhost: {HOST}\r\n\r\n")?;
    let mut buffer = [0; 4096];
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..]).context("read the answer")?;
        ensure!(read > 0, "the connection ended within an answer");
        length += read;
        let text = buffer.get(..length).unwrap_or_default();
        let Some(head) = text.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        ensure!(text.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(text));
        if length == head + 4 + size_of(SMALL) {
            return Ok(());
        }
    }
}
