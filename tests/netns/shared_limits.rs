//! A rate limit that all pods of a service share, with two agents, and with a real controller between them or without one. Of the API
//! server there is a stand-in.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::apiserver::ApiServer;
use crate::controlled::{self, start_controller};
use crate::frames::run_in;
use crate::support::lab::manifests::Key;
use crate::support::lab::process::Process;
use crate::support::lab::{Lab, PORT, wait};
use crate::{WAYPOINT, bookinfo, enrol, settle};

const REVIEWS: &str = "http://reviews.bookinfo:9080/headers";
/// Of the policy: so little that the slowest machine sends more.
const RATE: f64 = 40.0;
const BURST: f64 = 40.0;
/// What is stated beside rate and burst: what comes back in a second, and two requests for each of two nodes.
const ERROR: f64 = RATE + 4.0;
/// Of three pods this many are on node-a.
const PART: f64 = 1.0 / 3.0;
const POLICY: &str = "apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: {name: limit, namespace: bookinfo}
spec:
  targetRefs: [{group: \"\", kind: Service, name: reviews}]
  rateLimit:
    shared: {requests: 40, interval: 1s, burst: 40}
";

/// What clients were answered.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    passed: f64,
    limited: f64,
    seconds: f64,
}

/// Bookinfo with a waypoint, agents that have the controller sign, and the policy.
fn limited() -> Result<(Lab, ApiServer, Process)> {
    let mut lab = bookinfo()?;
    let (server, controller) = controlled::start(&mut lab, |_| String::new())?;
    limit(&mut lab)?;
    Ok((lab, server, controller))
}

/// Applies the policy to what a waypoint serves.
fn limit(lab: &mut Lab) -> Result<()> {
    enrol(lab)?;
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    settle(lab, "curl", &[REVIEWS], 200)?;
    lab.manifests.apply(POLICY)?;
    Ok(())
}

/// Some 400 requests a second for so long, over several connections.
fn load(lab: &Lab, to: IpAddr, seconds: u64) -> Result<Answers> {
    let namespace = &lab.pod("curl")?.attachment.namespace;
    run_in(namespace, || async move {
        let begun = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            clients.spawn(client(SocketAddr::new(to, PORT), begun + Duration::from_secs(seconds)));
        }
        let mut all = Answers::default();
        while let Some(ended) = clients.join_next().await {
            let (passed, limited) = ended??;
            all.passed += passed;
            all.limited += limited;
        }
        all.seconds = begun.elapsed().as_secs_f64();
        println!("{all:?}");
        Ok(all)
    })
}

async fn client(to: SocketAddr, until: Instant) -> Result<(f64, f64)> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut pace = interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut passed, mut limited) = (0.0, 0.0);
    while Instant::now() < until {
        pace.tick().await;
        let request = Request::get("/headers").header("host", "reviews.bookinfo:9080");
        sender.ready().await?;
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        match status {
            200 => passed += 1.0,
            429 => limited += 1.0,
            other => anyhow::bail!("{other}"),
        }
    }
    Ok((passed, limited))
}

fn status(lab: &Lab, node: &str) -> Result<Value> {
    let answer = crate::support::lab::agents::administer(lab.node(node)?, &[], "/status")?;
    Ok(answer.json())
}

fn until_exchanged(lab: &Lab, exchanged: u64) -> Result<()> {
    wait::until(&format!("both agents to exchange {exchanged} limits"), || {
        let all = ["node-a", "node-b"].map(|node| status(lab, node));
        let is = |status: &Result<Value>| {
            status.as_ref().is_ok_and(|it| {
                it["sharedLimits"]["exchanged"] == exchanged && it["sharedLimits"]["limits"] == 1
            })
        };
        Ok(all.iter().all(is).then_some(()))
    })
}

