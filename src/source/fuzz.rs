//! What fuzzers try on manifests: whoever may write objects chooses every byte of them, and one that is broken must spoil
//! nothing but itself.

use super::manifest::Content;
use super::{File, Objects, TranslateSettings, Translation, parse, translate};
use crate::base::ObjectKey;

/// A neighbour's object, which must be in force whatever stands beside it.
const NEIGHBOUR: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: neighbour, namespace: quiet}\nspec: {action: DENY, rules: [{}]}\n";

/// Whose policies have the name of Istio's.
const STRANGERS: &str = "linkerd";

/// The text of a file.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let documents = parse(text);
    for pair in documents.windows(2) {
        assert!(pair[0].number <= pair[1].number && pair[1].number <= pair[0].number + 1);
    }
    let named = documents.iter().any(|document| claims_neighbour(&document.content));
    let strange = Objects::from_files(&[file("a.yaml", text)], &Objects::default());
    assert!(translated(&strange).says_the_same_as(&translated(&strange)));
    let both = Objects::from_files(
        &[file("a.yaml", NEIGHBOUR), file("b.yaml", text)],
        &Objects::default(),
    );
    let policies = translated(&both).mesh.policies;
    let neighbour = policies.iter().find(|policy| policy.key.to_string() == "quiet/neighbour");
    assert!(named || neighbour.is_some_and(|it| it.broken.is_none()), "a neighbour suffers");
    // A second reading of the same files, with the first as what was in force, changes nothing.
    let again = Objects::from_files(&[file("a.yaml", text)], &strange);
    assert!(translated(&again).says_the_same_as(&translated(&strange)), "{text}");
    // In one document with whatever it is, the policy is in force, or something denies in its place.
    for joined in [format!("{text}{NEIGHBOUR}"), format!("{NEIGHBOUR}{text}")] {
        let objects = Objects::from_files(&[file("a.yaml", &joined)], &Objects::default());
        let policies = translated(&objects).mesh.policies;
        let kept = |key: &ObjectKey| key.to_string() == "quiet/neighbour";
        let guarded = policies.iter().any(|it| it.broken.is_some() || kept(&it.key));
        assert!(guarded || text.contains(STRANGERS), "a policy is lost: {joined}");
    }
}

fn claims_neighbour(content: &Content) -> bool {
    let is_neighbour = |key: &ObjectKey| key.to_string() == "quiet/neighbour";
    match content {
        Content::Object(object) => is_neighbour(&object.key()),
        // What may be meant for any namespace denies in all of them.
        Content::Refused(refusal) => {
            let mut claims = refusal.claims.iter();
            claims.any(|it| it.key.as_ref().is_some_and(is_neighbour) || it.namespace.is_none())
        }
        Content::Ignored { key, .. } => key.as_ref().is_some_and(is_neighbour),
    }
}

fn file(name: &str, text: &str) -> File {
    File { name: name.into(), documents: Ok(parse(text).into()) }
}

fn translated(objects: &Objects) -> Translation {
    translate(objects, &TranslateSettings::default())
}
