//! Requests of the CNI plugin: a pod is captured before its first packet, and released before its last.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Node;
use super::plan::Site;
use crate::base::Str;
use crate::cni::{Answer, Pod, Pods};
use crate::model::Workload;
use crate::sock::NetworkNamespace;
use crate::workloads::{Sandbox, addresses_in, path_here};

/// The rest of the plugin's timeout is reserved for the answer.
const RESERVE: Duration = Duration::from_millis(500);
/// How long the agent may lag behind the API server; the kubelet retries.
const KNOWN: Duration = Duration::from_secs(10);
/// How long a starting pod waits for its certificate.
const CERTIFICATE: Duration = Duration::from_secs(12);
/// The attempts to capture a starting pod before its sandbox fails: the kernel may have been busy.
const ATTEMPTS: u32 = 3;
/// The backoff after a failed attempt, and after a failed request to the issuer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The drain of a pod that is deleted. Its processes have ended already.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a deleted pod waits for its turn.
const TURN: Duration = Duration::from_secs(3);

impl Pods for Arc<Node> {
    async fn add(&self, pod: Pod, patience: Duration) -> Answer {
        let last = Instant::now() + patience.saturating_sub(RESERVE);
        let patience = patience.saturating_sub(RESERVE).min(KNOWN);
        let Ok(known) = timeout(patience, self.known(&pod)).await else {
            return Answer::Unknown(format!(
                "the agent has not heard of this pod (UID {:?}) from the API server within {patience:?}; check that it \
                 reaches the API server (log of its pod on node {})",
                pod.uid, self.settings.name
            ));
        };
        let answer = match timeout_at(last, self.attach(&pod, known)).await {
            Ok(answer) => answer,
            Err(_) => {
                Answer::Refused("it was not captured in time; is the node overloaded?".to_owned())
            }
        };
        if matches!(answer, Answer::Refused(_)) {
            // The runtime reverts the earlier plugins.
            self.detach(&pod).await;
        }
        answer
    }

    async fn delete(&self, pod: Pod) -> Answer {
        self.detach(&pod).await;
        Answer::Done
    }

    async fn check(&self, pod: Pod) -> Answer {
        let Some(workload) = self.of(&pod) else {
            return Answer::Unknown("the agent has not heard of this pod".to_owned());
        };
        if !workload.is_captured() {
            return Answer::NotEnrolled;
        }
        match self.captured.lock().contains_key(&workload.uid) {
            true => Answer::Done,
            false => Answer::Refused(self.why_not(&workload.uid)),
        }
    }
}

