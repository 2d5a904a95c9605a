//! Reports packets that the capture rules dropped to the metrics and the log. The kernel counts; the agent reads the counters every [`LOOK`],
//! with two short requests for each workload over a socket that it keeps in the workload's namespace. Nothing
//! is caught unless a process reuses the ports of a connection from before the capture, or tries to bypass the agent.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{LOOK, Node};
use crate::base::{Seldom, Str};
use crate::redirect::{Catches, Caught, Place};
use crate::sock::NetworkNamespace;
use crate::telemetry::HealthMetrics;

/// A namespace whose counters are read.
#[derive(Default)]
pub(super) struct Watch {
    /// `None` until the first read, and after an error.
    state: Mutex<Option<(Catches, Caught)>>,
    told: [Seldom; 3],
}

impl Watch {
    /// The packets that were dropped since the last read. Blocks on the kernel. Without `namespace`: the agent's own.
    fn look(&self, namespace: Option<&NetworkNamespace>) -> anyhow::Result<Caught> {
        let mut state = self.state.lock();
        let (mut catches, last) = match state.take() {
            Some(known) => known,
            None => (open(namespace)?, Caught::default()),
        };
        // After an error the socket is reopened, and counting continues from here.
        let now = catches.read()?;
        *state = Some((catches, now));
        Ok(now.since(&last))
    }

    /// Reads, counts, and warns at intervals. `workload`: `None` for the node.
    pub(super) fn tell(&self, workload: Option<(&Str, &NetworkNamespace)>, health: &HealthMetrics) {
        let caught = match self.look(workload.map(|(_, namespace)| namespace)) {
            Ok(caught) => caught,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::debug!(?workload, %error, "the counters of its rules cannot be read");
                return;
            }
        };
        health.caught(caught.inbound, caught.outbound, caught.spoofed);
        let [inbound, outbound, spoofed] = &self.told;
        let uid = workload.map(|(uid, _)| uid.as_str()).unwrap_or_default();
        if caught.inbound > 0 && inbound.is_due() {
            tracing::warn!(
                workload = uid,
                dropped = caught.inbound,
                direction = "inbound",
                "new connections would have reached this workload past its agent and were dropped: their ports are those \
                 of a connection from before the capture, or a client tries to bypass policy. If it continues, look for \
                 the sender (`tcpdump 'tcp[tcpflags] == tcp-syn'` in its network namespace)"
            );
        }
        if caught.outbound > 0 && outbound.is_due() {
            tracing::warn!(
                workload = uid,
                dropped = caught.outbound,
                direction = "outbound",
                "new connections would have left this workload past its agent and were dropped: their ports are those of \
                 a connection from before the capture, or a process in the pod tries to bypass the mesh. If it \
                 continues, check the processes of the pod"
            );
        }
        if caught.spoofed > 0 && spoofed.is_due() {
            tracing::warn!(
                dropped = caught.spoofed,
                "packets came from the address of this node's probes and were dropped: only the node itself may \
                 use it. Look for the sender (`tcpdump net 169.254.7.127 or net fd16:9254:7127:1337::/64` on the node)"
            );
        }
    }
}

fn open(namespace: Option<&NetworkNamespace>) -> anyhow::Result<Catches> {
    Ok(match namespace {
        Some(namespace) => namespace.run(|| Catches::here(Place::Workload))??,
        None => Catches::here(Place::Node)?,
    })
}

impl Node {
    /// Reads until cancelled, or until a successor reads.
    pub(super) async fn watch_rules(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            let pause = tokio::time::sleep(LOOK);
            if cancel.run_until_cancelled(pause).await.is_none() || self.turns.have_ended() {
                return;
            }
            let captured: Vec<_> = self.captured.lock().values().cloned().collect();
            let exempt = self.probes.have_rules();
            if captured.is_empty() && !exempt {
                continue;
            }
            let node = self.clone();
            let look = move || {
                let health = node.layer4.telemetry.health();
                captured
                    .iter()
                    .for_each(|one| one.watch.tell(Some((&one.uid, &one.namespace)), health));
                if exempt {
                    node.probes.watch.tell(None, health);
                }
            };
            if let Err(error) = tokio::task::spawn_blocking(look).await {
                tracing::error!(%error, "the counters of the capture rules were not read");
            }
        }
    }
}
