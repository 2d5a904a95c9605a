//! Attacks of one client on a waypoint worker by connections, requests and heads, and another client whose requests are
//! timed meanwhile. The adversary suite shows that the other one is served, the bench how much longer it waits.

#![allow(dead_code, reason = "the bench and the tests use different parts")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::lab::Lab;
use crate::support::lab::netns::Namespace;

/// Requests of the victim by which it is judged: every fourth one on a new connection.
pub const REQUESTS: usize = 300;
/// The most time that a request of the victim may take under attack: no timed test, but an end.
const PATIENCE: Duration = Duration::from_secs(5);

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
pub const GO_AWAY: u8 = 7;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The target, and how it is asked.
#[derive(Clone, Copy)]
pub struct Aim {
    /// The service's host.
    pub host: &'static str,
    /// The victim's request, and the one with a long response.
    pub path: &'static str,
    pub large: &'static str,
    /// Where the victim finds it, and where the attacker does.
    pub to: SocketAddr,
    pub at: SocketAddr,
}

/// Connections that an attacker holds, and what it goes on to send on each of them, a part at a time.
#[derive(Default)]
pub struct Held {
    streams: Vec<TcpStream>,
    drip: Option<&'static [u8]>,
}

pub type Attack = fn(&Aim) -> Result<Held>;

/// Connections on each of which the same is sent first.
pub fn hold(to: SocketAddr, count: usize, first: &[u8]) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(Duration::from_millis(200)))?;
            // It may have been refused already; then the next is tried.
            _ = stream.write_all(first);
            Ok(stream)
        })
        .collect()
}

fn prefaces(aim: &Aim) -> Result<Held> {
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    Ok(Held { streams: hold(aim.at, 1_030, &greeting)?, ..Held::default() })
}

fn single_bytes(aim: &Aim) -> Result<Held> {
    Ok(Held { streams: hold(aim.at, 4_200, b"G")?, ..Held::default() })
}

fn slow_heads(aim: &Aim) -> Result<Held> {
    let head = format!("GET {} HTTP/1.1\r\nHost: x\r\n", aim.path);
    let streams = hold(aim.at, 1_500, head.as_bytes())?;
    Ok(Held { streams, drip: Some(b"x") })
}

/// A hundred requests on each connection whose bodies never end.
fn endless_requests(aim: &Aim) -> Result<Held> {
    let head = block(0x83, aim.path, aim.host);
    let requests = (0..100u32).flat_map(|number| {
        let stream = 2 * number + 1;
        [frame(HEADERS, END_HEADERS, stream, &head), frame(DATA, 0, stream, &[b'x'; 200])].concat()
    });
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let all: Vec<u8> = greeting.into_iter().chain(requests).collect();
    Ok(Held { streams: hold(aim.at, 100, &all)?, ..Held::default() })
}

/// Answers that are not read: no window for any of them.
fn slow_readers(aim: &Aim) -> Result<Held> {
    let head = block(0x82, aim.large, aim.host);
    let requests = (0..100u32)
        .flat_map(|number| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &head));
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    let all: Vec<u8> = greeting.into_iter().chain(requests).collect();
    Ok(Held { streams: hold(aim.at, 100, &all)?, ..Held::default() })
}

/// Many requests one after the other, and no answer is read.
fn queued_requests(aim: &Aim) -> Result<Held> {
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", aim.large, aim.host);
    let all = request.repeat(100);
    Ok(Held { streams: hold(aim.at, 600, all.as_bytes())?, ..Held::default() })
}

/// Heads that go on with the next frame, which never comes.
fn continued_heads(aim: &Aim) -> Result<Held> {
    let begun = frame(HEADERS, 0, 1, &block(0x82, aim.path, aim.host));
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &begun[..]].concat();
    Ok(Held { streams: hold(aim.at, 1_030, &greeting)?, ..Held::default() })
}

