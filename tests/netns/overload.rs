//! A namespace under overload: a client namespace sends far more than a service may take. Its excess is refused at once, with the
//! time to come back, and everybody else is served as before: other namespaces' clients of that service, and the service of
//! another namespace, whose waypoint and whose pods are on the same nodes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use http::Request;
use http::header::RETRY_AFTER;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::frames::run_in;
use crate::support::lab::curl::curl;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, PORT, wait};
use crate::{WAYPOINT, application, captured_in, enrol, settle};

/// How long the application takes, so that it has requests in progress.
const WORK: Duration = Duration::from_secs(1);
/// How long the clients go on.
const TIME: Duration = Duration::from_secs(4);

/// Another namespace with a service and a client of its own.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {kubernetes.io/metadata.name: shop, istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 9080, name: http}], selector: {app: cart}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart
  namespace: shop
  labels: {app: cart}
  annotations: {isthmus.io/node: node-b, isthmus.io/network-namespace: cart}
spec:
  serviceAccountName: cart
  containers:
  - {name: cart, image: isthmus/bookinfo, command: [bookinfo], args: [--service, details], ports: [{containerPort: 9080}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: buyer
  namespace: shop
  labels: {app: buyer}
  annotations: {isthmus.io/node: node-a, isthmus.io/network-namespace: buyer}
spec:
  serviceAccountName: cart
  containers: [{name: curl, image: curlimages/curl, command: [sleep, infinity]}]
---
";

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: isthmus.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: details, namespace: bookinfo}}\n\
         spec:\n  targetRefs: [{{group: '', kind: Service, name: details}}]\n  {spec}\n"
    )
}

/// What clients were answered.
#[derive(Clone, Debug, Default)]
struct Answers {
    passed: usize,
    /// With 429 or 503 and `retry-after`, and how long it took to be told.
    refused: Vec<Duration>,
    others: Vec<String>,
}

