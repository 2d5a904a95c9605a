//! Collectors of all kinds: each protocol, those that reject, are away, or never answer.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::*;
use crate::base::Str;
use crate::model::PortMapping;
use crate::telemetry::ExportMetrics;
use crate::trace::{Attribute, Kind, Protocol, Rate, Traced, Tracing};
use crate::world::fixture;

/// An exporter that runs, and how everything is traced to one collector.
struct Bed {
    telemetry: Telemetry,
    tracing: Arc<Tracing>,
    cancel: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Bed {
    fn new(address: SocketAddr, protocol: Protocol) -> Self {
        let telemetry = Telemetry::without_log();
        let cancel = CancellationToken::new();
        let exporter = Exporter::new(fixture::store(), telemetry.clone());
        let running = tokio::spawn(exporter.run(cancel.clone()));
        let provider = Provider {
            name: "test".into(),
            host: address.ip().to_string().into(),
            namespace: None,
            tenant: None,
            port: address.port(),
            protocol,
            timeout: Duration::from_millis(300),
            headers: vec![("x-key".into(), "secret".into())],
        };
        let tracing = Arc::new(Tracing {
            providers: [Arc::new(provider)].into(),
            rate: Rate::of_percentage(100.0),
            ..Tracing::default()
        });
        Self { telemetry, tracing, cancel, running }
    }

    /// Ends a span of this workload.
    async fn end(&self, workload: &str) -> bool {
        // The exporter is another task, which takes the queue first.
        tokio::task::yield_now().await;
        let Traced::Recorded(span) = self.tracing.begin(Kind::Client, &http::HeaderMap::new())
        else {
            panic!("not recorded");
        };
        let finished = Finished {
            span,
            name: "reviews:9080/*".to_owned(),
            ended: std::time::SystemTime::now(),
            attributes: vec![Attribute::number("server.port", 9080)],
            error: Some("x".to_owned()),
            resource: vec![Attribute::text("service.name", workload)],
            tenant: workload.into(),
        };
        self.telemetry.spans().offer(&finished.tenant.clone(), Box::new(finished))
    }

    async fn stop(self) -> ExportMetrics {
        self.cancel.cancel();
        self.running.await.unwrap();
        self.telemetry.span_metrics().clone()
    }
}

fn check(request: &ExportTraceServiceRequest) {
    let names: Vec<_> = (request.resource_spans.iter())
        .map(|it| it.resource.as_ref().unwrap().attributes[0].value.clone().unwrap().value.unwrap())
        .collect();
    assert_eq!(names.len(), 2, "one resource for each workload: {names:?}");
    let spans: Vec<_> =
        request.resource_spans.iter().flat_map(|it| &it.scope_spans[0].spans).collect();
    assert_eq!(spans.len(), 3);
    for span in spans {
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        assert!(span.parent_span_id.is_empty());
        assert_eq!(span.name, "reviews:9080/*");
        assert_eq!(span.status.as_ref().unwrap().code, 2);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
}

/// Serves gRPC to each connection.
fn serve<S>(listener: TcpListener, service: S)
where
    S: tonic::codegen::Service<
            http::Request<hyper::body::Incoming>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(service.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            let executor = hyper_util::rt::TokioExecutor::new();
            let served = hyper::server::conn::http2::Builder::new(executor);
            tokio::spawn(async move { _ = served.serve_connection(io, service).await });
        }
    });
}

