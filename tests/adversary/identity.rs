//! Is this network namespace that pod? A pod with CAP_NET_ADMIN gives itself a neighbour's address, and whoever writes
//! manifests names a neighbour's namespace: nobody gets the neighbour's certificate, whenever and however an agent starts.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, Trouble};
use crate::cluster::{begin_agent, directory, is_captured, rename_namespaces, start_agents, uid};
use crate::support::lab::agents::Agent;
use crate::support::lab::command::feed;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, private, wait};
use crate::{EVIL, application, besieged, captured_in, enrol, settle};

pub const DETAILS: &str = "http://details.bookinfo:9080/details/0";
/// What only the service account of `curl` may call.
const ONLY_CURL: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-curl, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]}]
"#;
const AMBIENT: &str = "istio.io/dataplane-mode=ambient";

/// A cluster without agents yet, in which only `curl` may call `details`.
pub fn guarded() -> Result<Lab> {
    let mut lab = application(&[EVIL, ONLY_CURL])?;
    for namespace in ["bookinfo", "default"] {
        lab.manifests.label(&Key::new("Namespace", "", namespace), &[AMBIENT])?;
    }
    Ok(lab)
}

pub fn ip(namespace: &str, script: &str) -> Result<()> {
    feed("ip", &["-n", namespace, "-batch", "-"], script).map(drop)
}

/// As the attacker's own container sees it.
pub fn served(lab: &Lab, from: &str) -> Result<bool> {
    Ok(lab.curl(from, &["--max-time", "4", DETAILS])?.status == 200)
}

/// The application answers whom it should, and nobody else.
fn only_curl_is_served(lab: &Lab) -> Result<()> {
    settle(lab, "curl", &[DETAILS], 200)?;
    for other in ["attacker", "stranger"] {
        ensure!(!served(lab, other)?, "{other} is served");
    }
    Ok(())
}

/// Replaces the agent of node-a: it is killed, or ends by itself and the next one starts, or the next one takes over.
fn replace(lab: &Lab, agents: &mut Vec<Agent>, how: &str) -> Result<()> {
    let at = agents.iter().position(|it| it.node == "node-a").context("an agent of node-a")?;
    let mut old = agents.remove(at);
    match how {
        "killed" => drop(old),
        "restarted" => ensure!(old.process().terminate()? == Some(0), "it ended badly"),
        _ => {
            let mark = old.mark();
            let next = begin_agent(lab, "node-a", "")?;
            wait::until("the successor to take over", || {
                let lines = old.lines_since(&mark);
                let over = |line: &String| line.contains("took over from the agent");
                Ok(lines.iter().any(over).then_some(()))
            })?;
            drop(old);
            agents.push(next);
            let next = agents.last_mut().context("it was pushed")?;
            return next.wait_until_ready();
        }
    }
    let mut next = begin_agent(lab, "node-a", "")?;
    next.wait_until_ready()?;
    agents.push(next);
    Ok(())
}

/// The namespaces bear the names of their pods, as an operator made them: no container runtime is there to ask.
#[test]
fn an_address_of_a_neighbour_is_not_its_identity() -> Result<()> {
    let lab = guarded()?;
    let (_server, mut agents) = start_agents(&lab)?;
    only_curl_is_served(&lab)?;
    let victim = lab.address("curl")?;
    for (script, how) in [
        (
            format!("link add d0 type bridge\naddr add {victim}/32 dev d0\nlink set d0 up\n"),
            "killed",
        ),
        (format!("addr add {victim}/32 dev lo\n"), "restarted"),
        (format!("addr add {victim}/32 dev eth0\n"), "taken over"),
    ] {
        ip("attacker", &script)?;
        replace(&lab, &mut agents, how)?;
        only_curl_is_served(&lab).with_context(|| format!("{how}: {script}"))?;
    }
    // It even gives up its own one, and then nobody knows it: what an agent left keeps it closed.
    let [v4, v6] = lab.pod("attacker")?.attachment.addresses;
    ip("attacker", &format!("addr del {v4}/32 dev eth0\naddr del {v6}/128 dev eth0\n"))?;
    replace(&lab, &mut agents, "killed")?;
    let agent = agents.iter().find(|it| it.node == "node-a").context("it runs")?;
    is_captured(agent, "attacker", false)?;
    only_curl_is_served(&lab)
}