/// Whatever a client does, it gets the limit, and tokens that one node does not use are used by the other one.
fn is_one_limit(lab: &Lab) -> Result<()> {
    let service = lab.service("bookinfo", "reviews")?[0];
    let pod = lab.address("reviews-v1")?;
    for (to, what) in [(service, "spread"), (pod, "one node")] {
        let all = load(lab, to, 8)?;
        let most = BURST + RATE * all.seconds + ERROR;
        ensure!(all.passed <= most && all.limited > 0.0, "{what}: {all:?}, at most {most}");
        // Far more than the part of one node: the other node's tokens came here. How many depends on the machine.
        let part = PART * (BURST + RATE * all.seconds);
        let states = ["node-a", "node-b"]
            .map(|node| status(lab, node).map(|it| it["sharedLimits"].to_string()));
        ensure!(
            all.passed > 1.5 * part,
            "{what}: {all:?}, the part of node-a is {part}; {states:?}"
        );
    }
    // No token comes from nowhere. An agent that only gives counts once a second.
    let moved =
        |what| Ok(lab.metrics()?.sum("isthmus_shared_limits_tokens_total", &[("what", what)]));
    let received: Result<f64> = moved("received");
    let received = received?;
    ensure!(received > RATE, "{received} received");
    wait::until("what was received to be given", || {
        let given: Result<f64> = moved("given");
        Ok((given? >= received).then_some(()))
    })
}

#[test]
fn a_shared_limit_is_one_limit_over_two_nodes() -> Result<()> {
    let (lab, _server, mut controller) = limited()?;
    until_exchanged(&lab, 1)?;
    is_one_limit(&lab)?;
    let pod = lab.address("reviews-v1")?;

    // Without the controller each node has its part, and says so.
    controller.terminate()?;
    until_exchanged(&lab, 0)?;
    let all = load(&lab, pod, 8)?;
    let most = PART * (BURST + RATE * all.seconds) + 4.0;
    ensure!(all.passed <= most && all.passed > 0.0, "alone: {all:?}, at most {most}");
    let told = status(&lab, "node-a")?["complaints"].to_string();
    ensure!(told.contains("TrafficPolicy bookinfo/limit") && told.contains("is away"), "{told}");
    ensure!(lab.metrics()?.sum("isthmus_shared_limits_fallback", &[]) == 2.0);

    // Another one knows nothing, and goes on.
    let _controller = start_controller(&lab)?;
    until_exchanged(&lab, 1)?;
    let all = load(&lab, pod, 8)?;
    let most = BURST + RATE * all.seconds + ERROR;
    let part = PART * (BURST + RATE * all.seconds);
    ensure!(all.passed <= most && all.passed > 1.5 * part, "again: {all:?}");
    Ok(())
}

/// The nodes meet at a pod of the Service, and at another one where that is gone.
#[test]
fn without_a_controller_nodes_share_a_limit_among_themselves() -> Result<()> {
    let mut lab = bookinfo()?;
    lab.start_agents("")?;
    limit(&mut lab)?;
    until_exchanged(&lab, 1)?;
    is_one_limit(&lab)?;
    // The first pod by its name is node-a's. Its agent knows nothing when it comes back.
    lab.kill_and_restart_agent("node-a", "")?;
    settle(&lab, "curl", &[REVIEWS], 200)?;
    until_exchanged(&lab, 1)?;
    is_one_limit(&lab)?;
    // The pod leaves; those that are left are on one node, which needs nobody.
    lab.manifests.delete(&Key::new("Pod", "bookinfo", "reviews-v1"))?;
    wait::until("node-a to have no part of the limit", || {
        Ok((status(&lab, "node-a")?["sharedLimits"]["limits"] == 0).then_some(()))
    })?;
    let all = load(&lab, lab.address("reviews-v2")?, 4)?;
    let most = BURST + RATE * all.seconds + ERROR;
    ensure!(all.passed <= most && all.passed > 0.8 * RATE * all.seconds, "{all:?}");
    Ok(())
}

/// The API server does not know of its pods.
#[test]
fn a_node_speaks_only_for_services_that_it_has_pods_of() -> Result<()> {
    let (lab, server, mut controller) = limited()?;
    until_exchanged(&lab, 1)?;
    server.delete("EndpointSlice", "bookinfo", "reviews-1");
    // The agents connect anew, and tell again what they have.
    controller.terminate()?;
    let _controller = start_controller(&lab)?;
    wait::until("the controller to refuse", || {
        let status = status(&lab, "node-a")?;
        let limits = &status["sharedLimits"];
        let is_told = status["complaints"].to_string().contains("does not know yet");
        Ok((limits["link"] == "up" && limits["exchanged"] == 0 && is_told).then_some(()))
    })?;
    let all = load(&lab, lab.address("reviews-v1")?, 4)?;
    let most = PART * (BURST + RATE * all.seconds) + 4.0;
    ensure!(all.passed <= most, "{all:?}, at most {most}");
    Ok(())
}
