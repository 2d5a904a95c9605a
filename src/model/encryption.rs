//! What objects want encrypted on the way to a service, and the mesh does not encrypt itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::Str;

/// How long the list of objects may get that are named for one wish, in bytes: whoever makes many is not to fill the log.
const LONGEST: usize = 200;

/// Stands for the clients of every namespace.
const EVERYBODY: &str = "*";

/// All that is wanted of connections to one service, by the namespace of the clients. Empty for nearly every service.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Encryption(BTreeMap<Str, Arc<Wish>>);

/// What one object, or several of one namespace, want.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Wish {
    /// Kind and key of the object, or of the first of them, for messages.
    pub by: Str,
    /// On ports that `ports` does not name.
    pub rest: Demand,
    pub ports: BTreeMap<u16, Demand>,
}

/// How a connection must be encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Demand {
    #[default]
    Nothing,
    /// By mutual TLS of the mesh: a tunnel is enough.
    Mesh,
    /// By TLS that the application itself ends.
    Application,
}

impl Wish {
    /// On this port.
    pub fn on(&self, port: u16) -> Demand {
        self.ports.get(&port).copied().unwrap_or(self.rest)
    }

    /// Whether anything is wanted at all.
    pub fn is_anything(&self) -> bool {
        let all = self.ports.values().chain([&self.rest]);
        all.into_iter().any(|demand| *demand != Demand::Nothing)
    }

    /// With what another object wants besides.
    pub fn and(&self, other: &Wish) -> Wish {
        let ports = self.ports.keys().chain(other.ports.keys());
        let known = self.by.contains(other.by.as_str());
        let by = match known || self.by.len() + other.by.len() > LONGEST {
            true => self.by.clone(),
            false => arcstr::format!("{}, {}", self.by, other.by),
        };
        Wish {
            by,
            rest: self.rest.max(other.rest),
            ports: ports.map(|port| (*port, self.on(*port).max(other.on(*port)))).collect(),
        }
    }
}

impl Encryption {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a wish for clients of one namespace; `None`: of all.
    pub fn add(&mut self, clients: Option<&Str>, wish: Arc<Wish>) {
        let clients = clients.cloned().unwrap_or_else(|| EVERYBODY.into());
        let wish = self.0.get(&clients).map_or(wish.clone(), |known| Arc::new(known.and(&wish)));
        self.0.insert(clients, wish);
    }

    /// The wishes that hold for a client of this namespace.
    pub fn of_client(&self, namespace: &str) -> impl Iterator<Item = &Wish> {
        let found = [self.0.get(EVERYBODY), self.0.get(namespace)];
        found.into_iter().flatten().map(|wish| &**wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(by: &str, rest: Demand, ports: &[(u16, Demand)]) -> Arc<Wish> {
        Arc::new(Wish { by: by.into(), rest, ports: ports.iter().copied().collect() })
    }

    #[test]
    fn wishes_of_one_namespace_are_one_and_never_weaker() {
        let mut all = Encryption::default();
        let shop: Str = "shop".into();
        all.add(Some(&shop), wish("one", Demand::Mesh, &[(80, Demand::Nothing)]));
        all.add(Some(&shop), wish("two", Demand::Nothing, &[(443, Demand::Application)]));
        let of = |namespace: &str| all.of_client(namespace).cloned().collect::<Vec<_>>();
        assert_eq!(of("other"), []);
        let [both] = &of("shop")[..] else { panic!("{all:?}") };
        assert_eq!(both.by, "one, two");
        for (port, demand) in [(80, Demand::Nothing), (443, Demand::Application), (1, Demand::Mesh)]
        {
            assert_eq!(both.on(port), demand, "{port}");
        }
        all.add(None, wish("three", Demand::Application, &[]));
        assert_eq!(all.of_client("shop").count(), 2);
        assert_eq!(all.of_client("other").count(), 1);
    }
}
