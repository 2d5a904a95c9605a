//! Applies a plan: listeners, certificate, rules; and the reverse.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Node;
use super::caught::Watch;
use super::plan::{Known, Site};
use crate::base::{Seldom, Str, ports};
use crate::dns::Stub;
use crate::l4::Proxy;
use crate::model::{CaptureWishes, Workload};
use crate::redirect::{self, CapturePlan, Place, Program};
use crate::sock::{NamespaceSockets, NetworkNamespace};

/// A captured workload.
pub(super) struct Captured {
    pub(super) uid: Str,
    pub(super) site: Site,
    pub(super) namespace: NetworkNamespace,
    pub(super) proxy: Arc<Proxy>,
    pub(super) watch: Watch,
    /// Changes while the workload stays; locked by the task that changes it.
    extent: Mutex<Extent>,
}

/// The captured parts of a workload.
struct Extent {
    /// The input of its rules.
    wishes: CaptureWishes,
    /// The DNS stub, if the agent answers DNS for it.
    stub: Option<Stub>,
}

impl Captured {
    /// A successor serves it now.
    pub(super) fn retire(&self) {
        self.proxy.retire();
        self.extent.lock().stub.iter().for_each(Stub::stop);
    }
}

impl Captured {
    /// Another namespace has the name now. A namespace that is only gone is handled through its manifest.
    pub(super) fn was_recreated(&self) -> bool {
        let name = &self.site.network_namespace;
        // The kernel does not reuse the inode while we hold the namespace.
        let now = NetworkNamespace::open(name).and_then(|namespace| namespace.inode());
        matches!((now, self.namespace.inode()), (Ok(now), Ok(own)) if now != own)
    }
}

impl Known for Captured {
    fn site(&self) -> &Site {
        &self.site
    }

    fn wishes(&self) -> CaptureWishes {
        self.extent.lock().wishes
    }
}

impl Node {
    pub(super) async fn join(&self, workload: &Arc<Workload>, site: Site) {
        match self.capture(&Self::placed(workload, &site), site).await {
            Ok(captured) => {
                tracing::info!(workload = %workload.key, "captured");
                self.layer4.telemetry.health().workloads_started.inc();
                self.uncaptured.succeeded(&workload.uid);
                self.captured.lock().insert(workload.uid.clone(), Arc::new(captured));
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(workload = %workload.key, %error, "cannot capture; will try again");
                self.uncaptured.failed(&workload.uid, error);
            }
        }
    }

    async fn capture(&self, workload: &Workload, site: Site) -> anyhow::Result<Captured> {
        use anyhow::Context;
        let namespace = NetworkNamespace::open(&site.network_namespace)
            .with_context(|| format!("open the network namespace {}", site.network_namespace))?;
        if site.place != Some(namespace.place()?) {
            // The rules that stood there before have named the owner.
            self.rounds.ask();
            anyhow::bail!("another network namespace stands at {} now", site.network_namespace);
        }
        let sockets = Arc::new(NamespaceSockets::new(namespace.clone()));
        let inherited = self.inherited(&workload.uid, &namespace);
        let plan = self.plan_of(workload.capture);
        let stub =
            plan.dns.then(|| Stub::start(&self.dns, workload, sockets.clone())).transpose()?;
        let proxy = Proxy::start(&self.layer4, workload, sockets, inherited)?;
        self.layer4.certificates.prefetch(&workload.identity);
        if let Err(error) = apply_in(&namespace, redirect::plan_workload(&plan)).await {
            proxy.stop(std::time::Duration::ZERO).await;
            return Err(error);
        }
        let extent = Mutex::new(Extent { wishes: workload.capture, stub });
        let watch = Watch::default();
        Ok(Captured { uid: workload.uid.clone(), site, namespace, proxy, watch, extent })
    }

    fn plan_of(&self, wishes: CaptureWishes) -> CapturePlan {
        CapturePlan {
            dns: wishes.dns.unwrap_or(self.dns.settings.enabled),
            inbound: !wishes.bypass_inbound,
            ..CapturePlan::default()
        }
    }

    /// Replaces the rules of a workload that stays, in one transaction. Open connections continue: the kernel keeps their
    /// translation.
    pub(super) async fn adjust(&self, workload: &Arc<Workload>) {
        let Some(captured) = self.captured.lock().get(&workload.uid).cloned() else { return };
        match self.change(&captured, workload).await {
            Ok(()) => {
                tracing::info!(workload = %workload.key, wishes = ?workload.capture, "captured otherwise");
                self.uncaptured.succeeded(&workload.uid);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(workload = %workload.key, %error, "cannot change what is captured; will try again");
                self.uncaptured.failed(&workload.uid, error);
            }
        }
    }

    /// Listeners start before the rules, and stop after them.
    async fn change(&self, captured: &Captured, workload: &Workload) -> anyhow::Result<()> {
        let plan = self.plan_of(workload.capture);
        let answers = captured.extent.lock().stub.is_some();
        if plan.dns && !answers {
            let sockets = Arc::new(NamespaceSockets::new(captured.namespace.clone()));
            captured.extent.lock().stub = Some(Stub::start(&self.dns, workload, sockets)?);
        }
        apply_in(&captured.namespace, redirect::plan_workload(&plan)).await?;
        let mut extent = captured.extent.lock();
        if !plan.dns {
            extent.stub = None;
        }
        extent.wishes = workload.capture;
        Ok(())
    }

