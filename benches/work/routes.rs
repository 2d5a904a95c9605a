//! Which rule holds for a request: the last of so many routes.

use anyhow::Result;
use anyhow::ensure;
use serde_json::json;

use super::{COUNTS, Meter, heads, mesh};

pub fn measure(meter: &mut impl Meter) -> Result<()> {
    for count in COUNTS {
        let name = format!("route/{count}");
        if !meter.wants(&name) {
            continue;
        }
        let routes = (0..count).map(|number| {
            let matches = json!([{
                "path": {"type": "PathPrefix", "value": format!("/items/{number}")},
                "headers": [{"name": "x-version", "value": "one"}],
            }]);
            let backends = json!([{"name": "web", "port": mesh::PORT}]);
            let rule = json!({"name": format!("rule-{number}"), "matches": matches, "backendRefs": backends});
            mesh::route(&format!("route-{number:04}"), &json!([rule]))
        });
        let mesh = mesh::with(1, routes)?;
        let last = count - 1;
        let request = heads::request(&format!("/items/{last}/reviews?page=2"))?;
        let found = mesh.rule(&request)?.name;
        ensure!(found == format!("rule-{last}"), "{found} holds");
        meter.measure(&name, || (), |()| mesh.select(&request));
    }
    Ok(())
}
