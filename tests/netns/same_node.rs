//! Workloads of one node: no tunnel to oneself, and every policy all the same.

use anyhow::Result;

use crate::support::lab::command::feed_command;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, process};
use crate::{bookinfo, captured_in, meshed, settle};

/// `ratings-v1` runs on the node of curl and stranger, `details-v1` on the other one.
const HERE: &str = "http://ratings.bookinfo:9080/ratings/0";
const THERE: &str = "http://details.bookinfo:9080/details/0";

fn in_process(lab: &Lab) -> Result<f64> {
    Ok(lab.metrics()?.sum("isthmus_in_process_connections_total", &[]))
}

fn tunnels(lab: &Lab) -> Result<f64> {
    Ok(lab.metrics()?.sum("isthmus_pool_connections", &[]))
}

fn nft(lab: &Lab, pod: &str, script: &str) -> Result<()> {
    let mut nft = process::command(&lab.pod(pod)?.attachment.namespace, "nft");
    feed_command(nft.args(["-f", "-"]), "nft", &[], script).map(drop)
}

fn deny_curl(lab: &mut Lab, methods: &str) -> Result<()> {
    lab.manifests.apply(&format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: ratings, namespace: bookinfo}}\n\
         spec:\n  selector: {{matchLabels: {{app: ratings}}}}\n  action: DENY\n  rules:\n  \
         - from: [{{source: {{principals: [cluster.local/ns/default/sa/curl]}}}}]\n{methods}"
    ))?;
    Ok(())
}

#[test]
fn the_same_node_needs_no_tunnel_and_keeps_every_policy() -> Result<()> {
    let mut lab = meshed()?;
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: bookinfo}\nspec: {mtls: {mode: STRICT}}\n";
    lab.manifests.apply(strict)?;
    settle(&lab, "outsider", &[HERE], 0)?;
    let (before, since) = (in_process(&lab)?, lab.moment()?);
    assert_eq!(lab.curl("curl", &[HERE])?.status, 200);
    assert_eq!(in_process(&lab)?, before + 1.0);
    assert_eq!(tunnels(&lab)?, 0.0);
    let ended = |lab: &Lab| {
        let lines = lab.lines_since(&since);
        let said = |line: &str| line.contains("dst.transport=\"in_process\"");
        lines.into_iter().filter(|(_, line)| said(line)).map(|(_, line)| line).collect::<Vec<_>>()
    };
    let lines = crate::support::lab::wait::until("a line of each side", || {
        Ok(Some(ended(&lab)).filter(|lines| lines.len() == 2))
    })?;
    for (line, direction) in [(0, "inbound"), (1, "outbound")].map(|(at, it)| (&lines[at], it)) {
        let other = lines.iter().any(|line| line.contains(&format!("direction=\"{direction}\"")));
        assert!(other && line.contains("spiffe://cluster.local/ns/default/sa/curl"), "{lines:?}");
        assert!(line.contains("spiffe://cluster.local/ns/bookinfo/sa/bookinfo-ratings"), "{line}");
    }
    assert_eq!(lab.curl("curl", &[THERE])?.status, 200);
    assert_eq!(tunnels(&lab)?, 1.0, "the other node is reached through a tunnel");

    deny_curl(&mut lab, "")?;
    settle(&lab, "curl", &[HERE], 0)?;
    assert_eq!(lab.curl("stranger", &[HERE])?.status, 200);
    deny_curl(&mut lab, "    to: [{operation: {methods: [DELETE]}}]\n")?;
    settle(&lab, "curl", &[HERE], 200)?;
    settle(&lab, "curl", &["-X", "DELETE", HERE], 403)?;
    assert_ne!(lab.curl("stranger", &["-X", "DELETE", HERE])?.status, 403);
    Ok(())
}

#[test]
fn a_firewall_between_two_pods_of_a_node_keeps_its_say() -> Result<()> {
    let lab = meshed()?;
    settle(&lab, "curl", &[HERE], 200)?;
    let wall = "table inet wall {\n chain out { type filter hook output priority 0; \
                tcp dport 15008 reject with tcp reset\n }\n}";
    nft(&lab, "curl", wall)?;
    settle(&lab, "curl", &[HERE], 0)?;
    assert_eq!(lab.curl("stranger", &[HERE])?.status, 200, "nobody else is meant");
    nft(&lab, "curl", "delete table inet wall")?;
    settle(&lab, "curl", &[HERE], 200)?;
    Ok(())
}

#[test]
fn with_mtls_the_same_node_is_reached_through_a_tunnel() -> Result<()> {
    let mut lab = bookinfo()?;
    lab.start_agents("same_node = \"mtls\"")?;
    for namespace in ["bookinfo", "default"] {
        let key = Key::new("Namespace", "", namespace);
        lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
        captured_in(&lab, namespace)?;
    }
    settle(&lab, "curl", &[HERE], 200)?;
    assert_eq!((in_process(&lab)?, tunnels(&lab)?), (0.0, 1.0));
    Ok(())
}
