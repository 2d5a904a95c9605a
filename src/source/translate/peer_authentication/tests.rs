//! The situations of istiod's golden files `peer-authn-*`, and what should come of them, for a workload of namespace
//! `shop` with the labels `app=cart`.

use crate::model::{self, Mode};
use crate::source::tests::translated;

/// One policy: `namespace/name`, seconds of its creation, whether it selects `app=cart`, mode, ports with their modes.
type Policy = (&'static str, u8, bool, &'static str, &'static [(u16, &'static str)]);

/// Policies, and the mode and exceptions by port that they give.
type Case = (&'static [Policy], Mode, &'static [(u16, Mode)]);

const MESH: &str = "istio-system/mesh";
const NAMESPACE: &str = "shop/namespace";
const WORKLOAD: &str = "shop/workload";

fn manifest((key, second, selects, mode, ports): &Policy) -> String {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    let selector = if *selects { "selector: {matchLabels: {app: cart}}, " } else { "" };
    let ports: Vec<_> =
        ports.iter().map(|(port, mode)| format!("{port}: {{mode: {mode}}}")).collect();
    let ports = match ports.is_empty() {
        true => String::new(),
        false => format!(", portLevelMtls: {{{}}}", ports.join(", ")),
    };
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  namespace: {namespace}\n  \
         name: {name}\n  creationTimestamp: \"2026-01-01T00:00:{second:02}Z\"\nspec: {{{selector}mtls: {{mode: \
         {mode}}}{ports}}}\n"
    )
}

fn effective(policies: &[Policy]) -> (model::PeerAuthentication, usize) {
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: cart, namespace: shop, labels: {app: cart}}\n";
    let text: String = policies.iter().map(manifest).collect();
    let translation = translated(&format!("{pod}{text}"));
    (translation.mesh.workloads[0].peer_authentication.clone(), translation.complaints.len())
}

