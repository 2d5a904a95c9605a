//! Whom a source of a rule names, apart from any connection: for whoever looks for rules that name nobody.

use super::identity;
use crate::base::Identity;
use crate::model::{Source, Values};

/// Whether the fields about identities name anybody in particular.
pub fn names_somebody(source: &Source) -> bool {
    let Source { principals, namespaces, service_accounts, trust_domains, .. } = source;
    let texts = [principals, namespaces, trust_domains];
    texts.into_iter().any(|it| !it.any.is_empty()) || !service_accounts.any.is_empty()
}

/// Whether the fields about identities admit this one.
pub fn names(source: &Source, who: &Identity) -> bool {
    fits(&source.principals, who, identity::principal_matches)
        && fits(&source.namespaces, who, identity::namespace_matches)
        && fits(&source.service_accounts, who, identity::account_matches)
        && fits(&source.trust_domains, who, identity::trust_domain_matches)
}

fn fits<T>(values: &Values<T>, who: &Identity, matches: fn(&T, &Identity) -> bool) -> bool {
    (values.any.is_empty() || values.any.iter().any(|value| matches(value, who)))
        && !values.none.iter().any(|value| matches(value, who))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectKey;
    use crate::model::StringMatch;

    #[test]
    fn every_field_must_admit_the_identity() {
        let who = Identity::new("cluster.local", "shop", "web");
        let exact = |text: &str| vec![StringMatch::Exact(text.into())];
        let principals = Values { any: exact("cluster.local/ns/shop/sa/web"), none: Vec::new() };
        let by_principal = Source { principals, ..Source::default() };
        assert!(names_somebody(&by_principal) && names(&by_principal, &who));
        let namespaces = Values { any: exact("other"), none: Vec::new() };
        assert!(!names(&Source { namespaces, ..by_principal.clone() }, &who));
        let service_accounts =
            Values { any: Vec::new(), none: vec![ObjectKey::new("shop", "web")] };
        let excluded = Source { service_accounts, ..Source::default() };
        assert!(!names_somebody(&excluded) && !names(&excluded, &who));
        assert!(names(&Source::default(), &who));
    }
}