/// One run of the plugin on the pod's node, as a container runtime does it.
fn cni(lab: &Lab, command: &str, pod: &str, network_namespace: &str) -> Result<()> {
    let found = lab.pod(pod)?;
    let node = &found.plan.node;
    let list = fs::read_to_string(directory(node, "net.d").join("10-lab.conflist"))?;
    let list: Value = serde_json::from_str(&list)?;
    let mut entry = list["plugins"][1].clone();
    entry["cniVersion"] = json!("1.0.0");
    entry["name"] = json!("lab");
    let addresses = found.attachment.addresses.map(|it| json!({"address": format!("{it}/32")}));
    entry["prevResult"] = json!({"cniVersion": "1.0.0", "ips": addresses});
    let arguments = format!(
        "K8S_POD_NAMESPACE={};K8S_POD_NAME={pod};K8S_POD_UID={}",
        found.plan.key.namespace,
        uid(pod)
    );
    let mut process = Command::new(directory(node, "bin").join("isthmus"))
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", format!("sandbox-of-{pod}"))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", format!("/var/run/netns/{network_namespace}"))
        .env("CNI_ARGS", arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    process.stdin.take().context("a standard input")?.write_all(entry.to_string().as_bytes())?;
    let output = process.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command} {pod}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// Pods and the names of their namespaces.
type Names = Vec<(String, String)>;

/// A cluster whose container runtime names namespaces at random, and told the agents of every pod of the mesh.
fn started_by_a_runtime() -> Result<(Lab, ApiServer, Vec<Agent>, Names)> {
    let lab = guarded()?;
    let names = rename_namespaces(&lab)?;
    let (server, agents) = start_agents(&lab)?;
    for (pod, name) in &names {
        cni(&lab, "ADD", pod, name)?;
    }
    only_curl_is_served(&lab)?;
    Ok((lab, server, agents, names))
}

fn name_of<'a>(names: &'a [(String, String)], pod: &str) -> Result<&'a str> {
    let found = names.iter().find(|(name, _)| name == pod);
    found.map(|(_, name)| name.as_str()).context("its namespace")
}

/// The record of a pod on node-a.
fn record_of(pod: &str) -> Result<PathBuf> {
    for entry in fs::read_dir("/run/isthmus/sandboxes/node-a")? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.contains(&format!("{:?}", uid(pod))) {
            return Ok(path);
        }
    }
    anyhow::bail!("there is no record of {pod}")
}

#[test]
fn what_the_runtime_said_outlives_the_agent_and_no_pod_can_change_it() -> Result<()> {
    let (lab, _server, mut agents, names) = started_by_a_runtime()?;
    let victim = lab.address("curl")?;
    ip(name_of(&names, "attacker")?, &format!("addr add {victim}/32 dev lo\n"))?;
    // The victim's own cannot be seen there meanwhile.
    ip(name_of(&names, "curl")?, "addr add 192.0.2.1/32 dev lo\n")?;
    for how in ["killed", "restarted", "taken over"] {
        replace(&lab, &mut agents, how)?;
        only_curl_is_served(&lab).context(how)?;
    }
    // A sandbox that has ended is forgotten, and no later agent gives anybody its certificate.
    cni(&lab, "DEL", "curl", name_of(&names, "curl")?)?;
    ensure!(record_of("curl").is_err(), "its record is left");
    replace(&lab, &mut agents, "killed")?;
    for pod in ["curl", "attacker", "stranger"] {
        ensure!(!served(&lab, pod)?, "{pod} is served");
    }
    Ok(())
}

/// A record counts only as this agent's own word about this namespace in this boot. Without one the pod stays closed.
#[test]
fn a_record_that_is_not_the_agents_word_gives_nobody_an_identity() -> Result<()> {
    let (lab, _server, mut agents, names) = started_by_a_runtime()?;
    let (victim, attacker) = (record_of("curl")?, record_of("attacker")?);
    let good = fs::read_to_string(&victim)?;
    let swapped = {
        // The attacker's namespace under the victim's name.
        let (mine, theirs): (Value, Value) =
            (serde_json::from_str(&fs::read_to_string(&attacker)?)?, serde_json::from_str(&good)?);
        let mut record = mine;
        record["pod"] = theirs["pod"].clone();
        record["workload"] = theirs["workload"].clone();
        record.to_string()
    };
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let earlier = good.replace(boot.trim(), "another boot");
    ensure!(earlier != good, "{good}");
    let attackers = fs::read_to_string(&attacker)?;
    for (case, write) in [
        ("of an earlier boot", vec![(&victim, earlier, 0o600)]),
        ("a ruin", vec![(&victim, good[..good.len() / 2].to_owned(), 0o600)]),
        ("others may write it", vec![(&victim, good.clone(), 0o666)]),
        ("two of one pod", vec![(&victim, good.clone(), 0o600), (&attacker, swapped, 0o600)]),
    ] {
        let at = agents.iter().position(|it| it.node == "node-a").context("it runs")?;
        drop(agents.remove(at));
        for (path, text, mode) in write {
            fs::write(path, text)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(path, mode)?;
        }
        let mut agent = begin_agent(&lab, "node-a", "")?;
        agent.wait_until_ready()?;
        is_captured(&agent, "curl", false).context(case)?;
        for pod in ["curl", "attacker", "stranger"] {
            ensure!(!served(&lab, pod)?, "{case}: {pod} is served");
        }
        agents.push(agent);
        fs::write(&attacker, &attackers)?;
    }
    // The pod is restarted: the runtime tells.
    cni(&lab, "ADD", "curl", name_of(&names, "curl")?)?;
    only_curl_is_served(&lab)
}

