//! Applications that answer with what HPACK makes small on the wire, or with frames without end, to clients that do not
//! read: heads of many fields or much text, trailers behind a window that stays shut, 1xx without end, floods. A worker
//! holds no more than its settings say, and gives it back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::memory::{DETAILS, WAYPOINT, WORKER, agents, all, more, most, returned, watch};
use crate::support::lab::Lab;
use crate::support::lab::netns::Namespace;
use crate::{EVIL, application, captured_in, enrol, settle};

/// A service of the attacker's own behind its waypoint, where its accomplice answers as it likes on each port.
const ANSWERS: &str = "
apiVersion: v1
kind: Service
metadata: {name: answers, namespace: evil, labels: {istio.io/use-waypoint: waypoint}}
spec:
  selector: {app: accomplice}
  ports:
  - {name: http2-text, port: 9101, targetPort: 9101}
  - {name: http2-fields, port: 9102, targetPort: 9102}
  - {name: http2-trailers, port: 9103, targetPort: 9103}
  - {name: http2-early, port: 9104, targetPort: 9104}
  - {name: http2-many, port: 9105, targetPort: 9105}
  - {name: http2-parts, port: 9106, targetPort: 9106}
  - {name: http2-settings, port: 9107, targetPort: 9107}
  - {name: http2-push, port: 9108, targetPort: 9108}
";
/// Connections of the attacker, with a hundred requests on each.
const CONNECTIONS: usize = 40;
const STREAMS: u32 = 100;
/// How long an attack goes on.
const ATTACK: Duration = Duration::from_secs(3);
/// What the text of a head, and its fields, may be at the most.
const TEXT: usize = 55 * 1024;
const FIELDS: usize = 250;
const FRAME: usize = 16 * 1024;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// `:status: 200` in HPACK's static table.
const OK: u8 = 0x88;

/// What the accomplice answers a request on this stream with.
type Answer = fn(u32) -> Vec<u8>;

/// By the port: what is answered, and whether it is within what an application may.
const ATTACKS: [(u16, &str, Answer, bool); 8] = [
    (9101, "heads of much text", much_text, true),
    (9102, "heads of many fields", |stream| head(stream, END_STREAM, &fields(FIELDS)), true),
    (9103, "large trailers", trailers, true),
    (9104, "early heads without end", early_heads, false),
    (
        9105,
        "more fields than a head may have",
        |stream| head(stream, END_STREAM, &fields(1_290)),
        false,
    ),
    (9106, "heads that go on without end", endless_head, false),
    (9107, "settings without end", |_| frame(SETTINGS, 0, 0, &[]).repeat(20_000), false),
    (9108, "promises", |stream| frame(PUSH_PROMISE, END_HEADERS, stream, &[0, 0, 0, 2, OK]), false),
];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A head in as many frames as it needs.
fn head(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let count = block.chunks(FRAME).count();
    let part = |(number, part): (usize, &[u8])| {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        let first = if number == 0 { flags } else { 0 };
        let last = if number + 1 == count { END_HEADERS } else { 0 };
        frame(kind, first | last, stream, part)
    };
    block.chunks(FRAME).enumerate().flat_map(part).collect()
}

/// A status, and fields with names of two or three letters and no value.
fn fields(count: usize) -> Vec<u8> {
    let mut block = vec![OK];
    block.extend(names(count));
    block
}

fn names(count: usize) -> Vec<u8> {
    let letter = |number: usize| b'a' + u8::try_from(number % 26).unwrap_or_default();
    let name = |number: usize| [0, 3, b'k', letter(number / 26), letter(number), 0];
    (0..count).flat_map(name).collect()
}

fn much_text(stream: u32) -> Vec<u8> {
    let [.., high, low] = (TEXT - 127).to_be_bytes();
    let rest = u16::from_be_bytes([high, low]);
    let length =
        [0x7f, 0x80 | (rest & 0x7f) as u8, 0x80 | (rest >> 7 & 0x7f) as u8, (rest >> 14) as u8];
    let block = [&[OK, 0, 1, b'k'], &length[..], &vec![b'x'; TEXT]].concat();
    head(stream, END_STREAM, &block)
}

/// Behind a body that does not pass a window that is shut.
fn trailers(stream: u32) -> Vec<u8> {
    let end = head(stream, END_STREAM, &names(FIELDS));
    [head(stream, 0, &[OK]), frame(DATA, 0, stream, b"body"), end].concat()
}

fn early_heads(stream: u32) -> Vec<u8> {
    let early = [&[0x08, 3][..], b"103", &names(FIELDS)].concat();
    head(stream, 0, &early).repeat(200)
}

fn endless_head(stream: u32) -> Vec<u8> {
    let part = frame(CONTINUATION, 0, stream, &names(40));
    [frame(HEADERS, 0, stream, &[OK]), part.repeat(200)].concat()
}

