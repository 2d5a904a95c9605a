//! What is asked, and what it means in a snapshot.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use serde::{Deserialize, Serialize};

use super::outsider;
use crate::base::{ObjectKey, Str};
use crate::model::{Service, Workload};
use crate::world::World;

/// The port that a client's own connection has in the explanation: none that means anything.
const CLIENT_PORT: u16 = 0;
/// Pods that are named where a name means none, at the most.
const MOST_NAMED: usize = 5;

/// A question, as a user writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// `namespace/pod`, `namespace/workload` (such as a Deployment's name), or an address.
    pub from: String,
    /// `host[:port]` or `address:port`, as the client would dial it.
    pub to: String,
    /// What it would ask for; without it, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// The server that it asks for in TLS, where it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http {
    /// `GET` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// With the query; `/` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Names and values. Without `host`, the host that was dialled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// A token, for the header `authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<String>,
}

/// A question that means something.
pub(super) struct Asked {
    /// In a line.
    pub(super) text: String,
    pub(super) client: Arc<Workload>,
    pub(super) client_address: SocketAddr,
    /// The name that was dialled, if it was one.
    pub(super) named: Option<String>,
    pub(super) dialled: SocketAddr,
    pub(super) request: Option<Request<()>>,
    pub(super) server_name: Option<String>,
}

impl Question {
    pub(super) fn read(&self, world: &World) -> Result<Asked, String> {
        let (client, address) = client(world, &self.from)?;
        let (host, port) = split(&self.to)?;
        let (named, dialled) = match host.parse::<IpAddr>() {
            Ok(address) => {
                let port = port.ok_or_else(|| format!("--to {}: say a port", self.to))?;
                (None, SocketAddr::new(address, port))
            }
            Err(_) => (Some(host.to_owned()), resolve(world, &client, host, port)?),
        };
        let request = self.http.as_ref().map(|http| http.request(&self.to)).transpose()?;
        let server_name = self.sni.as_ref().map(|name| name.to_ascii_lowercase());
        let text = match &request {
            Some(request) => {
                format!("{} {} from {} to {}", request.method(), request.uri(), self.from, self.to)
            }
            None => format!("bytes from {} to {}", self.from, self.to),
        };
        let client_address = SocketAddr::new(address, CLIENT_PORT);
        Ok(Asked { text, client, client_address, named, dialled, request, server_name })
    }
}

impl Http {
    fn request(&self, to: &str) -> Result<Request<()>, String> {
        let method = self.method.as_deref().unwrap_or("GET");
        let method =
            Method::try_from(method).map_err(|_| format!("--method {method:?} is no method"))?;
        let path = self.path.as_deref().unwrap_or("/");
        let uri = Uri::try_from(path).map_err(|error| format!("--path {path:?}: {error}"))?;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        for (name, value) in &self.headers {
            let parsed = HeaderName::try_from(name.as_str())
                .ok()
                .zip(HeaderValue::try_from(value.as_str()).ok());
            let (name, value) = parsed.ok_or_else(|| format!("--header {name:?}: not a header"))?;
            request.headers_mut().append(name, value);
        }
        let headers = request.headers_mut();
        if let Some(token) = &self.jwt {
            let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
            headers.insert(http::header::AUTHORIZATION, value.map_err(|_| "the token is no text")?);
        }
        if !headers.contains_key(http::header::HOST) {
            let host = HeaderValue::try_from(to).map_err(|_| format!("--to {to:?} is no host"))?;
            headers.insert(http::header::HOST, host);
        }
        Ok(request)
    }
}

