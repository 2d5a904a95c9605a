//! What the `connectionPool` of a DestinationRule says of one request: its place, and the version of HTTP.

use tokio::time::Instant;

use super::attempt::{Routed, late};
use crate::balance::Picked;
use crate::base::Reason;
use crate::l7::exchange::answer::Answer;
use crate::l7::exchange::arrived::Arrived;
use crate::l7::message::deadline;
use crate::l7::version::Version;
use crate::traffic::HttpVersion;

impl Routed {
    /// A place for the request in the limits of the destination's policy, for which it may wait.
    pub(super) async fn take_place(
        &self,
        picked: &mut Picked,
        arrived: &Arrived,
        due: Option<Instant>,
    ) -> Result<(), Answer> {
        let has_own_connection = self.version(arrived) == Version::Http1;
        match deadline::within(due, picked.take_request(has_own_connection)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(overflow)) => Err(Answer::overflow(overflow.to_string())),
            None => Err(late(Reason::Timeout)),
        }
    }

    /// The version that the application is spoken to in.
    pub(super) fn version(&self, arrived: &Arrived) -> Version {
        match &arrived.upgrade {
            // Only HTTP/1.1 has upgrades.
            Some(_) => Version::Http1,
            None => match self.http_version() {
                HttpVersion::OfPort => {
                    self.session.upstream_version(arrived.version, self.plan.protocol())
                }
                HttpVersion::OfClient => arrived.version,
                HttpVersion::Http2 => Version::Http2,
            },
        }
    }

    fn http_version(&self) -> HttpVersion {
        let limits = self.plan.destination(&self.session).and_then(|it| it.limits());
        limits.map(|limits| limits.http_version).unwrap_or_default()
    }
}