/// Answers each request on each connection, for the rest of the test.
fn serve(namespace: &Namespace, port: u16, answer: Answer, over: &Arc<AtomicBool>) -> Result<()> {
    let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", port)))??;
    listener.set_nonblocking(true)?;
    let over = over.clone();
    std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    std::thread::spawn(move || _ = answer_all(stream, answer));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    });
    Ok(())
}

fn answer_all(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    stream.read_exact(&mut vec![0; PREFACE.len()])?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    loop {
        let mut start = [0; 9];
        stream.read_exact(&mut start)?;
        let [a, b, c, kind, flags, w, x, y, z] = start;
        stream.read_exact(&mut vec![0; u32::from_be_bytes([0, a, b, c]) as usize])?;
        match kind {
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
            HEADERS => stream.write_all(&answer(u32::from_be_bytes([w, x, y, z])))?,
            _ => {}
        }
    }
}

/// Asks on many connections, with windows that are shut on every other one, and reads nothing.
fn ask(namespace: &Namespace, to: SocketAddr) -> Result<Vec<TcpStream>> {
    let authority = to.to_string();
    let length = u8::try_from(authority.len())?;
    // GET, http, / and the authority.
    let name = [&[0x82, 0x86, 0x84, 0x01, length][..], authority.as_bytes()].concat();
    namespace.run(|| {
        let connect = |number: usize| {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
            // So that little waits in the kernel.
            setsockopt(&stream, sockopt::RcvBuf, &4096)?;
            stream.set_write_timeout(Some(Duration::from_secs(5)))?;
            let shut = [0, 4, 0, 0, 0, 0];
            let settings = if number.is_multiple_of(2) { &shut[..] } else { &[] };
            let requests = (0..STREAMS)
                .flat_map(|it| frame(HEADERS, END_STREAM | END_HEADERS, 2 * it + 1, &name));
            let first = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
            _ = stream.write_all(&first.into_iter().chain(requests).collect::<Vec<_>>());
            Ok(stream)
        };
        (0..CONNECTIONS).map(connect).collect()
    })?
}

/// The most that each agent holds while it is attacked, in KiB, and the most requests in flight.
fn attack(lab: &Lab, processes: &[u32], port: u16) -> Result<(Vec<u64>, f64)> {
    let over = Arc::new(AtomicBool::new(false));
    let peak = Arc::new(Mutex::new(all(processes)?));
    let watching = watch(processes.to_vec(), peak.clone(), over.clone());
    let attacker = lab.pod("attacker")?.attachment.namespace.clone();
    let held = ask(&attacker, SocketAddr::new(lab.service("evil", "answers")?[0], port));
    let (begun, mut requests) = (Instant::now(), 0.0_f64);
    while begun.elapsed() < ATTACK {
        let now = lab.metrics()?.sum("isthmus_worker_requests", &[("namespace", "evil")]);
        requests = requests.max(now);
        std::thread::sleep(ATTACK / 10);
    }
    // Who uses the mesh as it is meant is served meanwhile.
    settle(lab, "attacker", &[DETAILS], 200)?;
    drop(held?);
    over.store(true, Ordering::Relaxed);
    watching.join().map_err(|_| anyhow::anyhow!("the watch panicked"))??;
    let peak = peak.lock().clone();
    Ok((peak, requests))
}

#[test]
fn answers_that_nobody_reads_take_no_more_than_a_worker_may() -> Result<()> {
    let mut lab = application(&[EVIL, WAYPOINT, ANSWERS])?;
    lab.start_agents(WORKER)?;
    enrol(&mut lab)?;
    captured_in(&lab, "evil")?;
    settle(&lab, "attacker", &[DETAILS], 200)?;
    let over = Arc::new(AtomicBool::new(false));
    let accomplice = lab.pod("accomplice")?.attachment.namespace.clone();
    for (port, _, answer, _) in ATTACKS {
        serve(&accomplice, port, answer, &over)?;
    }
    let processes = agents(&mut lab);
    let rest = all(&processes)?;
    let (most, mut highest) = (most()?, rest.clone());
    for (port, name, _, waits) in ATTACKS {
        let (peak, requests) = attack(&lab, &processes, port)?;
        println!(
            "{name}: at most {peak:?} KiB, at rest {rest:?}, {most} more allowed, {requests} requests in flight"
        );
        ensure!(!waits || requests > 50.0, "{name} came through: {requests} requests in flight");
        for ((peak, rest), highest) in peak.iter().zip(&rest).zip(&mut highest) {
            ensure!(
                more(*peak, *rest) < most,
                "{name}: the worker holds {} KiB more",
                more(*peak, *rest)
            );
            *highest = (*highest).max(*peak);
        }
    }
    over.store(true, Ordering::Relaxed);
    returned(&processes, &rest, &highest)
}
