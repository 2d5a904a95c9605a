//! The rights that `config/install.yaml` gives are those that the program uses: a right that is missing is a 403 on
//! somebody's cluster, one too many helps an intruder.
//!
//! What is used follows from the code: the kinds that agents and controller watch and write statuses of, from their own
//! lists; every other question to the API server, from the source text: each `Api<Type>` and the methods called on it.

use std::collections::BTreeSet;
use std::fs;

use isthmus::controller::status::SubjectKind;
use isthmus::source::kubernetes::{Watched, watched_resources};
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use serde_json::Value;

use crate::source_text::{SourceFile, files, identifier, root};

/// One thing that one role allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    /// `ClusterRole isthmus`
    role: String,
    group: String,
    /// Plural, with the subresource.
    resource: String,
    verb: String,
    /// Empty for all.
    name: String,
}

/// A type that `Api` is used with, and the only object of it that is anybody's business.
struct Row {
    name: &'static str,
    group: &'static str,
    resource: &'static str,
    only: Option<&'static str>,
}

/// Without `Partial...`: rights do not depend on how much of an object is asked for.
fn whole(type_name: &str) -> &str {
    let part = type_name.strip_prefix("PartialObjectMeta<").and_then(|it| it.strip_suffix('>'));
    part.unwrap_or(type_name)
}

fn row<T: Resource>(only: Option<&'static str>) -> Row {
    Row { name: T::KIND, group: T::GROUP, resource: T::URL_PATH_SEGMENT, only }
}

/// Types that name no single object are requested in all namespaces. The server looks for rights to a Namespace within
/// that namespace too.
fn rows() -> Vec<Row> {
    vec![
        row::<EndpointSlice>(None),
        row::<Pod>(None),
        row::<TokenReview>(None),
        row::<Event>(None),
        row::<Namespace>(Some("isthmus-system")),
        row::<DaemonSet>(Some("isthmus")),
        row::<Secret>(Some("isthmus-ca")),
        row::<ConfigMap>(Some("isthmus-ca-root")),
        row::<Lease>(Some("isthmus-controller")),
    ]
}

/// Types that stand for the kinds of the lists, and where they are used.
const OF_LISTS: [(&str, &str); 4] = [
    ("DynamicObject", "src/controller/status/feed.rs"),
    ("DynamicObject", "src/controller/status/write.rs"),
    ("PartialObjectMeta<CustomResourceDefinition>", "src/source/kubernetes/discovery.rs"),
    ("Shaped<S>", "src/source/kubernetes/watch.rs"),
];

#[test]
fn the_roles_grant_what_is_used_and_no_more() {
    let granted = granted();
    let mut used = used_of_lists();
    for file in files("src") {
        used.extend(used_in(&file));
    }
    let missing: Vec<_> = used.difference(&granted).collect();
    let needless: Vec<_> = granted.difference(&used).collect();
    assert!(
        missing.is_empty() && needless.is_empty(),
        "config/helm/isthmus/templates/*-rbac.yaml\nuses that are not granted: {missing:#?}\ngrants that are not \
         used: {needless:#?}"
    );
}

/// The rules of all roles, one by one. A `*` stands for itself, and is used by nobody.
fn granted() -> BTreeSet<Right> {
    let manifest = fs::read_to_string(root().join("config/install.yaml")).expect("a manifest");
    let mut rights = BTreeSet::new();
    for document in manifest.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).expect("YAML");
        let kind = object["kind"].as_str().unwrap_or_default();
        if !matches!(kind, "ClusterRole" | "Role") {
            continue;
        }
        let role = format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default());
        for rule in object["rules"].as_array().into_iter().flatten() {
            let names = texts(&rule["resourceNames"]);
            let names = if names.is_empty() { vec![String::new()] } else { names };
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        rights.extend(names.iter().map(|name| Right {
                            role: role.clone(),
                            group: group.clone(),
                            resource: resource.clone(),
                            verb: verb.clone(),
                            name: name.clone(),
                        }));
                    }
                }
            }
        }
    }
    assert!(rights.len() > 40, "{rights:?}");
    rights
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Watches by kind, and the statuses that are written.
fn used_of_lists() -> BTreeSet<Right> {
    let right = |role: &str, group: &str, resource: &str, verb: &str| Right {
        role: format!("ClusterRole {role}"),
        group: group.to_owned(),
        resource: resource.to_owned(),
        verb: verb.to_owned(),
        name: String::new(),
    };
    let mut rights = BTreeSet::new();
    for Watched { group, plural, only } in watched_resources() {
        rights.extend(["list", "watch"].map(|verb| Right {
            name: only.unwrap_or_default().to_owned(),
            ..right("isthmus", &group, &plural, verb)
        }));
    }
    for kind in SubjectKind::read() {
        rights.extend(["list", "watch"].map(|verb| Right {
            name: kind.only().unwrap_or_default().to_owned(),
            ..right("isthmus-controller", kind.group(), kind.plural(), verb)
        }));
    }
    for kind in SubjectKind::all() {
        let (group, resource) = (kind.group(), kind.plural());
        let of_controller =
            |resource: &str, verb| right("isthmus-controller", group, resource, verb);
        rights.insert(of_controller(&format!("{resource}/status"), "patch"));
        if kind.is_made() {
            rights.insert(of_controller(resource, "create"));
        }
    }
    rights
}

