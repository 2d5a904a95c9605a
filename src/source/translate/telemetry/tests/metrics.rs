//! `metrics`: what is disabled, and labels.

use super::*;

#[test]
fn metrics_are_disabled_one_by_one_or_all() {
    let (observation, complaints) = with(&[
        telemetry("istio-system/mesh", "{metrics: [{overrides: [{disabled: true}]}]}"),
        telemetry(
            "shop/all",
            "{metrics: [{providers: [{name: prometheus}], overrides: [{match: {metric: REQUEST_COUNT, mode: CLIENT}, disabled: false}]}]}",
        ),
    ]);
    assert_eq!(complaints, [""; 0]);
    let disabled = |observed: &Observed| observed.rules.as_ref().expect("rules").disabled;
    assert_eq!(disabled(&observation.mesh.client), MetricSet::ALL);
    let shop = &observation.namespaces["shop"];
    assert_eq!(disabled(&shop.server), MetricSet::ALL);
    let count = MetricSet::NONE.with(Metric::RequestCount);
    assert_eq!(disabled(&shop.client), MetricSet::ALL.without(count));
}

/// By metric, by mode and by label: the narrowest level that names a label decides about it.
#[test]
fn labels_are_changed_by_each_level() {
    let (observation, complaints) = with(&[
        telemetry(
            "istio-system/mesh",
            "{metrics: [{overrides: [{tagOverrides: {source_app: {value: '\"all\"'}, source_version: {operation: REMOVE}}}]}]}",
        ),
        telemetry(
            "shop/all",
            "{metrics: [{providers: [{name: prometheus}], overrides: [\
             {match: {metric: REQUEST_COUNT, mode: CLIENT}, tagOverrides: {host: {operation: UPSERT, value: request.host}}}, \
             {match: {metric: TCP_OPENED_CONNECTIONS, mode: CLIENT}, tagOverrides: {source_version: {value: '\"x\"'}, source_app: {operation: REMOVE}}}]}]}",
        ),
    ]);
    // The label of the server's own version is of the root namespace's alone.
    assert_eq!(complaints, ["spec.metrics[0].overrides[1].tagOverrides[source_version]"]);
    let shop = &observation.namespaces["shop"];
    let others = json!({"source_app": {"set": 0}, "source_version": "remove"});
    let requests = json!([
        {"metrics": ["REQUEST_COUNT"], "changes": {"host": {"set": 0}, "source_app": {"set": 1}, "source_version": "remove"}},
        {"metrics": ["REQUEST_DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES"],
         "changes": {"source_app": {"set": 1}, "source_version": "remove"}},
    ]);
    let client = rules(shop);
    assert_eq!(client["request_tags"]["groups"], requests);
    assert_eq!(client["request_tags"]["values"], json!(["request.host", "\"all\""]));
    assert_eq!(
        client["connection_tags"]["groups"],
        json!([
            {"metrics": ["TCP_OPENED_CONNECTIONS"], "changes": {"source_app": "remove", "source_version": "remove"}},
            {"metrics": ["TCP_CLOSED_CONNECTIONS", "TCP_SENT_BYTES", "TCP_RECEIVED_BYTES"], "changes": others},
        ])
    );
    let server = serde_json::to_value(&shop.server.rules).expect("JSON");
    assert_eq!(server["request_tags"]["groups"].as_array().map(Vec::len), Some(1));
}
