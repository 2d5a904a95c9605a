//! Fuzz targets of what the container runtime sends the plugin, and of the messages between plugin and agent.

use super::message::{Answer, Question, line};
use super::network::{Network, pod};

/// The standard input of the plugin.
pub fn config(bytes: &[u8]) {
    let Ok(network) = Network::parse(bytes) else { return };
    assert!(super::outcome::VERSIONS.contains(&network.version.as_str()));
    _ = network.addresses();
}

/// `CNI_ARGS`.
pub fn arguments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let variable = |name: &str| match name {
        "CNI_ARGS" => Some(text.clone()),
        "CNI_CONTAINERID" => Some("container".to_owned()),
        _ => None,
    };
    let Ok(Some(pod)) = pod(variable) else { return };
    assert!(!pod.namespace.is_empty() && !pod.name.is_empty());
    assert!(!format!("{}{}{}", pod.namespace, pod.name, pod.uid).contains(';'));
}

/// A line of either side.
pub fn message(bytes: &[u8]) {
    if let Ok(question) = serde_json::from_slice::<Question>(bytes) {
        let written = line(&question).unwrap_or_default();
        assert!(written.iter().filter(|byte| **byte == b'\n').count() == 1);
        assert_eq!(serde_json::from_slice(&written).ok(), Some(question));
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(bytes) {
        let written = line(&answer).unwrap_or_default();
        assert!(written.iter().filter(|byte| **byte == b'\n').count() == 1);
        assert_eq!(serde_json::from_slice(&written).ok(), Some(answer));
    }
}
