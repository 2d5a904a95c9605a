//! The versions of HTTP that workers speak.

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::l7) enum Version {
    Http1,
    Http2,
}
