//! Which rule holds for a request: the last of so many routes, which differ in their paths or in a header.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{COUNTS, Meter, heads, mesh};

/// One, and far too many.
const ENDS: &[usize] = &[1, 1000];

pub fn measure(meter: &mut impl Meter) -> Result<()> {
    for count in COUNTS {
        select(meter, &format!("route/{count}"), count, by_path)?;
    }
    for count in ENDS {
        select(meter, &format!("route/headers/{count}"), *count, by_header)?;
    }
    Ok(())
}

fn select(
    meter: &mut impl Meter,
    piece: &str,
    count: usize,
    matched: fn(usize, usize) -> Value,
) -> Result<()> {
    if !meter.wants(piece) {
        return Ok(());
    }
    let last = count - 1;
    let routes = (0..count).map(|number| {
        let backends = json!([{"name": "web", "port": mesh::PORT}]);
        let name = format!("rule-{number}");
        let rule =
            json!({"name": name, "matches": [matched(number, last)], "backendRefs": backends});
        mesh::route(&format!("route-{number:04}"), &json!([rule]))
    });
    let mesh = mesh::with(1, routes)?;
    let request = heads::request(&format!("/items/{last}/reviews?page=2"))?;
    let found = mesh.rule(&request)?.name;
    ensure!(found == format!("rule-{last}"), "{found} holds");
    meter.measure(piece, || (), |()| mesh.select(&request));
    Ok(())
}

fn by_path(number: usize, _: usize) -> Value {
    json!({
        "path": {"type": "PathPrefix", "value": format!("/items/{number}")},
        "headers": [{"name": "x-version", "value": "one"}],
    })
}

/// Of the last one, what the request has.
fn by_header(number: usize, last: usize) -> Value {
    let value = if number == last { "one".to_owned() } else { format!("other-{number}") };
    json!({
        "path": {"type": "PathPrefix", "value": "/items"},
        "headers": [{"name": "x-version", "value": value}],
    })
}
