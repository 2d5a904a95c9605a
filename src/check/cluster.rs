//! What the cluster has for agents: an API server that answers, kinds, rights, and the agents themselves.
//!
//! Requests are written out, since they are those of whoever runs the check and no role of an agent has to permit them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use http::header::DATE;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Outcome, Report};
use crate::config::{Settings, SourceKind};
use crate::source::kubernetes::{Watched, client, watched_resources};
use crate::source::objects::Kind;

/// How long the API server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much clocks may differ: certificates are valid from a minute before they are made.
const SKEW: Duration = Duration::from_secs(30);
/// The pods of agents, by the chart's labels.
const AGENTS: &str = "/api/v1/pods?labelSelector=app.kubernetes.io%2Fname%3Disthmus&limit=5000";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// What an agent does with what it reads.
const VERBS: [&str; 2] = ["list", "watch"];
/// So many are named.
const FEW: usize = 6;

const IDS: [&str; 4] = ["api-server", "api-kinds", "api-rights", "api-agents"];

pub(super) fn look(report: &mut Report, settings: &Settings) {
    let unknown = |report: &mut Report, why: &str| {
        IDS.iter().for_each(|id| report.add(id, Outcome::Unknown(why.to_owned())));
    };
    if settings.source.kind != SourceKind::Kubernetes {
        return unknown(report, "the source is a directory (source.kind)");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unknown(report, &error.to_string()),
    };
    runtime.block_on(async {
        let client = match client(settings.source.kubeconfig.as_deref()).await {
            Ok(client) => client,
            Err(error) => {
                report.add(IDS[0], Outcome::Failure(error.to_string()));
                let why = "the API server is not known".to_owned();
                return IDS[1..]
                    .iter()
                    .for_each(|id| report.add(id, Outcome::Unknown(why.clone())));
            }
        };
        report.add("api-server", server(&client).await);
        report.add("api-kinds", kinds(&client).await);
        report.add("api-rights", rights(&client).await);
        report.add("api-agents", agents(&client).await);
    });
}

/// An answer, and what the server's clock says.
async fn ask(
    client: &Client,
    path: &str,
    body: Option<Value>,
) -> Result<(Option<SystemTime>, Value), String> {
    let request = match body {
        None => http::Request::get(path).body(Body::empty()),
        Some(body) => http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string().into_bytes())),
    };
    let request = request.map_err(|error| error.to_string())?;
    let answer = async {
        let response = client.send(request).await.map_err(|error| error.to_string())?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        match status.is_success() {
            true => Ok((date, value)),
            false => {
                Err(format!("{path}: {status}: {}", value["message"].as_str().unwrap_or_default()))
            }
        }
    };
    timeout(PATIENCE, answer)
        .await
        .unwrap_or_else(|_| Err(format!("{path}: no answer within {PATIENCE:?}")))
}

async fn server(client: &Client) -> Outcome {
    match ask(client, "/version", None).await {
        Err(why) => Outcome::Failure(why),
        Ok((date, version)) => clock(date, SystemTime::now(), text(&version["gitVersion"])),
    }
}

fn clock(server: Option<SystemTime>, own: SystemTime, version: &str) -> Outcome {
    let Some(server) = server else {
        return Outcome::Pass(format!("{version}; it does not tell its time"));
    };
    let (ahead, behind) = (own.duration_since(server), server.duration_since(own));
    // The server tells whole seconds.
    let skew = ahead.or(behind).unwrap_or_default();
    match skew > SKEW {
        true => Outcome::Failure(format!(
            "{version}; its clock and this one differ by {} s",
            skew.as_secs()
        )),
        false => {
            Outcome::Pass(format!("{version}; clocks differ by less than {} s", SKEW.as_secs()))
        }
    }
}

async fn kinds(client: &Client) -> Outcome {
    let groups: BTreeSet<&str> = custom().map(Kind::group).collect();
    let listed = match ask(client, "/apis", None).await {
        Ok((_, listed)) => listed,
        Err(why) => return Outcome::Unknown(why),
    };
    let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for group in list(&listed["groups"]).iter().filter(|it| groups.contains(text(&it["name"]))) {
        for version in list(&group["versions"]) {
            let name = text(&version["groupVersion"]);
            match ask(client, &format!("/apis/{name}"), None).await {
                Ok((_, resources)) => {
                    let names =
                        list(&resources["resources"]).iter().map(|it| text(&it["name"]).to_owned());
                    served.insert(name.to_owned(), names.collect());
                }
                Err(why) => return Outcome::Unknown(why),
            }
        }
    }
    judge_kinds(&served)
}

fn custom() -> impl Iterator<Item = Kind> {
    Kind::all().filter(|kind| kind.is_translated() && !kind.is_built_in())
}

/// `served`: plurals by group and version.
fn judge_kinds(served: &BTreeMap<String, BTreeSet<String>>) -> Outcome {
    let (mut found, mut missing) = (BTreeSet::new(), Vec::new());
    for kind in custom() {
        let version = kind.versions().iter().find(|version| {
            let plurals = served.get(&format!("{}/{version}", kind.group()));
            plurals.is_some_and(|plurals| plurals.contains(kind.plural()))
        });
        match version {
            Some(version) => _ = found.insert(format!("{}/{version}", kind.group())),
            None => missing.push(format!("{}.{}", kind.plural(), kind.group())),
        }
    }
    let found = found.into_iter().collect::<Vec<_>>().join(", ");
    match missing.is_empty() {
        true => Outcome::Pass(found),
        false => Outcome::Warning(format!("not served: {} (served: {found})", few(&missing))),
    }
}

