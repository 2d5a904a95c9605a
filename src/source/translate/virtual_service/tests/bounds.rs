//! What objects may cost.

use super::*;

/// What one object or one namespace may cost, however few bytes it has.
#[test]
fn what_covers_every_service_is_bounded() {
    let rules = |matches: usize, port: Option<u16>| {
        let mut destination = json!({"host": "web"});
        if let Some(port) = port {
            destination["port"] = json!({"number": port});
        }
        let all: Vec<Value> =
            (0..matches).map(|it| json!({"uri": {"exact": format!("/{it}")}})).collect();
        json!({"hosts": ["web"], "http": [{"match": all, "route": [{"destination": destination}]}]})
    };
    for (matches, port, fits) in [
        (8_192, None, true),
        (8_193, None, false),
        (16_384, Some(80), true),
        (16_385, Some(80), false),
    ] {
        let mesh = meshed(&[virtual_service("shop", "own", &rules(matches, port))]);
        assert_eq!(mesh.translation.mesh.routes.is_empty(), !fits, "{matches} {port:?}");
        assert_eq!(mesh.fields(), if fits { &[][..] } else { &["spec.http"] });
    }
    let other = "other.shop.svc.cluster.local";
    let wide = (10..80)
        .map(|it| virtual_service("shop", &format!("w-{it}"), &to("*.local", other, json!({}))))
        .chain([virtual_service("clients", "w", &to("*.local", other, json!({})))]);
    let mesh = meshed(&wide.collect::<Vec<_>>());
    let told = mesh.complaints().into_iter().filter(|it| it.0 == Severity::Error).count();
    assert_eq!(told, 6, "{:?}", mesh.fields());
    assert_eq!(mesh.translation.mesh.routes.len(), 65);
    assert_eq!(mesh.held("clients/far"), "clients/w.0");
}
