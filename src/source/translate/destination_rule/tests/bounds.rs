//! What the rules of one namespace may cost, for one service and for all of them.

use super::{of, rule};

#[test]
fn policies_of_a_namespace_are_bounded() {
    let subsets = |from: usize, count: usize| {
        let all = (from..from + count).map(|it| format!("{{name: s{it}, labels: {{v: '{it}'}}}}"));
        all.collect::<Vec<_>>().join(", ")
    };
    let with = |host: &str, more: &str, from: usize, count: usize| {
        format!(
            "{{host: {host}{more}, subsets: [{}], trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}",
            subsets(from, count)
        )
    };
    let exact = "web.shop.svc.cluster.local";
    let selecting = |it: usize| format!(", workloadSelector: {{matchLabels: {{app: a{it}}}}}");
    // The namespace's rules, and how many of them are not in force.
    for (rules, refused) in [
        (vec![with("'*.local'", "", 0, 31)], 0),
        (vec![with("'*.local'", "", 0, 32)], 1),
        (vec![with("'*.local'", "", 0, 20), with("'*.cluster.local'", "", 0, 20)], 1),
        (vec![with("'*.local'", "", 0, 20), with("'*.local'", "", 20, 20)], 1),
        ((0..40).map(|it| with("'*.local'", &selecting(it), 0, 0)).collect(), 8),
        (vec![with(exact, "", 0, 127), with(exact, "", 127, 127)], 0),
        (vec![with(exact, "", 0, 127), with(exact, "", 127, 128)], 1),
        ((0..10).map(|it| with(exact, &selecting(it), 0, 60)).collect(), 6),
    ] {
        let named = rules.iter().enumerate();
        let text: String =
            named.map(|(at, spec)| rule("clients", &format!("r{at:02}"), spec)).collect();
        let (_, told) = of(&text);
        let told = told.into_iter().filter(|it| it.1 == "spec.host").count();
        assert_eq!(told, refused, "{}", rules.len());
        // Another namespace's rule has room of its own.
        let (traffic, _) = of(&(text + &rule("shop", "own", &with("web", "", 0, 100))));
        assert_eq!(traffic.subsets_of("shop", &[]).len(), 100);
    }
}
