//! The TCP timestamps of a captured namespace (`net.ipv4.tcp_timestamps`, of both families).
//!
//! Linux gives them a random offset for each pair of addresses, so that they say nothing to anybody else. Capture leads what
//! a workload opens to one local address, whatever the destination. There a port that is used again, towards
//! another destination, meets what is left of the connection before it (`TIME_WAIT`, a minute), takes part in other
//! timestamps and is, in half of the cases, taken for an old packet (`TcpExtPAWSTimewait`): the connection stalls until
//! its SYN is repeated. Conntrack avoids ports of which it still knows, but it forgets a connection that is opened again
//! while the socket remains. So a captured namespace has timestamps without offsets, which never run backwards.
//!
//! What was there before comes back with [`release`], also after a restart: a counter of our table remembers. Where a pod
//! has no timestamps, or chose these itself, nothing is changed.

use std::fs;
use std::io::{self, Write};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// Stands in our table when this module changed them; it counts nothing.
pub(super) const CHANGED: &str = "tcp_timestamps_were_1";

/// Below `/proc/sys`. Which namespace's it is, the thread decides that opens it.
const PARAMETER: &str = "net/ipv4/tcp_timestamps";

/// The values of the parameter.
const RANDOM: &str = "1";
const ALIGNED: &str = "2";

/// How a namespace counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timestamps {
    Random,
    Aligned,
    /// Without timestamps nothing is compared.
    Off,
}

/// Those of the calling thread's namespace.
pub(super) fn read() -> io::Result<Timestamps> {
    let value = fs::read_to_string(format!("/proc/sys/{PARAMETER}"))?;
    Ok(match value.trim() {
        RANDOM => Timestamps::Random,
        ALIGNED => Timestamps::Aligned,
        _ => Timestamps::Off,
    })
}

/// Takes the offsets away.
pub(super) fn align() -> io::Result<()> {
    write(ALIGNED)
}

/// Puts the offsets back, unless somebody has changed the parameter since.
pub(super) fn release() -> io::Result<()> {
    match read()? {
        Timestamps::Aligned => write(RANDOM),
        Timestamps::Random | Timestamps::Off => Ok(()),
    }
}

/// Container runtimes and systemd mount `/proc/sys` read-only even where the capabilities suffice.
fn write(value: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/{PARAMETER}"), value).or_else(|_| write_in_proc_of_our_own(value))
}

/// The mount is attached nowhere and ends with the call.
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
