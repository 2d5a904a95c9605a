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
    pub fn on(&self, port: u16) -> &Demand {
        self.ports.get(&port).unwrap_or(&self.rest)
    }

    /// Whether anything is said at all.
    pub fn is_anything(&self) -> bool {
        self.demands().any(|demand| *demand != Demand::Nothing)
    }

    /// What it says, of whichever port.
    pub fn demands(&self) -> impl Iterator<Item = &Demand> {
        self.ports.values().chain([&self.rest])
    }
}

impl Encryption {
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.everyone.is_empty()
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

    /// What holds for a client of this namespace, and the object that says it.
    pub fn on(&self, namespace: &str, port: u16) -> Option<(&Wish, &Demand)> {
        let own = self.namespaces.get(namespace).into_iter().flatten();
        let is_for = |it: &&Common| !it.except.iter().any(|other| other == namespace);
        let common = self.everyone.iter().filter(is_for).map(|it| &it.wish);
        let said = own.chain(common).map(|wish| (&**wish, wish.on(port)));
        said.into_iter().find(|(_, demand)| **demand != Demand::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(by: &str, rest: Demand, ports: &[(u16, Demand)]) -> Arc<Wish> {
        Arc::new(Wish { by: by.into(), rest, ports: ports.iter().cloned().collect() })
    }

    #[test]
    fn the_nearest_object_that_says_something_holds() {
        let mut all = Encryption::default();
        let shop: Str = "shop".into();
        assert!(all.is_empty() && all.on("shop", 80).is_none());
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
            let (wish, found) = all.on(namespace, port).expect("something is said");
            assert_eq!((wish.by.as_str(), found), (by, &demand), "{namespace} {port}");
        }
    }
}
