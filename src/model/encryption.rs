//! What objects say of the encryption of connections to a service's endpoints, besides the mesh's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::Str;
use crate::tls::Origin;

/// All that is said of connections to one service. Empty for nearly every service.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Encryption {
    /// For clients of these namespaces, the nearest word first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    namespaces: BTreeMap<Str, Vec<Arc<Wish>>>,
    /// For all clients, after that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    everyone: Vec<Common>,
}

/// What holds for all clients but some.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct Common {
    #[serde(flatten)]
    wish: Arc<Wish>,
    /// Namespaces for which a nearer object says everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    except: Vec<Str>,
}

/// What one object says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Wish {
    /// Kind and key of the object, for messages.
    pub by: Str,
    /// On ports that `ports` does not name.
    pub rest: Demand,
    pub ports: BTreeMap<u16, Demand>,
    /// Of connections to subsets of the endpoints, where these have words of their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subsets: BTreeMap<Str, SubsetWish>,
}

/// What an object says of one subset.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SubsetWish {
    pub rest: Demand,
    pub ports: BTreeMap<u16, Demand>,
}

/// How a connection must be encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Demand {
    /// Another object may say it.
    #[default]
    Nothing,
    /// Not besides a tunnel of the mesh (`DISABLE`).
    Plaintext,
    /// By mutual TLS of the mesh: a tunnel is enough (`ISTIO_MUTUAL`).
    Mesh,
    /// By TLS that the application itself ends.
    Tls(Arc<Origin>),
    /// In a way that cannot be carried out, and why.
    Impossible(Str),
}

impl Wish {
    /// On this port.
    fn on(&self, port: u16) -> &Demand {
        self.ports.get(&port).unwrap_or(&self.rest)
    }

    /// On this port of this subset.
    fn on_subset(&self, subset: &str, port: u16) -> Option<&Demand> {
        let subset = self.subsets.get(subset)?;
        Some(subset.ports.get(&port).unwrap_or(&subset.rest))
    }

    /// Whether anything is said at all.
    pub fn is_anything(&self) -> bool {
        self.demands().any(|demand| *demand != Demand::Nothing)
    }

    /// What it says, of whichever port and subset.
    pub fn demands(&self) -> impl Iterator<Item = &Demand> {
        let of_subsets = self.subsets.values().flat_map(|it| it.ports.values().chain([&it.rest]));
        self.ports.values().chain([&self.rest]).chain(of_subsets)
    }

    /// The same, to be changed.
    pub fn demands_mut(&mut self) -> impl Iterator<Item = &mut Demand> {
        let Self { by: _, rest, ports, subsets } = self;
        let of_subsets = subsets.values_mut();
        let of_subsets = of_subsets.flat_map(|it| it.ports.values_mut().chain([&mut it.rest]));
        ports.values_mut().chain([rest]).chain(of_subsets)
    }
}

impl Encryption {
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.everyone.is_empty()
    }

    /// What all objects say, whomever it is for.
    pub fn wishes(&self) -> impl Iterator<Item = &Wish> {
        let own = self.namespaces.values().flatten();
        own.chain(self.everyone.iter().map(|common| &common.wish)).map(|wish| &**wish)
    }

    /// Adds what an object says for clients of one namespace; `None`: for all. Of two that say something for a port, the first one
    /// that was added holds.
    pub fn add(&mut self, clients: Option<&Str>, wish: Arc<Wish>) {
        match clients {
            Some(namespace) => self.namespaces.entry(namespace.clone()).or_default().push(wish),
            None => self.add_except(&[], wish),
        }
    }

    /// Adds what an object says for all clients but those of some namespaces.
    pub fn add_except(&mut self, except: &[Str], wish: Arc<Wish>) {
        self.everyone.push(Common { wish, except: except.to_vec() });
    }

    /// What holds for a client of this namespace that connects to the subset, or to any endpoint, and the object that says it.
    pub fn on(&self, namespace: &str, port: u16, subset: Option<&str>) -> Option<(&Wish, &Demand)> {
        let own = self.namespaces.get(namespace).into_iter().flatten().map(|wish| &**wish);
        let is_for = |it: &&Common| !it.except.iter().any(|other| other == namespace);
        let common = self.everyone.iter().filter(is_for).map(|it| &*it.wish);
        first(own, port, subset).or_else(|| first(common, port, subset))
    }
}

