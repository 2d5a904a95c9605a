//! SPIFFE identities in Istio's form.

use std::fmt;
use std::str::FromStr;

use super::Str;

/// The identity of a workload: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`
/// (SPIFFE ID specification, Istio "Security / Istio identity").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    pub trust_domain: Str,
    pub namespace: Str,
    pub service_account: Str,
}

/// The text is not an identity in Istio's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
pub struct IdentityError {
    text: String,
}

impl Identity {
    pub fn new(
        trust_domain: impl Into<Str>,
        namespace: impl Into<Str>,
        service_account: impl Into<Str>,
    ) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    /// Without the scheme, as AuthorizationPolicy writes principals.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Identity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || IdentityError { text: text.chars().take(256).collect() };
        let rest = text.strip_prefix("spiffe://").ok_or_else(fail)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [domain, "ns", namespace, "sa", account]
                if [domain, namespace, account].iter().all(|part| is_segment(part)) =>
            {
                Ok(Identity::new(*domain, *namespace, *account))
            }
            _ => Err(fail()),
        }
    }
}

/// The characters of a SPIFFE path segment; neither empty nor a relative segment (SPIFFE ID, 2.2).
fn is_segment(text: &str) -> bool {
    !text.is_empty()
        && text != "."
        && text != ".."
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_what_it_prints() {
        let identity = Identity::new("cluster.local", "bookinfo", "reviews");
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/bookinfo/sa/reviews");
        assert_eq!(identity.to_string().parse(), Ok(identity.clone()));
        assert_eq!(identity.principal(), "cluster.local/ns/bookinfo/sa/reviews");
    }

    #[test]
    fn refuses_other_forms() {
        for text in [
            "",
            "spiffe://",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns//sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/sa/a/ns/b",
            "spiffe://td/ns/../sa/b",
            "http://td/ns/a/sa/b",
            "spiffe://td/ns/a b/sa/c",
            "spiffe://td/ns/a%2f/sa/c",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_round_trips(text in ".{0,80}") {
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), text);
            }
        }
    }
}
