//! Why there is no CA to sign with, or why it cannot be kept.

use crate::controller::cluster::RequestError;
use crate::identity::{AuthorityError, CA_CERTIFICATE, CA_KEY, CA_ROOTS};

#[derive(Debug, thiserror::Error)]
pub(in crate::controller) enum CaError {
    #[error(
        "it has none of {CA_CERTIFICATE}, {CA_KEY} and {CA_ROOTS}; put a CA there, or delete the Secret for a new one"
    )]
    Empty,
    /// Of a CA whose other keys are there.
    #[error("{0} is missing or empty")]
    Missing(String),
    #[error("{0} is not text")]
    NotText(String),
    /// What is there cannot sign, or cannot be trusted.
    #[error(transparent)]
    Unusable(#[from] AuthorityError),
    #[error("the next CA (keys next-*) is unusable: {0}")]
    Next(#[source] Box<CaError>),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("cannot write an Event about the Secret: {0}")]
    Event(#[source] RequestError),
}
