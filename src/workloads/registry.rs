//! The known locations of pods.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::names::named;
use super::runtime::Said;
use super::{Candidate, Ledger, Sandbox, Sought, path_here, scan};
use crate::base::{Seldom, Str};
use crate::sock::NetworkNamespace;

/// Where container runtimes keep the namespaces of sandboxes, by name.
const DIRECTORY: &str = "/run/netns";
/// The shortest interval between two searches: each may query the runtime for every pod and enter every namespace of
/// the node.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// The number of ended sandboxes that are remembered; beyond that, those whose namespaces are gone are forgotten.
const MANY: usize = 256;

/// The locations of this node's pods.
pub struct Registry {
    /// Where namespaces have names.
    directory: PathBuf,
    /// `None`: nothing is recorded for the next agent.
    ledger: Option<Ledger>,
    known: Mutex<Known>,
    trouble: Seldom,
}

#[derive(Default)]
struct Known {
    /// By the workload's uid.
    sandboxes: BTreeMap<Str, Sandbox>,
    /// Paths of ended sandboxes: their namespaces may exist for a moment longer, and must not be found.
    ended: BTreeSet<Str>,
    /// Generations of pods whose sandbox has ended: they are not searched for.
    without: BTreeSet<(Str, Str)>,
    searched: Option<Instant>,
}

impl Registry {
    /// Records everything in `ledger`.
    pub fn new(ledger: Option<Ledger>) -> Self {
        Self {
            directory: DIRECTORY.into(),
            ledger,
            known: Mutex::default(),
            trouble: Seldom::new(),
        }
    }

    /// The location of this generation of a pod.
    pub fn sandbox(&self, uid: &str, pod: &str) -> Option<Sandbox> {
        let known = self.known.lock();
        known.sandboxes.get(uid).filter(|sandbox| sandbox.pod == pod).cloned()
    }

    /// The runtime has created a sandbox for the workload. It is on disk when this returns.
    pub fn started(&self, uid: Str, sandbox: Sandbox) {
        self.keep(&uid, &sandbox);
        let mut known = self.known.lock();
        known.ended.remove(&sandbox.network_namespace);
        known.without.remove(&(uid.clone(), sandbox.pod.clone()));
        known.sandboxes.insert(uid, sandbox);
    }

    fn keep(&self, uid: &Str, sandbox: &Sandbox) {
        let Some(Err(error)) = self.ledger.as_ref().map(|it| it.write(uid, sandbox)) else {
            return;
        };
        tracing::error!(
            workload = %uid, %error,
            "cannot record where its sandbox is; after a restart the agent must query the container runtime; check \
             [workloads] directory"
        );
    }

    /// The runtime ends a sandbox: removes the workload that was in it, unless it is in another one by now.
    pub fn ended(&self, container: &str, network_namespace: &str) -> Option<(Str, Sandbox)> {
        let mut known = self.known.lock();
        if !network_namespace.is_empty() {
            known.ended.insert(network_namespace.into());
        }
        let is_it = |sandbox: &Sandbox| {
            (!container.is_empty() && sandbox.container == container)
                || (!network_namespace.is_empty() && sandbox.network_namespace == network_namespace)
        };
        let uid = known.sandboxes.iter().find(|(_, it)| is_it(it)).map(|(uid, _)| uid.clone())?;
        let sandbox = known.sandboxes.remove(&uid)?;
        known.ended.insert(sandbox.network_namespace.clone());
        known.without.insert((uid.clone(), sandbox.pod.clone()));
        drop(known);
        self.ledger.iter().for_each(|it| it.remove(&sandbox));
        Some((uid, sandbox))
    }

    /// Whether the sandbox of this generation of a pod has ended, so that there is nothing to search for.
    pub fn has_ended(&self, uid: &Str, pod: &Str) -> bool {
        self.known.lock().without.contains(&(uid.clone(), pod.clone()))
    }

    /// Forgets workloads that are gone; `is_here` gets uid and pod. Their records are removed with their namespaces.
    pub fn retain(&self, is_here: impl Fn(&Str, &Str) -> bool) {
        let mut known = self.known.lock();
        if known.ended.len() > MANY {
            known.forget_vanished();
        }
        known.sandboxes.retain(|uid, sandbox| is_here(uid, &sandbox.pod));
        known.without.retain(|(uid, pod)| is_here(uid, pod));
    }

    /// When the next search is due; `None`: now.
    pub fn search_due(&self) -> Option<Instant> {
        let next = self.known.lock().searched? + SEARCH_EVERY;
        (next > Instant::now()).then_some(next)
    }

