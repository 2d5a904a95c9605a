//! TLS to applications and to servers outside of the mesh, as DestinationRules and BackendTLSPolicies demand it.
//!
//! [`TlsSettings`] is what an object says, as plain data of the model. [`Origin`] holds it with what connections are made from:
//! certificates and keys are read when the first connection needs them, and files again when they change. Every version has a
//! number of its own, so that a pool does not reuse connections of an older one. What is demanded and cannot be had is an error;
//! nobody falls back to plaintext.
//!
//! The room knows no objects of Kubernetes and dials nothing: `reach` hands it the stream. Keys are neither logged nor dumped.

mod fault;
#[cfg(test)]
pub(crate) mod fixture;
mod material;
mod name;
mod origin;
mod ready;
mod roots;
mod settings;
#[cfg(test)]
mod tests;
mod verify;

pub use fault::TlsFault;
pub use material::{Material, Pem};
pub use name::SubjectName;
pub use origin::Origin;
pub use ready::{Protocol, Ready, Stream};
pub use roots::of_the_system;
pub use settings::{ClientCertificate, Roots, TlsSettings};
