//! The server: a port that sends without an end and one that gives back what it gets, each plain and with TLS, and HTTP.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rustls::ServerConfig;

use super::http;
use super::wire::{self, Wire};

/// Sends bytes until the client ends.
pub const SOURCE: u16 = 9001;
/// Gives every message back.
pub const ECHO: u16 = 9002;
/// What is added to a port for the one with TLS.
pub const TLS: u16 = 10;

/// The stack of a connection's thread, in bytes: thousands of them are held at a time.
const STACK: usize = 256 * 1024;

/// What is written at a time, in bytes.
const CHUNK: usize = 64 * 1024;
/// What a message and its answer carry, in bytes.
const MESSAGE: usize = 128;

type Handler = fn(Wire) -> io::Result<()>;

pub fn run(directory: &Path) -> Result<()> {
    let tls = wire::server_config(directory)?;
    for (port, tls, handler) in [
        (SOURCE, None, send as Handler),
        (SOURCE + TLS, Some(tls.clone()), send),
        (ECHO + TLS, Some(tls), give_back),
    ] {
        let listener = listen(port)?;
        thread::spawn(move || serve(&listener, tls.as_ref(), handler));
    }
    let echo = listen(ECHO)?;
    thread::spawn(move || serve(&echo, None, give_back));
    http::serve()
}

fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("listen on {port}"))
}

fn serve(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>, handler: Handler) {
    for stream in listener.incoming().flatten() {
        let tls = tls.cloned();
        let serve = move || one(stream, tls.as_ref(), handler);
        // A client that breaks off is the client's business.
        let _ = thread::Builder::new().stack_size(STACK).spawn(serve);
    }
}

fn one(stream: TcpStream, tls: Option<&Arc<ServerConfig>>, handler: Handler) -> io::Result<()> {
    handler(Wire::accepted(stream, tls)?)
}

fn send(mut stream: Wire) -> io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    loop {
        stream.write_all(&chunk)?;
    }
}

fn give_back(mut stream: Wire) -> io::Result<()> {
    let mut buffer = vec![0; 4 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

/// A client's message to `ECHO` and its answer.
pub fn echo(stream: &mut Wire) -> Result<()> {
    let mut message = [0x2a; MESSAGE];
    stream.write_all(&message)?;
    stream.read_exact(&mut message).context("read the answer")
}
