//! Virtual service addresses without a mesh: given out as an API server does, resolvable through a hosts
//! file, and led to the pods by destination NAT on each node, as kube-proxy does.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::command::feed_command;
use super::manifests::{Key, Manifests, child};
use super::network::Node;
use super::process::command;

/// The first host number of a virtual address.
const FIRST: u16 = 10;

/// A Service as the nodes' NAT needs it.
#[derive(Clone, Debug)]
pub struct Service {
    pub key: Key,
    /// IPv4 first.
    pub addresses: [IpAddr; 2],
    /// Service port and target port.
    ports: Vec<(u16, u16)>,
    /// Addresses of the pods behind it, both families.
    endpoints: Vec<IpAddr>,
}

/// Gives every Service its virtual addresses and writes them into the manifests.
pub fn assign_addresses(manifests: &mut Manifests) -> Result<()> {
    let keys: Vec<Key> =
        manifests.of_kind("Service").into_iter().map(|(key, _)| key.clone()).collect();
    for (key, host) in keys.iter().zip(FIRST..) {
        let [high, low] = host.to_be_bytes();
        let v4 = Ipv4Addr::new(10, 96, high, low);
        let v6 = Ipv6Addr::new(0xfd10, 0x96, 0, 0, 0, 0, 0, host);
        manifests.change(key, |service| {
            let spec = child(service, "spec")?;
            spec["clusterIP"] = json!(v4);
            spec["clusterIPs"] = json!([v4, v6]);
            Ok(())
        })?;
    }
    Ok(())
}

/// The Services of the manifests, with the pods that they select.
pub fn collect(manifests: &Manifests) -> Result<Vec<Service>> {
    manifests
        .of_kind("Service")
        .into_iter()
        .map(|(key, object)| Service::of(key, object, manifests))
        .collect::<Result<_>>()
        .context("read the Services")
}

/// A hosts file in which each Service has the names that a cluster's DNS gives it. Short names are those of
/// one application namespace; a name of two namespaces means the first.
pub fn hosts(services: &[Service]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for service in services {
        let Key { name, namespace, .. } = &service.key;
        let address = service.addresses[0];
        let _ = writeln!(
            text,
            "{address} {name}.{namespace}.svc.cluster.local {name}.{namespace}.svc \
             {name}.{namespace} {name}"
        );
    }
    text
}

/// Installs the NAT of all Services on a node, in place of what was there.
pub fn install(node: &Node, services: &[Service]) -> Result<()> {
    let mut nft = command(&node.namespace, "nft");
    feed_command(&mut nft, "nft", &["-f", "-"], &script(services))
        .with_context(|| format!("install the Services on {}", node.name))
        .map(drop)
}

fn script(services: &[Service]) -> String {
    let rules: String = services.iter().map(Service::rules).collect();
    format!(
        "table inet lab-services\ndelete table inet lab-services\ntable inet lab-services {{\n\
         chain services {{\n{rules}}}\n\
         chain prerouting {{\ntype nat hook prerouting priority dstnat\njump services\n}}\n\
         chain output {{\ntype nat hook output priority -100\njump services\n}}\n\
         chain forward {{\ntype filter hook forward priority filter\n\
         ip daddr 10.96.0.0/16 reject\nip6 daddr fd10:96::/64 reject\n}}\n}}\n"
    )
}

impl Service {
    fn of(key: &Key, object: &Value, manifests: &Manifests) -> Result<Self> {
        let addresses: Vec<IpAddr> = serde_json::from_value(object["spec"]["clusterIPs"].clone())
            .with_context(|| format!("{key}: clusterIPs"))?;
        let ports = object["spec"]["ports"].as_array().into_iter().flatten();
        let ports = ports.filter_map(|port| {
            let number = u16::try_from(port["port"].as_u64()?).ok()?;
            let target = port["targetPort"].as_u64().and_then(|port| u16::try_from(port).ok());
            Some((number, target.unwrap_or(number)))
        });
        Ok(Self {
            key: key.clone(),
            addresses: addresses.try_into().map_err(|_| anyhow!("{key}: two clusterIPs"))?,
            ports: ports.collect(),
            endpoints: endpoints(key, &object["spec"]["selector"], manifests),
        })
    }

    /// A rule for each port and family that has endpoints; without one the node rejects.
    fn rules(&self) -> String {
        let mut rules = String::new();
        for (address, family) in self.addresses.iter().zip(["ip", "ip6"]) {
            let pods: Vec<&IpAddr> =
                self.endpoints.iter().filter(|pod| pod.is_ipv4() == address.is_ipv4()).collect();
            if pods.is_empty() {
                continue;
            }
            for (port, target) in &self.ports {
                let choices: Vec<String> = pods
                    .iter()
                    .enumerate()
                    .map(|(index, pod)| format!("{index} : {pod} . {target}"))
                    .collect();
                let _ = writeln!(
                    rules,
                    "{family} daddr {address} tcp dport {port} dnat {family} to \
                     numgen random mod {} map {{ {} }}",
                    pods.len(),
                    choices.join(", ")
                );
            }
        }
        rules
    }
}

fn endpoints(key: &Key, selector: &Value, manifests: &Manifests) -> Vec<IpAddr> {
    let Some(selector) = selector.as_object() else {
        return Vec::new();
    };
    manifests
        .of_kind("Pod")
        .into_iter()
        .filter(|(pod, _)| pod.namespace == key.namespace)
        .filter(|(_, pod)| {
            selector.iter().all(|(name, value)| &pod["metadata"]["labels"][name] == value)
        })
        .filter_map(|(_, pod)| pod["status"]["podIPs"].as_array())
        .flatten()
        .filter_map(|entry| entry["ip"].as_str()?.parse().ok())
        .collect()
}
