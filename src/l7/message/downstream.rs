//! What a request on a client's connection of HTTP/1 knows of that connection.

use super::interim::Interim;
use super::leaving::Leaving;

/// One extension of the request, because each is an allocation.
#[derive(Clone)]
pub(in crate::l7) struct Downstream {
    /// `None` for HTTP/1.0, which has no responses before the response.
    pub(in crate::l7) interim: Option<Interim>,
    pub(in crate::l7) leaving: Leaving,
}
