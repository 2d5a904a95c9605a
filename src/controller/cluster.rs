//! How the controller tells what the API server answered.

use std::time::Duration;

/// Why a request to the API server did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("{}", told(.0))]
    Failed(#[from] kube::Error),
    #[error("the API server does not answer within {0:?}")]
    Unanswered(Duration),
    /// The object, by somebody else.
    #[error("it was changed in between")]
    Changed,
}

/// The error in one sentence: the server's own message if it has answered, otherwise all causes.
pub(super) fn told(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("the API server refused ({}): {}", status.code, status.message);
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    format!("the API server cannot be asked: {text}")
}

/// Whether another writer has changed, or created, the object in between.
pub(super) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == http::StatusCode::CONFLICT)
}
