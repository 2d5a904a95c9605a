//! `isthmus preview`: which of the connections and requests of the last hour a change would have decided otherwise.
//!
//! Each pair of the memory ([`crate::observe`]) is asked about once over both worlds, by its example. What a header or a token decided
//! cannot be asked again, since the memory has no values of headers: where the present world would not decide as was recorded, the
//! pair is counted apart.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::question::{Http, Question};
use super::tree::Outcome;
use super::{Explanation, explain};
use crate::observe::PairLine;
use crate::telemetry::Verdict;
use crate::world::World;

/// Changes that are told of, at the most.
const MOST: usize = 200;

/// What a change would do to what was seen within the last hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Pairs that were asked about.
    pub pairs: usize,
    /// Pairs that could not be asked about again: what they named is gone, or headers or tokens decided.
    pub left_out: usize,
    /// How many would be decided otherwise.
    pub changed: usize,
    /// The first of these, the most frequent first.
    pub changes: Vec<Change>,
}

/// One pair that would be decided otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// How often it was seen within the last hour.
    pub count: u64,
    pub before: Outcome,
    pub after: Outcome,
    /// What the client would see then.
    pub answer: String,
    /// An example, which `isthmus explain` takes.
    pub question: Question,
}

/// Asks about every pair in both worlds.
pub fn preview(before: &World, after: &World, pairs: &[PairLine]) -> Preview {
    let mut preview = Preview::default();
    let mut asked = BTreeSet::new();
    for pair in pairs {
        let Some(question) = question(before, pair) else {
            preview.left_out += 1;
            continue;
        };
        if !asked.insert(serde_json::to_string(&question).unwrap_or_default()) {
            // Both ends have seen it.
            continue;
        }
        let explained = |world| explain(world, &question).ok();
        match (explained(before), explained(after)) {
            (Some(was), Some(would)) if is_as_recorded(&was, pair) => {
                preview.pairs += 1;
                if was.outcome != would.outcome {
                    preview.changes.push(Change {
                        count: pair.count,
                        before: was.outcome,
                        after: would.outcome,
                        answer: would.answer,
                        question,
                    });
                }
            }
            _ => preview.left_out += 1,
        }
    }
    preview.changed = preview.changes.len();
    preview.changes.sort_by_key(|change| std::cmp::Reverse(change.count));
    preview.changes.truncate(MOST);
    preview
}

/// What failed may have failed for whatever reason, after it was permitted.
fn is_as_recorded(was: &Explanation, pair: &PairLine) -> bool {
    match pair.verdict {
        Verdict::Permitted => was.outcome != Outcome::Refused,
        Verdict::Denied => matches!(was.outcome, Outcome::Refused | Outcome::Depends),
        Verdict::Failed => true,
    }
}

/// The example of a pair, as a question.
fn question(world: &World, pair: &PairLine) -> Option<Question> {
    let PairLine { source, destination, service, example, .. } = pair;
    let from = match (source.pod.is_empty(), example.source) {
        (false, _) if is_known(world, &source.namespace, &source.pod) => {
            format!("{}/{}", source.namespace, source.pod)
        }
        (_, _) if is_known(world, &source.namespace, &source.workload) => {
            format!("{}/{}", source.namespace, source.workload)
        }
        (_, Some(address)) => address.ip().to_string(),
        _ => return None,
    };
    let to = match service.host.is_empty() {
        false => format!("{}:{}", service.host, service_port(world, pair)?),
        true => example.dialled.or(destination.address).or(example.destination)?.to_string(),
    };
    let http = (pair.layer == 7 && !example.method.is_empty()).then(|| {
        let host =
            (!example.host.is_empty()).then(|| ("host".to_owned(), example.host.to_string()));
        Http {
            method: Some(example.method.to_string()),
            path: Some(example.path.to_string()).filter(|path| path.starts_with('/')),
            headers: host.into_iter().collect(),
            jwt: None,
        }
    });
    Some(Question { from, to, http, sni: None })
}

fn is_known(world: &World, namespace: &str, name: &str) -> bool {
    let mut workloads = world.mesh.workloads.iter();
    !name.is_empty()
        && workloads.any(|it| {
            it.key.namespace == namespace && (it.key.name == name || it.canonical.workload == name)
        })
}

/// The port of the service that was dialled. A destination knows its own port alone.
fn service_port(world: &World, pair: &PairLine) -> Option<u16> {
    let namespace = (!pair.source.namespace.is_empty()).then_some(pair.source.namespace.as_str());
    let service = world.service_named(&pair.service.host, namespace)?;
    if service.port(pair.port).is_some() {
        return Some(pair.port);
    }
    let leads =
        |port: &u16| service.endpoints.iter().any(|it| it.target_port(*port) == Some(pair.port));
    service.ports.iter().map(|it| it.port).find(leads)
}
