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
        ("a: 1\r\n---\r\nb: 1\r\n", &["a: 1\r\n", "---\r\nb: 1\r\n"]),
        ("a: 1\n---# two\nb: 1\n", &["a: 1\n", "# two\nb: 1\n"]),
        ("a: 1\n---b: 1\n---\nc: 1\n", &["a: 1\n", "---b: 1\n", "---\nc: 1\n"]),
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
        assert_eq!(refusal.claims[0].key, Some(ObjectKey::new("n", "r")));
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
        of("networking.istio.io/v1beta1", "ProxyConfig"),
        Content::Ignored { severity: Severity::Warning, .. }
    ));
    assert!(matches!(
        of("security.istio.io/v1alpha1", "AuthorizationPolicy"),
        Content::Refused(refusal) if refusal.claims[0].kind == Some(Kind::AuthorizationPolicy)
    ));
    assert!(matches!(of("serving.knative.dev/v1", "Service"), Content::Ignored { .. }));
}

/// Kind, namespace and name of what a text claims, and what it would deny.
fn claims(text: &str) -> Vec<String> {
    let mut claims = Vec::new();
    for document in parse(text) {
        let Content::Refused(refusal) = document.content else { continue };
        claims.extend(refusal.claims.iter().map(|it| {
            let name = it.key.as_ref().map_or("?", |key| &key.name);
            let namespace = it.namespace.as_ref().map_or("?", |text| text);
            let guard = if it.guard.is_some() { "!" } else { "" };
            format!("{}{guard} {namespace}/{name}", it.kind_name)
        }));
    }
    claims
}

/// Whatever the style, and wherever the error.
#[test]
fn a_policy_with_broken_syntax_is_still_known() {
    let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n";
    let known = "AuthorizationPolicy! shop/deny";
    for (text, expected) in [
        (
            format!(
                "{head}metadata:\n  labels:\n    name: x\n  name: \"deny\" # why\n  namespace: shop\n\
                 spec:\n  rules:\n - from: [\n"
            ),
            &[known][..],
        ),
        (format!("{head}metadata: {{name: deny, namespace: shop}}\nspec: {{rules: [{{}}]"), &[known]),
        (format!("{head} metadata:\n  name: deny\n  namespace: shop\n"), &[known]),
        (format!("{head}metadata:\n\tname: deny\n\tnamespace: shop\n"), &[known]),
        (format!("{head}metadata: {{name: deny}}\nspec: ["), &["AuthorizationPolicy! default/deny"]),
        (
            r#"{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{"name":"deny","namespace":"shop"},"spec":{"#
                .to_owned(),
            &[known],
        ),
        (
            "\"kind\": \"\\u0041uthorization\\\n  Policy\"\n\"metadata\":\n  \"name\": deny\n  namespace: shop\nspec: '"
                .to_owned(),
            &[known],
        ),
        (
            "? kind\n: !!str AuthorizationPolicy\n? metadata\n: {? name : deny, ? namespace : shop}\nspec: {"
                .to_owned(),
            &[known],
        ),
        ("kind: >-\n  AuthorizationPolicy\nmetadata: [".to_owned(), &["AuthorizationPolicy! ?/?"]),
        ("spec: {a: [\nkind: &k AuthorizationPolicy\n".to_owned(), &["AuthorizationPolicy! ?/?"]),
        (
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: security.istio.io/v1\n  kind: PeerAuthentication\n  \
             metadata: {name: deny, namespace: shop}\n  spec: {a: ]\n- apiVersion: security.istio.io/v1\n  \
             kind: AuthorizationPolicy\n  metadata:\n    namespace: shop\n    name: deny\n"
                .to_owned(),
            &["PeerAuthentication! shop/deny", known],
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems:\n- metadata: {name: deny, \
             namespace: shop}\n  spec: ["
                .to_owned(),
            &[known, "AuthorizationPolicy! ?/?"],
        ),
        ("apiVersion: security.istio.io/v1\nmetadata: [".to_owned(), &["! ?/?"]),
        // Nobody's, though it looks so.
        ("a: [\n# kind: AuthorizationPolicy\n".to_owned(), &[]),
        ("kind: Role\nmetadata: {name: r}\nrules: [{resources: [authorizationpolicies]}".to_owned(), &["Role default/r"]),
        (
            "kind: Pod\nmetadata: {name: p, labels: {security.istio.io/tlsMode: istio}}\nspec: [".to_owned(),
            &["Pod default/p"],
        ),
    ] {
        assert_eq!(claims(&text), expected, "{text}");
    }
}

/// What has the syntax of YAML and is no object.
#[test]
fn a_policy_that_does_not_say_so_in_the_right_place_is_still_known() {
    let metadata = "metadata: {name: p, namespace: n}\nspec: {}\n";
    for (text, expected) in [
        (format!("kind: AuthorizationPolicy\n{metadata}"), "AuthorizationPolicy! n/p"),
        (format!("apiVersion: security.istio.io/v1\n{metadata}"), "! n/p"),
        (
            format!("apiVersion: security.istio.io/v1\nkind: AuthorisationPolicy\n{metadata}"),
            "AuthorisationPolicy! n/p",
        ),
        (
            format!("apiVersion: security.istio.io\nkind: AuthorizationPolicy\n{metadata}"),
            "AuthorizationPolicy! n/p",
        ),
        (
            format!("apiVersion: v1\nkind: PeerAuthentication\n{metadata}"),
            "PeerAuthentication! n/p",
        ),
        (
            format!("apiVersion: security.istio.io/v1\nKind: AuthorizationPolicy\n{metadata}"),
            "! n/p",
        ),
        (
            format!("apiVersion: v1\nKind: AuthorizationPolicy\n{metadata}"),
            "AuthorizationPolicy! ?/?",
        ),
        ("apiVersion security.istio.io/v1".to_owned(), "! ?/?"),
        (
            "[{kind: AuthorizationPolicy, metadata: {name: p, namespace: n}}]".to_owned(),
            "AuthorizationPolicy! n/p",
        ),
        (
            "a: {kind: AuthorizationPolicy, metadata: {name: p}}".to_owned(),
            "AuthorizationPolicy! default/p",
        ),
    ] {
        assert_eq!(claims(&text), [expected], "{text}");
    }
    for text in [
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: p}\ndata:\n  a: |\n    kind: AuthorizationPolicy\n",
    ] {
        assert!(claims(text).is_empty(), "{text}");
    }
}

