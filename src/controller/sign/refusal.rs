//! Why the controller does not issue a certificate.

use tonic::{Code, Status};

/// A rejection: counted by its kind, logged and reported to the caller in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    pub(super) message: String,
}

/// Kinds are few: they are a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No token, or one that the API server does not accept.
    Token,
    /// A valid token of a caller that is not an agent.
    NotAgent,
    /// The request names no identity, or not one of this mesh.
    Identity,
    /// No such pod runs on the caller's node.
    NotOnNode,
    /// The signing request is invalid.
    Request,
    /// Too many requests.
    Busy,
    /// The API server does not answer.
    ApiServer,
    /// There is no CA, or it has expired.
    Ca,
}

impl Kind {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::NotAgent => "not_an_agent",
            Self::Identity => "identity",
            Self::NotOnNode => "not_on_node",
            Self::Request => "signing_request",
            Self::Busy => "busy",
            Self::ApiServer => "api_server",
            Self::Ca => "ca",
        }
    }

    fn code(self) -> Code {
        match self {
            Self::Token => Code::Unauthenticated,
            Self::NotAgent | Self::NotOnNode => Code::PermissionDenied,
            Self::Identity | Self::Request => Code::InvalidArgument,
            Self::Busy => Code::ResourceExhausted,
            Self::ApiServer | Self::Ca => Code::Unavailable,
        }
    }
}

impl Refusal {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn status(&self) -> Status {
        Status::new(self.kind.code(), self.message.clone())
    }
}
