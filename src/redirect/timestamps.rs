//! The TCP timestamps of a captured namespace (`net.ipv4.tcp_timestamps`, for both families).
//!
//! Linux adds a random offset per pair of addresses, so that timestamps reveal nothing to others. Capture redirects a
//! workload's outbound connections to one local address, whatever the destination. If a port is reused there, towards
//! another destination, it meets the socket of the previous connection (`TIME_WAIT`, a minute), which used other
//! timestamps. In half of the cases the new SYN is taken for an old packet (`TcpExtPAWSTimewait`): the connection
//! stalls until the SYN is retransmitted. Conntrack avoids ports that it still knows, but it forgets a connection that
//! is reopened while the socket remains. So a captured namespace has timestamps without offsets, which never run
//! backwards.
//!
//! [`release`] restores the original value, also after a restart: a counter of our table records it. If a pod has no
//! timestamps, or chose the value itself, nothing is changed.

use std::fs;
use std::io::{self, Write};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// In our table if this module changed the parameter; it counts nothing.
pub(super) const CHANGED: &str = "tcp_timestamps_were_1";

/// Below `/proc/sys`. The thread that opens it determines the namespace.
const PARAMETER: &str = "net/ipv4/tcp_timestamps";

/// The values of the parameter.
const RANDOM: &str = "1";
const ALIGNED: &str = "2";

/// How a namespace generates timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timestamps {
    Random,
    Aligned,
    /// Without timestamps nothing is compared.
    Off,
}

/// The value of the calling thread's namespace.
pub(super) fn read() -> io::Result<Timestamps> {
    let value = fs::read_to_string(format!("/proc/sys/{PARAMETER}"))?;
    Ok(match value.trim() {
        RANDOM => Timestamps::Random,
        ALIGNED => Timestamps::Aligned,
        _ => Timestamps::Off,
    })
}

/// Removes the offsets.
pub(super) fn align() -> io::Result<()> {
    write(ALIGNED)
}

/// Restores the offsets, unless another process has changed the parameter since.
pub(super) fn release() -> io::Result<()> {
    match read()? {
        Timestamps::Aligned => write(RANDOM),
        Timestamps::Random | Timestamps::Off => Ok(()),
    }
}

/// Container runtimes and systemd mount `/proc/sys` read-only even if the capabilities suffice.
fn write(value: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/{PARAMETER}"), value).or_else(|_| write_in_proc_of_our_own(value))
}

/// The mount is not attached anywhere and ends with the call.
fn write_in_proc_of_our_own(value: &str) -> io::Result<()> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&mount, format!("sys/{PARAMETER}"), flags, Mode::empty())?;
    fs::File::from(file).write_all(value.as_bytes())
}
