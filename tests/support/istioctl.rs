//! What `istioctl ztunnel-config` reads of a config dump: names and types of its fields (Istio 1.28,
//! `istioctl/pkg/writer/ztunnel/configdump`). What it can do without is optional here; other fields are passed over, as
//! Go does. A dump that can be read into this can be read by istioctl.

#![allow(dead_code, reason = "the fields are there to be parsed")]

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    pub workloads: Vec<Workload>,
    pub services: Vec<Service>,
    pub policies: Vec<Policy>,
    pub certificates: Vec<Certificates>,
    pub workload_state: BTreeMap<String, State>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    pub uid: String,
    pub workload_ips: Vec<String>,
    pub waypoint: Option<Gateway>,
    pub protocol: String,
    pub name: String,
    pub namespace: String,
    pub service_account: String,
    pub workload_name: String,
    pub workload_type: String,
    pub canonical_name: String,
    pub canonical_revision: String,
    pub cluster_id: String,
    #[serde(default)]
    pub trust_domain: String,
    pub node: String,
    pub status: String,
    pub hostname: String,
    pub capacity: u32,
    #[serde(default)]
    pub authorization_policies: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Gateway {
    pub destination: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub name: String,
    pub namespace: String,
    pub hostname: String,
    pub vips: Vec<String>,
    pub ports: BTreeMap<String, i64>,
    pub load_balancer: Option<LoadBalancer>,
    pub waypoint: Option<Gateway>,
    pub endpoints: BTreeMap<String, Endpoint>,
    #[serde(default)]
    pub subject_alt_names: Vec<String>,
    pub ip_families: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    pub mode: String,
    pub routing_preferences: Vec<String>,
    pub health_policy: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub workload_uid: String,
    pub service: String,
    #[serde(default)]
    pub address: String,
    pub port: BTreeMap<u16, u16>,
}

#[derive(Debug, Deserialize)]
pub struct Policy {
    pub name: String,
    pub namespace: String,
    pub scope: String,
    pub action: String,
    pub rules: Vec<Vec<Vec<Match>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Match {
    pub namespaces: Vec<Text>,
    pub not_namespaces: Vec<Text>,
    pub principals: Vec<Text>,
    pub not_principals: Vec<Text>,
    pub source_ips: Vec<String>,
    pub not_source_ips: Vec<String>,
    pub destination_ips: Vec<String>,
    pub not_destination_ips: Vec<String>,
    pub destination_ports: Vec<u16>,
    pub not_destination_ports: Vec<u16>,
    pub service_accounts: Vec<ServiceAccount>,
    pub not_service_accounts: Vec<ServiceAccount>,
}

/// Here alone the names begin with capitals.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Text {
    pub exact: String,
    pub suffix: String,
    pub prefix: String,
    pub presence: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    pub namespace: String,
    pub service_account: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    pub identity: String,
    pub state: String,
    pub cert_chain: Vec<Certificate>,
    pub root_certs: Vec<Certificate>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    pub pem: String,
    /// Decimal.
    pub serial_number: String,
    /// RFC 3339, as is the other.
    pub valid_from: String,
    pub expiration_time: String,
}

#[derive(Debug, Deserialize)]
pub struct State {
    #[serde(default)]
    pub state: String,
    pub connections: Connections,
    pub info: Info,
}

#[derive(Debug, Deserialize)]
pub struct Connections {
    pub inbound: Vec<Connection>,
    pub outbound: Vec<Connection>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    pub name: String,
    pub namespace: String,
    pub trust_domain: String,
    pub service_account: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    pub src: String,
    pub original_dst: String,
    pub actual_dst: String,
    pub protocol: String,
}

impl Dump {
    /// The waypoint's name as istioctl finds it: among the services, by namespace and host name.
    pub fn waypoint_name(&self, gateway: &Gateway) -> Option<&str> {
        let is = |service: &&Service| {
            format!("{}/{}", service.namespace, service.hostname) == gateway.destination
        };
        self.services.iter().find(is).map(|service| service.name.as_str())
    }
}
