//! `/headers`: what arrived, as evidence: the request's line and headers, and the address it came from.

use std::net::SocketAddr;

use http::{StatusCode, request::Parts};
use serde_json::{Map, Value, json};

use crate::reply::{self, Reply};
use crate::settings::Settings;

pub fn headers(parts: &Parts, peer: SocketAddr, settings: &Settings) -> Reply {
    let mut headers = Map::new();
    for name in parts.headers.keys() {
        let values: Vec<String> = parts
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        headers.insert(name.to_string(), Value::from(values.join(", ")));
    }
    let body = json!({
        "service": settings.service.to_string(),
        "version": settings.version.to_string(),
        "pod": settings.pod,
        // An IPv4 peer of a dual-stack listener is printed as the IPv4 address that it is.
        "peer": SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string(),
        "protocol": format!("{:?}", parts.version),
        "method": parts.method.to_string(),
        "uri": parts.uri.to_string(),
        "headers": headers,
    });
    reply::json(StatusCode::OK, &body)
}