    /// Starts a search: reads the records of these pods by this agent or an earlier one. Blocks. Returns how many were
    /// found.
    pub fn restore(&self, pods: &[Sought]) -> usize {
        self.known.lock().searched = Some(Instant::now());
        let records = self.ledger.as_ref().map(Ledger::read).unwrap_or_default();
        let mut known = self.known.lock();
        known.forget_vanished();
        let mut count = 0;
        for pod in pods {
            let is_its = |record: &&super::Record| {
                record.workload == pod.uid.as_str() && record.pod == pod.pod.as_str()
            };
            let mut its = records.iter().filter(is_its);
            match (its.next(), its.next()) {
                (Some(record), None) => count += usize::from(known.take(pod, record.sandbox())),
                (Some(_), Some(_)) if self.trouble.is_due() => tracing::error!(
                    workload = %pod.uid,
                    "two sandboxes are recorded for it, so neither counts; querying the container runtime"
                ),
                _ => {}
            }
        }
        count
    }

    /// Namespaces with an address of one of these pods. That proves nothing: it serves the removal of all rules.
    /// Blocks.
    pub fn resembling(&self, pods: &[Sought]) -> Vec<Str> {
        let candidates = scan(&self.directory, |_| false).unwrap_or_default().into_iter();
        let addresses = pods.iter().flat_map(|pod| &pod.addresses);
        let resembles = |it: &Candidate| addresses.clone().any(|one| it.addresses.contains(one));
        candidates.filter(resembles).map(|it| it.network_namespace).collect()
    }

    /// Queries the container runtime. Blocks. Returns how many were found.
    pub fn learn(&self, said: &[(Sought, Said)]) -> usize {
        let mut count = 0;
        for (pod, said) in said {
            let Some(path) = said.network_namespace.as_deref().map(path_here) else { continue };
            // A path through a process means another one in the agent's own container.
            let is_below = Path::new(&path).starts_with(&self.directory);
            let namespace = match is_below {
                true => NetworkNamespace::open(&path).and_then(|it| it.id()),
                false => Err(std::io::Error::other("the path is not below /run/netns")),
            };
            let namespace = match namespace {
                Ok(namespace) => namespace,
                Err(error) => {
                    tracing::warn!(
                        workload = %pod.uid, path, %error,
                        "the container runtime reports an unusable network namespace"
                    );
                    continue;
                }
            };
            let sandbox = Sandbox {
                pod: pod.pod.clone(),
                container: said.container.as_str().into(),
                network_namespace: path.into(),
                namespace,
                addresses: said.addresses.clone(),
            };
            if self.known.lock().take(pod, sandbox.clone()) {
                self.keep(&pod.uid, &sandbox);
                count += 1;
            }
        }
        count
    }

    /// Namespaces that are named after these pods; `all`: the names of all pods of this node. Blocks. Returns how many
    /// were found.
    ///
    /// # Errors
    /// The directory of namespaces cannot be read: is it mounted?
    pub fn find_named(&self, pods: &[Sought], all: &[Str]) -> std::io::Result<usize> {
        let taken: BTreeSet<Str> = {
            let known = self.known.lock();
            let used = known.sandboxes.values().map(|it| it.network_namespace.clone());
            used.chain(known.ended.iter().cloned()).collect()
        };
        let candidates = scan(&self.directory, |path| taken.contains(path))?;
        let found = named(pods, all, &candidates);
        let mut known = self.known.lock();
        let mut count = 0;
        for pod in pods {
            let Some(place) = found.get(&pod.uid) else { continue };
            let sandbox = Sandbox {
                pod: pod.pod.clone(),
                container: Str::default(),
                network_namespace: place.network_namespace.clone(),
                namespace: place.id,
                addresses: place.addresses.clone(),
            };
            count += usize::from(known.take(pod, sandbox));
        }
        Ok(count)
    }
}

impl Known {
    /// What the runtime reported meanwhile wins. Two pods in one namespace are left to the check of all claims.
    fn take(&mut self, pod: &Sought, sandbox: Sandbox) -> bool {
        let is_known = self.sandboxes.get(&pod.uid).is_some_and(|it| it.pod == pod.pod);
        let has_ended = self.without.contains(&(pod.uid.clone(), pod.pod.clone()))
            || self.ended.contains(&sandbox.network_namespace);
        if is_known || has_ended {
            return false;
        }
        let agrees = sandbox.addresses.iter().any(|it| pod.addresses.contains(it));
        if !agrees && !pod.addresses.is_empty() && !sandbox.addresses.is_empty() {
            tracing::warn!(
                workload = %pod.uid, api = ?pod.addresses, runtime = ?sandbox.addresses,
                "the container runtime reports other addresses than the API server; using the location that the runtime reports"
            );
        }
        self.sandboxes.insert(pod.uid.clone(), sandbox);
        true
    }

