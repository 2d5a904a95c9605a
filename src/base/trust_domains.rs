//! The trust domain of the mesh and its other names.

use std::sync::Arc;

use super::{Identity, Str};

/// The trust domain and its aliases (Istio, `MeshConfig.trustDomainAliases`): several names of one mesh, which coexist
/// during a rename. An alias grants no trust by itself: a peer's certificate chain must be trusted all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomains {
    own: Str,
    aliases: Arc<[Str]>,
}

impl TrustDomains {
    pub fn new(own: Str, aliases: &[Str]) -> Self {
        let aliases = aliases.iter().filter(|alias| **alias != own).cloned().collect();
        Self { own, aliases }
    }

    /// The name in the identities that Isthmus issues.
    pub fn own(&self) -> &Str {
        &self.own
    }

    /// All names, the primary one first.
    pub fn names(&self) -> impl Iterator<Item = &Str> {
        std::iter::once(&self.own).chain(self.aliases.iter())
    }

    pub fn has_aliases(&self) -> bool {
        !self.aliases.is_empty()
    }

    /// Whether `name` is a name of this mesh.
    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|known| known.as_str() == name)
    }

    /// Whether both are the same account, under any names of this mesh.
    pub fn are_the_same(&self, one: &Identity, other: &Identity) -> bool {
        one.namespace == other.namespace
            && one.service_account == other.service_account
            && (one.trust_domain == other.trust_domain
                || (self.contains(&one.trust_domain) && self.contains(&other.trust_domain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_mesh_mean_the_same() {
        let domains = TrustDomains::new("new".into(), &["old".into(), "new".into()]);
        assert_eq!(domains.names().collect::<Vec<_>>(), ["new", "old"]);
        let who = |domain: &str, account: &str| Identity::new(domain, "shop", account);
        assert!(domains.are_the_same(&who("new", "web"), &who("old", "web")));
        assert!(domains.are_the_same(&who("else", "web"), &who("else", "web")));
        assert!(!domains.are_the_same(&who("new", "web"), &who("old", "db")));
        assert!(!domains.are_the_same(&who("new", "web"), &who("else", "web")));
        assert!(domains.contains("old") && !domains.contains("ol") && domains.has_aliases());
    }
}
