//! What cuts an inbound connection, and why.

use tokio_util::sync::CancellationToken;

use crate::base::Reason;

/// Fires when a connection must end at once: with every connection of its workload, or with its tunnel.
#[derive(Clone)]
pub struct Cut {
    /// The workload left, or the agent's drain deadline passed.
    workload: CancellationToken,
    /// The workload's too, or a child of it.
    own: CancellationToken,
}

impl Cut {
    /// For a connection that came without a tunnel.
    pub fn with_workload(workload: &CancellationToken) -> Self {
        Self { workload: workload.clone(), own: workload.clone() }
    }

    /// For all streams of one tunnel, which [`Cut::revoke`] cuts alone.
    pub fn of_tunnel(workload: &CancellationToken) -> Self {
        Self { workload: workload.clone(), own: workload.child_token() }
    }

    /// The certificate of the tunnel's client is revoked.
    pub fn revoke(&self) {
        self.own.cancel();
    }

    pub fn token(&self) -> &CancellationToken {
        &self.own
    }

    /// Returns when only this tunnel is cut.
    pub async fn revoked(&self) {
        self.own.cancelled().await;
        if self.workload.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }

    /// Why it has fired.
    pub fn reason(&self) -> (Reason, &'static str) {
        if self.workload.is_cancelled() {
            (Reason::Draining, "the workload left, or the agent stopped")
        } else {
            (Reason::CertRevoked, "cut: the client's certificate is revoked")
        }
    }
}