    /// The predecessor's listening sockets for this workload, if the namespace is still the same: a pod that was recreated
    /// under the same name has another one.
    fn inherited(&self, uid: &Str, namespace: &NetworkNamespace) -> Vec<(u16, OwnedFd)> {
        let Ok(own) = namespace.inode() else { return Vec::new() };
        let same = |socket: &OwnedFd| {
            NetworkNamespace::of_socket(socket).and_then(|it| it.inode()).is_ok_and(|it| it == own)
        };
        [ports::OUTBOUND, ports::INBOUND_PLAINTEXT, ports::HBONE]
            .into_iter()
            .filter_map(|port| Some((port, self.inherited.take(uid, port)?)))
            .filter(|(_, socket)| same(socket))
            .collect()
    }

    /// Stops the capture of new connections at once. Open ones drain before the table is removed, because the kernel would
    /// forget their translation with it.
    pub(super) async fn leave(self: &Arc<Self>, uid: &Str) {
        let Some(captured) = self.captured.lock().remove(uid) else { return };
        let nothing = CapturePlan { ipv4: false, ipv6: false, ..CapturePlan::default() };
        if let Err(error) = apply_in(&captured.namespace, redirect::plan_workload(&nothing)).await {
            tracing::debug!(workload = %uid, error = format!("{error:#}"), "its namespace is gone already");
        }
        tracing::info!(workload = %uid, "no longer captured");
        self.layer4.telemetry.health().workloads_stopped.inc();
        // Its rules are removed when it has drained, not in the next round.
        self.done.lock().cleaned.insert(uid.clone());
        let drain = self.settings.drain.deadline;
        let node = self.clone();
        let inode = captured.namespace.inode().unwrap_or_default();
        self.drains.begin(inode, async move {
            captured.proxy.stop(drain).await;
            let _no_join = node.drains.to_remove().await;
            if !node.drains.end(inode) {
                return;
            }
            let wanted = |workload: &Arc<Workload>| node.is_wanted(workload);
            if !node.layer4.world.load().workload(&captured.uid).is_some_and(wanted) {
                node.layer4.resolver.forget(&captured.uid);
            }
            // The namespace names the rules' owner: the same workload may have joined again, or another one.
            let held = captured.namespace.place().is_ok_and(|place| node.is_held(place));
            if !held && let Err(error) = remove_in(&captured.namespace).await {
                tracing::warn!(workload = %captured.uid, error = format!("{error:#}"), "its rules are left");
            }
        });
    }

    /// A namespace that two workloads claim is closed: nothing is served, and nothing gets in or out. Its rules stay, or are
    /// applied now.
    pub(super) async fn close(&self, uid: &Str, site: &Site) {
        self.done.lock().closed.insert(uid.clone());
        let captured = self.captured.lock().remove(uid);
        if let Some(captured) = captured {
            self.layer4.telemetry.health().workloads_stopped.inc();
            captured.proxy.stop(std::time::Duration::ZERO).await;
        }
        let Ok(namespace) = NetworkNamespace::open(&site.network_namespace) else { return };
        let plan = self.plan_of(CaptureWishes::default());
        if let Err(error) = apply_in(&namespace, redirect::plan_workload(&plan)).await {
            tracing::error!(workload = %uid, error = format!("{error:#}"), "its network namespace cannot be closed");
        }
    }

    /// Removes the rules that an earlier agent left in a workload outside of the mesh.
    pub(super) async fn clean(&self, workload: &Arc<Workload>, site: &Site) {
        self.done.lock().cleaned.insert(workload.uid.clone());
        let Ok(namespace) = NetworkNamespace::open(&site.network_namespace) else { return };
        if let Err(error) = remove_in(&namespace).await {
            tracing::warn!(workload = %workload.key, error = format!("{error:#}"), "rules of an earlier agent are left");
        }
    }
}

static TOLD_PLAIN: Seldom = Seldom::new();
static TOLD_MISALIGNED: Seldom = Seldom::new();

async fn apply_in(namespace: &NetworkNamespace, program: Program) -> anyhow::Result<()> {
    let namespace = namespace.clone();
    tokio::task::spawn_blocking(move || {
        let applied = namespace.run(|| redirect::apply(&program))??;
        if applied.plain && TOLD_PLAIN.is_due() {
            tracing::warn!(
                "the kernel lacks nft_objref, nft_reject_inet or nft_socket: new connections past the capture are dropped, but \
                 neither counted nor answered; check `modprobe -a nft_objref nft_reject_inet nft_socket`"
            );
        }
        if let Some(error) = applied.misaligned.filter(|_| TOLD_MISALIGNED.is_due()) {
            tracing::warn!(
                error,
                "new connections of captured pods may stall for a second when ports are used again within a minute: \
                 net.ipv4.tcp_timestamps cannot be set to 2 in their network namespaces. Either the agent may write \
                 /proc/sys, or it has CAP_SYS_ADMIN and its seccomp filter admits fsopen, fsconfig and fsmount"
            );
        }
        Ok(())
    })
    .await?
}

pub(super) async fn remove_in(namespace: &NetworkNamespace) -> anyhow::Result<()> {
    let namespace = namespace.clone();
    tokio::task::spawn_blocking(move || {
        namespace.run(|| redirect::remove(Place::Workload))??;
        Ok(())
    })
    .await?
}
