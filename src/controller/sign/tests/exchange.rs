//! The exchange of tokens at the signing port, over loopback.

use std::pin::Pin;

use futures_util::stream::unfold;
use http::Uri;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::*;
use crate::base::ObjectKey;
use crate::filter::{Rate, UNIT};
use crate::quota::messages::{
    Amount, EXCHANGE, Gift, Joins, Limit, LimitId, MAX_LIMITS, MAX_WANTS, Orders, Report,
};

/// One agent's connection.
struct Agent {
    to: mpsc::Sender<Report>,
    from: Streaming<Orders>,
}

#[derive(Clone)]
struct Connector(Arc<RootCertStore>, u16);

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self(roots, port) = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            Ok(TokioIo::new(over_tls(roots, stream).await?))
        })
    }
}

impl Lab {
    async fn exchange(&self, token: &str) -> Result<Agent, Status> {
        let connector = Connector(self.roots.clone(), self.port);
        let endpoint = Endpoint::from_static("https://controller");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        let (to, reports) = mpsc::channel(512);
        let reports = unfold(reports, |mut reports| async move {
            let report = reports.recv().await?;
            Some((report, reports))
        });
        let mut request = Request::new(reports);
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let mut client = Grpc::new(channel);
        client.ready().await.unwrap();
        let codec = ProstCodec::<Report, Orders>::default();
        let path = PathAndQuery::from_static(EXCHANGE);
        let answer = timeout(PATIENCE, client.streaming(request, path, codec)).await.unwrap()?;
        Ok(Agent { to, from: answer.into_inner() })
    }
}

impl Agent {
    async fn say(&self, report: Report) {
        self.to.send(report).await.unwrap();
    }

    async fn join(&self, service: &str) {
        self.say(Report { joins: Some(joins(&[service])), ..Report::default() }).await;
    }

    async fn want(&self, number: u64, tokens: u64) {
        let wants = vec![Amount { limit: 1, key: 7, amount: tokens * UNIT }];
        self.say(Report { number, wants, ..Report::default() }).await;
    }

    async fn hear(&mut self) -> Result<Orders, Status> {
        let heard = timeout(PATIENCE, self.from.message()).await.expect("something is said");
        heard.map(Option::unwrap_or_default)
    }

    async fn hears_nothing(&mut self) -> bool {
        timeout(Duration::from_millis(300), self.from.message()).await.is_err()
    }
}

fn joins(services: &[&str]) -> Joins {
    let limits = services.iter().zip(1..).map(|(service, number)| {
        let id = LimitId {
            service: ObjectKey::new("shop", *service),
            policy: ObjectKey::new("shop", "limit"),
            name: "shared".into(),
            rate: Rate { tokens: 100, interval: Duration::from_secs(1), burst: 100 },
        };
        Limit::new(number, &id)
    });
    Joins { limits: limits.collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_go_from_node_to_node() {
    let lab = Lab::start(Duration::ZERO).await;
    let mut busy = lab.exchange("agent-node1").await.unwrap();
    let mut calm = lab.exchange("agent-node2").await.unwrap();
    busy.join("web").await;
    calm.join("web").await;
    // Until both have joined there is nobody to ask.
    let begun = Instant::now();
    let asked = loop {
        busy.want(1, 20).await;
        if let Ok(heard) = timeout(Duration::from_millis(200), calm.from.message()).await {
            break heard.unwrap().unwrap();
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    assert_eq!(asked.asks, [Amount { limit: 1, key: 7, amount: 20 * UNIT }]);
    let gift = Gift { limit: 1, key: 7, amount: 15 * UNIT, left: 0 };
    let gifts = vec![gift];
    calm.say(Report { stamp: asked.stamp, gifts, ..Report::default() }).await;
    let granted = busy.hear().await.unwrap();
    assert_eq!(granted.grants[0].amount, 15 * UNIT);
    assert_eq!((granted.grants[0].report, granted.grants[0].key), (1, 7));
    // Nobody was asked for it.
    calm.say(Report { stamp: asked.stamp, gifts: vec![gift; 5], ..Report::default() }).await;
    assert!(busy.hears_nothing().await);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_agents_are_served_and_only_by_the_leader() {
    let lab = Lab::start(Duration::ZERO).await;
    let refused = lab.exchange("forged").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // Some connections of a node, and no more.
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(lab.exchange("agent-node1").await.unwrap());
    }
    let refused = lab.exchange("agent-node1").await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(lab.exchange("agent-node2").await.is_ok());
    lab.end().await;
    let other = Lab::begin(Duration::ZERO, false).await;
    let refused = other.exchange("agent-node1").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_for_services_that_have_a_pod_on_it() {
    let lab = Lab::start(Duration::ZERO).await;
    let mut other = lab.exchange("agent-node3").await.unwrap();
    other.say(Report { joins: Some(joins(&["web", "elsewhere"])), ..Report::default() }).await;
    assert_eq!(other.hear().await.unwrap().refused, [1, 2]);
    // It gets nothing that way.
    let mut calm = lab.exchange("agent-node2").await.unwrap();
    calm.join("web").await;
    other.want(1, 50).await;
    assert!(calm.hears_nothing().await);
    let mut odd = joins(&["web"]);
    odd.limits[0].service = "web,other=x".to_owned();
    calm.say(Report { joins: Some(odd), ..Report::default() }).await;
    assert_eq!(calm.hear().await.unwrap().refused, [1]);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_floods_is_cut_off() {
    let lab = Lab::start(Duration::ZERO).await;
    let mut agent = lab.exchange("agent-node1").await.unwrap();
    for _ in 0..400 {
        _ = agent.to.send(Report::default()).await;
    }
    assert_eq!(agent.hear().await.unwrap_err().code(), Code::ResourceExhausted);
    let mut agent = lab.exchange("agent-node1").await.unwrap();
    let wants = vec![Amount::default(); MAX_WANTS + 1];
    agent.say(Report { wants, ..Report::default() }).await;
    assert_eq!(agent.hear().await.unwrap_err().code(), Code::InvalidArgument);
    // Reports that are costly are fewer.
    let mut agent = lab.exchange("agent-node1").await.unwrap();
    for _ in 0..60 {
        let joins = Some(Joins { limits: vec![Limit::default(); MAX_LIMITS] });
        _ = agent.to.send(Report { joins, ..Report::default() }).await;
    }
    let refused = loop {
        if let Err(refused) = agent.hear().await {
            break refused;
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    lab.end().await;
}
