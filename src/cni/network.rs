//! The runtime's input to a plugin: the network's configuration on standard input, the rest in the environment.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::SOCKET;
use super::message::Pod;
use super::outcome::{
    Failure, INVALID_CONFIG, INVALID_ENVIRONMENT, LATEST, UNSUPPORTED_VERSION, VERSIONS,
};

/// The entry of our plugin in the network's configuration, with what the runtime adds to it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Network {
    #[serde(rename = "cniVersion", default = "latest")]
    pub(super) version: String,
    #[serde(rename = "prevResult", default)]
    pub(super) previous: Value,
    #[serde(default = "socket")]
    pub(super) socket: PathBuf,
    /// Pods of these namespaces start even if the agent does not answer.
    #[serde(default)]
    pub(super) exclude_namespaces: Vec<String>,
}

fn latest() -> String {
    LATEST.to_owned()
}

fn socket() -> PathBuf {
    SOCKET.into()
}

impl Network {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Failure> {
        let object: serde_json::Result<Map<String, Value>> = serde_json::from_slice(text);
        let network = object.and_then(|object| serde_json::from_value(Value::Object(object)));
        let network: Self = network.map_err(|error| {
            Failure::new(
                INVALID_CONFIG,
                "the network configuration of plugin isthmus is malformed",
                format!("{error}; check the entry of type isthmus in the node's /etc/cni/net.d"),
            )
        })?;
        if VERSIONS.contains(&network.version.as_str()) {
            return Ok(network);
        }
        Err(Failure::new(
            UNSUPPORTED_VERSION,
            format!("plugin isthmus does not support CNI version {:?}", network.version),
            format!("it supports {}", VERSIONS.join(", ")),
        ))
    }

    /// The addresses of the sandbox in the result of the earlier plugins: `ips[].address`, each with a prefix length.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.previous.get("ips").and_then(Value::as_array);
        let texts = ips.into_iter().flatten().filter_map(|ip| ip.get("address")?.as_str());
        texts.filter_map(|text| text.split('/').next()?.parse().ok()).collect()
    }
}

/// The sandbox that the environment describes; `None` for a container that no kubelet started.
pub(super) fn pod(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Pod>, Failure> {
    let arguments = variable("CNI_ARGS").unwrap_or_default();
    let argument = |name: &str| {
        let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        let found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back();
        found.unwrap_or_default().to_owned()
    };
    let (namespace, name) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME"));
    if namespace.is_empty() || name.is_empty() {
        return Ok(None);
    }
    let container =
        variable("CNI_CONTAINERID").filter(|text| !text.is_empty()).ok_or_else(|| {
            Failure::new(
                INVALID_ENVIRONMENT,
                "CNI_CONTAINERID is missing",
                format!("the container runtime must name the sandbox of pod {namespace}/{name}"),
            )
        })?;
    Ok(Some(Pod {
        uid: argument("K8S_POD_UID"),
        namespace,
        name,
        container,
        network_namespace: variable("CNI_NETNS").unwrap_or_default(),
        addresses: Vec::new(),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        move |name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn the_environment_names_the_pod() {
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;\
                         K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1";
        let variables =
            [("CNI_ARGS", arguments), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/x")];
        let pod = pod(environment(&variables)).unwrap().unwrap();
        assert_eq!(pod.key(), "shop/web-0");
        assert_eq!((pod.uid.as_str(), pod.container.as_str()), ("u1", "c1"));
        assert_eq!(pod.network_namespace, "/run/netns/x");
    }

    #[test]
    fn other_containers_are_no_pods() {
        assert_eq!(pod(environment(&[("CNI_CONTAINERID", "c1")])).unwrap(), None);
        let nameless = [("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b")];
        assert_eq!(pod(environment(&nameless)).unwrap_err().code, INVALID_ENVIRONMENT);
    }

    #[test]
    fn the_configuration_is_read_with_what_came_before() {
        let text = json!({
            "cniVersion": "1.0.0", "name": "lab", "type": "isthmus", "unknown": true,
            "exclude_namespaces": ["kube-system"],
            "prevResult": {"ips": [{"address": "10.244.1.7/24", "interface": 2}, {"address": "fd00::7/64"}, {}]},
        });
        let network = Network::parse(text.to_string().as_bytes()).unwrap();
        assert_eq!(network.socket, PathBuf::from(SOCKET));
        let expected: [IpAddr; 2] = ["10.244.1.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(network.addresses(), expected);
        let old = Network::parse(br#"{"cniVersion": "0.2.0"}"#).unwrap_err();
        assert_eq!(old.code, UNSUPPORTED_VERSION);
        assert_eq!(Network::parse(b"[]").unwrap_err().code, INVALID_CONFIG);
    }

    proptest! {
        #[test]
        fn nothing_that_a_runtime_says_is_a_panic(
            text in proptest::collection::vec(any::<u8>(), 0..200),
            arguments in ".*",
            address in ".*",
        ) {
            _ = Network::parse(&text);
            _ = pod(environment(&[("CNI_ARGS", &arguments)]));
            let text = json!({"prevResult": {"ips": [{"address": address}, address]}}).to_string();
            _ = Network::parse(text.as_bytes()).unwrap().addresses();
        }
    }
}
