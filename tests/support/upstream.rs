//! A real resolver of DNS, over UDP and TCP, which knows what the test teaches it.

#![allow(dead_code, reason = "the suites use different parts")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record, RecordType};
use parking_lot::Mutex;

use crate::support::lab::netns::Namespace;

/// A resolver that knows `www.example.test`, `big.example.test` with more text than UDP carries, and what it is told. It never answers
/// questions for names that begin with `silent`.
pub struct Upstream {
    zone: Arc<Zone>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Result<()>>>,
}

/// Further records of a resolver, and the questions that it received.
#[derive(Default)]
struct Zone {
    names: Mutex<BTreeMap<String, IpAddr>>,
    /// `<type> <name>`.
    asked: Mutex<Vec<String>>,
}

impl Upstream {
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let (udp, tcp) = namespace.run(|| -> Result<_> {
            Ok((UdpSocket::bind("0.0.0.0:53")?, TcpListener::bind("0.0.0.0:53")?))
        })??;
        udp.set_read_timeout(Some(Duration::from_millis(100)))?;
        tcp.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (ends, ends_too) = (stop.clone(), stop.clone());
        let zone = Arc::new(Zone::default());
        let (one, other) = (zone.clone(), zone.clone());
        let by_udp = std::thread::spawn(move || serve_udp(&udp, &one, &ends));
        let by_tcp = std::thread::spawn(move || serve_tcp(&tcp, &other, &ends_too));
        Ok(Self { zone, stop, threads: vec![by_udp, by_tcp] })
    }

    /// Teaches it an address, in place of another; answers hold for a second.
    pub fn teach(&self, name: &str, address: IpAddr) {
        self.zone.names.lock().insert(format!("{name}."), address);
    }

    /// How often it was asked for the IPv4 addresses of a name.
    pub fn times_asked(&self, name: &str) -> usize {
        let question = format!("A {name}.");
        self.zone.asked.lock().iter().filter(|asked| **asked == question).count()
    }

    pub fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("the resolver panicked"))??;
        }
        Ok(())
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Zone, ends: &AtomicBool) -> Result<()> {
    let mut query = [0; 512];
    while !ends.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
        let Some(mut answer) = answer(zone, &query[..length])? else { continue };
        if answer.to_vec()?.len() > 512 {
            answer = answer.truncate();
            answer.metadata.message_type = MessageType::Response;
        }
        socket.send_to(&answer.to_vec()?, from)?;
    }
    Ok(())
}

fn serve_tcp(listener: &TcpListener, zone: &Zone, ends: &AtomicBool) -> Result<()> {
    while !ends.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false)?;
                let query = read_framed(&mut stream)?;
                if let Some(answer) = answer(zone, &query)? {
                    write_framed(&mut stream, &answer.to_vec()?)?;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn answer(zone: &Zone, query: &[u8]) -> Result<Option<Message>> {
    let query = Message::from_vec(query)?;
    let question = query.queries.first().context("no question")?;
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.add_query(question.clone());
    let name = question.name.to_lowercase().to_ascii();
    zone.asked.lock().push(format!("{} {name}", question.query_type));
    if name.starts_with("silent") {
        return Ok(None);
    }
    if let Some(address) = zone.names.lock().get(&name) {
        let data = match (address, question.query_type) {
            (IpAddr::V4(address), RecordType::A) => Some(RData::A((*address).into())),
            (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA((*address).into())),
            _ => None,
        };
        answer.add_answers(data.map(|data| Record::from_rdata(question.name.clone(), 1, data)));
        return Ok(Some(answer));
    }
    let data = match (question.name.to_ascii().as_str(), question.query_type) {
        ("www.example.test.", RecordType::A) => vec![RData::A("192.0.2.80".parse()?)],
        ("big.example.test.", RecordType::TXT) => {
            (0..20).map(|at| RData::TXT(TXT::new(vec![format!("{at}").repeat(60)]))).collect()
        }
        _ => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            Vec::new()
        }
    };
    for data in data {
        answer.add_answer(Record::from_rdata(question.name.clone(), 60, data));
    }
    Ok(Some(answer))
}

pub fn read_framed(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

pub fn write_framed(stream: &mut TcpStream, message: &[u8]) -> Result<()> {
    let mut framed = u16::try_from(message.len())?.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    Ok(stream.write_all(&framed)?)
}
