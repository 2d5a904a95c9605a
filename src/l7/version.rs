//! The versions of HTTP that workers speak.

use crate::tls::Protocol;

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::l7) enum Version {
    Http1,
    Http2,
}

impl Version {
    /// What TLS to an application offers.
    pub(in crate::l7) fn over_tls(self) -> Protocol {
        match self {
            Version::Http1 => Protocol::Http1,
            Version::Http2 => Protocol::Http2,
        }
    }
}