/// The first that says something; what is said of the subset comes before what is said of the whole.
fn first<'a>(
    wishes: impl Iterator<Item = &'a Wish> + Clone,
    port: u16,
    subset: Option<&str>,
) -> Option<(&'a Wish, &'a Demand)> {
    let of_subset = wishes.clone().filter_map(|wish| Some((wish, wish.on_subset(subset?, port)?)));
    let of_whole = wishes.map(|wish| (wish, wish.on(port)));
    of_subset.chain(of_whole).find(|(_, demand)| **demand != Demand::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(by: &str, rest: Demand, ports: &[(u16, Demand)]) -> Arc<Wish> {
        let (ports, subsets) = (ports.iter().cloned().collect(), BTreeMap::new());
        Arc::new(Wish { by: by.into(), rest, ports, subsets })
    }

    #[test]
    fn the_nearest_object_that_says_something_holds() {
        let mut all = Encryption::default();
        let shop: Str = "shop".into();
        assert!(all.is_empty() && all.on("shop", 80, None).is_none());
        let impossible = || Demand::Impossible("x".into());
        all.add(Some(&shop), wish("own", Demand::Nothing, &[(80, Demand::Plaintext)]));
        all.add(None, wish("service", Demand::Mesh, &[(443, impossible())]));
        all.add_except(&["other".into()], wish("root", Demand::Mesh, &[(1, Demand::Plaintext)]));
        all.add(None, wish("policy", impossible(), &[]));
        for (namespace, port, by, demand) in [
            ("shop", 80, "own", Demand::Plaintext),
            ("shop", 443, "service", impossible()),
            ("shop", 1, "service", Demand::Mesh),
            ("other", 80, "service", Demand::Mesh),
        ] {
            let (wish, found) = all.on(namespace, port, None).expect("something is said");
            assert_eq!((wish.by.as_str(), found), (by, &demand), "{namespace} {port}");
        }
    }

    #[test]
    fn what_is_said_of_a_subset_comes_before_what_is_said_of_the_whole() {
        let of = |name: &str, rest: Demand, ports: &[(u16, Demand)]| {
            let ports = ports.iter().cloned().collect();
            (Str::from(name), SubsetWish { rest, ports })
        };
        let with = |wish: Arc<Wish>, subsets: [(Str, SubsetWish); 2]| {
            Arc::new(Wish { subsets: subsets.into(), ..(*wish).clone() })
        };
        let subsets =
            [of("v1", Demand::Plaintext, &[(443, Demand::Mesh)]), of("v2", Demand::Nothing, &[])];
        let mut all = Encryption::default();
        all.add(None, wish("older", Demand::Mesh, &[]));
        all.add(None, with(wish("younger", Demand::Mesh, &[]), subsets.clone()));
        let shop: Str = "shop".into();
        all.add(Some(&shop), wish("own", Demand::Plaintext, &[]));
        for (namespace, port, subset, by, demand) in [
            ("other", 80, Some("v1"), "younger", Demand::Plaintext),
            ("other", 443, Some("v1"), "younger", Demand::Mesh),
            ("other", 80, Some("v2"), "older", Demand::Mesh),
            ("other", 80, Some("v3"), "older", Demand::Mesh),
            ("other", 80, None, "older", Demand::Mesh),
            // The nearest namespace says all.
            ("shop", 443, Some("v1"), "own", Demand::Plaintext),
        ] {
            let (wish, found) = all.on(namespace, port, subset).expect("something is said");
            assert_eq!((wish.by.as_str(), found), (by, &demand), "{namespace} {port} {subset:?}");
        }
    }
}