/// A tenant's Service may name any endpoint; where only the agent may connect to, it does not.
#[tokio::test]
async fn a_tenants_collector_is_an_endpoint_that_a_tenant_may_reach() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let at = fixture::workload("otel-1", "127.0.0.1");
    let mut service = fixture::service("otel", "10.96.0.9", &[&at]);
    service.ports[0].port = 4318;
    service.endpoints[0].ports = vec![PortMapping { port: 4318, target: address.port() }];
    let store = fixture::store();
    store.publish(fixture::Fixture::default().service(service.clone()).mesh);
    let provider = |tenant: Option<&str>, host: &str| {
        Arc::new(Provider {
            name: "test".into(),
            host: host.into(),
            namespace: None,
            tenant: tenant.map(Str::from),
            port: 4318,
            protocol: Protocol::Http { path: Protocol::PATH },
            timeout: Duration::from_millis(300),
            headers: Vec::new(),
        })
    };
    let telemetry = Telemetry::without_log();
    let of = |provider| Collector::new(provider, store.clone(), telemetry.span_metrics().clone());
    assert_eq!(of(provider(None, &service.hostname)).address().await.unwrap(), address);
    let refused = of(provider(Some("shop"), &service.hostname)).address().await;
    assert!(matches!(refused, Err(send::Failed::Refused(..))), "{refused:?}");
    // Neither does it resolve names as the node does, nor take an address.
    for host in ["localhost", "127.0.0.1", "10.0.0.1"] {
        let nowhere = of(provider(Some("shop"), host)).address().await;
        assert!(matches!(nowhere, Err(send::Failed::NoEndpoint)), "{host}: {nowhere:?}");
    }
}

#[tokio::test]
async fn tenants_take_no_place_of_others_collectors() {
    let telemetry = Telemetry::without_log();
    let mut outlet =
        Outlet { world: fixture::store(), telemetry: telemetry.clone(), tasks: JoinSet::new() };
    let mut all = Collectors::<Finished>(HashMap::new());
    let mut taken = |tenant: Option<String>, port: u16| {
        let provider = Arc::new(Provider {
            name: "test".into(),
            host: "otel".into(),
            namespace: None,
            tenant: tenant.map(Str::from),
            port,
            protocol: Protocol::Grpc,
            timeout: Duration::from_millis(300),
            headers: Vec::new(),
        });
        let tracing = Arc::new(Tracing { rate: Rate::of_percentage(100.0), ..Tracing::default() });
        let Traced::Recorded(span) = tracing.begin(Kind::Client, &http::HeaderMap::new()) else {
            panic!("not recorded");
        };
        let finished = Arc::new(Finished {
            span,
            name: String::new(),
            ended: std::time::SystemTime::now(),
            attributes: Vec::new(),
            error: None,
            resource: Vec::new(),
            tenant: "shop".into(),
        });
        all.offer(&mut outlet, &provider, &finished)
    };
    let of_one = (1..9).filter(|port| taken(Some("shop".to_owned()), *port)).count();
    assert_eq!(of_one, MAX_OF_TENANT);
    let of_many = (0..99).filter(|tenant| taken(Some(format!("tenant-{tenant}")), 1)).count();
    assert_eq!(of_many, MAX_COLLECTORS - MAX_OF_TENANT);
    let of_mesh = (1..99).filter(|port| taken(None, *port)).count();
    assert_eq!(of_mesh, MAX_COLLECTORS);
}

struct Receiver(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        assert_eq!(request.metadata().get("x-key").unwrap(), "secret");
        self.0.send(request.into_inner()).await.unwrap();
        let (rejected_spans, error_message) = (1, "one is not liked".to_owned());
        let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tokio::test]
async fn exports_by_grpc_and_counts_what_is_rejected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut received) = mpsc::channel(4);
    serve(listener, TraceServiceServer::new(Receiver(sender)));
    let bed = Bed::new(address, Protocol::Grpc);
    for workload in ["a", "b", "a"] {
        assert!(bed.end(workload).await);
    }
    check(&received.recv().await.unwrap());
    let metrics = bed.stop().await;
    let counted = (metrics.exported.get(), metrics.rejected.get(), metrics.failed.get());
    assert_eq!(counted, (2, 1, 0));
}

/// Takes records, and rejects one of each batch.
struct Log(mpsc::Sender<ExportLogsServiceRequest>);

