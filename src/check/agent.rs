//! What the running agent tells of itself.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{Ask, Outcome, Report};

const DAY: i64 = 24 * 60 * 60;
/// Certificates are renewed at half of their life; one with less than this is late.
const LATE: i64 = 60 * 60;
/// Rotating a root takes weeks where people are involved.
const ROOT: i64 = 30 * DAY;
/// So many are named.
const FEW: usize = 3;

/// What it has answered; `Err`: why it has not.
pub(super) struct Pages {
    status: Result<Value, String>,
    dump: Result<Value, String>,
}

impl Pages {
    pub(super) fn ask(ask: Ask<'_>) -> Self {
        let page = |path: &str| {
            let text = ask(path)?;
            serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))
        };
        let status: Result<Value, String> = page("/status");
        let dump = match &status {
            Ok(_) => page("/config_dump"),
            Err(why) => Err(why.clone()),
        };
        Self { status, dump }
    }

    pub(super) fn is_there(&self) -> bool {
        self.status.is_ok()
    }
}

pub(super) fn look(report: &mut Report, pages: &Pages) {
    report.add(
        "agent-answers",
        match &pages.status {
            Ok(status) => Outcome::Pass(format!("node {}", text(&status["node"]))),
            Err(why) => Outcome::Failure(why.clone()),
        },
    );
    let mut of_status = |id: &str, judge: fn(&Value) -> Outcome| {
        let silent = |_: &String| Outcome::Unknown("the agent does not answer".to_owned());
        report.add(id, pages.status.as_ref().map_or_else(silent, judge));
    };
    of_status("agent-version", version);
    of_status("agent-ready", readiness);
    of_status("workloads", workloads);
    of_status("objects", objects);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let mut of_certificates = |id: &str, judge: fn(&Value, i64) -> Outcome| {
        report.add(
            id,
            match &pages.dump {
                Ok(dump) => judge(&dump["certificates"], now),
                Err(_) => Outcome::Unknown("the agent does not answer".to_owned()),
            },
        );
    };
    of_certificates("certificates", certificates);
    of_certificates("roots", roots);
    of_certificates("clock", clock);
}

fn version(status: &Value) -> Outcome {
    let (agent, own) = (text(&status["version"]), env!("CARGO_PKG_VERSION"));
    match agent == own {
        true => Outcome::Pass(format!("both {own}")),
        false => Outcome::Warning(format!("the agent is {agent}, this program {own}")),
    }
}

fn readiness(status: &Value) -> Outcome {
    let waits: Vec<&str> = list(&status["waitingFor"]).iter().map(text).collect();
    match waits.is_empty() {
        true => Outcome::Pass("ready".to_owned()),
        false => Outcome::Failure(format!("waits for {}", waits.join(", "))),
    }
}

fn workloads(status: &Value) -> Outcome {
    let all = list(&status["workloads"]);
    let pending: Vec<String> = all
        .iter()
        .filter(|it| text(&it["state"]) != "captured")
        .map(|it| format!("{} {}", text(&it["workload"]), text(&it["state"])))
        .collect();
    match pending.is_empty() {
        true => Outcome::Pass(format!("{} workloads, all captured", all.len())),
        false => Outcome::Failure(few(&pending)),
    }
}

fn objects(status: &Value) -> Outcome {
    let complaints = list(&status["complaints"]);
    let with = |severity: &str| {
        let of = complaints.iter().filter(|it| text(&it["severity"]) == severity);
        of.map(|it| text(&it["complaint"]).to_owned()).collect::<Vec<_>>()
    };
    let (errors, warnings) = (with("error"), with("warning"));
    if !errors.is_empty() {
        return Outcome::Failure(format!("{} errors: {}", errors.len(), few(&errors)));
    }
    if !warnings.is_empty() {
        return Outcome::Warning(format!("{} warnings: {}", warnings.len(), few(&warnings)));
    }
    let counts = &status["counts"];
    let (workloads, services) = (&counts["workloads"], &counts["services"]);
    Outcome::Pass(format!("{workloads} workloads, {services} services, no complaint"))
}

fn certificates(all: &Value, now: i64) -> Outcome {
    let all = list(all);
    let (mut missing, mut late) = (Vec::new(), Vec::new());
    for one in all {
        let identity = text(&one["identity"]);
        let leaf = list(&one["certChain"])
            .first()
            .and_then(|leaf| Some((time(&leaf["validFrom"])?, time(&leaf["expirationTime"])?)));
        match leaf {
            None => missing.push(format!("{identity}: {}", text(&one["state"]))),
            Some((_, end)) if end <= now => missing.push(format!("{identity}: has expired")),
            Some((begin, end)) if end - now < LATE.min((end - begin) / 10) => {
                late.push(format!("{identity}: {} min left", (end - now) / 60));
            }
            Some(_) => {}
        }
    }
    match (missing.is_empty(), late.is_empty()) {
        (false, _) => Outcome::Failure(few(&missing)),
        (true, false) => Outcome::Warning(few(&late)),
        (true, true) => Outcome::Pass(format!("{} identities, each with a certificate", all.len())),
    }
}

