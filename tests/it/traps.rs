//! Known traps of an implementation of Istio's ambient mode: each has a test, and this table says which.

use std::fs;
use std::path::Path;

use crate::source_text::root;

/// Trap, what it is, and the tests that would notice a fall.
const TRAPS: [(u8, &str, &[&str]); 25] = [
    (
        1,
        "DENY with only HTTP fields never passes silently",
        &[
            "trap_01_a_deny_of_http_denies_what_is_not_http",
            "bytes_are_denied_wherever_a_request_is",
        ],
    ),
    (
        2,
        "ALLOW notNamespaces and a plaintext peer",
        &["plaintext_is_nobody", "plaintext_passes_no_allow_that_names_somebody"],
    ),
    (3, "a policy that is listed and missing", &["a_policy_that_is_listed_and_missing_refuses"]),
    (4, "a bad CIDR", &["what_cannot_be_carried_out_breaks_the_policy"]),
    (
        5,
        "a selector changes under a live connection",
        &[
            "trap_05_a_live_connection_is_cut_when_its_workload_comes_to_be_selected",
            "a_workload_is_judged_anew_only_after_changes_that_concern_it",
        ],
    ),
    (
        6,
        "a waypoint that is named and not there",
        &[
            "a_waypoint_that_is_named_but_missing_refuses",
            "a_waypoint_that_cannot_be_used_closes_the_gate",
        ],
    ),
    (
        7,
        "a pod's address instead of its service's",
        &["pod_traffic_must_pass_what_guards_the_service"],
    ),
    (
        8,
        "plaintext to a workload with layer 7 policy",
        &["judges_each_request_whatever_way_it_came"],
    ),
    (9, "a workload calls itself", &["loopback_and_own_address_stay_with_the_application"]),
    (
        10,
        "an authority with the agent's own ports",
        &[
            "a_go_client_that_asks_wrongly_is_told_so",
            "a_node_client_is_served_and_told_what_it_asks_wrongly",
        ],
    ),
    (
        11,
        "the sender half-closes first",
        &["half_close_passes_through", "a_go_client_may_end_its_direction_first"],
    ),
    (
        12,
        "two pods with one address",
        &["of_two_workloads_with_one_address_the_ready_one_is_found"],
    ),
    (13, "the node's network", &["host_network_workloads_are_not_found_by_their_nodes_address"]),
    (14, "named target ports that differ", &["services_and_workloads"]),
    (15, "a service without endpoints is not an unknown address", &["decisions"]),
    (
        16,
        "internalTrafficPolicy Local without an endpoint there",
        &["trap_16_local_without_an_endpoint_on_the_node_has_none"],
    ),
    (17, "PeerAuthentication on three levels", &["levels_merge_as_a_table"]),
    (
        18,
        "the oldest wins, ties go to the name",
        &[
            "levels_merge_as_a_table",
            "ties_go_to_the_older_then_to_the_name_then_to_the_first_rule",
        ],
    ),
    (
        19,
        "the CA is away",
        &[
            "an_issuer_that_is_away_at_rotation",
            "an_issuer_that_is_away_at_the_first_request",
            "agents_live_with_an_istiod_that_comes_and_goes",
        ],
    ),
    (
        20,
        "the agent restarts under running pods",
        &[
            "killed_agents_come_back_and_nothing_is_sent_in_the_clear",
            "an_agent_that_comes_back_goes_on_and_nothing_leaks_meanwhile",
            "trap_20_a_pod_that_went_while_its_agent_was_down_leaves_nothing",
            "trap_20_a_pod_recreated_while_its_agent_was_down_is_captured",
            "a_recreated_pod_is_captured_again",
            "a_pod_that_is_recreated_while_its_agent_is_down_is_another_one",
            "a_namespace_may_vanish_at_any_moment",
            "namespaces_vanish_at_random_moments_under_load",
        ],
    ),
    (21, "DNS: TCP, truncation, no data", &["trap_21_names_of_the_mesh_and_of_the_world"]),
    (
        22,
        "one stream that does not read",
        &["a_stream_that_does_not_read_does_not_stall_its_siblings"],
    ),
    (
        23,
        "ten thousand idle connections",
        &["ten_thousand_idle_connections_are_held_and_given_back"],
    ),
    (
        24,
        "another mesh's trust domain",
        &[
            "another_trust_domain_under_the_same_roots_is_refused",
            "a_trust_domain_may_have_two_names",
            "a_go_client_without_a_right_certificate_gets_no_answer",
            "a_node_client_without_a_right_certificate_gets_no_answer",
        ],
    ),
    (
        25,
        "headers of applications inside a tunnel",
        &[
            "what_an_application_says_of_itself_does_not_count",
            "headers_of_a_go_client_do_not_influence_policy",
            "headers_of_a_node_client_do_not_influence_policy",
        ],
    ),
];

#[test]
fn every_trap_has_its_tests() {
    let mut sources = String::new();
    read_all(&root().join("src"), &mut sources);
    read_all(&root().join("tests"), &mut sources);
    let missing: Vec<_> = TRAPS
        .iter()
        .flat_map(|(number, trap, tests)| tests.iter().map(move |test| (number, trap, test)))
        .filter(|(_, _, test)| !sources.contains(&format!("fn {test}(")))
        .collect();
    assert!(missing.is_empty(), "tests that are no more: {missing:?}");
}

fn read_all(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory of the repository") {
        let path = entry.expect("its entries").path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            into.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}