pub const ATTACKS: [(&str, Attack); 7] = [
    ("1,030 HTTP/2 prefaces", prefaces),
    ("4,200 connections with one byte", single_bytes),
    ("1,500 heads, byte by byte", slow_heads),
    ("1,030 heads of HTTP/2 without an end", continued_heads),
    ("10,000 requests that never end", endless_requests),
    ("10,000 answers that are not read", slow_readers),
    ("60,000 requests queued", queued_requests),
];

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A request's head: the method by its index in HPACK's static table (0x82 GET, 0x83 POST), `:scheme` http, and literals
/// for `:path` and `:authority`.
pub fn block(method: u8, path: &str, host: &str) -> Vec<u8> {
    [
        &[method, 0x86, 0x04, path.len() as u8][..],
        path.as_bytes(),
        &[0x01, host.len() as u8],
        host.as_bytes(),
    ]
    .concat()
}

/// What a victim's requests took, from the quickest to the slowest.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn p(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

/// Sends requests one after the other; each must be answered 200.
pub fn victim(aim: &Aim) -> Result<Times> {
    victim_of(aim, REQUESTS)
}

/// The same with so many requests.
pub fn victim_of(aim: &Aim, requests: usize) -> Result<Times> {
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", aim.path, aim.host);
    let mut kept: Option<TcpStream> = None;
    let mut times = Vec::new();
    for number in 0..requests {
        let start = SystemTime::now();
        let mut stream = match kept.take().filter(|_| number % 4 != 0) {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&aim.to, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        stream.write_all(request.as_bytes())?;
        let answer = read_answer(&mut stream).with_context(|| format!("request {number}"))?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "request {number}: {answer}");
        times.push(start.elapsed()?);
        kept = Some(stream);
    }
    times.sort();
    Ok(Times(times))
}

/// Reads one answer with a length.
pub fn read_answer(stream: &mut TcpStream) -> Result<String> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        text.extend_from_slice(&buffer[..read]);
        let so_far = String::from_utf8_lossy(&text).into_owned();
        let whole = so_far.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            body.len() >= length.unwrap_or(0)
        });
        if whole || read == 0 {
            return Ok(so_far);
        }
    }
}

/// Requests from a place, which are timed.
pub struct Victim<'a> {
    pub place: &'a Namespace,
    pub aim: Aim,
}

impl Victim<'_> {
    pub fn times(&self) -> Result<Times> {
        self.place.run(|| victim(&self.aim))?
    }
}

/// The times of `victims` while `attacker` attacks: at once, and when the worker has read what was sent.
pub fn beside<const N: usize>(
    lab: &Lab,
    attacker: &str,
    attack: Attack,
    aim: &Aim,
    victims: &[Victim<'_>; N],
) -> Result<[[Times; N]; 2]> {
    let place = &lab.pod(attacker)?.attachment.namespace;
    let over = AtomicBool::new(false);
    let (ready, holds) = mpsc::channel();
    std::thread::scope(|scope| {
        let attacks = scope.spawn(|| {
            place.run(|| -> Result<()> {
                let mut held = attack(aim)?;
                _ = ready.send(());
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(300));
                    let Some(drip) = held.drip else { continue };
                    held.streams.iter_mut().for_each(|stream| _ = stream.write(drip));
                }
                Ok(())
            })
        });
        let times =
            holds.recv_timeout(Duration::from_secs(60)).context("the attack").and_then(|()| {
                let at_once = all_at_once(victims)?;
                std::thread::sleep(Duration::from_secs(2));
                Ok([at_once, all_at_once(victims)?])
            });
        over.store(true, Ordering::Relaxed);
        let attacked = attacks.join().map_err(|_| anyhow::anyhow!("the attacker panicked"))?;
        attacked.and_then(|it| it).context("the attack itself")?;
        times
    })
}

fn all_at_once<const N: usize>(victims: &[Victim<'_>; N]) -> Result<[Times; N]> {
    std::thread::scope(|scope| {
        let timed = victims.each_ref().map(|victim| scope.spawn(move || victim.times()));
        let times = timed.map(|it| it.join().unwrap_or_else(|_| bail!("a victim panicked")));
        let times = times.into_iter().collect::<Result<Vec<_>>>()?;
        times.try_into().map_err(|_| anyhow::anyhow!("as many times as victims"))
    })
}

/// A process that holds thousands of connections needs as many descriptors, and so do agents that the test starts.
pub fn raise_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    ensure!(hard >= 8_192, "the test needs 8,192 descriptors and may have {hard}");
    Ok(())
}