/// The client, and where it is.
fn client(world: &World, from: &str) -> Result<(Arc<Workload>, IpAddr), String> {
    if let Ok(address) = from.parse::<IpAddr>() {
        let address = address.to_canonical();
        let known = world.workload_at(address).cloned();
        return Ok((known.unwrap_or_else(|| outsider(address)), address));
    }
    let Some((namespace, name)) = from.split_once('/') else {
        return Err(format!("--from {from}: say namespace/pod, namespace/workload or an address"));
    };
    let of_namespace = || world.mesh.workloads.iter().filter(|it| it.key.namespace == namespace);
    let found = of_namespace()
        .find(|it| it.key.name == name)
        .or_else(|| of_namespace().find(|it| it.canonical.workload == name))
        .or_else(|| of_namespace().find(|it| it.canonical.service == name));
    let Some(found) = found else {
        let known: Vec<&str> =
            of_namespace().take(MOST_NAMED).map(|it| it.key.name.as_str()).collect();
        return Err(match known.is_empty() {
            true => format!("--from {from}: the mesh knows no pod of namespace {namespace}"),
            false => format!("--from {from}: no such pod; there are {}", known.join(", ")),
        });
    };
    let address = found.addresses.first();
    let address = address.ok_or_else(|| format!("--from {from}: it has no address yet"))?;
    Ok((found.clone(), *address))
}

/// A host and a port.
fn split(to: &str) -> Result<(&str, Option<u16>), String> {
    let port = |text: &str| text.parse().map_err(|_| format!("--to {to}: {text:?} is no port"));
    if let Some(rest) = to.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| format!("--to {to}: no ]"))?;
        return Ok((host, rest.strip_prefix(':').map(port).transpose()?));
    }
    match to.rsplit_once(':') {
        Some((host, text)) if !host.contains(':') => Ok((host, Some(port(text)?))),
        _ => Ok((to, None)),
    }
}

/// The address that the client's resolver would give it.
fn resolve(
    world: &World,
    client: &Workload,
    host: &str,
    port: Option<u16>,
) -> Result<SocketAddr, String> {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let namespace = &client.key.namespace;
    let service = in_search_list(world, namespace, &name)
        .or_else(|| world.service_known_as(&name, namespace))
        .or_else(|| world.service_named(&name, Some(namespace)))
        .or_else(|| world.wildcard_for(&name, namespace))
        .ok_or_else(|| {
            format!(
                "--to {host}: no Service or ServiceEntry that clients of {namespace:?} see has this name; \
                 for another namespace say name.namespace, for anything else an address"
            )
        })?;
    let port = match (port, &service.ports[..]) {
        (Some(port), _) => port,
        (None, [only]) => only.port,
        (None, ports) => {
            let ports: Vec<String> = ports.iter().map(|it| it.port.to_string()).collect();
            return Err(format!("--to {host}: say which port, of {}", ports.join(", ")));
        }
    };
    let address = address_of(service)
        .ok_or_else(|| format!("--to {host}: {service} has no address and no endpoint with one"))?;
    Ok(SocketAddr::new(address, port))
}

/// The Service that a name means by the resolver's search list, which comes first for names with few dots (Kubernetes, `ndots: 5`).
fn in_search_list<'a>(world: &'a World, client: &Str, name: &str) -> Option<&'a Arc<Service>> {
    let parts: Vec<&str> = name.split('.').collect();
    let key = match &parts[..] {
        [name] => ObjectKey::new(client.clone(), *name),
        [name, namespace] | [name, namespace, "svc"] => ObjectKey::new(*namespace, *name),
        _ => return None,
    };
    world.service(&key).filter(|service| service.entry.is_none())
}

fn address_of(service: &Service) -> Option<IpAddr> {
    let of_endpoints = || service.endpoints.iter().find_map(|it| it.addresses.first().copied());
    service.vips.first().copied().or_else(of_endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        assert_eq!(split("web"), Ok(("web", None)));
        assert_eq!(split("web:80"), Ok(("web", Some(80))));
        assert_eq!(split("10.0.0.1:80"), Ok(("10.0.0.1", Some(80))));
        assert_eq!(split("[fd00::1]:80"), Ok(("fd00::1", Some(80))));
        assert_eq!(split("fd00::1"), Ok(("fd00::1", None)));
        assert!(split("web:http").is_err());
        assert!(split("[fd00::1").is_err());
    }
}