    /// Namespaces that no longer exist cannot be found either.
    fn forget_vanished(&mut self) {
        self.ended.retain(|path| Path::new(path.as_str()).exists());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sock::NamespaceId;

    fn id(inode: u64) -> NamespaceId {
        NamespaceId { device: 4, inode, cookie: None }
    }

    fn sandbox(pod: &str, container: &str, path: &str) -> Sandbox {
        Sandbox {
            pod: pod.into(),
            container: container.into(),
            network_namespace: path.into(),
            namespace: id(1),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    fn sought(pod: &str) -> Sought {
        Sought {
            uid: "w".into(),
            pod: pod.into(),
            namespace: "default".into(),
            name: "curl".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    fn take(registry: &Registry, pod: &str, path: &str) -> bool {
        registry.known.lock().take(&sought(pod), sandbox(pod, "", path))
    }

    /// This thread's own namespace, which stands.
    fn standing(pod: &str) -> Sandbox {
        let path = "/proc/thread-self/ns/net";
        let (device, inode) = NetworkNamespace::open(path).unwrap().place().unwrap();
        Sandbox {
            namespace: NamespaceId { device, inode, cookie: None },
            ..sandbox(pod, "c1", path)
        }
    }

    #[test]
    fn a_pod_recreated_under_its_name_is_another_one() {
        let registry = Registry::new(None);
        registry.started("w".into(), sandbox("first", "c1", "/n1"));
        assert!(registry.sandbox("w", "second").is_none());
        registry.started("w".into(), sandbox("second", "c2", "/n2"));
        // The end of the old sandbox comes late.
        assert!(registry.ended("c1", "/n1").is_none());
        assert_eq!(registry.sandbox("w", "second").unwrap().network_namespace, "/n2");
        assert!(registry.sandbox("w", "first").is_none());
    }

    #[test]
    fn a_sandbox_that_has_ended_is_not_found_again() {
        let registry = Registry::new(None);
        registry.started("w".into(), sandbox("p", "c1", "/n1"));
        let (uid, ended) = registry.ended("c1", "").unwrap();
        assert_eq!((uid.as_str(), ended.network_namespace.as_str()), ("w", "/n1"));
        assert!(registry.ended("c1", "/n1").is_none(), "once");
        assert!(registry.has_ended(&"w".into(), &"p".into()));
        assert!(!take(&registry, "p", "/n1") && !take(&registry, "p", "/n2"));
        // The pod gets another sandbox.
        registry.started("w".into(), sandbox("p", "c2", "/n2"));
        assert!(!registry.has_ended(&"w".into(), &"p".into()));
        assert!(take(&registry, "q", "/n3"), "another generation");
    }

    #[test]
    fn what_the_runtime_says_wins_over_what_is_found() {
        let registry = Registry::new(None);
        registry.started("w".into(), sandbox("p", "c1", "/n1"));
        assert!(!take(&registry, "p", "/n2"), "it is known meanwhile");
        assert_eq!(registry.sandbox("w", "p").unwrap().container, "c1");
    }

    #[test]
    fn the_next_agent_knows_what_this_one_was_told() {
        let directory = tempfile::tempdir().unwrap();
        let registry = || Registry::new(Some(Ledger::open(directory.path()).unwrap()));
        let first = registry();
        first.started("w".into(), standing("p"));
        let second = registry();
        assert_eq!(second.restore(&[sought("another")]), 0);
        assert_eq!(second.restore(&[sought("p")]), 1);
        assert_eq!(second.sandbox("w", "p").unwrap(), standing("p"));
        assert_eq!(second.restore(&[sought("p")]), 0, "once");
        second.ended("c1", "").unwrap();
        assert_eq!(registry().restore(&[sought("p")]), 0, "it has ended");
    }

    #[test]
    fn a_runtime_cannot_send_the_agent_through_a_process() {
        let registry = Registry::new(None);
        let said = Said {
            container: "c1".into(),
            network_namespace: Some("/proc/self/ns/net".into()),
            addresses: Vec::new(),
        };
        assert_eq!(registry.learn(&[(sought("p"), said)]), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn searches_seldom() {
        let registry = Registry::new(None);
        assert!(registry.search_due().is_none());
        assert_eq!(registry.restore(&[sought("p")]), 0);
        let due = registry.search_due().unwrap();
        tokio::time::sleep_until(due).await;
        assert!(registry.search_due().is_none());
    }

    #[test]
    fn workloads_that_are_gone_are_forgotten() {
        let registry = Registry::new(None);
        registry.started("w".into(), sandbox("p", "c1", "/n1"));
        registry.retain(|uid, pod| uid == "w" && pod == "p");
        assert!(registry.sandbox("w", "p").is_some());
        registry.retain(|_, _| false);
        assert!(registry.sandbox("w", "p").is_none());
        registry.started("w".into(), sandbox("p", "c1", "/n1"));
        registry.ended("c1", "/n1");
        registry.retain(|uid, _| uid == "v");
        assert!(!registry.has_ended(&"w".into(), &"p".into()));
    }
}
