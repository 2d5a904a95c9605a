//! The names of an authority's parts (Istio, `cacerts`): files of the local CA, keys of the controller's Secret.

/// The authority's certificate; in a bundle the first one signs.
pub const CA_CERTIFICATE: &str = "ca-cert.pem";
/// The authority's private key.
pub const CA_KEY: &str = "ca-key.pem";
/// The certificates between the authority's and the roots.
pub const CA_CHAIN: &str = "cert-chain.pem";
/// The roots that the mesh trusts.
pub const CA_ROOTS: &str = "root-cert.pem";
