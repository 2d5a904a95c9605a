//! An endpoint that was selected, and what becomes of the attempt at it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;

use crate::base::ports;
use crate::model::Workload;
use crate::traffic::{
    Attempt, Destination, Heard, InFlight, InProgress, Limits, Load, Overflow, Place,
};

/// A selected endpoint; counts as a request in flight until dropped.
#[derive(Debug)]
pub struct Picked {
    /// The endpoint's own address and target port.
    pub address: SocketAddr,
    pub workload: Option<Arc<Workload>>,
    pub in_flight: Option<InFlight>,
    /// Where a policy holds. Boxed, because few services have one, and every request in flight holds this.
    under: Option<Box<Under>>,
}

/// The policy that an endpoint was selected under.
#[derive(Debug)]
struct Under {
    destination: Arc<Destination>,
    /// Hears how the attempt ended, where the policy wants to know.
    attempt: Option<Attempt>,
    /// In the limits of the policy.
    place: Option<Box<Place>>,
    /// For the budget of retries.
    counted: Option<InProgress>,
}

/// What a connection or request in progress holds.
#[derive(Debug, Default)]
pub struct InUse {
    _in_flight: Option<InFlight>,
    _under: Option<Box<Under>>,
}

/// The result of an attempt at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It accepted the connection.
    Served,
    /// It answered the request with this status.
    Answered(StatusCode),
    /// It was not reached; nothing was sent.
    Unreached,
    /// This node could not try: it had no room, or no certificate that the peer takes. It says nothing about the endpoint.
    NotTried,
    /// A pooled connection was closed while idle, before it took the request; nothing was sent.
    Stale,
    /// The destination denies the client, as any other endpoint of the service would.
    Denied,
    /// Something may have been sent, and no response came.
    Broken,
    /// Something may have been sent, and no response came in time.
    TimedOut,
    /// The client broke off its request.
    GivenUp,
}

impl Ended {
    /// Nothing was sent, and the destination has not decided: another endpoint may be tried.
    pub fn may_go_on(self) -> bool {
        matches!(self, Self::Unreached | Self::NotTried | Self::Stale)
    }

    /// What it tells about the endpoint; `None`: nothing.
    fn heard(self) -> Option<Heard> {
        match self {
            Self::Served => Some(Heard::Accepted),
            Self::Answered(status) => Some(Heard::Status(status.as_u16())),
            Self::Unreached | Self::Broken | Self::TimedOut => Some(Heard::Failed),
            Self::NotTried | Self::Stale | Self::Denied | Self::GivenUp => None,
        }
    }
}

impl Picked {
    /// The address that a client dialled without load balancing; it does not count as a request in flight.
    pub fn dialled(address: SocketAddr, workload: Option<Arc<Workload>>) -> Self {
        Self { address, workload, in_flight: None, under: None }
    }

    /// An endpoint that counts its load.
    pub(super) fn of(
        address: SocketAddr,
        workload: Option<Arc<Workload>>,
        load: Option<&Arc<Load>>,
    ) -> Self {
        let in_flight = load.map(|load| load.begin());
        Self { address, workload, in_flight, under: None }
    }

    /// Selected under the destination's policy.
    pub(super) fn under(self, destination: &Arc<Destination>, attempt: Option<Attempt>) -> Self {
        let destination = destination.clone();
        let under = Under { destination, attempt, place: None, counted: None };
        Self { under: Some(Box::new(under)), ..self }
    }

    /// In the mesh: reached by HBONE only, never in plaintext, and authorized on its own node.
    pub fn captured(&self) -> Option<&Arc<Workload>> {
        self.workload.as_ref().filter(|workload| workload.is_captured())
    }

    /// The address that is dialled on the wire.
    pub fn wire_address(&self) -> SocketAddr {
        match self.captured() {
            Some(_) => SocketAddr::new(self.address.ip(), ports::HBONE),
            None => self.address,
        }
    }

    pub fn limits(&self) -> Option<&Limits> {
        self.under.as_ref()?.destination.limits()
    }

    /// Takes a place for a connection of layer 4, until this is dropped or the attempt fails.
    pub fn take_connection(&mut self) -> Result<(), Overflow> {
        if let Some(under) = &mut self.under {
            under.place = under.destination.connection()?;
        }
        Ok(())
    }

    /// Whether a request needs a place.
    pub fn limits_requests(&self) -> bool {
        self.under.as_ref().is_some_and(|under| under.destination.limits_requests())
    }

    /// Takes a place for a request, which may wait for it.
    pub async fn take_request(&mut self, has_own_connection: bool) -> Result<(), Overflow> {
        if let Some(under) = &mut self.under {
            // Counted while it waits, too.
            under.counted = under.destination.budget().map(|spent| spent.request());
            under.place = under.destination.request(has_own_connection).await?;
        }
        Ok(())
    }

    /// The first endpoint of a request: it arrives, as far as the budget of retries counts that.
    pub fn arrives(&self) {
        if let Some(spent) = self.under.as_ref().and_then(|under| under.destination.budget()) {
            spent.arrives();
        }
    }

    /// What it holds, for what is in progress to hold.
    pub fn in_use(&mut self) -> InUse {
        InUse { _in_flight: self.in_flight.take(), _under: self.under.take() }
    }

    /// The one place that receives the result of every attempt at an endpoint. A successful one counts as in flight
    /// until this is dropped. An attempt that is dropped before its end was abandoned by the client, and says nothing
    /// about the endpoint.
    pub fn ended(&mut self, how: Ended) {
        if let Some(under) = &mut self.under
            && let Some(mut attempt) = under.attempt.take()
            && let Some(heard) = how.heard()
        {
            attempt.heard(heard);
        }
        if !matches!(how, Ended::Served | Ended::Answered(_)) {
            tracing::debug!(endpoint = %self.address, ended = ?how, "an attempt failed");
            self.in_flight = None;
            if let Some(under) = &mut self.under {
                (under.place, under.counted) = (None, None);
            }
        }
    }
}
