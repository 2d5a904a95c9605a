//! Kubernetes Events (`events.k8s.io/v1`): problems that an operator must see, on the object that they concern.
//!
//! The same problem is the same Event: its name derives from the object and the text, so that a restart or another
//! leader continues its series instead of creating another one. [`Told`] says when to report a problem.

mod told;

pub use told::Told;

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::CONTROLLER_NAME;
use crate::base::ObjectKey;

/// The longest note that the API takes, in bytes (events.k8s.io/v1, Event).
const LONGEST_NOTE: usize = 1024;
/// Leaves room for the hash in a name of 253 bytes.
const LONGEST_NAME: usize = 200;
/// The namespace of Events about cluster-scoped objects.
const DEFAULT_NAMESPACE: &str = "default";

/// A problem that an operator must see.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trouble {
    pub regarding: Regarding,
    /// One word in CamelCase.
    pub reason: String,
    /// What is wrong, the consequence, and what to check. Truncated at 1024 bytes.
    pub note: String,
}

/// The object that a problem concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Regarding {
    pub api_version: String,
    pub kind: String,
    pub key: ObjectKey,
    /// Empty if unknown; `kubectl describe` shows the Event with the object only if it is set.
    pub uid: String,
}

/// Creates the problem's Event, or increments its series. `replica` is the reporter.
///
/// # Errors
/// The API server's error; nothing is retried here.
pub async fn publish(client: &Client, replica: &str, trouble: &Trouble) -> kube::Result<()> {
    let namespace = namespace(&trouble.regarding);
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let event = event(replica, trouble, Timestamp::now());
    match events.create(&PostParams::default(), &event).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        created => return created.map(|_| ()),
    }
    let name = event.metadata.name.unwrap_or_default();
    let before = events.get(&name).await?.series.map_or(1, |series| series.count);
    let series = EventSeries {
        count: before.saturating_add(1),
        last_observed_time: MicroTime(Timestamp::now()),
    };
    let patch = Patch::Merge(json!({ "series": series }));
    events.patch(&name, &PatchParams::default(), &patch).await.map(|_| ())
}

fn namespace(regarding: &Regarding) -> &str {
    match regarding.key.namespace.as_str() {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    }
}

fn event(replica: &str, trouble: &Trouble, now: Timestamp) -> Event {
    let Regarding { api_version, kind, key, uid } = &trouble.regarding;
    Event {
        metadata: ObjectMeta {
            name: Some(name(trouble)),
            namespace: Some(namespace(&trouble.regarding).to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some("Warning".to_owned()),
        action: Some("Translate".to_owned()),
        reason: Some(trouble.reason.clone()),
        note: Some(cut(&trouble.note, LONGEST_NOTE).to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(api_version.clone()),
            kind: Some(kind.clone()),
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()).filter(|it| !it.is_empty()),
            uid: Some(uid.clone()).filter(|it| !it.is_empty()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER_NAME.to_owned()),
        reporting_instance: Some(replica.to_owned()),
        ..Event::default()
    }
}

/// The same for the same problem.
fn name(trouble: &Trouble) -> String {
    // Its keys are constants, unlike a hash map's.
    let mut hasher = DefaultHasher::new();
    trouble.hash(&mut hasher);
    let name = cut(&trouble.regarding.key.name, LONGEST_NAME).trim_end_matches(['.', '-']);
    format!("{name}.{:016x}", hasher.finish())
}

fn cut(text: &str, longest: usize) -> &str {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(namespace: &str, name: &str, note: &str) -> Trouble {
        let regarding = Regarding {
            api_version: "v1".into(),
            kind: "Service".into(),
            key: ObjectKey::new(namespace, name),
            uid: "0-1".into(),
        };
        Trouble { regarding, reason: "WaypointIsNotReady".into(), note: note.into() }
    }

    #[test]
    fn the_same_trouble_has_the_same_name_and_another_one_another() {
        let one = trouble("bookinfo", "reviews", "why");
        assert_eq!(name(&one), name(&one.clone()));
        assert_ne!(name(&one), name(&trouble("bookinfo", "reviews", "another reason")));
        assert!(name(&one).starts_with("reviews."));
        assert!(name(&trouble("a", &"x".repeat(253), "")).len() < 253);
    }

    #[test]
    fn an_event_fits_what_the_api_takes() {
        let one =
            event("replica", &trouble("", "istio-waypoint", &"ä".repeat(1000)), Timestamp::now());
        assert_eq!(one.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(one.regarding.and_then(|it| it.namespace), None);
        assert_eq!(one.note.map(|note| note.len()), Some(LONGEST_NOTE));
    }
}
