//! Requests that last: streams of messages in either direction, and upgraded connections. A request is judged when it comes,
//! and one that lasts is judged again after changes, as connections are at layer 4: what a policy refuses now does not go
//! on because it was permitted once. Short requests pay nothing for that: nobody waits for changes within the first second.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body::Body;
use tokio::time::sleep;

use super::body::RequestBody;
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

/// The head of a request that may last, kept to be judged again: its text in one piece, because nearly all requests end before
/// anybody asks, and because values that are shared with the connection would hold its buffer for as long.
pub(in crate::l7) struct Kept {
    method: Method,
    uri: Uri,
    fields: Box<[u8]>,
    /// What providers of external authorization, which are not asked again, made of it.
    mutations: Option<Arc<Mutations>>,
}

impl Kept {
    pub(in crate::l7) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        let length = |(name, value): (&HeaderName, &HeaderValue)| {
            2 * LENGTH + name.as_str().len() + value.len()
        };
        let mut fields = Vec::with_capacity(headers.iter().map(length).sum());
        for (name, value) in headers {
            put(&mut fields, name.as_str().as_bytes());
            put(&mut fields, value.as_bytes());
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Self { method, uri, fields: fields.into_boxed_slice(), mutations: None }
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
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let mut rest = &*self.fields;
        while let (Some(name), Some(value)) = (take(&mut rest), take(&mut rest)) {
            // What was a field once is one again.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                request.headers_mut().append(name, value);
            }
        }
        request
    }
}

/// The bytes of a length in front of a text.
const LENGTH: usize = size_of::<u32>();

fn put(fields: &mut Vec<u8>, text: &[u8]) {
    // No head is as long as 4 GiB.
    fields.extend_from_slice(&(text.len() as u32).to_be_bytes());
    fields.extend_from_slice(text);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (text, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_head_comes_back_as_it_was() {
        let mut request = Request::new(());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = Uri::from_static("/a?b=c");
        assert!(Kept::of(&request).request().headers().is_empty());
        for (name, value) in [("host", "a:80"), ("x-two", "1"), ("x-a", ""), ("x-two", "2, 3")] {
            let name = HeaderName::from_static(name);
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        let opaque = HeaderValue::from_bytes(b"caf\xe9").unwrap();
        request.headers_mut().append("x-opaque", opaque);
        let kept = Kept::of(&request);
        let (again, text) = (kept.request(), kept.fields.len());
        assert_eq!((again.method(), again.uri()), (request.method(), request.uri()));
        assert_eq!(again.headers(), request.headers());
        let fields = request.headers().iter();
        let texts: usize = fields.map(|(name, value)| name.as_str().len() + value.len()).sum();
        assert_eq!(text, texts + 5 * 2 * LENGTH, "nothing but the text");
    }
}