/// A namespace that nobody can have may mean any: a policy for none would deny nothing.
#[test]
fn a_policy_for_a_namespace_that_cannot_be_is_for_any() {
    let policy = |namespace: &str, rest: &str| {
        format!(
            "x: &n shop\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata:\n  name: p\n  namespace: {namespace}\nspec: {rest}\n"
        )
    };
    for (text, field) in [
        (policy("${NAMESPACE}", "{}"), "metadata.namespace"),
        (policy("Shop", "{}"), "metadata.namespace"),
        (policy("shop.", "{}"), "metadata.namespace"),
        (policy("*n", "{}"), ""),
        (policy("${NAMESPACE}", "{"), ""),
    ] {
        let documents = parse(&text);
        let Content::Refused(refusal) = &documents[1].content else { panic!("{documents:?}") };
        assert_eq!(refusal.field, field, "{text}");
        let [claim] = &refusal.claims[..] else { panic!("{text}: {refusal:?}") };
        assert_eq!((&claim.key, &claim.namespace), (&None, &None), "{text}");
        assert_eq!(claim.guard, Some(Guard::Requests), "{text}");
    }
}

/// A DENY of a path in Latin-1 would match nothing.
#[test]
fn a_policy_whose_text_is_not_utf_8_is_not_guessed() {
    let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p} # \u{fffd}\n\
                spec: {rules: [{to: [{operation: {paths: [/caf\u{fffd}]}}]}]}\n";
    let refusal = refusal(text);
    assert_eq!(refusal.field, "spec.rules[0].to[0].operation.paths[0]");
    assert!(refusal.reason.contains("UTF-8"), "{}", refusal.reason);
    let documents = parse(&text.replace("caf\u{fffd}", "cafe"));
    assert!(matches!(documents[0].content, Content::Object(_)), "{documents:?}");
}

