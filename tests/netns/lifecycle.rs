//! Workloads that leave, and that come back under the same name, while their agent runs and while it does not.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::frames::{DATA, GO_AWAY, Peer, RESET, frame, run_in};
use crate::issued::{Wrong, issue};
use crate::support::lab::command::run;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, PORT, wait};
use crate::{bookinfo, enrol, meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const SECRET: &str = "x-secret: never-in-the-clear";
const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/watcher";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookinfo}
spec: {mtls: {mode: STRICT}}
";

fn details() -> Key {
    Key::new("Pod", "bookinfo", "details-v1")
}

/// The rules of a pod without what counts packets.
fn rules(lab: &Lab, pod: &str) -> Result<String> {
    Ok(lab.rules(pod)?.lines().filter(|line| !line.contains("counter")).collect())
}

const REQUEST: &[u8] = b"GET /details/0 HTTP/1.1\r\nHost: details\r\nConnection: close\r\n\r\n";

#[test]
fn a_workload_that_leaves_says_so_and_serves_what_is_open() -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(3);
    let mut lab = bookinfo()?;
    lab.start_agents("[drain]\ndeadline = \"3s\"\n")?;
    enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let to = SocketAddr::new(lab.address("details-v1")?, 15008);
    let authority = format!("{}:{PORT}", to.ip());
    let certificate = issue(&lab, CLIENT, Wrong::Nothing)?;
    let namespace = lab.pod("outsider")?.attachment.namespace.clone();
    run_in(&namespace, || async {
        let mut peer = Peer::connect(to, &certificate).await?;
        for stream in [1, 3] {
            ensure!(peer.open(stream, &authority).await?, "stream {stream}");
        }
        lab.manifests.delete(&details())?;
        let start = SystemTime::now();
        let goodbye = peer.until(|frame| frame.kind == GO_AWAY).await?;
        let goodbye = goodbye.context("the connection ended without GOAWAY")?;
        ensure!(goodbye.go_away() == Some(0), "{goodbye:?}");
        println!("GOAWAY came after {:?}", start.elapsed()?);
        // Open connections are served.
        peer.send(&frame(DATA, 0, 1, REQUEST)).await?;
        let answer = peer.until(|frame| frame.stream == 1 && !frame.payload.is_empty()).await?;
        let answer = answer.context("the connection ended before the answer")?;
        ensure!(answer.kind == DATA && answer.payload.starts_with(b"HTTP/1.1 200"), "{answer:?}");
        // The other one is cut at the deadline, and the connection ends.
        let cut = peer.within(2 * DEADLINE, |frame| frame.stream == 3 && frame.kind == RESET);
        let cut = cut.await?;
        let took = start.elapsed()?;
        println!("what was still open was cut after {took:?}: {cut:?}");
        ensure!(took >= DEADLINE - Duration::from_millis(200), "before the deadline: {took:?}");
        peer.ended(DEADLINE).await?;
        Ok(())
    })?;
    wait::until("the rules to go", || Ok(lab.rules("details-v1")?.is_empty().then_some(())))?;
    run("ip", &["netns", "delete", "details-v1"])?;
    Ok(())
}

/// A mesh whose servers are STRICT, with the agent of `node-b` killed.
fn without_an_agent() -> Result<(Lab, usize)> {
    let mut lab = meshed()?;
    lab.manifests.apply(STRICT)?;
    settle(&lab, "outsider", &[DETAILS], 0)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let index = lab.kill_agent("node-b")?;
    Ok((lab, index))
}

/// What the node's agent knows of the workload, in its dump.
fn is_known(lab: &Lab, node: &str, text: &str) -> Result<bool> {
    let dump = crate::support::lab::agents::administer(lab.node(node)?, &[], "/config_dump")?;
    ensure!(dump.status == 200, "{dump:?}");
    Ok(dump.body.contains(text))
}

#[test]
fn trap_20_a_pod_that_went_while_its_agent_was_down_leaves_nothing() -> Result<()> {
    let (mut lab, index) = without_an_agent()?;
    let ready = lab.node_rules("node-b")?;
    let address = lab.address("details-v1")?.to_string();
    ensure!(ready.contains(&address), "its probes are exempt: {ready}");
    lab.manifests.delete(&details())?;
    run("ip", &["netns", "delete", "details-v1"])?;
    lab.start_agent(index, "node-b", "")?;
    wait::until("the node's rules to forget it", || {
        let rules: String = (lab.node_rules("node-b")?.split("table "))
            .filter(|table| !table.contains("lab-services"))
            .collect();
        Ok((!rules.contains(&address)).then_some(()))
    })?;
    let refused = lab.curl("curl", &["--max-time", "3", DETAILS])?;
    assert_eq!(refused.status, 0, "{refused:?}");
    assert!(!is_known(&lab, "node-b", "Pod/bookinfo/details-v1")?, "it is still in the dump");
    settle(&lab, "curl", &["http://ratings.bookinfo:9080/ratings/0"], 200).map(drop)
}

