//! The socket options of every connection that the agent opens or accepts.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Idle time before the first keepalive probe, and between probes: ztunnel's 180 s. Linux's default of two hours would
/// keep connections to vanished pods, and tunnels over them, for that long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(180);
/// Unanswered probes before a connection is closed: ztunnel's and Linux's 9.
const KEEPALIVE_PROBES: u32 = 9;

/// Options for an accepted connection (no delay, keepalive).
pub fn tune_accepted(stream: &TcpStream) -> io::Result<()> {
    tune(stream)
}

/// No delay, because the applications on both ends already decided when to send; keepalive, because a pod that vanishes
/// sends nothing.
pub(super) fn tune(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_INTERVAL)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )
}

/// Other times for keepalive; what is not given is as for every connection.
pub fn set_keepalive(
    stream: &TcpStream,
    time: Option<Duration>,
    interval: Option<Duration>,
    probes: Option<u32>,
) -> io::Result<()> {
    SockRef::from(stream).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(time.unwrap_or(KEEPALIVE_INTERVAL))
            .with_interval(interval.unwrap_or(KEEPALIVE_INTERVAL))
            .with_retries(probes.unwrap_or(KEEPALIVE_PROBES)),
    )
}

/// Lets the kernel choose the port of a bound address at `connect` instead of at `bind`. Then the port only needs to be
/// free for that destination, and a borrowed address does not run out of ports (ip(7), IP_BIND_ADDRESS_NO_PORT).
#[allow(unsafe_code)]
pub(super) fn set_bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel reads exactly one `c_int` from a local.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the limit of open files to the system's maximum: each connection needs two, and a mesh has many. A failure is
/// only logged, because the agent works with less.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files; it stays as it is");
    }
}