fn roots(all: &Value, now: i64) -> Outcome {
    let roots = list(all).iter().flat_map(|one| list(&one["rootCerts"]));
    let ends: Vec<i64> = roots.filter_map(|root| time(&root["expirationTime"])).collect();
    let Some(soonest) = ends.into_iter().min() else {
        return Outcome::Unknown("no workload of this node has a certificate".to_owned());
    };
    let days = (soonest - now) / DAY;
    match soonest - now {
        ..=0 => Outcome::Failure("a root has expired".to_owned()),
        1..ROOT => Outcome::Warning(format!("a root ends in {days} days")),
        _ => Outcome::Pass(format!("the first one ends in {days} days")),
    }
}

fn clock(all: &Value, now: i64) -> Outcome {
    let leaves = list(all).iter().filter_map(|one| list(&one["certChain"]).first());
    let begins: Vec<i64> = leaves.filter_map(|leaf| time(&leaf["validFrom"])).collect();
    match begins.into_iter().max() {
        None => Outcome::Unknown("no workload of this node has a certificate".to_owned()),
        Some(begin) if begin > now => Outcome::Failure(format!(
            "a certificate is valid from {} s from now on: this clock is behind the issuer's",
            begin - now
        )),
        Some(_) => Outcome::Pass("every certificate is valid already".to_owned()),
    }
}

/// Seconds since 1970 of a time as RFC 3339 writes it.
fn time(value: &Value) -> Option<i64> {
    let time: Time = serde_json::from_value(value.clone()).ok()?;
    Some(time.0.as_second())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The first few, and how many more there are.
fn few(all: &[String]) -> String {
    let mut text = all.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join("; ");
    if all.len() > FEW {
        text += &format!("; and {} more", all.len() - FEW);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_that_does_not_answer_fails_once_and_the_rest_is_not_known() {
        let pages = Pages::ask(&|_| Err("no socket".to_owned()));
        let mut report = Report::default();
        look(&mut report, &pages);
        let lines = report.lines();
        let failed = lines.iter().filter(|line| line.outcome == "failure").count();
        assert_eq!((failed, lines[0].message.as_str()), (1, "no socket"));
        assert!(lines[1..].iter().all(|line| line.outcome == "not checked"), "{lines:?}");
    }

    #[test]
    fn a_status_is_judged_by_what_waits_and_what_is_wrong() {
        assert!(matches!(readiness(&json!({"waitingFor": []})), Outcome::Pass(_)));
        assert!(matches!(readiness(&json!({"waitingFor": ["source"]})), Outcome::Failure(_)));
        let state = |state: &str| json!({"workloads": [{"workload": "shop/web", "state": state}]});
        assert!(matches!(workloads(&state("captured")), Outcome::Pass(_)));
        assert!(matches!(workloads(&state("pending: no namespace")), Outcome::Failure(_)));
        let said =
            |severity: &str| json!({"complaints": [{"severity": severity, "complaint": "x"}]});
        assert!(matches!(objects(&said("error")), Outcome::Failure(_)));
        assert!(matches!(objects(&said("warning")), Outcome::Warning(_)));
        assert!(matches!(objects(&said("note")), Outcome::Pass(_)));
        assert!(matches!(version(&json!({"version": "0.0.0"})), Outcome::Warning(_)));
    }

    #[test]
    fn certificates_are_judged_by_their_times() {
        let of = |from: &str, to: &str, root: &str| {
            json!([{
                "identity": "spiffe://cluster.local/ns/shop/sa/web",
                "state": "Available",
                "certChain": [{"validFrom": from, "expirationTime": to}],
                "rootCerts": [{"expirationTime": root}],
            }])
        };
        let now = time(&json!("2026-06-01T12:00:00Z")).unwrap();
        let good = of("2026-06-01T00:00:00Z", "2026-06-02T00:00:00Z", "2036-01-01T00:00:00Z");
        for judge in [certificates, roots, clock] {
            assert!(matches!(judge(&good, now), Outcome::Pass(_)));
        }
        let late = of("2026-06-01T00:00:00Z", "2026-06-01T12:20:00Z", "2026-06-11T00:00:00Z");
        assert!(matches!(certificates(&late, now), Outcome::Warning(_)));
        assert!(matches!(roots(&late, now), Outcome::Warning(_)));
        let over = of("2026-06-01T13:00:00Z", "2026-06-01T11:00:00Z", "2026-05-01T00:00:00Z");
        for judge in [certificates, roots, clock] {
            assert!(matches!(judge(&over, now), Outcome::Failure(_)));
        }
        let none = json!([{"identity": "x", "state": "Unavailable: no answer"}]);
        assert!(matches!(certificates(&none, now), Outcome::Failure(_)));
        assert!(matches!(roots(&none, now), Outcome::Unknown(_)));
    }
}
