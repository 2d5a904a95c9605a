//! What is particular to the two servers that speak this protocol: what to look at when they refuse.

use super::settings::{CaServer, IstioIssuerSettings};
use crate::base::Identity;

impl CaServer {
    /// As in "check that istiod runs".
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Istiod => "istiod",
            Self::Controller => "the controller",
        }
    }

    /// After a refusal of the caller.
    pub(super) fn refused(self, settings: &IstioIssuerSettings, identity: &Identity) -> String {
        let token = settings.token_file.display();
        let (namespace, account) = (&identity.namespace, &identity.service_account);
        match self {
            // istiod answers a bad token and an agent that it does not trust alike, and tells why in its own log only
            // (istio, `security/pkg/server/ca/server.go`). A gateway before it may use the other code.
            Self::Istiod => format!(
                "check that the token in {token} is valid and made for istiod (audience istio-ca), that istiod's \
                 CA_TRUSTED_NODE_ACCOUNTS names this agent's service account, that the cluster is called {} there, \
                 and that a pod with the account {namespace}/{account} runs on this node; istiod's log has the reason",
                settings.cluster,
            ),
            Self::Controller => format!(
                "check that the token in {token} is this agent's, and that a pod with the account \
                 {namespace}/{account} runs on this node"
            ),
        }
    }

    /// When the server cannot be reached.
    pub(super) fn away(self, settings: &IstioIssuerSettings) -> String {
        let (address, root) = (&settings.address, settings.ca_root.display());
        match self {
            Self::Istiod => format!(
                "check the address {address}, that istiod runs, and that {root} holds the root of its certificate"
            ),
            Self::Controller => format!(
                "check that the controller runs and has a CA (kubectl get pods -n isthmus-system), the address \
                 {address}, and that {root} holds the controller's root; certificates that were issued before go on, \
                 new workloads wait"
            ),
        }
    }
}
