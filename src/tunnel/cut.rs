//! What cuts a connection that arrived, and why.

use tokio_util::sync::CancellationToken;

use crate::base::Reason;

/// Fires when a connection must end at once: with everything of its workload, or with the tunnel that it came through.
#[derive(Clone)]
pub struct Cut {
    /// The workload left, or the agent has drained long enough.
    workload: CancellationToken,
    /// The workload's too, or a child of it.
    own: CancellationToken,
}

impl Cut {
    /// Of what came without a tunnel of its own.
    pub fn with_workload(workload: &CancellationToken) -> Self {
        Self { workload: workload.clone(), own: workload.clone() }
    }

    /// Of all streams of one tunnel, which [`Cut::revoke`] cuts alone.
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

    /// Returns when the tunnel is cut for itself alone.
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
