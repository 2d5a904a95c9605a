//! Collectors of OpenTelemetry on a node of the lab: of spans, over HTTP, and of records of the access log, over gRPC.

#![allow(dead_code, unused_imports, reason = "the demo and the suites use different parts")]

#[path = "spans.rs"]
mod spans;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use crate::support::lab::Lab;
pub use spans::{Collector, Seen, text};

impl Collector {
    pub fn start(lab: &Lab) -> Result<(Self, SocketAddr)> {
        let (listener, address) = listen(lab)?;
        Ok((Self::serve(listener), address))
    }
}

/// A record of the access log, and the name of its workload's service.
#[derive(Clone)]
pub struct Logged {
    pub service: String,
    pub record: LogRecord,
}

/// A collector of records of the access log, which come over gRPC.
#[derive(Clone, Default)]
pub struct LogCollector(Arc<Mutex<Vec<Logged>>>);

impl LogCollector {
    pub fn start(lab: &Lab) -> Result<(Self, SocketAddr)> {
        let (listener, address) = listen(lab)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let collector = Self::default();
        let service = LogsServiceServer::new(collector.clone());
        std::thread::spawn(move || runtime.block_on(serve(listener, service)));
        Ok((collector, address))
    }

    /// All that has arrived.
    pub fn all(&self) -> Vec<Logged> {
        self.0.lock().clone()
    }
}

#[tonic::async_trait]
impl LogsService for LogCollector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        for resource in request.into_inner().resource_logs {
            let service = text(&resource.resource.unwrap_or_default().attributes, "service.name");
            let records = resource.scope_logs.into_iter().flat_map(|scope| scope.log_records);
            let logged = records.map(|record| Logged { service: service.clone(), record });
            self.0.lock().extend(logged);
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

/// Serves each connection.
async fn serve(listener: TcpListener, service: LogsServiceServer<LogCollector>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
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
