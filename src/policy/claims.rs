//! What tokens say of the bearer of a request, as the RequestAuthentications of a set look for them.

use super::facts::{Claims, Facts};
use super::rule;
use super::set::PolicySet;
use crate::model::AuthorizationPolicy;

/// What the tokens of a request say; `None` for one that brings no token where a RequestAuthentication looks for one.
pub(super) fn of<'a>(set: &'a PolicySet, facts: &Facts<'_>) -> Option<Claims<'a>> {
    let brings = |policy: &&AuthorizationPolicy| rule::any_matches(policy, facts);
    let authentications = set.authenticate.iter().map(|policy| &**policy);
    let mut authentications = authentications.filter(brings);
    authentications.next().map(Claims::Unverified)
}
