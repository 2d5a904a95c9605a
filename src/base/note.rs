//! Results of policies that do not enforce: AUDIT and dry-run.

use std::fmt;

use super::ObjectKey;

/// The result of a policy that was evaluated but not enforced: `action: AUDIT`, or the annotation `istio.io/dry-run`
/// (Istio, "Authorization policy dry-run").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNote {
    pub policy: ObjectKey,
    pub effect: PolicyEffect,
}

/// What the policy did, or would have done if it were enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyEffect {
    /// An AUDIT policy matched.
    Audit,
    /// A dry-run ALLOW policy matched.
    WouldAllow,
    /// A dry-run DENY policy matched; or a dry-run ALLOW policy did not, and no other ALLOW policy did either.
    WouldDeny,
    /// A rate limit in shadow mode was reached.
    WouldLimit,
    /// A concurrency limit in shadow mode was reached.
    WouldShed,
    /// A dry-run CUSTOM policy matched: its provider would have been asked.
    WouldAsk,
}

impl PolicyEffect {
    /// As the log and the metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyEffect::Audit => "audit",
            PolicyEffect::WouldAllow => "would_allow",
            PolicyEffect::WouldDeny => "would_deny",
            PolicyEffect::WouldLimit => "would_limit",
            PolicyEffect::WouldShed => "would_shed",
            PolicyEffect::WouldAsk => "would_ask",
        }
    }
}

/// `namespace/name=would_deny`
impl fmt::Display for PolicyNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.policy, self.effect.as_str())
    }
}
