//! The agent's own ports: free, or its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Outcome, Report};
use crate::config::Settings;

/// How long a port may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than a page of metrics of a large node.
const MOST: u64 = 64 * 1024 * 1024;

pub(super) fn look(report: &mut Report, settings: &Settings, agent: bool) {
    let metrics = settings.metrics.address;
    report.add("port-metrics", judge(metrics, "/metrics", "isthmus_", agent));
    let readiness = settings.readiness.address;
    report.add("port-readiness", judge(readiness, "/healthz/ready", "ready", agent));
    report.add(
        "port-admin",
        match settings.admin.tcp {
            true => judge(settings.admin.address, "/", "/config_dump", agent),
            false => Outcome::Pass("closed (admin.tcp = false)".to_owned()),
        },
    );
}

/// `ours`: what only an agent's page says.
fn judge(address: SocketAddr, page: &str, ours: &str, agent: bool) -> Outcome {
    match TcpListener::bind(address) {
        Ok(_) if agent => Outcome::Warning(format!(
            "{address} is free, though an agent runs: has it other settings?"
        )),
        Ok(_) => Outcome::Pass(format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match get(address, page) {
            Ok(text) if text.contains(ours) => Outcome::Pass(format!("{address} is the agent's")),
            Ok(_) => Outcome::Failure(format!("{address} is another program's")),
            Err(error) => Outcome::Failure(format!(
                "{address} is taken, and does not answer as an agent does: {error}"
            )),
        },
        Err(error) => Outcome::Failure(format!("{address}: {error}")),
    }
}

/// A page of this machine, with its head.
pub(super) fn get(address: SocketAddr, page: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&own(address), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {page} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    stream.take(MOST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Where a listener on all addresses is reached from here.
fn own(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_or_an_agents_or_anothers() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 200 OK\r\n\r\nready\n", "HTTP/1.1 404 Not Found\r\n\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                _ = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
            drop(listener);
        });
        let judged = |agent| judge(address, "/healthz/ready", "ready\n", agent);
        assert!(matches!(judged(true), Outcome::Pass(_)));
        assert!(matches!(judged(true), Outcome::Failure(_)));
        served.join().unwrap();
        assert!(matches!(judged(false), Outcome::Pass(_)));
        assert!(matches!(judged(true), Outcome::Warning(_)));
    }
}
