//! Templates of pods (Deployments and so on), which no agent reads: a cluster makes pods of them, and a directory that is written
//! for a cluster has nothing else. `isthmus analyze` takes each for one pod.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::text_at;
use crate::source::objects::{Kind, Object};

/// API group, kind, and where the template stands.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("apps", "Deployment", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("apps", "DaemonSet", "/spec/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("batch", "Job", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
    ("", "ReplicationController", "/spec/template"),
    ("argoproj.io", "Rollout", "/spec/template"),
];

/// Makes addresses differ, so that no pod is taken for another one.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The pod that an object would have made, if it is one that makes pods. It has a name that no object of the API can have.
pub(super) fn pod_of(object: &Value) -> Option<Object> {
    let (api_version, kind) = (text_at(object, "apiVersion")?, text_at(object, "kind")?);
    let is_this =
        |(group, of, _): &&(&str, &str, &str)| *group == super::group(api_version) && *of == kind;
    let (.., place) = TEMPLATES.iter().find(is_this)?;
    let template = object.pointer(place)?;
    let metadata = object.get("metadata")?;
    let of_template = |field: &str| template.pointer(&format!("/metadata/{field}")).cloned();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("{} ({kind})", text_at(metadata, "name")?),
            "namespace": metadata.get("namespace"),
            "labels": of_template("labels"),
            "annotations": of_template("annotations"),
        },
        "spec": template.get("spec")?,
        "status": {"podIP": documentation_address()},
    });
    Kind::Pod.read(&pod).ok()
}

/// The name and the kind of the object that such a pod was made of.
pub fn made_of(pod: &str) -> Option<(&str, &str)> {
    let (name, kind) = pod.strip_suffix(')')?.split_once(" (")?;
    TEMPLATES.iter().any(|(_, of, _)| *of == kind).then_some((name, kind))
}

/// An address for examples (RFC 3849), which nobody has: an endpoint needs one.
fn documentation_address() -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("2001:db8::{:x}:{:x}", number >> 16, number & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::super::{Content, parse};
    use super::*;
    use crate::source::objects::{Labelled, Pod, Typed};

    fn pod(text: &str) -> Option<Object> {
        let documents = parse(text);
        let Content::Ignored { template, .. } = &documents[0].content else { panic!("{text}") };
        template.as_deref().cloned()
    }

    #[test]
    fn a_deployment_makes_a_pod_with_its_labels_and_account() {
        let object = pod(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  template:\n    \
             metadata: {labels: {app: web}}\n    spec: {serviceAccountName: cart, containers: [{name: c, image: i}]}\n",
        )
        .expect("a pod");
        let pod = Pod::of(&object).expect("a pod");
        assert_eq!(object.key().to_string(), "shop/web (Deployment)");
        assert_eq!(pod.labels().and_then(|it| it.get("app")).map(String::as_str), Some("web"));
        assert_eq!(pod.template.service_account_name.as_deref(), Some("cart"));
        assert_eq!(made_of("web (Deployment)"), Some(("web", "Deployment")));
        assert_eq!(made_of("web (Thing)"), None);
        assert_eq!(made_of("web"), None);
    }

    #[test]
    fn a_cron_jobs_template_stands_deeper_and_others_make_none() {
        let cron = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: sweep}\nspec: {jobTemplate: {spec: {template: {spec: \
                    {containers: []}}}}}\n";
        assert_eq!(pod(cron).expect("a pod").key().to_string(), "default/sweep (CronJob)");
        for text in [
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {}\n",
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: web}\n",
        ] {
            assert!(pod(text).is_none(), "{text}");
        }
    }
}
