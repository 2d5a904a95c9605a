//! A connection's end that vanishes, as a machine does that loses its power.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Ends this end of a connection without a word to the other. Its ports are free when this returns.
///
/// # Errors
/// The process may not (`CAP_NET_ADMIN`).
#[allow(unsafe_code)]
pub fn vanish(stream: TcpStream) -> io::Result<()> {
    const TCP_REPAIR: libc::c_int = 19;
    let on: libc::c_int = 1;
    let (value, length) = ((&raw const on).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    let fd = stream.as_raw_fd();
    // SAFETY: the option's value is an integer, which outlives the call.
    done(unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, TCP_REPAIR, value, length) })?;
    // Closing is not enough: a process that another test forks at this moment has the descriptor too, until it executes
    // something, and the ports would stay in use.
    // SAFETY: the address outlives the call, and its length is its size.
    done(unsafe { libc::connect(fd, &raw const nowhere, size_of_val(&nowhere) as libc::socklen_t) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
