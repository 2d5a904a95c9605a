//! HTTP/2 that no client means, against a waypoint worker: frames that carry nothing, streams that are reset by the client
//! or that the server must reset, heads that grow by compression, that have no end, or that are refused. A flood costs the
//! attacker its connection or its own share. Other clients are served meanwhile, and the worker gets everything back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;

use crate::memory::{self, WORKER};
use crate::settle;
use crate::shares::{guarded, recovered};
use crate::siege::{
    Aim, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, block, frame, victim_of,
};
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, PORT};

const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 8;

const GET: u8 = 0x82;
const POST: u8 = 0x83;
const HOST: &str = "details.bookinfo";
const PATH: &str = "/details/0";

/// Connections that flood at the same time, each made again when it has ended.
const CONNECTIONS: usize = 4;
/// Requests of the victim meanwhile.
const REQUESTS: usize = 25;
/// Streams, or frames, of one batch.
const BATCH: u32 = 100;
/// For how long a connection takes nothing before the attacker makes another.
const STUCK: Duration = Duration::from_millis(300);

struct Flood {
    name: &'static str,
    /// What follows the settings, by the number of the batch. Streams begin at 1.
    batch: fn(u32) -> Vec<u8>,
    /// It ends its connection. Another one is an expensive way to send requests, and is bounded as those are.
    ends: bool,
}

const FLOODS: [Flood; 21] = [
    ends("PING", |_| repeated(&frame(PING, 0, 0, &[7; 8]))),
    ends("SETTINGS", |_| repeated(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))),
    ends("PRIORITY", |_| repeated(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]))),
    ends("WINDOW_UPDATE", |_| repeated(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
    ends("unknown frames", |_| repeated(&frame(0xee, 0, 0, &[]))),
    ends("DATA without data", |batch| within_a_request(batch, &frame(DATA, 0, 1, &[]))),
    ends("padding without data", |batch| {
        let padding = [&[255][..], &[0; 255]].concat();
        within_a_request(batch, &frame(DATA, PADDED, 1, &padding))
    }),
    ends("windows that flap over many streams", flapping_windows),
    ends("rapid reset", |batch| streams(batch, |it| [open(it, GET), reset(it)].concat())),
    ends("resets that the server is made to send: a window grown by nothing", |batch| {
        streams(batch, |it| [open(it, POST), frame(WINDOW_UPDATE, 0, it, &[0; 4])].concat())
    }),
    ends("resets that the server is made to send: DATA after the end", |batch| {
        streams(batch, |it| [whole(it, &head()), frame(DATA, 0, it, b"x")].concat())
    }),
    ends("resets that the server is made to send: a window that overflows", |batch| {
        let most = [0x7f, 0xff, 0xff, 0xff];
        streams(batch, |it| [open(it, POST), frame(WINDOW_UPDATE, 0, it, &most)].concat())
    }),
    ends("resets that the server is made to send: a head that is malformed", |batch| {
        streams(batch, |it| whole(it, &[&head()[..], &[0, 1, b'X', 1, b'y']].concat()))
    }),
    ends("CONTINUATION", |batch| match batch {
        0 => frame(HEADERS, 0, 1, &head()),
        _ => repeated(&frame(CONTINUATION, 0, 1, &[0, 1, b'k', 1, b'y'])),
    }),
    ends("CONTINUATION without fields", |batch| match batch {
        0 => frame(HEADERS, 0, 1, &head()),
        _ => repeated(&frame(CONTINUATION, 0, 1, &[])),
    }),
    ends("garbage", |_| (0..4096).map(|_| fastrand::u8(..)).collect()),
    ends("a frame that is too large", |_| vec![0xff; 4096]),
    goes_on("a HPACK bomb within the limits", |batch| bomb(batch, 14)),
    goes_on("a HPACK bomb beyond them", |batch| bomb(batch, 200)),
    goes_on("a table that is emptied and filled by every head", thrashing_heads),
    goes_on("heads that name no host", |batch| {
        streams(batch, |it| whole(it, &block(GET, PATH, "user@details")))
    }),
];

const fn ends(name: &'static str, batch: fn(u32) -> Vec<u8>) -> Flood {
    Flood { name, batch, ends: true }
}

const fn goes_on(name: &'static str, batch: fn(u32) -> Vec<u8>) -> Flood {
    Flood { name, batch, ends: false }
}

fn head() -> Vec<u8> {
    block(GET, PATH, HOST)
}

fn open(stream: u32, method: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(method, PATH, HOST))
}

fn whole(stream: u32, head: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, head)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &[0, 0, 0, 8])
}

fn repeated(frame: &[u8]) -> Vec<u8> {
    frame.repeat(BATCH as usize)
}

/// The streams of a batch.
fn streams(batch: u32, each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (batch * BATCH..(batch + 1) * BATCH).flat_map(|number| each(2 * number + 1)).collect()
}

/// Opens a request and sends within it.
fn within_a_request(batch: u32, frame: &[u8]) -> Vec<u8> {
    let opened = if batch == 0 { open(1, POST) } else { Vec::new() };
    [opened, repeated(frame)].concat()
}

/// A hundred requests that are open, and settings that change the window of each.
fn flapping_windows(batch: u32) -> Vec<u8> {
    let window = |size: u8| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, size, 0]);
    match batch {
        0 => streams(0, |it| open(it, POST)),
        _ => repeated(&[window(1), window(2)].concat()),
    }
}

