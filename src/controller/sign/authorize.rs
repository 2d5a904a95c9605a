//! Authenticates the caller, from the API server's review of a token.

use std::fmt;

use k8s_openapi::api::authentication::v1::TokenReviewStatus;

use super::refusal::{Kind, Refusal};
use crate::base::Str;

/// The audience of tokens for the CA, as istiod's; a token for another server must not get certificates here.
pub(super) const AUDIENCE: &str = "istio-ca";
/// Claims of a token that is bound to a pod (KEP-4193; Kubernetes 1.30).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The longest untrusted text that is repeated in messages.
const MAX_QUOTED: usize = 256;

/// An agent, authenticated by the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) pod: Str,
    pub(super) node: Str,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the agent {} of node {}", self.pod, self.node)
    }
}

/// The caller of a reviewed token. `agent` is the agents' user name: `system:serviceaccount:<namespace>:<name>`.
pub(super) fn caller(status: &TokenReviewStatus, agent: &str) -> Result<Caller, Refusal> {
    if status.authenticated != Some(true) {
        let why = status.error.as_deref().unwrap_or("it gives no reason");
        return Err(Refusal::new(
            Kind::Token,
            format!(
                "the API server does not accept the token: {}; check that it is of this cluster, made for the \
                 audience {AUDIENCE}, and not expired",
                quoted(why)
            ),
        ));
    }
    // A server that does not support audiences would omit them, and accept any token (TokenReview, `status.audiences`).
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(Refusal::new(
            Kind::Token,
            format!(
                "the token is not made for the audience {AUDIENCE}; check the agent's projected volume"
            ),
        ));
    }
    let user = status.user.as_ref();
    let name = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
    if name != agent {
        return Err(Refusal::new(
            Kind::NotAgent,
            format!(
                "{} is not the agents' service account, {agent}: only agents are given certificates; check \
                 controller.namespace and controller.agent_account",
                quoted(name)
            ),
        ));
    }
    let claim = |key: &str| {
        let values = user.and_then(|user| user.extra.as_ref()?.get(key));
        match values.map(Vec::as_slice) {
            Some([value]) if !value.is_empty() => Ok(Str::from(value.as_str())),
            _ => Err(Refusal::new(
                Kind::NotAgent,
                format!(
                    "the token does not say {key}: it must be bound to the agent's pod (a projected volume), on \
                     Kubernetes 1.30 or later"
                ),
            )),
        }
    };
    Ok(Caller { pod: claim(POD_NAME)?, node: claim(NODE_NAME)? })
}

/// An untrusted text, made printable.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(MAX_QUOTED).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    const AGENT: &str = "system:serviceaccount:isthmus-system:isthmus";

    fn good() -> TokenReviewStatus {
        let extra = [(POD_NAME, "isthmus-x"), (NODE_NAME, "node1")];
        let extra = extra.map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![AUDIENCE.to_owned()]),
            error: None,
            user: Some(UserInfo {
                username: Some(AGENT.to_owned()),
                extra: Some(extra.into()),
                ..UserInfo::default()
            }),
        }
    }

    fn refusal(change: impl FnOnce(&mut TokenReviewStatus)) -> Refusal {
        let mut status = good();
        change(&mut status);
        caller(&status, AGENT).unwrap_err()
    }

    fn user(status: &mut TokenReviewStatus) -> &mut UserInfo {
        status.user.as_mut().unwrap()
    }

    #[test]
    fn an_agent_is_known_by_its_pod_and_node() {
        let found = caller(&good(), AGENT).unwrap();
        assert_eq!(found, Caller { pod: "isthmus-x".into(), node: "node1".into() });
    }

    #[test]
    fn what_is_not_said_clearly_is_refused() {
        let kinds = [
            refusal(|it| it.authenticated = None),
            refusal(|it| it.authenticated = Some(false)),
            refusal(|it| it.audiences = None),
            refusal(|it| it.audiences = Some(vec!["https://kubernetes.default.svc".to_owned()])),
            refusal(|it| it.user = None),
            refusal(|it| user(it).username = Some("system:serviceaccount:shop:isthmus".to_owned())),
            refusal(|it| user(it).username = None),
            refusal(|it| user(it).extra = None),
            refusal(|it| drop(user(it).extra.as_mut().unwrap().remove(NODE_NAME))),
            refusal(|it| user(it).extra.as_mut().unwrap().get_mut(NODE_NAME).unwrap().clear()),
            refusal(|it| {
                let nodes = user(it).extra.as_mut().unwrap().get_mut(NODE_NAME).unwrap();
                nodes.push("node2".to_owned());
            }),
        ]
        .map(|it| it.kind);
        use Kind::{NotAgent, Token};
        let expected = [
            Token, Token, Token, Token, NotAgent, NotAgent, NotAgent, NotAgent, NotAgent, NotAgent,
            NotAgent,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn what_others_wrote_is_printed_short_and_on_one_line() {
        let long = refusal(|it| {
            it.authenticated = Some(false);
            it.error = Some("a\nb".repeat(500));
        });
        assert!(!long.message.contains('\n') && long.message.len() < 800, "{}", long.message);
    }
}
