//! The wires: nodes on one bridge, and pods behind their node, each with IPv4 and IPv6.
//!
//! ```text
//! lab namespace    bridge lab0    172.30.0.254/24   fd30::fe/64
//! node i           eth0           172.30.0.i/24     fd30::i/64
//!                  10.10.i.1 and fd10:10:i::1 towards its pods
//! pod n of node i  eth0           10.10.i.n/32      fd10:10:i::n/128, everything by way of its node
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

use super::command::feed;
use super::netns::Namespace;

/// The first host number of a pod; those below it are the node's.
const FIRST_POD: u16 = 10;

/// The most pods on a node, and the most nodes: what fits the addresses above.
const MOST: usize = 200;

/// Switches that every namespace gets: no wait for duplicate addresses that nobody else could have.
const COMMON: [(&str, &str); 2] =
    [("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")];

/// Switches of a node: it forwards between its pods and the other nodes.
const FORWARDING: [(&str, &str); 2] = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

/// The nodes and their pods.
pub struct Network {
    own: Namespace,
    nodes: Vec<Node>,
}

/// A namespace that stands for a machine.
pub struct Node {
    pub name: String,
    pub namespace: Namespace,
    /// On the link between the nodes, IPv4 first.
    pub addresses: [IpAddr; 2],
    number: u16,
    pods: u16,
}

/// A namespace that stands for a pod.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub namespace: Namespace,
    /// IPv4 first.
    pub addresses: [IpAddr; 2],
}

impl Network {
    /// The nodes, joined by a bridge in the calling thread's namespace.
    pub fn build(names: &[String]) -> Result<Self> {
        ensure!(names.len() <= MOST, "a lab has at most {MOST} nodes");
        let own = Namespace::current()?;
        ip(
            None,
            "link add lab0 type bridge\nlink set lab0 up\naddress add 172.30.0.254/24 dev lab0\n\
                  address add fd30::fe/64 dev lab0 nodad\n",
        )?;
        let mut nodes = Vec::new();
        for (name, number) in names.iter().zip(1..) {
            nodes.push(Node::build(name, number)?);
        }
        for node in &nodes {
            let others = nodes.iter().filter(|other| other.number != node.number);
            let routes: String = others.map(Node::route).collect();
            ip(Some(&node.name), &routes)?;
        }
        let routes: String = nodes.iter().map(Node::route).collect();
        ip(None, &routes)?;
        Ok(Self { own, nodes })
    }

    /// The namespace that holds the bridge: neither a node nor a pod.
    pub fn own(&self) -> &Namespace {
        &self.own
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Adds a pod's namespace behind a node.
    pub fn attach(&mut self, node: &str, namespace: &str) -> Result<Attachment> {
        let node = self.nodes.iter_mut().find(|candidate| candidate.name == node);
        let node = node.ok_or_else(|| anyhow::anyhow!("there is no node for {namespace}"))?;
        ensure!(usize::from(node.pods) < MOST, "a node has at most {MOST} pods");
        node.attach(namespace)
    }
}

impl Network {
    /// Ends a pod's namespace and its wire, and recreates it under the same name: a new namespace, at the old address
    /// or at another one. A process that holds the old namespace keeps it, without a wire.
    pub fn attach_anew(
        &mut self,
        node: &str,
        old: Attachment,
        same_address: bool,
    ) -> Result<Attachment> {
        let node = self.nodes.iter_mut().find(|candidate| candidate.name == node);
        let node = node.ok_or_else(|| anyhow::anyhow!("there is no node {old:?}"))?;
        let name = old.namespace.name().to_owned();
        let IpAddr::V4(address) = old.addresses[0] else { anyhow::bail!("IPv4 comes first") };
        let host = u16::from(address.octets()[3]);
        ip(Some(&node.name), &format!("link delete pod{host}\n"))?;
        super::command::run("ip", &["netns", "delete", &name])?;
        drop(old);
        match same_address {
            true => node.attach_as(&name, host),
            false => node.attach(&name),
        }
    }
}

impl Node {
    fn build(name: &str, number: u16) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        for (parameter, value) in COMMON.iter().chain(&FORWARDING) {
            namespace.set(parameter, value)?;
        }
        ip(
            None,
            &format!(
                "link add node{number} type veth peer name eth0 netns {name}\n\
                 link set node{number} master lab0 up\n"
            ),
        )?;
        // Virtual service addresses need a route before the node's own connections to them are rewritten.
        ip(
            Some(name),
            &format!(
                "link set eth0 up\naddress add 172.30.0.{number}/24 dev eth0\n\
                 address add fd30::{number:x}/64 dev eth0 nodad\n\
                 address add 10.10.{number}.1/32 dev lo\n\
                 address add fd10:10:{number:x}::1/128 dev lo nodad\n\
                 route add 10.96.0.0/16 via 172.30.0.254\nroute add fd10:96::/64 via fd30::fe\n"
            ),
        )?;
        let addresses = [
            IpAddr::from([172, 30, 0, number as u8]),
            IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, number]),
        ];
        Ok(Self { name: name.to_owned(), namespace, addresses, number, pods: 0 })
    }

    /// The routes by which others reach this node's pods.
    fn route(&self) -> String {
        let number = self.number;
        format!(
            "route add 10.10.{number}.0/24 via 172.30.0.{number}\n\
             route add fd10:10:{number:x}::/64 via fd30::{number:x}\n"
        )
    }

    fn attach(&mut self, name: &str) -> Result<Attachment> {
        let host = FIRST_POD + self.pods;
        self.pods += 1;
        self.attach_as(name, host)
    }

    fn attach_as(&self, name: &str, host: u16) -> Result<Attachment> {
        let number = self.number;
        let v4 = Ipv4Addr::new(10, 10, number as u8, host as u8);
        let v6 = Ipv6Addr::new(0xfd10, 0x10, number, 0, 0, 0, 0, host);
        let namespace = Namespace::create(name)?;
        for (parameter, value) in COMMON {
            namespace.set(parameter, value)?;
        }
        ip(
            Some(&self.name),
            &format!(
                "link add pod{host} type veth peer name eth0 netns {name}\nlink set pod{host} up\n\
                 address add fe80::1/64 dev pod{host} nodad\n\
                 route add {v4}/32 dev pod{host}\nroute add {v6}/128 dev pod{host}\n"
            ),
        )?;
        ip(
            Some(name),
            &format!(
                "link set eth0 up\naddress add {v4}/32 dev eth0\naddress add {v6}/128 dev eth0 nodad\n\
                 route add 10.10.{number}.1/32 dev eth0 scope link\n\
                 route add default via 10.10.{number}.1\n\
                 route add default via fe80::1 dev eth0\n"
            ),
        )?;
        Ok(Attachment { namespace, addresses: [v4.into(), v6.into()] })
    }
}

/// Runs a list of `ip` commands in one process.
fn ip(namespace: Option<&str>, script: &str) -> Result<()> {
    let mut arguments = vec!["-batch", "-"];
    if let Some(name) = namespace {
        arguments.splice(0..0, ["-n", name]);
    }
    feed("ip", &arguments, script).map(drop)
}
