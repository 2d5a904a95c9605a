//! What is attached where: one structure for every kind of policy.
//!
//! A policy is attached to the mesh, to a namespace, to the workloads that its selector selects, or to the targets that it
//! names. This module finds what holds for a workload, a service or a waypoint. How several policies that hold for one of them
//! merge is up to their kind: AuthorizationPolicies add up, of PeerAuthentications the narrowest counts, of TrafficPolicies the
//! most specific of each filter.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::base::{ObjectKey, Str};
use crate::model::{PolicyTarget, Scope, Service, Waypoint};

/// Policies of one kind, or what was made of them, by what they are attached to. `K` names a target in its namespace.
#[derive(Clone, Debug)]
pub struct Attached<T, K = PolicyTarget> {
    mesh: Vec<T>,
    namespaces: HashMap<Str, Local<T, K>>,
}

/// What the policies of one namespace are attached to.
#[derive(Clone, Debug)]
struct Local<T, K> {
    namespace: Vec<T>,
    /// Policies with a selector, by name.
    selecting: HashMap<Str, T>,
    targets: HashMap<K, Vec<T>>,
}

impl<T, K> Default for Attached<T, K> {
    fn default() -> Self {
        Self { mesh: Vec::new(), namespaces: HashMap::new() }
    }
}

impl<T, K> Default for Local<T, K> {
    fn default() -> Self {
        Self { namespace: Vec::new(), selecting: HashMap::new(), targets: HashMap::new() }
    }
}

impl<T: PartialEq, K: Eq + Hash> PartialEq for Attached<T, K> {
    fn eq(&self, other: &Self) -> bool {
        self.mesh == other.mesh && self.namespaces == other.namespaces
    }
}

impl<T: PartialEq, K: Eq + Hash> PartialEq for Local<T, K> {
    fn eq(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.selecting == other.selecting
            && self.targets == other.targets
    }
}

impl<T> Attached<T> {
    /// Attaches a policy to its scope. What is attached to one thing stays in the order of these calls.
    pub fn attach(&mut self, policy: &ObjectKey, scope: &Scope, it: T)
    where
        T: Clone,
    {
        match scope {
            Scope::Mesh => self.mesh.push(it),
            Scope::Namespace => self.of(&policy.namespace).namespace.push(it),
            Scope::Workloads => {
                self.of(&policy.namespace).selecting.insert(policy.name.clone(), it);
            }
            Scope::Targets(targets) => {
                for target in targets {
                    self.on_target(&policy.namespace, target).push(it.clone());
                }
            }
        }
    }

    /// What names the Service, or the ServiceEntry that it is a host of.
    pub fn to_service(&self, service: &Service) -> &[T] {
        self.to_target(&service.key.namespace, &service.as_target())
    }

    /// What names the waypoint's Gateway. Only policies of its namespace can.
    pub fn to_gateway(&self, waypoint: &ObjectKey) -> &[T] {
        self.to_target(&waypoint.namespace, &PolicyTarget::Gateway(waypoint.name.clone()))
    }

    /// What names the waypoint's class. Only policies of the root namespace can.
    pub fn to_class(&self, waypoint: &Waypoint, root_namespace: &str) -> &[T] {
        self.to_target(root_namespace, &PolicyTarget::GatewayClass(waypoint.class.clone()))
    }
}

impl<T, K: Clone + Eq + Hash> Attached<T, K> {
    /// What is attached to a target of this namespace, to be changed.
    pub fn on_target(&mut self, namespace: &Str, target: &K) -> &mut Vec<T> {
        self.of(namespace).targets.entry(target.clone()).or_default()
    }

    fn of(&mut self, namespace: &Str) -> &mut Local<T, K> {
        self.namespaces.entry(namespace.clone()).or_default()
    }

    /// Whether some policy of the namespace is attached to anything but the mesh.
    pub fn is_from(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// Nothing is attached anywhere.
    pub fn is_empty(&self) -> bool {
        self.mesh.is_empty() && self.namespaces.is_empty()
    }

    pub fn to_mesh(&self) -> &[T] {
        &self.mesh
    }

    pub fn to_namespace(&self, namespace: &str) -> &[T] {
        self.namespaces.get(namespace).map_or(&[], |local| &local.namespace)
    }

    /// The policy of this key, which must have a selector.
    pub fn selecting(&self, policy: &ObjectKey) -> Option<&T> {
        self.namespaces.get(&policy.namespace)?.selecting.get(&policy.name)
    }

    /// What holds for a workload of a namespace that the policies in `selecting` select; the widest first.
    pub fn to_workload<'a>(
        &'a self,
        namespace: &str,
        selecting: &'a [ObjectKey],
    ) -> impl DoubleEndedIterator<Item = &'a T> + use<'a, T, K> {
        let wide = self.mesh.iter().chain(self.to_namespace(namespace));
        wide.chain(selecting.iter().filter_map(|policy| self.selecting(policy)))
    }