async fn rights(client: &Client) -> Outcome {
    let wanted: Vec<(Watched, &str)> = watched_resources()
        .into_iter()
        .flat_map(|it| VERBS.map(|verb| (it.clone(), verb)))
        .collect();
    let asked = wanted.iter().map(|(it, verb)| async move {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "group": it.group, "resource": it.plural, "verb": verb, "name": it.only.unwrap_or_default(),
            }},
        });
        let (_, answer) = ask(client, REVIEWS, Some(review)).await?;
        Ok::<bool, String>(answer["status"]["allowed"] == true)
    });
    let mut refused = Vec::new();
    for (answer, (it, verb)) in join_all(asked).await.into_iter().zip(&wanted) {
        match answer {
            Err(why) => return Outcome::Unknown(why),
            Ok(true) => {}
            Ok(false) => refused.push(format!("{verb} {}", it.plural)),
        }
    }
    match refused.is_empty() {
        true => Outcome::Pass(format!("all {} of an agent", wanted.len())),
        false => Outcome::Failure(format!("this account may not {}", few(&refused))),
    }
}

async fn agents(client: &Client) -> Outcome {
    match ask(client, AGENTS, None).await {
        Ok((_, pods)) => judge_agents(&pods),
        Err(why) => Outcome::Unknown(why),
    }
}

fn judge_agents(pods: &Value) -> Outcome {
    // The controller has the same name, and other pods than a DaemonSet's.
    let is_agent = |pod: &&Value| {
        list(&pod["metadata"]["ownerReferences"])
            .iter()
            .any(|owner| text(&owner["kind"]) == "DaemonSet")
    };
    let agents: Vec<&Value> = list(&pods["items"]).iter().filter(is_agent).collect();
    if agents.is_empty() {
        let why = "no pod of a DaemonSet has the label app.kubernetes.io/name=isthmus";
        return Outcome::Unknown(why.to_owned());
    }
    let images: BTreeSet<&str> =
        agents.iter().map(|pod| text(&pod["spec"]["containers"][0]["image"])).collect();
    let is_ready = |pod: &Value| {
        let mut conditions = list(&pod["status"]["conditions"]).iter();
        conditions.any(|it| text(&it["type"]) == "Ready" && text(&it["status"]) == "True")
    };
    let unready: Vec<String> = agents
        .iter()
        .filter(|pod| !is_ready(pod))
        .map(|pod| {
            format!("{} on {}", text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]))
        })
        .collect();
    let images: Vec<&str> = images.into_iter().collect();
    if !unready.is_empty() {
        return Outcome::Failure(format!("not ready: {}", few(&unready)));
    }
    match &images[..] {
        [one] => Outcome::Pass(format!("{} pods of {one}, all ready", agents.len())),
        several => Outcome::Warning(format!("several images run: {}", several.join(", "))),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn few(all: &[String]) -> String {
    let mut text = all.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
    if all.len() > FEW {
        text += &format!(" and {} more", all.len() - FEW);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_a_little() {
        let own = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let judged = |server: Option<SystemTime>| clock(server, own, "v1.36.0");
        assert!(matches!(judged(Some(own - Duration::from_secs(5))), Outcome::Pass(_)));
        assert!(matches!(judged(Some(own + Duration::from_secs(90))), Outcome::Failure(_)));
        assert!(matches!(judged(Some(own - Duration::from_secs(90))), Outcome::Failure(_)));
        assert!(matches!(judged(None), Outcome::Pass(_)));
    }

    #[test]
    fn kinds_that_are_not_served_are_named() {
        let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for kind in custom() {
            let version = kind.versions().first().expect("a version");
            let of = served.entry(format!("{}/{version}", kind.group())).or_default();
            of.insert(kind.plural().to_owned());
        }
        assert!(matches!(judge_kinds(&served), Outcome::Pass(_)));
        served.remove("gateway.networking.k8s.io/v1");
        let outcome = judge_kinds(&served);
        assert!(
            matches!(&outcome, Outcome::Warning(why) if why.contains("httproutes.gateway")
                || why.contains("gateways.gateway")),
            "{outcome:?}"
        );
    }

    #[test]
    fn agents_of_two_images_or_one_that_is_not_ready_are_told() {
        let pod = |image: &str, ready: &str| {
            json!({
                "metadata": {"name": "isthmus-x", "ownerReferences": [{"kind": "DaemonSet"}]},
                "spec": {"nodeName": "a", "containers": [{"image": image}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            })
        };
        let judged = |pods: Vec<Value>| judge_agents(&json!({"items": pods}));
        assert!(matches!(judged(vec![pod("i:1", "True"), pod("i:1", "True")]), Outcome::Pass(_)));
        assert!(matches!(
            judged(vec![pod("i:1", "True"), pod("i:2", "True")]),
            Outcome::Warning(_)
        ));
        assert!(matches!(judged(vec![pod("i:1", "False")]), Outcome::Failure(_)));
        assert!(matches!(judged(Vec::new()), Outcome::Unknown(_)));
    }
}
