//! The pod in which the agent runs, if it runs in one.

/// The namespace of the agent's pod, given by its manifest.
const POD_NAMESPACE: &str = "POD_NAMESPACE";
/// The default namespace of the installation.
const INSTALL_NAMESPACE: &str = "isthmus-system";

/// The namespace that the agent runs in.
pub(super) fn namespace() -> String {
    let told = std::env::var(POD_NAMESPACE).ok().filter(|name| !name.is_empty());
    told.unwrap_or_else(|| INSTALL_NAMESPACE.to_owned())
}

/// Whether a kubelet runs this agent.
pub(super) fn is_in_pod() -> bool {
    std::env::var_os(POD_NAMESPACE).is_some()
}