/// Manifests of a directory: the attacker's names the namespace of its neighbour, in every way that leads there.
#[test]
fn a_namespace_that_two_claim_is_neithers() -> Result<()> {
    let mut lab = besieged(&[ONLY_CURL])?;
    only_curl_is_served(&lab)?;
    let attacker = Key::new("Pod", "evil", "attacker");
    let link = format!("{}/curl-link", private::DIRECTORY);
    std::os::unix::fs::symlink("/run/netns/curl", &link)?;
    let bound = format!("{}/bound", private::NETWORK_NAMESPACES);
    fs::write(&bound, "")?;
    let mounted = Command::new("mount").args(["--bind", "/run/netns/curl", &bound]).status()?;
    ensure!(mounted.success(), "mount --bind");
    for name in ["curl", "/run/netns/curl", "/run/../run/netns/curl", &link, &bound] {
        let moment = lab.moment()?;
        lab.manifests.annotate(&attacker, "isthmus.io/network-namespace", name)?;
        wait::until(&format!("{name}: the claims to be refused"), || {
            let lines = lab.lines_since(&moment);
            let said = lines.iter().filter(|(_, line)| line.contains("is also that of"));
            Ok((said.count() >= 2).then_some(()))
        })?;
        ensure!(!served(&lab, "curl")?, "{name}: whose it is nobody knows, and it is served");
        ensure!(!lab.rules("curl")?.is_empty(), "{name}: it is open");
        let states = lab.agents()[0].dump()?["workloadState"].to_string();
        ensure!(states.contains("is also that of"), "{name}: {states}");
        lab.manifests.annotate(&attacker, "isthmus.io/network-namespace", "attacker")?;
        only_curl_is_served(&lab).context(name.to_owned())?;
    }
    // Nor does it get the node's own.
    let moment = lab.moment()?;
    lab.manifests.annotate(&attacker, "isthmus.io/network-namespace", "node-a")?;
    wait::until("the claim to be refused", || {
        let lines = lab.lines_since(&moment);
        Ok(lines
            .iter()
            .any(|(_, line)| line.contains("the agent's own or the host's"))
            .then_some(()))
    })?;
    let listening =
        lab.node("node-a")?.namespace.run(|| std::net::TcpStream::connect("127.0.0.1:15001"))?;
    ensure!(listening.is_err(), "the node itself is captured");
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

/// Longer than the drain.
const DRAINED: Duration = Duration::from_secs(6);

/// The rules of a capture go once it has drained, unless the namespace is closed by then, or another workload's; and what a
/// claim closed is free again when the claim is gone.
#[test]
fn what_has_drained_takes_nobody_elses_rules_along() -> Result<()> {
    let mut lab = application(&[EVIL, ONLY_CURL])?;
    lab.start_agents("[drain]\ndeadline = \"5s\"\n")?;
    enrol(&mut lab)?;
    captured_in(&lab, "evil")?;
    only_curl_is_served(&lab)?;
    let attacker = Key::new("Pod", "evil", "attacker");
    let own = "isthmus.io/network-namespace";
    // One that lives on keeps both ends draining for as long as they may.
    let to = (lab.address("details-v1")?, 9080);
    let connection = lab.pod("curl")?.attachment.namespace.run(|| TcpStream::connect(to))??;

    // Out of the mesh and back, and closed while it drains.
    let default = Key::new("Namespace", "", "default");
    lab.manifests.label(&default, &["istio.io/dataplane-mode-"])?;
    wait::until("curl to leave", || {
        Ok((!lab.rules("curl")?.contains("check_output")).then_some(()))
    })?;
    lab.manifests.label(&default, &[AMBIENT])?;
    captured_in(&lab, "default")?;
    let moment = lab.moment()?;
    lab.manifests.annotate(&attacker, own, "curl")?;
    wait::until("the claims to be refused", || {
        let lines = lab.lines_since(&moment);
        let said = lines.iter().filter(|(_, line)| line.contains("is also that of"));
        Ok((said.count() >= 2).then_some(()))
    })?;
    std::thread::sleep(DRAINED);
    ensure!(lab.rules("curl")?.contains("check_output"), "what was closed is open");
    lab.manifests.annotate(&attacker, own, "attacker")?;
    only_curl_is_served(&lab)?;

    // Another pod in the namespace of one that drains.
    let old = Key::new("Pod", "bookinfo", "details-v1");
    let mut pod = lab.manifests.get(&old)?.clone();
    pod["metadata"]["name"] = json!("details-v9");
    lab.manifests.delete(&old)?;
    lab.manifests.apply(&pod.to_string())?;
    std::thread::sleep(DRAINED);
    ensure!(lab.rules("details-v1")?.contains("check_input"), "what is captured is open");
    only_curl_is_served(&lab)?;
    ensure!(!served(&lab, "outsider")?, "the outsider is served");
    drop(connection);

    // One outside of the mesh is closed by a claim, and free when that is gone.
    let accomplice = Key::new("Pod", "evil", "accomplice");
    lab.manifests.annotate(&accomplice, own, "outsider")?;
    wait::until("it to be closed", || Ok((!lab.rules("outsider")?.is_empty()).then_some(())))?;
    lab.manifests.annotate(&accomplice, own, "accomplice")?;
    wait::until("it to be free", || Ok(lab.rules("outsider")?.is_empty().then_some(())))
}

/// An agent that starts and is refused a part of the truth does not take what it was not told for a departure.
#[test]
fn an_agent_that_is_refused_at_its_start_opens_nothing() -> Result<()> {
    let lab = guarded()?;
    let (server, mut agents) = start_agents(&lab)?;
    only_curl_is_served(&lab)?;
    let restart = |agents: &mut Vec<Agent>| -> Result<()> {
        let at = agents.iter().position(|it| it.node == "node-b").context("it runs")?;
        drop(agents.remove(at));
        agents.push(begin_agent(&lab, "node-b", "")?);
        Ok(())
    };
    for (part, code) in [
        ("/api/v1/namespaces", 403),
        ("/api/v1/namespaces", 404),
        ("/api/v1/pods", 403),
        ("authorizationpolicies", 403),
        ("authorizationpolicies", 404),
        ("apis/security.istio.io", 404),
        ("/apis", 403),
        ("/apis", 404),
    ] {
        server.trouble(part, Trouble::Status(code));
        restart(&mut agents)?;
        // So that it hears it.
        std::thread::sleep(Duration::from_secs(1));
        for other in ["outsider", "attacker"] {
            ensure!(!served(&lab, other)?, "{part} {code}: {other} is served");
        }
        ensure!(lab.rules("details-v1")?.contains("check_input"), "{part} {code}: it is open");
        server.recover();
    }
    restart(&mut agents)?;
    only_curl_is_served(&lab)
}

/// Nor does it take a manifest that it cannot read for one that says nothing.
#[test]
fn a_namespace_that_cannot_be_read_leaves_its_pods_closed() -> Result<()> {
    let mut lab = besieged(&[ONLY_CURL])?;
    only_curl_is_served(&lab)?;
    let bookinfo = Key::new("Namespace", "", "bookinfo");
    let labels = lab.manifests.get(&bookinfo)?["metadata"]["labels"].clone();
    let relabel = |lab: &mut Lab, labels: Value| {
        lab.manifests.change(&bookinfo, |object| {
            object["metadata"]["labels"] = labels;
            Ok(())
        })
    };
    let index = lab.kill_agent("node-b")?;
    relabel(&mut lab, json!("unreadable"))?;
    lab.start_agent(index, "node-b", "")?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(lab.rules("details-v1")?.contains("check_input"), "it is open");
    for other in ["outsider", "attacker"] {
        ensure!(!served(&lab, other)?, "{other} is served");
    }
    relabel(&mut lab, labels)?;
    only_curl_is_served(&lab)?;
    // One that can be read and is outside of the mesh is free of what an agent left.
    let index = lab.kill_agent("node-b")?;
    relabel(&mut lab, json!({}))?;
    lab.start_agent(index, "node-b", "")?;
    wait::until("it to be free", || Ok(lab.rules("details-v1")?.is_empty().then_some(())))
}
