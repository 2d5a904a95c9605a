//! Classifies errors of `accept`.

use std::io;

/// What to do after `accept` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFailure {
    /// The error belongs to one connection: continue.
    ThisConnection,
    /// Out of file descriptors or memory: back off.
    BackOff,
    /// The listener is gone.
    Fatal,
}

/// Classifies an error of `accept`. Linux also returns errors that belong to the new connection instead of the listener
/// (accept(2), "Error handling"): those must not close a listener. An unknown error backs off, so that it can neither
/// spin nor end the capture.
pub fn classify_accept(error: &io::Error) -> AcceptFailure {
    match error.raw_os_error() {
        Some(
            libc::ECONNABORTED
            | libc::ECONNRESET
            | libc::EINTR
            | libc::EAGAIN
            | libc::EPERM
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET,
        ) => AcceptFailure::ThisConnection,
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT) => AcceptFailure::Fatal,
        _ => AcceptFailure::BackOff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_errors() {
        for (code, expected) in [
            (libc::ECONNABORTED, AcceptFailure::ThisConnection),
            (libc::EPERM, AcceptFailure::ThisConnection),
            (libc::EMFILE, AcceptFailure::BackOff),
            (libc::ENFILE, AcceptFailure::BackOff),
            (libc::ENOBUFS, AcceptFailure::BackOff),
            (libc::ENOMEM, AcceptFailure::BackOff),
            (libc::EBADF, AcceptFailure::Fatal),
            (libc::EINVAL, AcceptFailure::Fatal),
        ] {
            assert_eq!(classify_accept(&io::Error::from_raw_os_error(code)), expected, "{code}");
        }
        assert_eq!(classify_accept(&io::Error::other("new")), AcceptFailure::BackOff);
    }
}
