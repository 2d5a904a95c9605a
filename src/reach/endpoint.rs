//! Connects to one of a service's endpoints, for bytes of any kind. No byte of the client is sent before an endpoint accepts
//! the connection, so other endpoints may be tried.

use std::sync::Arc;

use super::direct::direct;
use super::judge::judge_bytes;
use super::led::judge_lent;
use super::{Ask, Attempts, Downstream, Failure, Reach};
use crate::balance::{self, Ended, Picked};
use crate::base::{PolicyNote, Reason};
use crate::gate::{self, Permit};
use crate::model::Service;
use crate::tls::{Origin, Protocol};
use crate::tunnel::Carrier;

/// An endpoint that accepted the connection.
pub struct Reached {
    pub picked: Picked,
    pub upstream: Carrier,
    /// Its policies were evaluated on this side.
    pub permit: Option<Permit>,
    /// The TLS to the application that was demanded, and is spoken.
    pub tls: Option<Arc<Origin>>,
}

/// Why no endpoint accepted the connection.
#[derive(Debug)]
pub struct Unreached {
    /// The endpoint that failed last, or that may not be connected to.
    pub picked: Option<Picked>,
    pub failure: Failure,
    /// Notes of policies that only observe, if they were evaluated here.
    pub notes: Vec<PolicyNote>,
    /// Policies need the name of the server that the client asks for ([`Denial::unread`](crate::policy::Denial)): with it, the
    /// endpoint may be had.
    pub unread: bool,
}

impl From<Failure> for Unreached {
    fn from(failure: Failure) -> Self {
        Self { picked: None, failure, notes: Vec::new(), unread: false }
    }
}

impl Reach {
    /// Tries endpoints until one accepts the connection.
    pub async fn endpoint(
        &self,
        from: &Downstream<'_>,
        ask: &Ask<'_>,
    ) -> Result<Reached, Unreached> {
        let mut attempts = Attempts::default();
        let mut last = None;
        loop {
            let service = self.asked(ask)?;
            let resolved = self.resolve_named(from, &service, ask.claim).await?;
            if resolved.balancing.races {
                // Boxed, because few services ask for it.
                return Box::pin(self.race(from, ask, &resolved)).await;
            }
            let Some((mut picked, permit)) = self.choose(from, ask, &resolved, &attempts)? else {
                return Err(last.unwrap_or_else(|| nobody(from, ask, &service)));
            };
            if let Err(overflow) = picked.take_connection() {
                picked.ended(Ended::NotTried);
                let notes = permit.map(|it| it.notes).unwrap_or_default();
                let failure = Failure::new(Reason::Overflow, overflow.to_string());
                return Err(Unreached { picked: Some(picked), failure, notes, unread: false });
            }
            match self.connect_secured(from, (ask.port(), ask.subset), &resolved, &picked).await {
                Ok((upstream, tls)) => {
                    picked.ended(Ended::Served);
                    return Ok(Reached { picked, upstream, permit, tls });
                }
                Err(failure) => {
                    let goes_on = attempts.failed(&mut picked, failure.ended());
                    let notes = permit.map(|it| it.notes).unwrap_or_default();
                    let unreached =
                        Unreached { picked: Some(picked), failure, notes, unread: false };
                    if !goes_on {
                        return Err(unreached);
                    }
                    last = Some(unreached);
                }
            }
        }
    }

    /// A stream to the endpoint, and the TLS that it is under.
    pub(super) async fn connect_secured(
        &self,
        from: &Downstream<'_>,
        (port, subset): (u16, Option<&str>),
        service: &Service,
        picked: &Picked,
    ) -> Result<(Carrier, Option<Arc<Origin>>), Failure> {
        let secured = match service.encryption.is_empty() {
            true => None,
            // In memory of its own, since nearly no service has it.
            false => Box::pin(Self::secure(from, (service, port, subset), picked, None)).await?,
        };
        let tls = secured.as_ref().map(|secured| (secured, Protocol::Bytes));
        let stream = self.connect(from, picked, Some(&service.hostname), tls).await?;
        Ok((stream, secured.map(|secured| secured.origin)))
    }

    /// The next endpoint, with the permit to connect if this half must decide that.
    pub(super) fn choose(
        &self,
        from: &Downstream<'_>,
        ask: &Ask<'_>,
        service: &Service,
        attempts: &Attempts,
    ) -> Result<Option<(Picked, Option<Permit>)>, Unreached> {
        let world = self.world.load();
        let port = ask.port();
        let caller = ask.caller(from, service)?;
        let Some(picked) = attempts.next(&world, caller, (service, port), ask.dialled) else {
            return Ok(None);
        };
        let (namespace, tunnelled) = (&from.client.key.namespace, picked.captured().is_some());
        if let Err(why) = gate::encryption(service, (port, ask.subset), namespace, tunnelled) {
            let failure = Failure::new(Reason::Unencrypted, why);
            return Err(Unreached { picked: Some(picked), ..failure.into() });
        }
        let lent = judge_lent(&world, from, ask, service, &picked);
        match lent.and_then(|()| judge_bytes(&world, from, ask, &direct(service, port, &picked))) {
            Ok(permit) => Ok(Some((picked, permit))),
            Err(denial) => Err(Unreached {
                picked: Some(picked),
                failure: Failure::new(Reason::Denied, denial.why),
                notes: denial.notes,
                unread: denial.unread,
            }),
        }
    }
}

pub(super) fn nobody(from: &Downstream<'_>, ask: &Ask<'_>, service: &Service) -> Unreached {
    let caller = match ask.caller(from, service) {
        Ok(caller) => caller,
        Err(failure) => return failure.into(),
    };
    let why = balance::nobody(service, ask.port(), &caller);
    Failure::new(Reason::NoHealthyUpstream, why).into()
}
