//! Namespaces, veths and sockets for the tests of capture rules. A namespace lives as long as its value.

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use isthmus::base::ports;
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, SockRef, Socket, Type};

/// Longer than any answer takes, short enough that a lost packet fails the test soon.
const PATIENCE: Duration = Duration::from_secs(3);

pub const CLIENT: [&str; 2] = ["10.9.0.1", "fd09::1"];
pub const POD: [&str; 2] = ["10.9.0.2", "fd09::2"];

/// A network namespace with `lo` up.
pub struct Namespace(File);

/// `client` is the other end of the pod's veth, and its way to everywhere.
pub struct Lab {
    pub client: Namespace,
    pub pod: Namespace,
}

impl Namespace {
    pub fn new() -> Self {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        };
        let namespace = std::thread::spawn(open).join().unwrap();
        namespace.command("ip link set lo up");
        namespace
    }

    /// Runs on a separate thread in the namespace. Sockets opened there stay there.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let enter_and_run = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            body()
        };
        std::thread::scope(|scope| match scope.spawn(enter_and_run).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// What the command prints; it must succeed.
    pub fn command(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = self.run(|| command.output().unwrap());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn set(&self, sysctl: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{sysctl}"), value).unwrap());
    }

    /// Moves one end of a new veth named `here` into `other`, as `there`.
    pub fn veth(&self, here: &str, other: &Namespace, there: &str) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        self.command(&format!("ip link add {here} type veth peer name tmp{number}"));
        self.command(&format!("ip link set tmp{number} netns {path}"));
        other.command(&format!("ip link set tmp{number} name {there} up"));
        self.command(&format!("ip link set {here} up"));
    }

    pub fn address(&self, device: &str, address: &str) {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.command(&format!("ip addr add {address} dev {device} {nodad}"));
    }

    pub fn listen(&self, address: &str) -> TcpListener {
        self.run(|| TcpListener::bind(address).unwrap())
    }

    /// A listener as the agent has: on the wildcard address, its socket marked.
    pub fn listen_as_agent(&self, port: u16) -> TcpListener {
        let listener = self.listen(&format!("[::]:{port}"));
        SockRef::from(&listener).set_mark(ports::SOCKET_MARK).unwrap();
        listener
    }

    pub fn connect(&self, to: &str) -> TcpStream {
        self.try_connect(to).unwrap_or_else(|error| panic!("{to}: {error}"))
    }

    pub fn try_connect(&self, to: &str) -> std::io::Result<TcpStream> {
        self.run(|| TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE))
    }

    /// Connects with a marked socket, from `from` even if that is somebody else's address.
    pub fn connect_as_agent(&self, from: SocketAddr, to: &str) -> std::io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        self.run(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.set_mark(ports::SOCKET_MARK)?;
            match to.ip() {
                IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                IpAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
            }
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            Ok(socket.into())
        })
    }
}

impl Lab {
    pub fn new() -> Self {
        let lab = Self { client: Namespace::new(), pod: Namespace::new() };
        lab.client.veth("pod", &lab.pod, "eth0");
        for (client, pod) in CLIENT.iter().zip(POD) {
            let length = if client.contains(':') { 64 } else { 24 };
            lab.client.address("pod", &format!("{client}/{length}"));
            lab.pod.address("eth0", &format!("{pod}/{length}"));
        }
        lab.pod.command(&format!("ip route add default via {}", CLIENT[0]));
        lab.pod.command(&format!("ip -6 route add default via {}", CLIENT[1]));
        lab
    }
}

/// `address:port`, with brackets where needed.
pub fn at(address: &str, port: u16) -> String {
    SocketAddr::new(address.parse().unwrap(), port).to_string()
}

/// The next connection; fails when none comes.
pub fn accept(listener: &TcpListener) -> TcpStream {
    try_accept(listener, PATIENCE).expect("no connection arrived")
}

pub fn try_accept(listener: &TcpListener, patience: Duration) -> Option<TcpStream> {
    let deadline = std::time::SystemTime::now() + patience;
    listener.set_nonblocking(true).unwrap();
    while std::time::SystemTime::now() < deadline {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            return Some(stream);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// The other end's address, IPv4 as IPv4.
pub fn peer(stream: &TcpStream) -> SocketAddr {
    canonical(stream.peer_addr().unwrap())
}

/// Where the connection was meant to go before it was redirected.
pub fn original_destination(stream: &TcpStream) -> SocketAddr {
    let socket = SockRef::from(stream);
    let found = if peer(stream).is_ipv4() {
        // The option of IPv4 is at hand on dual-stack sockets too.
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    canonical(found.unwrap().as_socket().unwrap())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One end says a word to the other, which hears it.
pub fn say(from: &mut TcpStream, to: &mut TcpStream) {
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    from.write_all(b"!").unwrap();
    to.read_exact(&mut [0]).unwrap();
}

/// Sends `count` bytes each way at once and checks that they arrive.
pub fn exchange(one: &mut TcpStream, other: &mut TcpStream, count: usize) {
    for stream in [&*one, &*other] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    std::thread::scope(|scope| {
        for (stream, byte, expected) in [(one, 1_u8, 2_u8), (other, 2, 1)] {
            let mut writer = stream.try_clone().unwrap();
            scope.spawn(move || writer.write_all(&vec![byte; count]).unwrap());
            scope.spawn(move || {
                let mut read = vec![0; count];
                stream.read_exact(&mut read).unwrap();
                assert!(read.iter().all(|one| *one == expected));
            });
        }
    });
}