#[test]
fn levels_merge_as_a_table() {
    use Mode::{Permissive, Strict};
    let cases: &[Case] = &[
        (&[], Permissive, &[]),
        // One level.
        (&[(MESH, 0, false, "STRICT", &[])], Strict, &[]),
        (&[(NAMESPACE, 0, false, "STRICT", &[])], Strict, &[]),
        (&[(WORKLOAD, 0, true, "STRICT", &[])], Strict, &[]),
        (&[(MESH, 0, false, "UNSET", &[])], Permissive, &[]),
        // The narrower one decides, in both directions.
        (
            &[(MESH, 0, false, "STRICT", &[]), (NAMESPACE, 0, false, "PERMISSIVE", &[])],
            Permissive,
            &[],
        ),
        (&[(MESH, 0, false, "PERMISSIVE", &[]), (NAMESPACE, 0, false, "STRICT", &[])], Strict, &[]),
        (
            &[(NAMESPACE, 0, false, "STRICT", &[]), (WORKLOAD, 0, true, "PERMISSIVE", &[])],
            Permissive,
            &[],
        ),
        (
            &[(MESH, 0, false, "STRICT", &[]), (WORKLOAD, 0, true, "PERMISSIVE", &[])],
            Permissive,
            &[],
        ),
        // UNSET inherits.
        (&[(MESH, 0, false, "STRICT", &[]), (NAMESPACE, 0, false, "UNSET", &[])], Strict, &[]),
        (&[(NAMESPACE, 0, false, "STRICT", &[]), (WORKLOAD, 0, true, "UNSET", &[])], Strict, &[]),
        (
            &[
                (MESH, 0, false, "STRICT", &[]),
                (NAMESPACE, 0, false, "UNSET", &[]),
                (WORKLOAD, 0, true, "UNSET", &[]),
            ],
            Strict,
            &[],
        ),
        // Ports against their own policy.
        (&[(WORKLOAD, 0, true, "STRICT", &[(80, "PERMISSIVE")])], Strict, &[(80, Permissive)]),
        (&[(WORKLOAD, 0, true, "PERMISSIVE", &[(80, "STRICT")])], Permissive, &[(80, Strict)]),
        (&[(WORKLOAD, 0, true, "STRICT", &[(80, "STRICT")])], Strict, &[]),
        (&[(WORKLOAD, 0, true, "STRICT", &[(80, "UNSET")])], Strict, &[]),
        (
            &[(
                WORKLOAD,
                0,
                true,
                "STRICT",
                &[(80, "PERMISSIVE"), (81, "PERMISSIVE"), (82, "STRICT")],
            )],
            Strict,
            &[(80, Permissive), (81, Permissive)],
        ),
        // Ports of a policy that is unset otherwise, against what it inherits.
        (&[(WORKLOAD, 0, true, "UNSET", &[(80, "STRICT")])], Permissive, &[(80, Strict)]),
        (
            &[
                (NAMESPACE, 0, false, "STRICT", &[]),
                (WORKLOAD, 0, true, "UNSET", &[(80, "PERMISSIVE")]),
            ],
            Strict,
            &[(80, Permissive)],
        ),
        (
            &[(MESH, 0, false, "STRICT", &[]), (WORKLOAD, 0, true, "UNSET", &[(80, "PERMISSIVE")])],
            Strict,
            &[(80, Permissive)],
        ),
        (
            &[(MESH, 0, false, "STRICT", &[]), (WORKLOAD, 0, true, "UNSET", &[(80, "STRICT")])],
            Strict,
            &[],
        ),
        // istiod gets this wrong: the port is strict although the mesh's mode no longer holds.
        (
            &[
                (MESH, 0, false, "STRICT", &[]),
                (WORKLOAD, 0, true, "PERMISSIVE", &[(80, "STRICT")]),
            ],
            Permissive,
            &[(80, Strict)],
        ),
        (
            &[
                (NAMESPACE, 0, false, "STRICT", &[]),
                (WORKLOAD, 0, true, "PERMISSIVE", &[(80, "STRICT")]),
            ],
            Permissive,
            &[(80, Strict)],
        ),
        // The oldest wins; of equally old ones the first by name; the losers are ignored whole.
        (
            &[("shop/b", 1, false, "STRICT", &[]), ("shop/a", 2, false, "PERMISSIVE", &[])],
            Strict,
            &[],
        ),
        (
            &[("shop/b", 1, false, "STRICT", &[]), ("shop/a", 1, false, "PERMISSIVE", &[])],
            Permissive,
            &[],
        ),
        (
            &[
                ("istio-system/b", 1, false, "STRICT", &[]),
                ("istio-system/a", 2, false, "PERMISSIVE", &[]),
            ],
            Strict,
            &[],
        ),
        (
            &[
                ("shop/b", 1, true, "STRICT", &[]),
                ("shop/a", 2, true, "PERMISSIVE", &[(80, "STRICT")]),
            ],
            Strict,
            &[],
        ),
        (&[("shop/b", 1, true, "UNSET", &[]), ("shop/a", 2, true, "STRICT", &[])], Permissive, &[]),
        // DISABLE is ignored, at every level and for ports: it never weakens.
        (&[(MESH, 0, false, "DISABLE", &[])], Permissive, &[]),
        (&[(MESH, 0, false, "STRICT", &[]), (NAMESPACE, 0, false, "DISABLE", &[])], Strict, &[]),
        (&[(MESH, 0, false, "STRICT", &[]), (WORKLOAD, 0, true, "DISABLE", &[])], Strict, &[]),
        (&[(WORKLOAD, 0, true, "STRICT", &[(80, "DISABLE")])], Strict, &[]),
        // Not for this workload.
        (&[("other/namespace", 0, false, "STRICT", &[])], Permissive, &[]),
        (&[("other/workload", 0, true, "STRICT", &[])], Permissive, &[]),
        (&[("istio-system/workload", 0, true, "STRICT", &[])], Permissive, &[]),
        // Ports without a selector mean nothing.
        (&[(NAMESPACE, 0, false, "PERMISSIVE", &[(80, "STRICT")])], Permissive, &[]),
    ];
    for (policies, mode, ports) in cases {
        let (got, _) = effective(policies);
        let expected =
            model::PeerAuthentication { mode: *mode, ports: ports.iter().copied().collect() };
        assert_eq!(got, expected, "{policies:?}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    let ignored: [(&[Policy], usize); 5] = [
        (&[(MESH, 0, false, "DISABLE", &[])], 1),
        (&[(WORKLOAD, 0, true, "STRICT", &[(80, "DISABLE")])], 1),
        (&[("istio-system/workload", 0, true, "STRICT", &[])], 1),
        // The API server would refuse it, too.
        (&[(NAMESPACE, 0, false, "PERMISSIVE", &[(80, "STRICT")])], 2),
        (&[("shop/a", 0, false, "STRICT", &[]), ("shop/b", 1, false, "STRICT", &[])], 1),
    ];
    for (policies, said) in ignored {
        assert_eq!(effective(policies).1, said, "{policies:?}");
    }
    assert_eq!(effective(&[(MESH, 0, false, "STRICT", &[])]).1, 0);
}

/// A port's name, a range, a number that is none: nobody knows which port is meant to be strict.
#[test]
fn a_key_that_is_no_port_weakens_nothing() {
    use Mode::{Permissive, Strict};
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: cart, namespace: shop, labels: {app: cart}}\n";
    let policy = |mode: &str, ports: &str| {
        let text = format!(
            "{pod}---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: p, namespace: shop}}\nspec: {{selector: {{matchLabels: {{app: cart}}}}, \
             mtls: {{mode: {mode}}}, portLevelMtls: {{{ports}}}}}\n"
        );
        translated(&text).mesh.workloads[0].peer_authentication.clone()
    };
    for key in ["http", "0", "99999", "-1", "8080-8090", "8080.5", "' 8080'"] {
        let one = policy("PERMISSIVE", &format!("{key}: {{mode: STRICT}}"));
        assert_eq!((one.mode, one.ports.is_empty()), (Strict, true), "{key}");
        let beside =
            policy("PERMISSIVE", &format!("{key}: {{mode: STRICT}}, 9090: {{mode: PERMISSIVE}}"));
        assert_eq!((beside.mode, beside.ports), (Strict, [(9090, Permissive)].into()), "{key}");
        // What would weaken is left out.
        let weaker = policy("STRICT", &format!("{key}: {{mode: PERMISSIVE}}"));
        assert_eq!((weaker.mode, weaker.ports.is_empty()), (Strict, true), "{key}");
    }
}