/// One long field in the table, then heads that name it `times`.
fn bomb(batch: u32, times: usize) -> Vec<u8> {
    const LONG: usize = 4000;
    const OF_THE_TABLE: u8 = 0x80 | 62;
    if batch == 0 {
        // 127 and two bytes of seven bits.
        let rest = LONG - 127;
        let length = [0x7f, 0x80 | (rest & 0x7f) as u8, (rest >> 7) as u8];
        let field = [&[0x40, 1, b'k'][..], &length, &[b'x'; LONG]].concat();
        return whole(1, &[head(), field].concat());
    }
    let head = [block(POST, PATH, HOST), vec![OF_THE_TABLE; times]].concat();
    streams(batch, |it| frame(HEADERS, END_HEADERS, it, &head))
}

fn thrashing_heads(batch: u32) -> Vec<u8> {
    // The table's size becomes 0, and 4,096 again.
    const EMPTIED: [u8; 4] = [0x20, 0x3f, 0xe1, 0x1f];
    let field = |number: u8| [&[0x40, 2, b'k', b'a' + number, 100][..], &[b'x'; 100]].concat();
    let fields: Vec<u8> = (0..26).flat_map(field).collect();
    let head = [&EMPTIED[..], &head(), &fields].concat();
    streams(batch, |it| whole(it, &head))
}

/// What the attacker's connections came to.
#[derive(Default)]
struct Tally {
    made: AtomicUsize,
    ended: AtomicUsize,
    batches: AtomicUsize,
}

/// Floods until the server ends the connection or takes nothing more, or it is over.
fn connection(at: SocketAddr, flood: &Flood, tally: &Tally, over: &AtomicBool) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(STUCK))?;
    tally.made.fetch_add(1, Ordering::Relaxed);
    let mut reader = stream.try_clone()?;
    std::thread::scope(|scope| {
        let reads = scope.spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        let mut sent = stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        let mut batch = 0;
        while sent.is_ok() && !reads.is_finished() && !over.load(Ordering::Relaxed) {
            sent = stream.write_all(&(flood.batch)(batch));
            batch += 1;
            tally.batches.fetch_add(1, Ordering::Relaxed);
        }
        let stuck = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        if reads.is_finished() || sent.is_err_and(|error| !stuck(&error)) {
            tally.ended.fetch_add(1, Ordering::Relaxed);
        }
        _ = stream.shutdown(std::net::Shutdown::Both);
    });
    Ok(())
}

/// Floods over several connections while the victim uses the Service.
fn flood(
    (attacker, victim): (&Namespace, &Namespace),
    aim: &Aim,
    flood: &Flood,
    tally: &Tally,
) -> Result<()> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    attacker.run(|| {
                        while !over.load(Ordering::Relaxed) {
                            // The server may have no place for one more.
                            if connection(aim.at, flood, tally, &over).is_err() {
                                std::thread::sleep(STUCK / 10);
                            }
                        }
                    })
                })
            })
            .collect();
        for _ in 0..1_000 {
            if tally.batches.load(Ordering::Relaxed) >= CONNECTIONS {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let times = victim.run(|| victim_of(aim, REQUESTS));
        // One that is to end does so.
        for _ in 0..50 {
            if !flood.ends || tally.ended.load(Ordering::Relaxed) > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
        for it in floods {
            it.join().map_err(|_| anyhow::anyhow!("the attacker panicked"))??;
        }
        let times = times??;
        println!("{}: the victim's p50 {:?}, p99 {:?}", flood.name, times.p(50), times.p(99));
        Ok(())
    })
}

/// Every flood of `attacker` against what listens at `at`.
fn besiege(attacker: &str, at: fn(&Lab) -> Result<SocketAddr>) -> Result<()> {
    let mut lab = guarded(WORKER)?;
    let to = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let aim = Aim { host: HOST, path: PATH, large: PATH, to, at: at(&lab)? };
    let processes = memory::agents(&mut lab);
    let rest = memory::all(&processes)?;
    let (peak, over) = (Arc::new(Mutex::new(rest.clone())), Arc::<AtomicBool>::default());
    let watching = memory::watch(processes, peak.clone(), over.clone());
    let attackers = lab.pod(attacker)?.attachment.namespace.clone();
    let victims = lab.pod("curl")?.attachment.namespace.clone();
    for each in &FLOODS {
        let tally = Tally::default();
        flood((&attackers, &victims), &aim, each, &tally).context(each.name)?;
        let [made, ended, batches] =
            [&tally.made, &tally.ended, &tally.batches].map(|it| it.load(Ordering::Relaxed));
        println!("{}: {batches} batches, {ended} of {made} connections ended", each.name);
        ensure!(!each.ends || ended > 0, "{}: no connection ended, of {made}", each.name);
        recovered(&lab).context(each.name)?;
    }
    over.store(true, Ordering::Relaxed);
    watching.join().map_err(|_| anyhow::anyhow!("the watch panicked"))??;
    let (peak, most) = (peak.lock().clone(), memory::most()?);
    println!("at rest {rest:?} KiB, at most {peak:?}, {most} more allowed");
    for (rest, peak) in rest.iter().zip(&peak) {
        ensure!(
            memory::more(*peak, *rest) < most,
            "the floods took {} KiB",
            memory::more(*peak, *rest)
        );
    }
    // It is a client like any other as long as it does what everybody may.
    settle(&lab, attacker, &[&format!("http://{}{PATH}", aim.at)], 200)?;
    Ok(())
}

#[test]
fn floods_within_the_mesh_take_the_waypoint_from_nobody() -> Result<()> {
    besiege("attacker", |lab| Ok(SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT)))
}

#[test]
fn floods_from_outside_take_the_waypoint_from_nobody() -> Result<()> {
    besiege("outsider", |lab| Ok(SocketAddr::new(lab.address("details-v1")?, PORT)))
}
