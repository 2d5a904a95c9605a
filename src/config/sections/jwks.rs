//! `[jwks]`: how the keys of issuers are fetched.

use std::path::PathBuf;

use crate::base::Str;
use crate::config::check;

section! {
    /// `[jwks]`
    pub struct JwksSettings in "jwks." {
        /// Addresses, as CIDRs, from which keys may be fetched (jwksUri of RequestAuthentications) although they are
        /// loopback, link-local, unspecified, multicast or reserved, or serve a cloud's metadata. Authors of
        /// RequestAuthentications can have the agent send a GET there, from the node's network.
        allowed_addresses: Vec<Str> = &[], texts("CIDR", check::network),
            because "Services of the node and of the cloud rely on it that only the node can reach these addresses.";

        /// A file with certificates (PEM) that are trusted for jwksUri with https, besides the system's, or Mozilla's where
        /// the system has none, as in the image. It is read once, for the first such address.
        ca_file: Option<PathBuf> = "", optional_path(),
            because "Public issuers have public certificates.";
    }
}
