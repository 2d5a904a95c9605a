//! The trust domain's other names in policies (Istio, `trustdomain.Bundle`): what is written with one name of the mesh
//! means all of them, in the positive fields and in the negative ones.

use crate::base::{Str, TrustDomains};
use crate::model::{Condition, ConditionKey, Rule, StringMatch, Values};

/// What stands between the trust domain and the rest of a principal.
const NAMESPACE: &str = "/ns/";

/// Adds the other names to all values that hold one. Service accounts are compared without trust domain anyway.
pub fn expand(rules: &mut [Rule], domains: &TrustDomains) {
    if !domains.has_aliases() {
        return;
    }
    for rule in rules {
        for source in &mut rule.from {
            each(&mut source.principals, domains, principal);
            each(&mut source.trust_domains, domains, trust_domain);
        }
        for condition in &mut rule.when {
            if let Condition::Text { key: ConditionKey::SourcePrincipal, values } = condition {
                each(values, domains, principal);
            }
        }
    }
}

fn each(
    values: &mut Values<StringMatch>,
    domains: &TrustDomains,
    other_names: fn(&StringMatch, &TrustDomains) -> Vec<StringMatch>,
) {
    for list in [&mut values.any, &mut values.none] {
        for index in 0..list.len() {
            for value in other_names(&list[index], domains) {
                if !list.contains(&value) {
                    list.push(value);
                }
            }
        }
    }
}

/// `old*` and `*.old` count when they fit one of our names.
fn trust_domain(value: &StringMatch, domains: &TrustDomains) -> Vec<StringMatch> {
    let fits = |name: &Str| match value {
        StringMatch::Exact(text) => text == name,
        StringMatch::Prefix(prefix) => name.starts_with(prefix.as_str()),
        StringMatch::Suffix(suffix) => name.ends_with(suffix.as_str()),
        StringMatch::Present | StringMatch::Template(_) => false,
    };
    if !domains.names().any(fits) {
        return Vec::new();
    }
    domains.names().cloned().map(StringMatch::Exact).collect()
}

/// The trust domain may be open at its end (`old*`, and nothing behind it) or at its start (`*old/ns/...`).
fn principal(value: &StringMatch, domains: &TrustDomains) -> Vec<StringMatch> {
    let named = |name: &str, rest: &str| Str::from(format!("{name}{rest}"));
    match value {
        StringMatch::Exact(text) => {
            let Some((name, rest)) = split(text) else { return Vec::new() };
            let known = domains.contains(name);
            names_if(known, domains).map(|it| StringMatch::Exact(named(it, rest))).collect()
        }
        StringMatch::Prefix(prefix) => {
            let (known, rest) = match prefix.find('/') {
                Some(at) => (domains.contains(&prefix[..at]), &prefix[at..]),
                None => (domains.names().any(|name| name.starts_with(prefix.as_str())), "/"),
            };
            names_if(known, domains).map(|it| StringMatch::Prefix(named(it, rest))).collect()
        }
        StringMatch::Suffix(suffix) => {
            // Without a part of the trust domain it fits all of them as it is.
            let Some((end, rest)) = split(suffix).filter(|(end, _)| !end.is_empty()) else {
                return Vec::new();
            };
            let known = domains.names().any(|name| name.ends_with(end));
            names_if(known, domains).map(|it| StringMatch::Exact(named(it, rest))).collect()
        }
        StringMatch::Present | StringMatch::Template(_) => Vec::new(),
    }
}

/// All names, or none.
fn names_if(known: bool, domains: &TrustDomains) -> impl Iterator<Item = &Str> {
    domains.names().filter(move |_| known)
}

/// The trust domain, and the rest with its slash.
fn split(principal: &str) -> Option<(&str, &str)> {
    principal.find(NAMESPACE).map(|at| principal.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::values::{principal as read_principal, text};

    fn expanded(
        value: &str,
        read: fn(&str) -> Result<StringMatch, String>,
        other_names: fn(&StringMatch, &TrustDomains) -> Vec<StringMatch>,
    ) -> Vec<String> {
        let domains = TrustDomains::new("new.mesh".into(), &["old.mesh".into()]);
        let mut values = Values { any: vec![read(value).unwrap()], none: Vec::new() };
        each(&mut values, &domains, other_names);
        let written = values.any.iter().map(|value| match value {
            StringMatch::Exact(text) => text.to_string(),
            StringMatch::Prefix(text) => format!("{text}*"),
            StringMatch::Suffix(text) => format!("*{text}"),
            other => format!("{other:?}"),
        });
        written.collect()
    }

    #[test]
    fn principals_of_one_name_mean_all() {
        let principals = |value: &str| expanded(value, read_principal, principal);
        let all = |rest: &str, open: &str| {
            vec![format!("new.mesh{rest}{open}"), format!("old.mesh{rest}{open}")]
        };
        let sorted = |mut list: Vec<String>| {
            list.sort();
            list
        };
        for name in ["new.mesh", "old.mesh", "spiffe://old.mesh"] {
            let web = principals(&format!("{name}/ns/shop/sa/web"));
            assert_eq!(sorted(web), all("/ns/shop/sa/web", ""));
            assert_eq!(sorted(principals(&format!("{name}/ns/shop/*"))), all("/ns/shop/", "*"));
            assert_eq!(sorted(principals(&format!("{name}/*"))), all("/", "*"));
        }
        assert_eq!(principals("old*"), ["old*", "new.mesh/*", "old.mesh/*"]);
        let open =
            ["*ld.mesh/ns/shop/sa/web", "new.mesh/ns/shop/sa/web", "old.mesh/ns/shop/sa/web"];
        assert_eq!(principals("*ld.mesh/ns/shop/sa/web"), open);
        for unchanged in ["else/ns/shop/sa/web", "else/*", "*/sa/web", "*/ns/shop/sa/web", "el*"] {
            assert_eq!(principals(unchanged), [unchanged]);
        }
        assert_eq!(principals("*"), ["Present"]);
    }

    #[test]
    fn trust_domains_of_one_name_mean_all() {
        let domains = |value: &str| expanded(value, text, trust_domain);
        assert_eq!(domains("old.mesh"), ["old.mesh", "new.mesh"]);
        assert_eq!(domains("old*"), ["old*", "new.mesh", "old.mesh"]);
        assert_eq!(domains("*.mesh"), ["*.mesh", "new.mesh", "old.mesh"]);
        assert_eq!(domains("else"), ["else"]);
    }
}
