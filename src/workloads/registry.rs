//! The places that are known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::matching::assign;
use super::{Candidate, Sought, scan};
use crate::base::Str;

/// Where container runtimes keep the namespaces of sandboxes, by name.
const DIRECTORY: &str = "/run/netns";
/// Two searches are at least so far apart: each enters every namespace of the node.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// So many sandboxes that have ended are remembered before those whose namespaces are gone are forgotten.
const MANY: usize = 256;

/// The sandbox of a pod: what its containers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The pod's own UID (`metadata.uid`).
    pub pod: Str,
    /// The runtime's name of the sandbox; empty when it was found by a search.
    pub container: Str,
    /// The path of its network namespace.
    pub network_namespace: Str,
    pub addresses: Vec<IpAddr>,
}

/// Where the pods of this node are.
pub struct Registry {
    directory: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By the workload's uid.
    sandboxes: BTreeMap<Str, Sandbox>,
    /// Paths of sandboxes that have ended: their namespaces may stand for a moment, and must not be found.
    ended: BTreeSet<Str>,
    /// Generations of pods whose sandbox has ended: they are not looked for.
    without: BTreeSet<(Str, Str)>,
    searched: Option<Instant>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(Path::new(DIRECTORY))
    }
}

impl Registry {
    /// Looks for namespaces in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), known: Mutex::default() }
    }

    /// Where this generation of a pod is.
    pub fn sandbox(&self, uid: &str, pod: &str) -> Option<Sandbox> {
        let known = self.known.lock();
        known.sandboxes.get(uid).filter(|sandbox| sandbox.pod == pod).cloned()
    }

    /// The runtime has made a sandbox for the workload.
    pub fn started(&self, uid: Str, sandbox: Sandbox) {
        let mut known = self.known.lock();
        known.ended.remove(&sandbox.network_namespace);
        known.without.remove(&(uid.clone(), sandbox.pod.clone()));
        known.sandboxes.insert(uid, sandbox);
    }

    /// The runtime ends a sandbox: the workload that was in it, unless it is in another one by now.
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
        Some((uid, sandbox))
    }

    /// Whether the sandbox of this generation of a pod has ended, so that there is nothing to look for.
    pub fn has_ended(&self, uid: &Str, pod: &Str) -> bool {
        self.known.lock().without.contains(&(uid.clone(), pod.clone()))
    }

    /// Forgets workloads that are gone; `is_here` knows uid and pod.
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

    /// Looks for pods in all namespaces of this machine that are not known to be somebody else's. Blocks. Returns how
    /// many were found.
    ///
    /// # Errors
    /// The directory of namespaces cannot be read: is it mounted?
    pub fn search(&self, pods: &[Sought]) -> std::io::Result<usize> {
        self.known.lock().searched = Some(Instant::now());
        let taken: BTreeSet<Str> = {
            let known = self.known.lock();
            let used = known.sandboxes.values().map(|it| it.network_namespace.clone());
            used.chain(known.ended.iter().cloned()).collect()
        };
        let candidates = scan(&self.directory, |path| taken.contains(path))?;
        self.known.lock().forget_vanished();
        Ok(self.take(pods, &candidates))
    }

    /// What the runtime said meanwhile wins.
    fn take(&self, pods: &[Sought], candidates: &[Candidate]) -> usize {
        let found = assign(pods, candidates);
        let mut known = self.known.lock();
        let mut count = 0;
        for pod in pods {
            let Some(place) = found.get(&pod.uid) else { continue };
            let path = &place.network_namespace;
            let used = known.sandboxes.values().any(|it| it.network_namespace == *path);
            let renewed = known.sandboxes.get(&pod.uid).is_some_and(|it| it.pod == pod.pod);
            if used || renewed || known.ended.contains(path) {
                continue;
            }
            let sandbox = Sandbox {
                pod: pod.pod.clone(),
                container: Str::default(),
                network_namespace: path.clone(),
                addresses: place.addresses.clone(),
            };
            known.sandboxes.insert(pod.uid.clone(), sandbox);
            count += 1;
        }
        count
    }
}

impl Known {
    /// Namespaces that do not stand any more cannot be found either.
    fn forget_vanished(&mut self) {
        self.ended.retain(|path| Path::new(path.as_str()).exists());
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn sandbox(pod: &str, container: &str, path: &str) -> Sandbox {
        Sandbox {
            pod: pod.into(),
            container: container.into(),
            network_namespace: path.into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    fn sought(pod: &str) -> Sought {
        let addresses = vec!["10.0.0.1".parse().unwrap()];
        Sought { uid: "w".into(), pod: pod.into(), addresses, ready: true }
    }

    fn candidate(path: &str) -> Candidate {
        Candidate {
            network_namespace: path.into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            made: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_pod_made_anew_under_its_name_is_another_one() {
        let registry = Registry::default();
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
        let registry = Registry::default();
        registry.started("w".into(), sandbox("p", "c1", "/n1"));
        let (uid, ended) = registry.ended("c1", "").unwrap();
        assert_eq!((uid.as_str(), ended.network_namespace.as_str()), ("w", "/n1"));
        assert!(registry.ended("c1", "/n1").is_none(), "once");
        assert!(registry.has_ended(&"w".into(), &"p".into()));
        assert_eq!(registry.take(&[sought("p")], &[candidate("/n1")]), 0);
        // The pod gets another sandbox.
        registry.started("w".into(), sandbox("p", "c2", "/n2"));
        assert!(!registry.has_ended(&"w".into(), &"p".into()));
    }

    #[test]
    fn what_the_runtime_says_wins_over_what_is_found() {
        let registry = Registry::default();
        registry.started("w".into(), sandbox("p", "c1", "/n1"));
        assert_eq!(registry.take(&[sought("p")], &[candidate("/n2")]), 0);
        registry.started("v".into(), sandbox("q", "c2", "/n3"));
        assert_eq!(registry.take(&[sought("other")], &[candidate("/n3")]), 0, "somebody else's");
        assert_eq!(registry.take(&[sought("other")], &[candidate("/n4")]), 1);
        // Found by a search, ended by its path.
        assert_eq!(registry.ended("c9", "/n4").unwrap().0, "w");
    }

    #[test]
    fn forgets_whoever_is_gone() {
        let registry = Registry::default();
        registry.started("w".into(), sandbox("p", "c1", "/n1"));
        registry.ended("c1", "/n1");
        registry.started("v".into(), sandbox("q", "c2", "/n2"));
        registry.retain(|uid, _| uid == "v");
        assert!(!registry.has_ended(&"w".into(), &"p".into()));
        assert!(registry.sandbox("v", "q").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn searches_seldom() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::new(directory.path());
        assert!(registry.search_due().is_none());
        assert_eq!(registry.search(&[sought("p")]).unwrap(), 0);
        let due = registry.search_due().unwrap();
        tokio::time::sleep_until(due).await;
        assert!(registry.search_due().is_none());
    }
}
