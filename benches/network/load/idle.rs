//! Connections that have carried one message and then stand idle.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use anyhow::Result;

use super::paced::request;
use crate::server::echo;
use crate::wire::Wire;

/// What is said when all are open.
pub const HELD: &str = "held";

/// Opens so many, says so, and holds them until its input ends.
pub fn hold(server: SocketAddr, count: usize, http: bool) -> Result<()> {
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut wires: Vec<Wire> = Vec::new();
    for _ in 0..count {
        if http {
            let mut stream = TcpStream::connect(server)?;
            request(&mut stream)?;
            streams.push(stream);
        } else {
            let mut wire = Wire::connect(server, None)?;
            echo(&mut wire)?;
            wires.push(wire);
        }
    }
    println!("{HELD}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
