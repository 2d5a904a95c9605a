//! The files that derive from the table of kinds (`src/source/objects.rs`): the roles of the chart and a table of
//! `docs/resources.md`. `UPDATE_DOCS=1 cargo test --test it kinds` writes them; `scripts/install-manifest` then renders
//! `config/install.yaml`.

use std::collections::BTreeSet;

use isthmus::controller::status::SubjectKind;
use isthmus::source::kubernetes::watched_resources;
use isthmus::source::objects::{CarriedOut, Kind, Status};

use crate::docs::{block, block_of, read};

/// Of a list in one line.
const WIDTH: usize = 100;

/// The objects that a rule names: their API group, and the name of the only one.
type Scope = (String, Option<&'static str>);

/// Rules of a role: API groups, resources, names of the only objects, verbs.
fn rules(
    resources: impl IntoIterator<Item = (String, Option<&'static str>, String)>,
    verbs: &str,
) -> String {
    let mut groups: Vec<(Scope, Vec<String>)> = Vec::new();
    for (group, only, resource) in resources {
        let of = (group, only);
        match groups.iter_mut().find(|(known, _)| *known == of) {
            Some((_, resources)) => resources.push(resource),
            None => groups.push((of, vec![resource])),
        }
    }
    let rule = |((group, only), resources): (Scope, Vec<String>)| {
        let group = if group.is_empty() { "\"\"".to_owned() } else { group };
        let mut list = format!(" [{}]", resources.join(", "));
        if list.len() > WIDTH {
            list = resources.iter().map(|it| format!("\n      - {it}")).collect();
        }
        let names = only.map(|name| format!("    resourceNames: [{name}]\n")).unwrap_or_default();
        format!("  - apiGroups: [{group}]\n    resources:{list}\n{names}    verbs: [{verbs}]\n")
    };
    groups.into_iter().map(rule).collect()
}

/// `rbac.rs` judges that these are the rights that are used.
#[test]
fn the_roles_follow_from_the_table() {
    let watched = watched_resources().into_iter().map(|it| (it.group, it.only, it.plural));
    let watched = rules(watched, "list, watch");
    let page = "config/helm/isthmus/templates/agent-rbac.yaml";
    block_of(page, ("  # generated: kinds\n", "  # end"), &watched);

    let of = |kind: SubjectKind, suffix: &str| {
        (kind.group().to_owned(), kind.only(), format!("{}{suffix}", kind.plural()))
    };
    let text = rules(SubjectKind::read().map(|kind| of(kind, "")), "list, watch")
        + &rules(SubjectKind::all().map(|kind| of(kind, "/status")), "patch");
    let page = "config/helm/isthmus/templates/controller-rbac.yaml";
    block_of(page, ("  # generated: kinds\n", "  # end"), &text);
}

#[test]
fn the_table_of_the_reference_is_current() {
    let mut text = "| kind | API group and versions | what is used | [status](statuses.md) |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for kind in Kind::all() {
        let group = match kind.group() {
            "" => String::new(),
            group => format!("{group}/"),
        };
        let versions = kind.versions().join(", ");
        let (used, status) = (kind.row().used, status(kind));
        text += &format!("| `{kind}` | {group}{versions} | {used} | {status} |\n");
    }
    block("docs/resources.md", "kinds", &text);
}

/// The conditions that the controller writes.
fn status(kind: Kind) -> &'static str {
    match kind.row().status {
        Status::None => "",
        Status::Gateway => "`Accepted`, `Programmed`",
        Status::Parents if kind.is_unserved() => "`Accepted` for each parent",
        Status::Parents => "`Accepted`, `ResolvedRefs`, `PartiallyInvalid` for each parent",
        Status::Ancestors if kind.is_unserved() => "`Accepted` for each target",
        Status::Ancestors => "`Accepted`, `Programmed` for each target",
        Status::Class | Status::Accepted => "`Accepted`",
        Status::Enforced => "`ZtunnelAccepted` or `WaypointAccepted`",
        Status::WaypointBound => "`istio.io/WaypointBound`",
        Status::NotCarriedOut => "`isthmus.io/CarriedOut`",
    }
}

/// A row that contradicts itself would be found out on somebody's cluster.
#[test]
fn rows_are_whole() {
    let mut plurals = BTreeSet::new();
    for kind in Kind::all() {
        let row = kind.row();
        assert!(plurals.insert((row.group, row.plural)) && !row.plural.is_empty(), "{kind}");
        assert!(!row.versions.is_empty() && !row.used.is_empty(), "{kind}");
        let singular = kind.name().to_lowercase();
        assert!(row.plural.starts_with(singular.trim_end_matches('y')), "{kind}: {}", row.plural);
        if matches!(row.carried_out, CarriedOut::No { .. }) {
            assert_ne!(
                row.status,
                Status::None,
                "{kind}: nobody is told that it is not carried out"
            );
        }
    }
    assert!(plurals.len() > 20);
}

#[test]
fn statuses_and_unsupported_kinds_are_documented() {
    let page = read("docs/statuses.md");
    let conditions = Kind::all().flat_map(|kind| status(kind).split('`').skip(1).step_by(2));
    let missing: BTreeSet<_> = conditions.filter(|it| !page.contains(&format!("`{it}`"))).collect();
    assert!(missing.is_empty(), "docs/statuses.md says nothing of {missing:?}");

    let page = read("docs/resources.md");
    let (_, chapter) = page.split_once("## Unsupported kinds").expect("the chapter");
    let chapter = chapter.split("\n## ").next().unwrap_or_default();
    let unserved = Kind::all().filter(|kind| kind.is_unserved());
    let missing: Vec<_> = unserved.filter(|it| !chapter.contains(&format!("`{it}`"))).collect();
    assert!(missing.is_empty(), "docs/resources.md does not say what becomes of {missing:?}");
}
