//! Arrivals that policies judge by the server that the client asks for in TLS (`connection.sni`). They are accepted and read as far as
//! the client's first message, and judged then; the application hears of none that is not permitted.

use super::Proxy;
use super::deliver::{Arrival, Judgement};
use crate::base::Reason;
use crate::policy::unjudged;
use crate::sock::{Rewind, hello};
use crate::tunnel::{Carrier, Incoming};

impl Proxy {
    /// Reads the name, judges, and carries the arrival to its end.
    pub(super) async fn judge_by_name(&self, mut arrival: Arrival, mut stream: Carrier) {
        let wait = self.shared.settings.connect_timeout;
        let (opening, front) = hello::read(&mut stream, wait).await;
        match opening {
            Ok(opening) => arrival.server_name = Some(opening.server_name()),
            Err(unread) => {
                let reason = unread.reason(Reason::Denied);
                return self.refuse_arrival(&arrival, reason, &unjudged(&unread));
            }
        }
        match self.judge(&arrival) {
            Judgement::Permit(permit, changes, meter) => {
                let stream = Rewind { front, stream: stream.paced(meter) };
                self.carry_permitted(&arrival, stream, permit, changes).await;
            }
            Judgement::Deny(denial) => self.deny_arrival(&arrival, denial),
            Judgement::Limit(why) => self.refuse_arrival(&arrival, Reason::RateLimited, &why),
            Judgement::Guard(..) => {
                let why = "policies look at HTTP from now on; connecting again is permitted";
                self.refuse_arrival(&arrival, Reason::Denied, why);
            }
        }
    }

    /// The same for what comes in a tunnel, where clients send nothing before they are accepted.
    pub(super) async fn accept_by_name(&self, incoming: Incoming, arrival: Arrival) {
        match incoming.accept(Some(&self.baggage(&arrival.workload))) {
            Ok(stream) => self.judge_by_name(arrival, stream).await,
            Err(error) => self.lost(&arrival, &error),
        }
    }
}
