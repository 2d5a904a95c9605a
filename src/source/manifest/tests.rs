use proptest::prelude::*;

use super::*;

fn texts(stream: &str) -> Vec<&str> {
    split::split(stream).into_iter().map(|chunk| chunk.text).collect()
}

fn refusal(text: &str) -> Arc<Refusal> {
    match parse(text).as_slice() {
        [Document { content: Content::Refused(refusal), .. }] => refusal.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn streams_are_cut_at_markers_only() {
    for (stream, expected) in [
        ("", &[][..]),
        ("# nothing\n---\n---\n", &[]),
        ("a: 1\n", &["a: 1\n"]),
        ("---\na: 1\n---\nb: 2", &["---\na: 1\n", "---\nb: 2"]),
        ("# one\n---\n\n---\na: 1\n", &["---\na: 1\n"]),
        ("%YAML 1.2\n---\na: 1\n", &["%YAML 1.2\n---\na: 1\n"]),
        ("a: |\n  ---\n  b\n--- # two\nc: 1\n", &["a: |\n  ---\n  b\n", "--- # two\nc: 1\n"]),
        ("--- {a: 1}\n--- {b: 1}\n", &["--- {a: 1}\n", "--- {b: 1}\n"]),
        ("a: 1\n...\nb: 1\n", &["a: 1\n...\n", "b: 1\n"]),
        ("a: ----\n----\n", &["a: ----\n----\n"]),
        ("\u{feff}a: 1\r\n---\r\nb: 1\r\n", &["a: 1\r\n", "---\r\nb: 1\r\n"]),
    ] {
        assert_eq!(texts(stream), expected, "{stream:?}");
    }
}

#[test]
fn a_broken_document_spoils_no_other() {
    let namespace =
        |name: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    let text = format!("{}---\na: [\n---\n{}", namespace("one"), namespace("three"));
    let documents = parse(&text);
    assert_eq!(documents.iter().map(|it| it.number).collect::<Vec<_>>(), [1, 2, 3]);
    let Content::Refused(refusal) = &documents[1].content else { panic!("{documents:?}") };
    assert!(
        refusal.reason.contains("line 5") || refusal.reason.contains("line 6"),
        "{}",
        refusal.reason
    );
    assert!(
        matches!(&documents[2].content, Content::Object(object) if object.key().name == "three")
    );
}

#[test]
fn the_field_is_named() {
    let route = |rest: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: n}}\n\
             spec: {{rules: [{{}}, {rest}]}}"
        )
    };
    for (rest, field, reason) in [
        ("{backendRef: []}", "spec.rules[1].backendRef", "unknown field"),
        (
            "{matches: [{path: {type: Glob}}]}",
            "spec.rules[1].matches[0].path.type",
            "unknown variant",
        ),
        ("{matches: [{path: {value: a}}]}", "spec.rules[1].matches[0].path", "must start with /"),
        (
            "{matches: [{headers: [{name: 'a b', value: x}]}]}",
            "spec.rules[1].matches[0].headers[0]",
            "header name",
        ),
        (
            "{matches: [{path: {type: RegularExpression, value: '('}}]}",
            "spec.rules[1].matches[0].path",
            "regular expression",
        ),
        ("{matches: [{method: FETCH}]}", "spec.rules[1].matches[0].method", "FETCH"),
        (
            "{filters: [{type: RequestHeaderModifier}]}",
            "spec.rules[1].filters[0]",
            "requestHeaderModifier",
        ),
        ("{backendRefs: [{name: a, weight: -1}]}", "spec.rules[1].backendRefs[0].weight", "-1"),
    ] {
        let refusal = refusal(&route(rest));
        assert_eq!(refusal.field, field, "{rest}: {}", refusal.reason);
        assert!(refusal.reason.contains(reason), "{rest}: {}", refusal.reason);
        assert_eq!(refusal.key, Some(ObjectKey::new("n", "r")));
    }
}

#[test]
fn lists_and_json_are_read() {
    let text = "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n\t{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\
                \"metadata\":{\"name\":\"a\"}},\n\t{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}]}";
    let documents = parse(text);
    assert!(
        matches!(&documents[0].content, Content::Object(object) if object.kind() == Kind::Namespace)
    );
    let Content::Refused(refusal) = &documents[1].content else { panic!("{documents:?}") };
    assert_eq!(refusal.field, "items[1].metadata.name");
}

#[test]
fn keys_that_look_like_numbers_are_texts() {
    let text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\n\
                spec:\n  portLevelMtls:\n    8080: {mode: STRICT}\n";
    let documents = parse(text);
    let Content::Object(object) = &documents[0].content else { panic!("{documents:?}") };
    let Object::PeerAuthentication(policy) = &**object else { panic!("{object:?}") };
    assert!(policy.spec.port_level_mtls.contains_key("8080"));
}

#[test]
fn other_kinds_and_versions() {
    let of = |api: &str, kind: &str| {
        parse(&format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x}}")).remove(0).content
    };
    assert!(matches!(
        of("apps/v1", "Deployment"),
        Content::Ignored { severity: Severity::Note, .. }
    ));
    assert!(matches!(
        of("networking.istio.io/v1", "Sidecar"),
        Content::Ignored { severity: Severity::Warning, .. }
    ));
    assert!(matches!(
        of("security.istio.io/v1alpha1", "AuthorizationPolicy"),
        Content::Refused(refusal) if refusal.kind == Some(Kind::AuthorizationPolicy)
    ));
    assert!(matches!(of("serving.knative.dev/v1", "Service"), Content::Ignored { .. }));
}

#[test]
fn a_policy_with_broken_syntax_is_still_known() {
    let refusal = refusal(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  labels:\n    name: x\n  \
         name: \"deny\" # why\n  namespace: shop\nspec:\n  rules:\n - from: [\n",
    );
    assert_eq!(refusal.kind, Some(Kind::AuthorizationPolicy));
    assert_eq!(refusal.key, Some(ObjectKey::new("shop", "deny")));
}

#[test]
fn aliases_cannot_explode() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    assert!(refusal(&text).reason.len() < 1000);
    refusal(&format!("a: {}", "[".repeat(100_000)));
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "[ -~\n\t]{0,200}") {
        parse(&text);
    }

    #[test]
    fn any_object_is_survived(
        kind in prop::sample::select(vec![
            ("v1", "Pod"), ("v1", "Service"), ("gateway.networking.k8s.io/v1", "HTTPRoute"),
            ("gateway.networking.k8s.io/v1", "Gateway"), ("security.istio.io/v1", "AuthorizationPolicy"),
        ]),
        spec in "[a-zA-Z:{}\\[\\], \"'*&!|>-]{0,80}",
    ) {
        parse(&format!("apiVersion: {}\nkind: {}\nmetadata: {{name: x}}\nspec: {spec}", kind.0, kind.1));
    }

    #[test]
    fn cutting_loses_no_content(lines in prop::collection::vec("(---|\\.\\.\\.|%Y|#c|a: 1| b|--- x)?", 0..12)) {
        let stream = lines.join("\n");
        let kept: String = texts(&stream).concat();
        let content = |text: &str| text.lines().filter(|line| line.starts_with("a: 1")).count();
        prop_assert_eq!(content(&kept), content(&stream));
    }
}
