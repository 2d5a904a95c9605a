//! VirtualService (Istio `networking.istio.io/v1`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::destination_rule::PortSelector;
use super::{HttpRetry, Resource};
use crate::filter::{
    Percent, StringMatch, WrittenCorsPolicy, WrittenDirectResponse, WrittenFault, WrittenHeaders,
    WrittenRedirect, WrittenRewrite,
};

pub type VirtualService = Resource<CheckedVirtualService>;

/// A spec whose texts can be matched: with one that cannot, the last good version stays in force.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "VirtualServiceSpec")]
pub struct CheckedVirtualService(pub VirtualServiceSpec);

impl TryFrom<VirtualServiceSpec> for CheckedVirtualService {
    type Error = String;

    fn try_from(spec: VirtualServiceSpec) -> Result<Self, String> {
        // What is for gateways alone is nobody's business here.
        if spec.gateways.is_empty() || spec.gateways.iter().any(|it| it == "mesh") {
            for (index, rule) in spec.http.iter().enumerate() {
                for (number, matched) in rule.matches.iter().enumerate() {
                    let place = |why| format!("http[{index}].match[{number}].{why}");
                    matched.check().map_err(place)?;
                }
            }
        }
        Ok(Self(spec))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualServiceSpec {
    /// Empty for one that others delegate to.
    #[serde(default)]
    pub hosts: Vec<String>,
    #[serde(default)]
    pub gateways: Vec<String>,
    #[serde(default)]
    pub http: Vec<VirtualHttpRoute>,
    #[serde(default)]
    pub tls: Vec<VirtualTlsRoute>,
    #[serde(default)]
    pub tcp: Vec<VirtualTcpRoute>,
    #[serde(default)]
    pub export_to: Vec<String>,
}

/// `HTTPRoute`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualHttpRoute {
    #[serde(default)]
    pub name: String,
    #[serde(default, rename = "match")]
    pub matches: Vec<VirtualHttpMatch>,
    #[serde(default)]
    pub route: Vec<VirtualHttpDestination>,
    #[serde(default)]
    pub redirect: Option<WrittenRedirect>,
    #[serde(default)]
    pub direct_response: Option<WrittenDirectResponse>,
    #[serde(default)]
    pub delegate: Option<VirtualDelegate>,
    #[serde(default)]
    pub rewrite: Option<WrittenRewrite>,
    #[serde(default)]
    pub timeout: Option<String>,
    #[serde(default)]
    pub retries: Option<HttpRetry>,
    #[serde(default)]
    pub fault: Option<WrittenFault>,
    #[serde(default)]
    pub mirror: Option<VirtualDestination>,
    #[serde(default)]
    pub mirrors: Vec<VirtualMirror>,
    /// The older form of `mirrorPercentage`.
    #[serde(default)]
    pub mirror_percent: Option<u32>,
    #[serde(default)]
    pub mirror_percentage: Option<Percent>,
    #[serde(default)]
    pub cors_policy: Option<WrittenCorsPolicy>,
    #[serde(default)]
    pub headers: Option<WrittenHeaders>,
}

/// `Delegate`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualDelegate {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub namespace: String,
}

impl VirtualHttpMatch {
    fn check(&self) -> Result<(), String> {
        let Self { uri, scheme, method, authority, headers, query_params, without_headers, .. } =
            self;
        let single =
            [("uri", uri), ("scheme", scheme), ("method", method), ("authority", authority)];
        let single = single.into_iter().filter_map(|(name, it)| Some((name, it.as_ref()?)));
        let maps = [headers, query_params, without_headers];
        let named = maps.into_iter().flatten();
        let named = named.filter_map(|(name, it)| Some((name.as_str(), it.as_ref()?)));
        for (name, written) in single.chain(named) {
            written.text().map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }
}

/// `HTTPMatchRequest`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualHttpMatch {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub uri: Option<StringMatch>,
    #[serde(default)]
    pub scheme: Option<StringMatch>,
    #[serde(default)]
    pub method: Option<StringMatch>,
    #[serde(default)]
    pub authority: Option<StringMatch>,
    #[serde(default)]
    pub headers: BTreeMap<String, Option<StringMatch>>,
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub gateways: Vec<String>,
    #[serde(default)]
    pub query_params: BTreeMap<String, Option<StringMatch>>,
    #[serde(default)]
    pub ignore_uri_case: Option<bool>,
    #[serde(default)]
    pub without_headers: BTreeMap<String, Option<StringMatch>>,
    #[serde(default)]
    pub source_namespace: String,
    #[serde(default)]
    pub stat_prefix: String,
}

/// `HTTPRouteDestination`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualHttpDestination {
    pub destination: VirtualDestination,
    #[serde(default)]
    pub weight: Option<u32>,
    #[serde(default)]
    pub headers: Option<WrittenHeaders>,
}

/// `Destination`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualDestination {
    pub host: String,
    #[serde(default)]
    pub subset: String,
    #[serde(default)]
    pub port: Option<PortSelector>,
}

/// `HTTPMirrorPolicy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualMirror {
    pub destination: VirtualDestination,
    #[serde(default)]
    pub percentage: Option<Percent>,
}

/// `TLSRoute`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualTlsRoute {
    #[serde(default, rename = "match")]
    pub matches: Vec<VirtualTlsMatch>,
    #[serde(default)]
    pub route: Vec<VirtualStreamDestination>,
}

/// `TCPRoute`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualTcpRoute {
    #[serde(default, rename = "match")]
    pub matches: Vec<VirtualStreamMatch>,
    #[serde(default)]
    pub route: Vec<VirtualStreamDestination>,
}

/// `TLSMatchAttributes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualTlsMatch {
    #[serde(default)]
    pub sni_hosts: Vec<String>,
    #[serde(default)]
    pub destination_subnets: Vec<String>,
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub gateways: Vec<String>,
    #[serde(default)]
    pub source_namespace: String,
}

/// `L4MatchAttributes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualStreamMatch {
    #[serde(default)]
    pub destination_subnets: Vec<String>,
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub source_subnet: String,
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub gateways: Vec<String>,
    #[serde(default)]
    pub source_namespace: String,
}

/// `RouteDestination`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualStreamDestination {
    pub destination: VirtualDestination,
    #[serde(default)]
    pub weight: Option<u32>,
}