impl Answers {
    /// What half of the refusals took at most.
    fn median(&self) -> Duration {
        let mut times = self.refused.clone();
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// A pod that sends requests, over so many connections, with a pause after each answer.
#[derive(Clone, Copy)]
struct Clients {
    pod: &'static str,
    service: (&'static str, &'static str),
    connections: usize,
    pause: Duration,
}

/// Five times what the service may have in progress at once.
const FLOOD: Clients = Clients {
    pod: "curl",
    service: ("bookinfo", "details"),
    connections: 100,
    pause: Duration::from_millis(100),
};
/// Another namespace's clients of the same service.
const NEIGHBOUR: Clients = Clients {
    pod: "productpage-v1",
    service: ("bookinfo", "details"),
    connections: 2,
    pause: Duration::from_millis(200),
};
/// Clients and a service that have nothing to do with it.
const OTHERS: Clients = Clients {
    pod: "buyer",
    service: ("shop", "cart"),
    connections: 4,
    pause: Duration::from_millis(50),
};

/// What each of them was answered while all of them sent.
fn together<const N: usize>(lab: &Lab, all: [Clients; N]) -> Result<[Answers; N]> {
    let answers = std::thread::scope(|scope| {
        let sent = all.map(|clients| scope.spawn(move || send(lab, clients)));
        let answers = sent.map(|it| it.join().unwrap_or_else(|_| bail!("a client panicked")));
        answers.into_iter().collect::<Result<Vec<_>>>()
    })?;
    for (clients, answers) in all.iter().zip(&answers) {
        let (pod, refused) = (clients.pod, answers.refused.len());
        let (passed, median) = (answers.passed, answers.median());
        println!("{pod}: {passed} passed, {refused} were refused, in {median:?} at the median");
        ensure!(answers.others.is_empty(), "{pod}: {:?}", answers.others.first());
    }
    answers.try_into().map_err(|_| anyhow::anyhow!("as many answers as clients"))
}

fn send(lab: &Lab, clients: Clients) -> Result<Answers> {
    let Clients { pod, service: (namespace, name), connections, pause } = clients;
    let to = SocketAddr::new(lab.service(namespace, name)?[0], PORT);
    run_in(&lab.pod(pod)?.attachment.namespace, || async move {
        let until = Instant::now() + TIME;
        let mut running = JoinSet::new();
        for _ in 0..connections {
            running.spawn(client(to, until, pause));
        }
        let mut all = Answers::default();
        while let Some(ended) = running.join_next().await {
            let one = ended??;
            all.passed += one.passed;
            all.refused.extend(one.refused);
            all.others.extend(one.others);
        }
        Ok(all)
    })
}

async fn client(to: SocketAddr, until: Instant, pause: Duration) -> Result<Answers> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut answers = Answers::default();
    while Instant::now() < until {
        let request = Request::get("/headers").header("host", "any:9080");
        let begun = Instant::now();
        sender.ready().await?;
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let told = begun.elapsed();
        let (status, again) = (answer.status().as_u16(), answer.headers().get(RETRY_AFTER));
        let seconds = again.and_then(|it| it.to_str().ok()?.parse::<u32>().ok());
        match (status, seconds) {
            (200, _) => answers.passed += 1,
            (429 | 503, Some(1..)) => answers.refused.push(told),
            other => answers.others.push(format!("{other:?}")),
        }
        answer.into_body().collect().await?;
        sleep(pause).await;
    }
    Ok(answers)
}

fn two_namespaces() -> Result<Lab> {
    let mut lab =
        application(&[SHOP, &WAYPOINT.replace("namespace: bookinfo", "namespace: shop")])?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    captured_in(&lab, "shop")?;
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    settle(&lab, "curl", &["http://details.bookinfo:9080/headers"], 200)?;
    settle(&lab, "buyer", &["http://cart.shop:9080/headers"], 200)?;
    Ok(lab)
}

/// Those who are no part of the flood are answered, and never refused.
fn undisturbed(all: [&Answers; 2]) -> Result<()> {
    for answers in all {
        ensure!(answers.refused.is_empty(), "{} of others were refused", answers.refused.len());
        ensure!(answers.passed > 0, "nobody was answered");
    }
    Ok(())
}

#[test]
fn a_namespace_under_overload_is_refused_and_others_are_served() -> Result<()> {
    let mut lab = two_namespaces()?;
    // A second for each request, of which 20 may be in progress.
    let url = format!("http://127.0.0.1:{PORT}/trouble?delay={}", WORK.as_millis());
    let slow = curl(&lab.pod("details-v1")?.attachment.namespace, &["-X", "POST", &url])?;
    ensure!(slow.status == 200, "{slow:?}");
    lab.manifests.apply(&policy("concurrencyLimit: {fixed: {requests: 20}}"))?;
    wait::until("the limit", || {
        lab.curl("curl", &["http://details.bookinfo:9080/headers"])?;
        Ok((lab.metrics()?.sum("isthmus_concurrency_limit", &[]) == 20.0).then_some(()))
    })?;
    let alone = together(&lab, [NEIGHBOUR, OTHERS])?;
    undisturbed(alone.each_ref())?;
    let [flood, neighbour, others] = together(&lab, [FLOOD, NEIGHBOUR, OTHERS])?;
    undisturbed([&neighbour, &others])?;
    for (alone, now) in alone.iter().zip([&neighbour, &others]) {
        let (alone, now) = (alone.passed, now.passed);
        ensure!(now * 4 >= alone, "{now} passed, and {alone} without the flood");
    }
    ensure!(flood.passed > 0, "the namespace has its share");
    ensure!(flood.refused.len() > flood.passed, "{} were refused", flood.refused.len());
    // At once: nobody waits for the application, to be told that it has no time.
    ensure!(flood.median() < WORK, "refused after {:?}", flood.median());

    // The same with a rate for each client namespace.
    let url = format!("http://127.0.0.1:{PORT}/trouble");
    curl(&lab.pod("details-v1")?.attachment.namespace, &["-X", "POST", &url])?;
    let limit = "rateLimit: {local: {requests: 50, interval: 1s, keys: [{type: Namespace}]}}";
    lab.manifests.apply(&policy(limit))?;
    wait::until("the rate", || {
        let answer = lab.curl("curl", &["http://details.bookinfo:9080/headers?[1-80]"])?;
        Ok((answer.status == 429).then_some(()))
    })?;
    let [flood, neighbour, others] = together(&lab, [FLOOD, NEIGHBOUR, OTHERS])?;
    undisturbed([&neighbour, &others])?;
    ensure!(flood.passed > 0 && flood.refused.len() > flood.passed, "{flood:?}");
    Ok(())
}
