//! From a desired and a current status to the writes.

use serde_json::{Map, Value, json};

use super::subject::Lists;
use super::{CONTROLLER_NAME, Desired, Stored, Subject};

/// Lists of a status that controllers share, with an entry for each reference and controller.
struct Shared {
    list: &'static str,
    reference: &'static str,
    /// The most entries that it may have.
    room: usize,
}

/// Gateway API, RouteStatus and PolicyStatus.
const SHARED: [Shared; 2] = [
    Shared { list: "parents", reference: "parentRef", room: 32 },
    Shared { list: "ancestors", reference: "ancestorRef", room: 16 },
];
/// The time of a condition's last change; everything else of a status follows from the objects.
const TRANSITION: &str = "lastTransitionTime";

/// One server-side apply of the subresource `status`.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// What to apply.
    pub body: Value,
    /// Takes over fields of another manager.
    pub force: bool,
}

/// The writes after which `stored` has the desired status; `None` if it has it already. `now` is the time in the API's
/// format.
pub fn plan(subject: &Subject, stored: &Stored, desired: &Desired, now: &str) -> Option<Write> {
    let empty = Value::Null;
    let held = stored.object.get("status").unwrap_or(&empty);
    if is_newer(held, stored.generation()) {
        return None;
    }
    let shared = SHARED.iter().find(|shared| desired.status.get(shared.list).is_some());
    let status = match shared {
        Some(shared) => entries(shared, held, desired, now)?,
        None => top(subject.kind.lists(), held, desired, now)?,
    };
    let mut metadata = json!({ "name": &*subject.key.name });
    if !subject.key.namespace.is_empty() {
        metadata["namespace"] = Value::from(&*subject.key.namespace);
    }
    let whole = subject.kind.lists() == Lists::Whole;
    if whole {
        // Other entries of the list must not have changed since it was read.
        metadata["resourceVersion"] = stored.resource_version().into();
    }
    let body = json!({
        "apiVersion": stored.object.get("apiVersion"),
        "kind": subject.kind.name(),
        "metadata": metadata,
        "status": status,
    });
    Some(Write { body, force: whole || subject.kind.is_all_ours() })
}

/// Whether one of our statuses describes a newer object than the one that we know.
fn is_newer(held: &Value, generation: Option<i64>) -> bool {
    let Some(generation) = generation else { return false };
    let newest = |conditions: &[Value]| {
        conditions.iter().filter_map(|it| it.get("observedGeneration")?.as_i64()).max()
    };
    let entries = SHARED.iter().flat_map(|shared| array(held, shared.list));
    let of_entries = entries.filter(|it| is_ours(it));
    let of_entries = of_entries.filter_map(|it| newest(array(it, "conditions"))).max();
    of_entries.max(newest(array(held, "conditions"))).is_some_and(|newest| newest > generation)
}

fn entries(shared: &Shared, held: &Value, desired: &Desired, now: &str) -> Option<Value> {
    let held = array(held, shared.list);
    let (ours, others): (Vec<&Value>, Vec<&Value>) = held.iter().partition(|it| is_ours(it));
    let wanted = array(&desired.status, shared.list);
    let room = shared.room.saturating_sub(others.len());
    let mut entries: Vec<Value> = others.into_iter().cloned().collect();
    let mut same = ours.len() == wanted.len().min(room);
    for entry in wanted.iter().take(room) {
        let reference = entry.get(shared.reference);
        let before = ours.iter().find(|it| it.get(shared.reference) == reference);
        same &= before.is_some_and(|before| without_times(before) == *entry);
        entries.push(with_times(entry, before.copied().unwrap_or(&Value::Null), now));
    }
    (!same).then(|| json!({ shared.list: entries }))
}

fn is_ours(parent: &Value) -> bool {
    parent.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER_NAME)
}

/// Conditions, and fields that are ours as a whole.
fn top(lists: Lists, held: &Value, desired: &Desired, now: &str) -> Option<Value> {
    let is_owned = |it: &&Value| {
        it.get("type").and_then(Value::as_str).is_some_and(|it| desired.owned.contains(&it))
    };
    let conditions = array(held, "conditions");
    let ours: Vec<Value> = conditions.iter().filter(is_owned).map(without_times).collect();
    let wanted = array(&desired.status, "conditions");
    let mut same = ours.len() == wanted.len() && wanted.iter().all(|it| ours.contains(it));
    for (field, value) in desired.status.as_object().into_iter().flatten() {
        let nothing = value.as_array().is_some_and(Vec::is_empty);
        same &= field == "conditions"
            || match held.get(field) {
                Some(held) => without_times(held) == *value,
                None => nothing,
            };
    }
    if same {
        return None;
    }
    let mut status = with_times(&desired.status, held, now);
    if lists == Lists::Whole
        && let Some(Value::Array(all)) = status.get_mut("conditions")
    {
        let others = conditions.iter().filter(|it| !is_owned(it)).cloned();
        let ours = std::mem::take(all);
        all.extend(others.chain(ours));
    }
    Some(status)
}

fn array<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn without_times(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| *name != TRANSITION);
            kept.map(|(name, value)| (name.clone(), without_times(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

/// `wanted`, with the times of equal conditions in `held`, otherwise `now`.
fn with_times(wanted: &Value, held: &Value, now: &str) -> Value {
    match wanted {
        Value::Object(fields) => {
            let mut copy: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| {
                    let below = held.get(name).unwrap_or(&Value::Null);
                    (name.clone(), with_times(value, below, now))
                })
                .collect();
            if is_condition(wanted) {
                let unchanged = held.get("status") == wanted.get("status");
                let time = held.get(TRANSITION).filter(|_| unchanged).cloned();
                copy.insert(TRANSITION.to_owned(), time.unwrap_or_else(|| now.into()));
            }
            Value::Object(copy)
        }
        Value::Array(items) => {
            let same = |item: &Value| {
                let held = held.as_array().into_iter().flatten();
                held.into_iter().find(|it| has_same_key(it, item)).unwrap_or(&Value::Null)
            };
            items.iter().map(|item| with_times(item, same(item), now)).collect()
        }
        other => other.clone(),
    }
}

fn is_condition(value: &Value) -> bool {
    value.get("type").is_some() && value.get("reason").is_some()
}

/// The type identifies a condition, the name a listener.
fn has_same_key(one: &Value, two: &Value) -> bool {
    ["type", "name"].iter().any(|key| two.get(key).is_some() && one.get(key) == two.get(key))
}