/// A file's requests to the API server by a type that it defines.
fn used_in(file: &SourceFile) -> BTreeSet<Right> {
    let code = folded(&file.code);
    let path = file.path.display().to_string();
    let role = if path.starts_with("src/controller") { "isthmus-controller" } else { "isthmus" };
    let rows = rows();
    let mut rights = BTreeSet::new();
    for (binding, type_name) in bindings(&code) {
        if OF_LISTS.contains(&(type_name, path.as_str())) {
            continue;
        }
        let row = rows.iter().find(|row| row.name == whole(type_name));
        let row = row.unwrap_or_else(|| panic!("{path}: Api<{type_name}> is in no row here"));
        let verbs = verbs(&code, binding);
        assert!(!verbs.is_empty(), "{path}: nothing is asked of {binding}: Api<{type_name}>?");
        for (verb, is_named) in verbs {
            // A kind without namespaces is listed in the whole cluster, whatever its name.
            let of_cluster = row.name == Namespace::KIND && matches!(verb, "list" | "watch");
            let only = row.only.filter(|_| !of_cluster);
            let kind = if only.is_some() { "Role" } else { "ClusterRole" };
            let name = only.filter(|_| is_named).unwrap_or_default();
            let right = Right {
                role: format!("{kind} {role}"),
                group: row.group.to_owned(),
                resource: row.resource.to_owned(),
                verb: verb.to_owned(),
                name: name.to_owned(),
            };
            rights.insert(right);
        }
    }
    rights
}

/// The code with every call in one line.
fn folded(code: &str) -> String {
    code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" .", ".")
}

/// Variables and fields with a type `Api<T>`, and `T`.
fn bindings(code: &str) -> Vec<(&str, &str)> {
    let found = code.match_indices(": Api<").map(|(at, mark)| {
        let before = &code[..at];
        let start = before.rfind(|c: char| !is_of_word(c)).map_or(0, |it| it + 1);
        let rest = &code[at + mark.len()..];
        let mut depth = 1;
        let end = rest.find(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        });
        (&before[start..], &rest[..end.unwrap_or(0)])
    });
    found.collect()
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The verbs of what is called on a binding, and whether the server knows the object's name when it looks at rights.
fn verbs(code: &str, binding: &str) -> BTreeSet<(&'static str, bool)> {
    let mut verbs = BTreeSet::new();
    // Where nothing but the object of that name is asked for.
    for watching in ["watch_object", "watcher"] {
        let asks = |of: &str| code.contains(&format!("{watching}({binding}{of}, "));
        if asks("") || asks(".clone()") {
            verbs.extend([("list", true), ("watch", true)]);
        }
    }
    let calls = format!("{binding}.");
    for (at, _) in code.match_indices(&calls) {
        if code[..at].ends_with(is_of_word) {
            continue;
        }
        let rest = &code[at + calls.len()..];
        match identifier(rest) {
            "clone" => {}
            "get" | "get_opt" | "get_metadata" => _ = verbs.insert(("get", true)),
            "list" | "list_metadata" => _ = verbs.insert(("list", true)),
            "create" => _ = verbs.insert(("create", false)),
            "replace" => _ = verbs.insert(("update", true)),
            // Makes the object when there is none.
            "patch" if rest.split(';').next().is_some_and(|it| it.contains("Patch::Apply")) => {
                verbs.extend([("patch", true), ("create", true)]);
            }
            "patch" => _ = verbs.insert(("patch", true)),
            other => panic!("{binding}.{other}: which verb is that?"),
        }
    }
    verbs
}

#[test]
fn questions_are_found_in_the_source() {
    let of = |text: &str| {
        let code = folded(text);
        let found = bindings(&code).into_iter().flat_map(|(name, _)| verbs(&code, name));
        found.map(|(verb, _)| verb).collect::<Vec<_>>()
    };
    let text = "struct A { pods: Api<Pod> }\nself.pods\n    .list_metadata(&x); other_pods.get(y)";
    assert_eq!(of(text), ["list"]);
    assert_eq!(
        of("let a: Api<A<B>> = x; watch_object(a, N); a.replace(1)"),
        ["list", "update", "watch"]
    );
    assert_eq!(of("let m: Api<M> = x; m.patch(N, &p, &Patch::Apply(y))"), ["create", "patch"]);
}
