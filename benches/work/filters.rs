//! The filters of a rule, and the values before them that the destination judges by.

use anyhow::{Context, Result, ensure};
use http::HeaderMap;
use isthmus::l7::bench;
use serde_json::{Value, json};

use super::{Meter, heads, mesh};

const TARGET: &str = "/items/1?page=2";

pub fn measure(meter: &mut impl Meter) -> Result<()> {
    let backends = json!([{"name": "web", "port": mesh::PORT}]);
    let rule = json!({"filters": filters(), "backendRefs": backends});
    let filtered = mesh::with(1, [mesh::route("filtered", &json!([rule]))])?;
    let plain = mesh::with(1, [mesh::route("plain", &json!([{"backendRefs": backends}]))])?;
    let request = heads::request(TARGET)?;
    let (rule, none) = (filtered.rule(&request)?, plain.rule(&request)?);
    let response = HeaderMap::from_iter([
        ("content-type".parse()?, "application/json".parse()?),
        ("server".parse()?, "web".parse()?),
    ]);
    let changed = bench::filter_request(&rule, request.clone());
    ensure!(changed.request.uri() == "/inner/1?page=2", "{} arrives", changed.request.uri());
    let original = changed.original().context("original values")?;
    ensure!(changed.restored(&original).as_deref() == Some(TARGET), "the original is restored");
    ensure!(!bench::filter_response(&rule, response.clone()).contains_key("server"), "filtered");

    let input = || request.clone();
    if meter.wants("filter/none") {
        meter.measure("filter/none", input, |request| bench::filter_request(&none, request));
    }
    if meter.wants("filter/request") {
        meter.measure("filter/request", input, |request| bench::filter_request(&rule, request));
    }
    if meter.wants("filter/response") {
        let input = || response.clone();
        meter.measure("filter/response", input, |head| bench::filter_response(&rule, head));
    }
    if meter.wants("original/write") {
        meter.measure("original/write", || (), |()| changed.original());
    }
    if meter.wants("original/read") {
        meter.measure("original/read", || (), |()| changed.restored(&original));
    }
    Ok(())
}

fn filters() -> Value {
    json!([
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {
            "set": [{"name": "x-version", "value": "two"}],
            "add": [{"name": "x-added", "value": "one"}],
            "remove": ["cookie"],
        }},
        {"type": "URLRewrite", "urlRewrite": {
            "hostname": "inner.example.org", "path": {"type": "ReplaceFullPath", "replaceFullPath": "/inner/1"},
        }},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {
            "set": [{"name": "cache-control", "value": "no-store"}], "remove": ["server"],
        }},
    ])
}
