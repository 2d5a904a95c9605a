//! How often a worker asks for memory: for a request on a connection that is open, and for a connection. Counted on the worker's own
//! thread, so that clients and applications are none of it. Unlike time, the number is the same on every machine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use tokio::net::{TcpSocket, TcpStream};

use super::destination::{captured, gets_of_the_client};
use super::scripted::{Script, Step};
use super::support::*;
use crate::l7::WorkerSettings;
use crate::l7::version::Version;
use crate::sock::{Connecting, PlainSockets, SocketFactory};
use crate::world::fixture::identity;

const HOST: &str = "echo.shop.svc.cluster.local";

/// Requests or connections before anything is counted: tables and queues have grown by then.
const BEFORE: u64 = 64;
/// Over how many the count is taken, so that what is done only now and then is no whole one.
const COUNTED: u64 = 256;

/// What a request takes, and a connection with one, as it was last looked at. More fails, and so does less by two or more, which is
/// to be written down.
const EXPECTED: [(Half, Version, u64, u64); 4] = [
    (Half::Client, Version::Http1, 14, 36),
    (Half::Client, Version::Http2, 17, 58),
    (Half::Destination, Version::Http1, 16, 68),
    (Half::Destination, Version::Http2, 19, 115),
];

#[derive(Clone, Copy, Debug)]
enum Half {
    /// Routes to an endpoint outside of the mesh.
    Client,
    /// Judges by a policy on the method and the client.
    Destination,
}

thread_local! {
    /// Where this thread counts, if it does.
    static COUNTER: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    _ = COUNTER.try_with(|it| it.get().map(|counter| counter.fetch_add(1, Ordering::Relaxed)));
}

#[allow(unsafe_code, reason = "the system's allocator does all the work, under the same contract")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Has the thread that opens a connection to the application count from then on: the worker's.
struct Counted(&'static AtomicU64);

impl Connecting for Counted {
    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket> {
        COUNTER.set(Some(self.0));
        PlainSockets.socket(to, from)
    }
}

/// A worker whose thread counts.
struct Bed {
    lab: Lab,
    at: SocketAddr,
    half: Half,
    version: Version,
    counter: &'static AtomicU64,
}

impl Bed {
    async fn new(half: Half, version: Version) -> Self {
        let (at, _) = Script::start(&[Step::Status(200)]).await;
        let mesh = match half {
            Half::Client => shop(at),
            Half::Destination => captured(at).policy(gets_of_the_client()),
        };
        let counter: &'static AtomicU64 = Box::leak(Box::default());
        Self { lab: Lab::new(mesh, WorkerSettings::for_tests()), at, half, version, counter }
    }

    async fn connect(&self) -> TcpStream {
        let sockets = Arc::new(Counted(self.counter));
        match self.half {
            Half::Client => self.lab.dial_with("client", "echo", sockets).await,
            Half::Destination => {
                let to = ("echo", self.at);
                self.lab.arrive_with(to, Some(identity("client")), Some(HOST), sockets).await
            }
        }
    }

    async fn client(&self) -> Client {
        let stream = self.connect().await;
        match self.version {
            Version::Http1 => Client::http1(stream).await,
            Version::Http2 => Client::http2(stream).await,
        }
    }

    /// So many requests, on one connection.
    async fn ask(&self, client: &mut Client, requests: u64) {
        for _ in 0..requests {
            assert_eq!(client.get("/a/path").await.status, StatusCode::OK);
        }
    }

    /// So many connections, each of which asks once.
    async fn connections(&self, connections: u64) {
        for _ in 0..connections {
            self.ask(&mut self.client().await, 1).await;
        }
    }

    fn counted(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// For a request, and for a connection with one.
    async fn measure(&self) -> (u64, u64) {
        let each = |before: u64| (self.counted() - before + COUNTED / 2) / COUNTED;
        let mut client = self.client().await;
        self.ask(&mut client, BEFORE).await;
        let before = self.counted();
        self.ask(&mut client, COUNTED).await;
        let request = each(before);
        self.connections(BEFORE).await;
        let before = self.counted();
        self.connections(COUNTED).await;
        (request, each(before))
    }
}

#[tokio::test]
async fn of_a_request_and_of_a_connection() {
    let mut wrong = Vec::new();
    for (half, version, request, connection) in EXPECTED {
        let bed = Bed::new(half, version).await;
        let counted = bed.measure().await;
        let fits = |counted: u64, expected: u64| counted <= expected && counted + 1 >= expected;
        if !fits(counted.0, request) || !fits(counted.1, connection) {
            wrong.push(format!(
                "{half:?} {version:?}: {counted:?}, {:?} expected",
                (request, connection)
            ));
        }
    }
    assert!(wrong.is_empty(), "allocations of a request, and of a connection with one: {wrong:#?}");
}
