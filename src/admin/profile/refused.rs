//! Rejected profile requests, and the thread that runs the others.

use http::StatusCode;

/// Why there is no profile, and the HTTP status.
#[derive(Debug)]
pub(in crate::admin) struct Refused {
    pub(in crate::admin) status: StatusCode,
    pub(in crate::admin) why: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

/// On a thread that may be busy for a while.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the profile broke off: {error}\n"))
    })
}
