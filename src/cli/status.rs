//! `isthmus status`: the agent's short form as a table that a person reads.

use std::fmt::Write;

use serde_json::Value;

use super::table::{list, rows, text_of};

pub(super) fn table(json: &str) -> anyhow::Result<String> {
    let status: Value = serde_json::from_str(json)?;
    let mut text = String::new();
    let waiting = list(&status["waitingFor"]);
    let ready = if waiting.is_empty() {
        "ready".to_owned()
    } else {
        let names: Vec<&str> = waiting.iter().map(text_of).collect();
        format!("not ready, waiting for {}", names.join(", "))
    };
    writeln!(
        text,
        "node {}: {ready}, version {}",
        text_of(&status["node"]),
        text_of(&status["version"])
    )?;
    let counts = &status["counts"];
    writeln!(
        text,
        "{} workloads, {} services, {} waypoints, {} routes, {} policies; {} tunnels open",
        counts["workloads"],
        counts["services"],
        counts["waypoints"],
        counts["routes"],
        counts["policies"],
        counts["tunnels"]
    )?;
    let shared = &status["sharedLimits"];
    if shared["limits"].as_u64().is_some_and(|limits| limits > 0) {
        writeln!(
            text,
            "{} shared rate limits, {} of them exchanged with other nodes; the broker: {}",
            shared["limits"],
            shared["exchanged"],
            text_of(&shared["link"])
        )?;
    }
    rows(
        &mut text,
        "WORKLOADS OF THIS NODE",
        &["workload", "state", "identity", "certificate", "waypoint", "outbound"],
        &status["workloads"],
    )?;
    rows(&mut text, "WAYPOINTS", &["waypoint", "takes", "identity"], &status["waypoints"])?;
    rows(&mut text, "COMPLAINTS", &["severity", "complaint"], &status["complaints"])?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_can_read_it() {
        let json = serde_json::json!({
            "node": "node-a", "version": "1", "waitingFor": ["source"],
            "counts": {"workloads": 2, "services": 1, "waypoints": 0, "routes": 0, "policies": 0, "tunnels": 3},
            "workloads": [{"workload": "shop/web", "state": "captured", "identity": "i", "certificate": "Available", "waypoint": "-"}],
        });
        let text = table(&json.to_string()).unwrap();
        assert!(
            text.starts_with("node node-a: not ready, waiting for source, version 1\n2 workloads"),
            "{text}"
        );
        assert!(text.contains("  shop/web  captured"), "{text}");
        assert!(!text.contains("COMPLAINTS"), "{text}");
    }
}
