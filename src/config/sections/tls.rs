//! `[tls]`: TLS to applications and to servers outside of the mesh.

use std::path::PathBuf;

section! {
    /// `[tls]`
    pub struct TlsSettings in "tls." {
        /// The directory of the certificates and keys that DestinationRules name (`clientCertificate`, `privateKey`,
        /// `caCertificates`, `caCrl`). A rule of the namespace `shop` finds its files in the folder `shop` of it, and nowhere else;
        /// an absolute path is relative to that folder. Only the agent needs to read them. The controller needs the same
        /// value. Empty: rules that name files have their traffic rejected.
        directory: Option<PathBuf> = "", optional_path(),
            because "Authors of rules must not choose among the files of the node.";
    }
}