#[test]
fn trap_20_a_pod_recreated_while_its_agent_was_down_is_captured() -> Result<()> {
    for same_address in [true, false] {
        std::thread::spawn(move || recreated_while_down(same_address))
            .join()
            .map_err(|_| anyhow::anyhow!("the test panicked"))?
            .with_context(|| format!("with the same address: {same_address}"))?;
    }
    Ok(())
}

fn recreated_while_down(same_address: bool) -> Result<()> {
    let (mut lab, index) = without_an_agent()?;
    let before = rules(&lab, "details-v1")?;
    let other = rules(&lab, "ratings-v1")?;
    let captures = [lab.capture("node-a")?, lab.capture("node-b")?];
    lab.recreate_pod("details-v1", same_address)?;
    ensure!(lab.rules("details-v1")?.is_empty(), "a new namespace has no rules");
    // A client whose agent runs sends nothing in the clear to it.
    let refused = lab.curl("curl", &["--max-time", "2", "--header", SECRET, DETAILS])?;
    assert_eq!(refused.status, 0, "{refused:?}");
    lab.start_agent(index, "node-b", "")?;
    wait::until("the new namespace to be captured", || {
        Ok((rules(&lab, "details-v1")? == before).then_some(()))
    })?;
    let start = SystemTime::now();
    settle(&lab, "curl", &["--max-time", "2", "--header", SECRET, DETAILS], 200)?;
    println!("same address {same_address}: served {:?} after the capture", start.elapsed()?);
    assert_eq!(lab.curl("outsider", &["--max-time", "2", DETAILS])?.status, 0, "STRICT holds");
    assert_eq!(rules(&lab, "ratings-v1")?, other, "what was there is not doubled");
    for capture in captures {
        let captured = capture.finish(lab.node("node-a")?, lab.node("node-b")?)?;
        assert!(!captured.contains("never-in-the-clear"), "plaintext on the wire");
    }
    Ok(())
}

#[test]
fn a_recreated_pod_is_captured_again() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(STRICT)?;
    settle(&lab, "outsider", &[DETAILS], 0)?;
    let before = rules(&lab, "details-v1")?;
    let process = crate::floods::agent(&mut lab, "node-b")?;
    for same_address in [false, true] {
        lab.recreate_pod("details-v1", same_address)?;
        let start = SystemTime::now();
        wait::until("the new namespace to be captured", || {
            Ok((rules(&lab, "details-v1")? == before).then_some(()))
        })?;
        println!("same address {same_address}: captured again after {:?}", start.elapsed()?);
        settle(&lab, "curl", &["--max-time", "2", DETAILS], 200)?;
        assert_eq!(lab.curl("outsider", &["--max-time", "2", DETAILS])?.status, 0, "STRICT holds");
    }
    let open = |_| fs::read_dir(format!("/proc/{process}/fd")).map(Iterator::count);
    let first = open(())?;
    lab.recreate_pod("details-v1", true)?;
    settle(&lab, "curl", &["--max-time", "2", DETAILS], 200)?;
    wait::until("the old namespace to be let go", || Ok((open(())? <= first + 4).then_some(())))
}

/// The rules of the first capture are removed after its drain, and those of the next one must not go with them.
#[test]
fn a_namespace_that_leaves_and_comes_back_at_once_stays_captured() -> Result<()> {
    const DEADLINE: Duration = Duration::from_millis(300);
    let mut lab = bookinfo()?;
    lab.start_agents("[drain]\ndeadline = \"300ms\"\n")?;
    enrol(&mut lab)?;
    let before = rules(&lab, "details-v1")?;
    // Connections that keep the proxies draining up to the deadline.
    let service = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let client = lab.pod("curl")?.attachment.namespace.clone();
    let namespace = Key::new("Namespace", "", "bookinfo");
    for round in 0..8 {
        let held = client.run(|| std::net::TcpStream::connect(service))??;
        lab.manifests.label(&namespace, &["istio.io/dataplane-mode-"])?;
        wait::until("the pods to leave", || {
            Ok((rules(&lab, "details-v1")? != before).then_some(()))
        })?;
        // Back at some moment around the deadline.
        std::thread::sleep(DEADLINE * round / 4);
        lab.manifests.label(&namespace, &["istio.io/dataplane-mode=ambient"])?;
        wait::until("the pods to be captured again", || {
            Ok((rules(&lab, "details-v1")? == before).then_some(()))
        })?;
        let since = SystemTime::now();
        while since.elapsed()? < 2 * DEADLINE {
            ensure!(rules(&lab, "details-v1")? == before, "round {round}: it lost its rules");
        }
        drop(held);
    }
    settle(&lab, "curl", &[DETAILS], 200).map(drop)
}
