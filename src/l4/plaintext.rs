//! What arrives without a tunnel (port 15006): clients outside of the mesh, where PeerAuthentication lets them in.

use std::sync::Arc;

use super::Proxy;
use super::deliver::{Arrival, Judgement};
use super::listen::Accepted;
use super::places::Way;
use crate::base::Reason;
use crate::gate::Permit;
use crate::sock::{self, Duplex};
use crate::tunnel::{Carrier, Cut, GuardedConnection};
use crate::world::JudgementChanges;

impl Proxy {
    pub(super) async fn plaintext(self: Arc<Self>, mut accepted: Accepted) {
        let Some(workload) = self.workload() else { return };
        let destination = match sock::original_destination(&accepted.stream) {
            Ok(destination) => destination,
            Err(error) => {
                tracing::debug!(workload = %self.uid, peer = %accepted.peer, %error, "not a redirected connection");
                return;
            }
        };
        let arrival = Arrival {
            workload,
            client: None,
            peer: accepted.peer,
            destination,
            forwarded_host: None,
            baggage: None,
            server_name: None,
            in_process: false,
            cut: Cut::with_workload(&self.cancel),
        };
        if let Err(why) = self.own_destination(&arrival.workload, destination) {
            return self.refuse_arrival(&arrival, Reason::BadRequest, &why);
        }
        match self.peer_place(Way::Plaintext, arrival.peer.ip()) {
            Ok(of_peer) => accepted.place.peer = Some(of_peer),
            Err(why) => return self.refuse_arrival(&arrival, Reason::Overflow, &why),
        }
        match self.judge(&arrival) {
            Judgement::Deny(denial) if denial.unread => {
                let stream = Carrier::Tcp(accepted.stream);
                Box::pin(self.judge_by_name(arrival, stream)).await;
            }
            Judgement::Deny(denial) => self.deny_arrival(&arrival, denial),
            Judgement::Limit(why) => self.refuse_arrival(&arrival, Reason::RateLimited, &why),
            Judgement::Guard(worker, meter) => {
                let connection = GuardedConnection {
                    stream: Carrier::Tcp(accepted.stream).paced(meter),
                    borrow: arrival.borrow(),
                    workload: arrival.workload,
                    client: None,
                    client_address: arrival.peer,
                    destination,
                    forwarded_host: None,
                    baggage: None,
                    sockets: self.sockets.clone(),
                    place: accepted.place,
                    cut: arrival.cut,
                };
                self.shared.waypoints.guard(&worker, connection);
            }
            Judgement::Permit(permit, changes, meter) => {
                let stream = Carrier::Tcp(accepted.stream).paced(meter);
                self.carry_permitted(&arrival, stream, permit, changes).await;
            }
        }
    }

    /// Connects to the application, and copies.
    pub(super) async fn carry_permitted<D: Duplex>(
        &self,
        arrival: &Arrival,
        stream: D,
        permit: Permit,
        changes: JudgementChanges,
    ) {
        match self.connect_application(arrival).await {
            Ok(application) => {
                let start = self.start_of_arrival(arrival, Some(permit));
                let record = self.shared.telemetry.connection(start).within(Some(&self.room));
                self.relay(arrival, stream, application, record, changes).await;
            }
            Err(error) => {
                let why = format!("connect to the application at {}: {error}", arrival.destination);
                self.refuse_arrival(arrival, Reason::ConnectFailure, &why);
            }
        }
    }
}
