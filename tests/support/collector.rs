//! The collector of spans, on a node of the lab.

#![allow(dead_code, unused_imports, reason = "the demo and the suites use different parts")]

#[path = "spans.rs"]
mod spans;

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};

use crate::support::lab::Lab;
pub use spans::{Collector, Seen, text};

impl Collector {
    pub fn start(lab: &Lab) -> Result<(Self, SocketAddr)> {
        let (listener, address) = listen(lab)?;
        Ok((Self::serve(listener), address))
    }
}

/// A listener on a node, which agents reach.
pub fn listen(lab: &Lab) -> Result<(TcpListener, SocketAddr)> {
    let node = lab.network().nodes().first().context("no node")?;
    let address = SocketAddr::new(node.addresses[0], 0);
    let listener = node.namespace.run(|| TcpListener::bind(address))??;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// MeshConfig with these providers, of which the first is the default, and with all traces sampled.
pub fn mesh_config(providers: &[(&str, SocketAddr)]) -> String {
    let provider = |(name, at): &(&str, SocketAddr)| {
        format!(
            "    - name: {name}\n      opentelemetry: {{service: {}, port: {}, http: {{path: /v1/traces}}}}\n",
            at.ip(),
            at.port()
        )
    };
    let all: String = providers.iter().map(provider).collect();
    let default = providers.first().map(|(name, _)| *name).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
         defaultProviders: {{tracing: [{default}]}}\n    defaultConfig: {{tracing: {{sampling: 100}}}}\n    \
         extensionProviders:\n{all}"
    )
}