impl Node {
    /// The workload of a starting pod, once the world has it.
    async fn known(&self, pod: &Pod) -> Arc<Workload> {
        let mut changes = self.layer4.world.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(workload) = self.of(pod) {
                return workload;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The workload of exactly this generation of the pod, if the runtime reports it.
    fn of(&self, pod: &Pod) -> Option<Arc<Workload>> {
        let cluster = &self.layer4.cluster;
        let uid = format!("{cluster}//Pod/{}/{}", pod.namespace, pod.name);
        let world = self.layer4.world.load();
        let workload = world.workload(&uid)?;
        let is_it = pod.uid.is_empty() || workload.pod.as_deref() == Some(&pod.uid);
        is_it.then(|| workload.clone())
    }

    async fn attach(self: &Arc<Self>, pod: &Pod, workload: Arc<Workload>) -> Answer {
        // CNI does not handle containers in the host's network.
        if workload.host_network {
            return Answer::NotEnrolled;
        }
        let sandbox = match sandbox(pod, &workload).await {
            Ok(sandbox) => sandbox,
            Err(error) => return Answer::Refused(format!("{error:#}")),
        };
        // For the agent that is asked next.
        self.registry.started(workload.uid.clone(), sandbox.clone());
        let enrolled = || self.of(pod).is_some_and(|workload| workload.is_captured());
        // The registry knows it now: when its namespace joins the mesh later, the pod is found at once.
        let mut attempts = 0;
        while enrolled() {
            self.rounds.next().await;
            let captured = self.captured.lock().get(&workload.uid).map(|it| it.site.clone());
            let is_it = |site: &Site| site.network_namespace == sandbox.network_namespace;
            if captured.as_ref().is_some_and(is_it) {
                return self.certified(&workload).await;
            }
            attempts += 1;
            if attempts == ATTEMPTS && enrolled() {
                return Answer::Refused(self.why_not(&workload.uid));
            }
            sleep(ASK_AGAIN).await;
        }
        Answer::NotEnrolled
    }

    fn why_not(&self, uid: &Str) -> String {
        let failure = self.uncaptured.failure(uid);
        failure.unwrap_or_else(|| "the agent ends; its successor captures it".to_owned())
    }

    /// Fails the start of a pod whose connections would all fail.
    async fn certified(&self, workload: &Workload) -> Answer {
        let identity = &workload.identity;
        let mut why = None;
        let asking = async {
            loop {
                match self.layer4.certificates.certificate(identity).await {
                    Ok(_) => return,
                    Err(error) => why = Some(error.to_string()),
                }
                sleep(ASK_AGAIN).await;
            }
        };
        let certified = timeout(CERTIFICATE, asking).await;
        match certified {
            Ok(()) => Answer::Done,
            Err(_) => Answer::Refused(why.unwrap_or_else(|| {
                format!("no certificate for {identity} within {CERTIFICATE:?}; the issuer does not answer")
            })),
        }
    }

    /// Ends the capture of a sandbox that is being deleted. Its rules stay and vanish with the namespace.
    async fn detach(&self, pod: &Pod) {
        let path = path_here(&pod.network_namespace);
        let Some((uid, sandbox)) = self.registry.ended(&pod.container, &path) else { return };
        // The next capture frees what is no longer needed.
        self.rounds.ask();
        let Ok(turn) = timeout(TURN, self.turns.take()).await else { return };
        let captured = {
            let mut captured = self.captured.lock();
            let is_it = captured
                .get(&uid)
                .is_some_and(|it| it.site.network_namespace == sandbox.network_namespace);
            is_it.then(|| captured.remove(&uid)).flatten()
        };
        drop(turn);
        self.uncaptured.succeeded(&uid);
        let Some(captured) = captured else { return };
        tracing::info!(workload = %uid, "its sandbox ends");
        self.layer4.telemetry.health().workloads_stopped.inc();
        self.layer4.resolver.forget(&uid);
        captured.proxy.stop(LAST_WORDS).await;
    }
}

/// The state of the sandbox, after an inspection.
async fn sandbox(pod: &Pod, workload: &Workload) -> anyhow::Result<Sandbox> {
    let path = path_here(&pod.network_namespace);
    let look = path.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let namespace = NetworkNamespace::open(&look)?;
        if namespace.place()? == NetworkNamespace::own()?.place()? {
            return Err(std::io::Error::other(format!(
                "{look} is the agent's own network namespace"
            )));
        }
        Ok((namespace.id()?, addresses_in(&namespace)?))
    });
    let (namespace, found) = looked.await?.map_err(|error: std::io::Error| {
        anyhow!("{error}; /run/netns of the node must be mounted into the agent's pod with HostToContainer")
    })?;
    // The runtime's word counts: further interfaces may have addresses that are not the pod's.
    let addresses = if pod.addresses.is_empty() { found } else { pod.addresses.clone() };
    if addresses.is_empty() {
        bail!("the plugins before gave its sandbox no address");
    }
    let uid = workload.pod.clone().unwrap_or_else(|| pod.uid.as_str().into());
    Ok(Sandbox {
        pod: uid,
        container: pod.container.as_str().into(),
        network_namespace: path.as_str().into(),
        namespace,
        addresses,
    })
}