#[test]
fn two_objects_in_one_document_are_both_named() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: n}\nspec: {}\n";
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n";
    let both = ["AuthorizationPolicy! n/p", "Namespace /extra"];
    for text in [
        format!("{policy}{namespace}"),
        format!("{policy} ---\n{namespace}"),
        format!("{policy}--\n{namespace}"),
    ] {
        let mut found = claims(&text);
        found.sort();
        assert_eq!(found, both, "{text}");
    }
    let documents = parse(&format!("{policy}---{namespace}"));
    assert!(matches!(documents[0].content, Content::Object(_)), "{documents:?}");
    assert_eq!(claims(&format!("{policy}---{namespace}")), ["Namespace /extra"]);
    let again = policy.replace("spec: {}", "").replace("n/p", "n/q").replace("name: p", "name: q");
    let found = claims(&format!("{policy}{again}"));
    assert_eq!(found, ["AuthorizationPolicy! n/p", "AuthorizationPolicy! n/q"]);
    // The message is for operators.
    let said = refusal(&format!("{policy}{namespace}"));
    assert!(said.field == "apiVersion" && said.reason.contains("no --- between them"), "{said:?}");
    let said = refusal("a: 1\nb: [\n");
    assert!(!said.reason.contains("Options"), "{said:?}");
}

/// As `kubectl` reads it.
#[test]
fn what_stands_twice_counts_last() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: x, a: y}}\nstatus: {}\nkind: Pod\n";
    let documents = parse(text);
    let Content::Object(object) = &documents[0].content else { panic!("{documents:?}") };
    let Object::Pod(pod) = &**object else { panic!("{object:?}") };
    assert_eq!(pod.template.labels.as_ref().unwrap()["a"], "y");
    assert_eq!(documents[0].twice, ["metadata.labels.a", "kind"]);
}

/// Each is read, whole, whatever the style.
#[test]
fn all_that_kubectl_reads_is_read() {
    let one = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}"#;
    let two = "apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n";
    let policies = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems: \
                    [{metadata: {name: a}, spec: {}}, {metadata: {name: b}, spec: {}}]";
    let nested = format!(
        "apiVersion: v1\nkind: List\nitems: [{{apiVersion: v1, kind: List, items: [{one}]}}]"
    );
    let anchored = "x: &n {name: a}\n---\napiVersion: &v v1\nkind: Namespace\nmetadata: {<<: {name: a}, labels: {v: *v}}\n";
    let escaped = r#"{"apiVersion":"v1","kind":"Names\u0070ace","metadata":{"name":"a","annotations":{"x":"\ud83d\ude00\/"}}}"#;
    for (text, names) in [
        (format!("{one}{one}").replacen("\"a\"", "\"c\"", 1), &["c", "a"][..]),
        (format!("{one}\n{}\n", one.replace("\"a\"", "\"b\"")), &["a", "b"]),
        (format!("\n\t{one}\n---\n{two}"), &["a", "b"]),
        (format!("---\n{one}\n{two}"), &["a", "b"]),
        (policies.to_owned(), &["a", "b"]),
        (nested, &["a"]),
        (anchored.to_owned(), &["a"]),
        (escaped.to_owned(), &["a"]),
        (
            format!("\u{feff}{two}\u{feff}---\r\n{}", two.replace('b', "c").replace('\n', "\r\n")),
            &["b", "c"],
        ),
        (two.replace('\n', "\r"), &["b"]),
        (two.replace(": ", ":\t"), &["b"]),
        (format!("%YAML 1.2\n---\n{two}...\n"), &["b"]),
        (two.replace("kind", "? \"kind\"\n").replace("Namespace", "!!str Namespace"), &["b"]),
        (two.replace("Namespace", ">-\n  Namespace"), &["b"]),
        (format!("{two}---# the next one\n{}", two.replace('b', "c")), &["b", "c"]),
        (two.replace('\n', "\u{85}"), &["b"]),
        (two.replace('\n', "\u{2028}"), &["b"]),
        (two.replace("{name: b}", "{<<: {name: a}, name: b}"), &["b"]),
        (format!("<<: {{kind: Pod}}\n{two}"), &["b"]),
    ] {
        let read: Vec<String> = parse(&text)
            .iter()
            .filter_map(|it| match &it.content {
                Content::Object(object) => Some(object.key().name.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(read, names, "{text}: {:?}", parse(&text));
    }
}

#[test]
fn numbers_are_what_kubectl_takes_them_for() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {publishNotReadyAddresses: yes, \
                ports: [{port: 0x50}, {port: 80.0}, {port: 0120}, {port: 8_0}]}\n";
    let documents = parse(text);
    let Content::Object(object) = &documents[0].content else { panic!("{documents:?}") };
    let Object::Service(service) = &**object else { panic!("{object:?}") };
    let spec = service.spec.as_ref().unwrap();
    assert_eq!(spec.ports.iter().flatten().map(|it| it.port).collect::<Vec<_>>(), [80; 4]);
    assert_eq!(spec.publish_not_ready_addresses, Some(true));
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