    /// What names this target, in the target's namespace.
    pub fn to_target(&self, namespace: &str, target: &K) -> &[T] {
        let local = self.namespaces.get(namespace);
        local.and_then(|local| local.targets.get(target)).map_or(&[], |found| found)
    }

    /// All targets that something is attached to, with their namespaces, in no particular order.
    pub fn targets(&self) -> impl Iterator<Item = (&Str, &K, &[T])> {
        self.namespaces.iter().flat_map(|(namespace, local)| {
            local.targets.iter().map(move |(target, found)| (namespace, target, &found[..]))
        })
    }

    /// The namespaces whose own policies are not the same in `before`; the root namespace where the mesh's are not.
    pub fn differing(&self, before: &Self, root_namespace: &Str) -> BTreeSet<Str>
    where
        T: PartialEq,
    {
        let all = self.namespaces.keys().chain(before.namespaces.keys());
        let differs = |of: &&Str| self.namespaces.get(*of) != before.namespaces.get(*of);
        let mesh = (self.mesh != before.mesh).then_some(root_namespace);
        all.filter(differs).chain(mesh).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::fixture::{key, service, waypoint};

    fn attached(policies: &[(&str, Scope)]) -> Attached<String> {
        let mut attached = Attached::default();
        for (name, scope) in policies {
            attached.attach(&key(name), scope, (*name).to_owned());
        }
        attached
    }

    fn on(target: PolicyTarget) -> Scope {
        Scope::Targets(vec![target])
    }

    #[test]
    fn each_scope_holds_for_its_own() {
        let web = PolicyTarget::Service("web".into());
        let attached = attached(&[
            ("selects", Scope::Workloads),
            ("local", Scope::Namespace),
            ("second", Scope::Namespace),
            ("root/wide", Scope::Mesh),
            ("other/local", Scope::Namespace),
            ("other/selects", Scope::Workloads),
            ("service", on(web.clone())),
            ("other/service", on(web)),
            ("gateway", on(PolicyTarget::Gateway("wp".into()))),
            ("other/gateway", on(PolicyTarget::Gateway("wp".into()))),
            ("class", on(PolicyTarget::GatewayClass("istio-waypoint".into()))),
            ("root/class", on(PolicyTarget::GatewayClass("istio-waypoint".into()))),
        ]);
        let listed = [key("gone"), key("selects")];
        for (namespace, listed, expected) in [
            ("shop", &listed[..], &["root/wide", "local", "second", "selects"][..]),
            ("shop", &[], &["root/wide", "local", "second"]),
            ("else", &[key("other/selects")], &["root/wide", "other/selects"]),
        ] {
            let found: Vec<&String> = attached.to_workload(namespace, listed).collect();
            assert_eq!(found, expected, "{namespace}");
        }
        let mut entry = service("web", "10.96.0.1", &[]);
        assert_eq!(attached.to_service(&entry), ["service"]);
        entry.entry = Some("web".into());
        assert!(attached.to_service(&entry).is_empty(), "a ServiceEntry of the same name");
        let wp = waypoint("wp");
        assert_eq!(attached.to_gateway(&wp.key), ["gateway"]);
        assert_eq!(attached.to_class(&wp, "root"), ["root/class"]);
        assert_eq!(attached.targets().count(), 6);
        assert!(attached.is_from("other") && !attached.is_from("else"));
    }

    #[test]
    fn what_differs_is_found_by_namespace() {
        let scopes = |more: &[(&'static str, Scope)]| {
            let mut all = vec![("local", Scope::Namespace), ("other/selects", Scope::Workloads)];
            all.extend(more.iter().cloned());
            attached(&all)
        };
        let root = Str::from("root");
        let differing = |more: &[(&'static str, Scope)]| -> Vec<String> {
            let (one, two) = (scopes(more), scopes(&[]));
            assert_eq!(one.differing(&two, &root), two.differing(&one, &root));
            one.differing(&two, &root).iter().map(ToString::to_string).collect()
        };
        assert!(differing(&[]).is_empty());
        assert_eq!(differing(&[("more", Scope::Workloads)]), ["shop"]);
        assert_eq!(differing(&[("third/more", Scope::Namespace)]), ["third"]);
        assert_eq!(differing(&[("root/more", Scope::Mesh)]), ["root"]);
    }
}
