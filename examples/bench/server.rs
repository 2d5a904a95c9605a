//! The server: one port takes everything, the other one gives back what it gets.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};

/// Takes bytes and says nothing until the client has finished; then tells how many came.
pub const SINK: u16 = 9001;
/// Gives every message back.
pub const ECHO: u16 = 9002;

pub fn run() -> Result<()> {
    let sink = listen(SINK)?;
    let echo = listen(ECHO)?;
    thread::spawn(move || serve(&sink, take));
    serve(&echo, give_back);
    Ok(())
}

fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("listen on {port}"))
}

fn serve(listener: &TcpListener, handle: fn(TcpStream) -> std::io::Result<()>) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || handle(stream));
    }
}

fn take(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total: u64 = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&total.to_be_bytes()),
            read => total += read as u64,
        }
    }
}

fn give_back(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}