#[tonic::async_trait]
impl LogsService for Log {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.unwrap();
        let (rejected_log_records, error_message) = (1, "one is not liked".to_owned());
        let partial_success =
            Some(ExportLogsPartialSuccess { rejected_log_records, error_message });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

#[tokio::test]
async fn exports_records_of_the_log_by_grpc() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bed = Bed::new(listener.local_addr().unwrap(), Protocol::Grpc);
    let (sender, mut received) = mpsc::channel(4);
    serve(listener, LogsServiceServer::new(Log(sender)));
    for (workload, failed) in [("a", false), ("b", true), ("a", false)] {
        tokio::task::yield_now().await;
        let record = LogRecord {
            provider: bed.tracing.providers[0].clone(),
            ended: std::time::SystemTime::now(),
            failed,
            body: "GET /".to_owned(),
            attributes: vec![Attribute::text("path", "/")],
            resource: vec![Attribute::text("service.name", workload)],
            trace: Some((crate::trace::TraceId(1), crate::trace::SpanId(2))),
            tenant: workload.into(),
        };
        assert!(bed.telemetry.records().offer(workload, Box::new(record)));
    }
    let request = received.recv().await.unwrap();
    assert_eq!(request.resource_logs.len(), 2, "one resource for each workload");
    let records: Vec<_> =
        request.resource_logs.iter().flat_map(|it| &it.scope_logs[0].log_records).collect();
    assert_eq!(records.len(), 3);
    for record in &records {
        assert_eq!((record.trace_id.len(), record.span_id.len()), (16, 8));
        assert_eq!(record.attributes[0].key, "path");
        assert!(record.time_unix_nano > 0 && record.body.is_some());
    }
    let failed = records.iter().filter(|it| it.severity_text == "WARN").count();
    assert_eq!(failed, 1);
    let metrics = bed.telemetry.record_metrics().clone();
    bed.stop().await;
    let counted = (metrics.exported.get(), metrics.rejected.get(), metrics.failed.get());
    assert_eq!(counted, (2, 1, 0));
}

/// Reads one POST, and gives its head and body.
async fn post(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.unwrap();
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        while bytes.len() < end + 4 + length {
            stream.read_buf(&mut bytes).await.unwrap();
        }
        return (head, bytes[end + 4..].to_vec());
    }
}

#[tokio::test]
async fn exports_by_http_and_tries_again_after_a_503() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = Str::from("/otlp/v1/traces");
    let bed = Bed::new(listener.local_addr().unwrap(), Protocol::Http { path });
    for workload in ["a", "b", "a"] {
        assert!(bed.end(workload).await);
    }
    for answer in ["503 Service Unavailable", "200 OK"] {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (head, body) = post(&mut stream).await;
        assert!(head.starts_with("post /otlp/v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        assert!(head.contains("x-key: secret"), "{head}");
        check(&ExportTraceServiceRequest::decode(&*body).unwrap());
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    let metrics = bed.stop().await;
    assert_eq!((metrics.exported.get(), metrics.failed.get()), (3, 0));
}

#[tokio::test]
async fn a_collector_that_is_silent_or_away_costs_spans_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (address, protocol) in [
        (silent, Protocol::Grpc),
        (silent, Protocol::Http { path: Protocol::PATH }),
        (closed, Protocol::Grpc),
    ] {
        let bed = Bed::new(address, protocol);
        let began = Instant::now();
        // Twice what both queues and a batch can hold.
        let ends = 4 * MAX_QUEUED as u64 + 2_000;
        for _ in 0..ends {
            if !bed.end("a").await {
                bed.telemetry.span_metrics().queue.inc();
            }
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let metrics = bed.telemetry.span_metrics().clone();
        while metrics.failed.get() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(metrics.queue.get() > ends - 2 * MAX_QUEUED as u64 - 2_000);
        let began = Instant::now();
        bed.stop().await;
        assert!(began.elapsed() < FLUSH + Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn nothing_is_kept_where_nobody_exports() {
    let telemetry = Telemetry::without_log();
    let bed = Bed::new("127.0.0.1:9".parse().unwrap(), Protocol::Grpc);
    let Traced::Recorded(span) = bed.tracing.begin(Kind::Client, &http::HeaderMap::new()) else {
        panic!("not recorded");
    };
    let (attributes, resource) = (Vec::new(), Vec::new());
    let (name, ended) = (String::new(), std::time::SystemTime::now());
    let finished =
        Finished { span, name, ended, attributes, error: None, resource, tenant: Str::new() };
    assert!(!telemetry.spans().offer(&finished.tenant.clone(), Box::new(finished)));
}
