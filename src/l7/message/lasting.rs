//! Requests that last: streams of messages in either direction, and upgraded connections. A request is judged when it comes,
//! and one that lasts is judged again after changes, as connections are at layer 4: what a policy refuses now does not go
//! on because it was permitted once. Short requests pay nothing for that: nobody waits for changes within the first second.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body::Body;
use tokio::time::sleep;

use super::body::RequestBody;
use super::head_text::HeadText;
use crate::base::Reason;
use crate::ext_authz::Mutations;
use crate::gate::Providers;

/// Why something must not go on that lasts.
pub(in crate::l7) type End = (Reason, String);

/// Tells when something must not go on.
pub(in crate::l7) type Waits<'a> = Pin<Box<dyn Future<Output = End> + Send + 'a>>;
pub(in crate::l7) type Cut = Waits<'static>;

/// What takes longer than this lasts.
pub(in crate::l7) const AWHILE: Duration = Duration::from_secs(1);

/// A cut that is asked for once something has lasted.
pub(in crate::l7) async fn after_awhile(cut: impl Future<Output = End>) -> End {
    sleep(AWHILE).await;
    cut.await
}

/// Whether the client may go on to send for as long as it likes.
pub(in crate::l7) fn is_stream(request: &Request<RequestBody>) -> bool {
    let body = request.body();
    !body.is_empty() && body.size_hint().exact().is_none()
}

/// Waits for `work`, unless what it does must not go on.
pub(in crate::l7) async fn unless<T>(
    work: Pin<&mut impl Future<Output = T>>,
    cut: Option<Waits<'_>>,
) -> Result<T, End> {
    let Some(cut) = cut else { return Ok(work.await) };
    tokio::select! {
        biased;
        done = work => Ok(done),
        verdict = after_awhile(cut) => Err(verdict),
    }
}

/// The head of a request that may last, kept to be judged again.
pub(in crate::l7) struct Kept {
    head: HeadText,
    /// What providers of external authorization, which are not asked again, made of it.
    mutations: Option<Arc<Mutations>>,
}

impl Kept {
    pub(in crate::l7) fn of<B>(request: &Request<B>) -> Self {
        Self { head: HeadText::of(request), mutations: None }
    }

    /// The same, as providers of external authorization change it.
    pub(in crate::l7) fn changed(self, mutations: Option<Arc<Mutations>>) -> Self {
        Self { mutations, ..self }
    }

    /// The providers permitted it.
    pub(in crate::l7) fn providers(&self) -> Providers<'_> {
        Providers::Permit(self.mutations.as_deref().unwrap_or(Mutations::NONE))
    }

    /// The head of the request as it was.
    pub(in crate::l7) fn request(&self) -> Request<()> {
        self.head.request()
    }
}
