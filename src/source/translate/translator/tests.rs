//! A translator that follows changes says what a new one says, and shares what did not change.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::MissingWaypoint;
use crate::source::translate;

/// What may happen to one object. Few names and values, so that objects meet.
#[derive(Clone, Debug)]
struct Edit {
    object: Value,
    delete: bool,
}

fn pick(values: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(values)
}

fn namespace() -> impl Strategy<Value = &'static str> {
    pick(&["a", "b", "istio-system"])
}

fn metadata(
    names: &'static [&'static str],
    labels: BoxedStrategy<Value>,
) -> impl Strategy<Value = Value> {
    (pick(names), namespace(), labels).prop_map(
        |(name, namespace, labels)| json!({"name": name, "namespace": namespace, "labels": labels}),
    )
}

fn no_labels() -> BoxedStrategy<Value> {
    Just(json!({})).boxed()
}

/// `app` and whether the object names a waypoint.
fn labels() -> BoxedStrategy<Value> {
    let waypoint = pick(&["", "none", "w", "v"]);
    let labels = (pick(&["x", "y"]), waypoint).prop_map(|(app, waypoint)| match waypoint {
        "" => json!({"app": app}),
        waypoint => json!({"app": app, "istio.io/use-waypoint": waypoint}),
    });
    labels.boxed()
}

fn pods() -> impl Strategy<Value = Value> {
    let address = pick(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "not one"]);
    let phase = pick(&["Running", "Succeeded"]);
    let ready = pick(&["True", "False"]);
    let all = (metadata(&["p", "q", "r"], labels()), address, phase, ready, pick(&["m", "n"]));
    all.prop_map(|(metadata, address, phase, ready, node)| {
        json!({
            "kind": "Pod", "metadata": metadata,
            "spec": {"nodeName": node, "hostNetwork": node == "m" && ready == "False"},
            "status": {"phase": phase, "podIP": address, "conditions": [{"type": "Ready", "status": ready}]},
        })
    })
}

fn services() -> impl Strategy<Value = Value> {
    let selector = prop::option::of(pick(&["x", "y"]));
    let vip = pick(&["10.96.0.1", "10.96.0.2", "None"]);
    let all = (metadata(&["s", "t", "u", "v"], labels()), selector, vip, pick(&["http", "tcp"]));
    all.prop_map(|(metadata, app, vip, port)| {
        let selector = app.map_or(Value::Null, |app| json!({"app": app}));
        let target = if port == "http" { json!(8080) } else { json!("named") };
        let port = json!({"name": port, "port": 80, "targetPort": target});
        json!({
            "kind": "Service", "metadata": metadata,
            "spec": {"clusterIP": vip, "selector": selector, "ports": [port]},
        })
    })
}

fn slices() -> impl Strategy<Value = Value> {
    let service = pick(&["s", "t"]).prop_map(|name| json!({"kubernetes.io/service-name": name}));
    let address = pick(&["10.0.0.1", "10.0.0.2", "10.0.0.9"]);
    let pod = prop::option::of(pick(&["p", "q"]));
    (metadata(&["e", "f"], service.boxed()), address, pod).prop_map(|(metadata, address, pod)| {
        let target = pod.map_or(Value::Null, |name| json!({"kind": "Pod", "name": name}));
        json!({
            "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "targetRef": target}],
            "ports": [{"name": "http", "port": 8080}],
        })
    })
}

fn namespaces_and_nodes() -> impl Strategy<Value = Value> {
    let mode = pick(&["ambient", "none", "odd"]);
    let namespaces =
        (namespace(), mode, pick(&["none", "w"])).prop_map(|(name, mode, waypoint)| {
            let labels =
                json!({"istio.io/dataplane-mode": mode, "istio.io/use-waypoint": waypoint});
            json!({"kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        });
    let nodes = (pick(&["m", "n"]), pick(&["z1", "z2"])).prop_map(|(name, zone)| {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        json!({"kind": "Node", "metadata": {"name": name, "labels": labels}})
    });
    prop_oneof![namespaces, nodes]
}

fn gateways() -> impl Strategy<Value = Value> {
    let labels = (pick(&["all", "service", "workload"]), pick(&["", "default", "other"]));
    let labels = labels.prop_map(
        |(serves, revision)| json!({"istio.io/waypoint-for": serves, "istio.io/rev": revision}),
    );
    // The last is refused.
    let from = pick(&["All", "Same", "Odd"]);
    (metadata(&["w", "v"], labels.boxed()), from).prop_map(|(metadata, from)| {
        json!({
            "kind": "Gateway", "metadata": metadata,
            "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{
                "name": "mesh", "port": 15008, "protocol": "HBONE",
                "allowedRoutes": {"namespaces": {"from": from}},
            }]},
        })
    })
}

fn policies() -> impl Strategy<Value = Value> {
    let scope = prop_oneof![
        Just(json!({})),
        pick(&["x", "y"]).prop_map(|app| json!({"selector": {"matchLabels": {"app": app}}})),
        pick(&["s", "u"]).prop_map(
            |name| json!({"targetRefs": [{"kind": "Service", "group": "", "name": name}]})
        ),
        // Refused: there is no such field.
        Just(json!({"odd": 1})),
    ];
    let kind = pick(&["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"]);
    let port = prop::option::of(pick(&["80", "8080", "443"]));
    (metadata(&["g", "h"], no_labels()), scope, kind, port).prop_map(
        |(metadata, mut spec, kind, port)| {
            match port {
                Some(port) if kind == "AuthorizationPolicy" => {
                    spec["rules"] = json!([{"to": [{"operation": {"ports": [port]}}]}]);
                }
                Some(port) if kind == "PeerAuthentication" => {
                    spec["portLevelMtls"] = json!({port: {"mode": "STRICT"}});
                }
                _ => {}
            }
            json!({"kind": kind, "metadata": metadata, "spec": spec})
        },
    )
}

fn entries() -> impl Strategy<Value = Value> {
    let ports = json!([{"number": 80, "name": "http", "protocol": "HTTP"}]);
    let place = prop_oneof![
        pick(&["x", "y"]).prop_map(|app| json!({"workloadSelector": {"labels": {"app": app}}})),
        pick(&["10.0.0.1", "10.96.0.1"]).prop_map(|it| json!({"endpoints": [{"address": it}]})),
        pick(&["10.0.0.2", "172.16.0.1"]).prop_map(|it| json!({"addresses": [it]})),
    ];
    let host = pick(&["h.example", "s.a.svc.cluster.local"]);
    let services =
        (metadata(&["i", "j"], labels()), place, host).prop_map(move |(metadata, place, host)| {
            let mut spec = json!({"hosts": [host], "resolution": "STATIC", "ports": ports});
            for (name, value) in place.as_object().unwrap() {
                spec[name] = value.clone();
            }
            json!({"kind": "ServiceEntry", "metadata": metadata, "spec": spec})
        });
    let workloads =
        (metadata(&["k"], no_labels()), pick(&["10.0.0.1", "10.0.0.3"]), pick(&["x", "y"]));
    let workloads = workloads.prop_map(|(metadata, address, app)| {
        json!({"kind": "WorkloadEntry", "metadata": metadata, "spec": {"address": address, "labels": {"app": app}}})
    });
    prop_oneof![services, workloads]
}

fn routes() -> impl Strategy<Value = Value> {
    let parent = pick(&["s", "t", "u"]);
    let kind = pick(&["HTTPRoute", "TCPRoute"]);
    let routes = (kind, metadata(&["o"], no_labels()), parent, pick(&["s", "t"]), namespace());
    routes.prop_map(|(kind, metadata, parent, backend, of)| {
        json!({
            "kind": kind, "metadata": metadata,
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": parent}],
                "rules": [{"backendRefs": [{"name": backend, "namespace": of, "port": 80}]}],
            },
        })
    })
}

fn unserved() -> impl Strategy<Value = Value> {
    let host = pick(&["s", "s.a.svc.cluster.local", "*.local", "h.example"]);
    let mode = pick(&["SIMPLE", "ISTIO_MUTUAL", "DISABLE"]);
    let policy = prop_oneof![
        mode.prop_map(|mode| json!({"tls": {"mode": mode}})),
        pick(&["app", "kubernetes.io/hostname"]).prop_map(|label| {
            let setting = json!({"failoverPriority": [label]});
            json!({"outlierDetection": {}, "loadBalancer": {"localityLbSetting": setting}})
        }),
    ];
    let selector = prop::option::of(pick(&["x", "y"]));
    let rules = (metadata(&["d", "e"], no_labels()), host, policy, selector).prop_map(
        |(metadata, host, policy, selector)| {
            let mut spec = json!({"host": host, "trafficPolicy": policy});
            if let Some(app) = selector {
                spec["workloadSelector"] = json!({"matchLabels": {"app": app}});
            }
            json!({"kind": "DestinationRule", "metadata": metadata, "spec": spec})
        },
    );
    let policies =
        (metadata(&["b"], no_labels()), pick(&["s", "t"])).prop_map(|(metadata, name)| {
            let spec = json!({"targetRefs": [{"group": "", "kind": "Service", "name": name}]});
            json!({"kind": "BackendTLSPolicy", "metadata": metadata, "spec": spec})
        });
    let others = (metadata(&["c"], no_labels()), pick(&["EnvoyFilter", "WasmPlugin"]))
        .prop_map(|(metadata, kind)| json!({"kind": kind, "metadata": metadata}));
    prop_oneof![rules, policies, others]
}

/// VirtualServices and the subsets that they lead to.
fn virtual_services() -> impl Strategy<Value = Value> {
    let host = || pick(&["s", "t", "*.shop.svc.cluster.local", "a.example"]);
    let labels = || pick(&["x", "y"]).prop_map(|value| json!({"app": value}));
    let subsets = (metadata(&["d", "e"], no_labels()), host(), pick(&["v1", "v2"]), labels());
    let subsets = subsets.prop_map(|(metadata, host, name, labels)| {
        let spec = json!({"host": host, "subsets": [{"name": name, "labels": labels}]});
        json!({"kind": "DestinationRule", "metadata": metadata, "spec": spec})
    });
    let export = prop::option::of(pick(&["*", ".", "other"]));
    let of =
        (metadata(&["v", "w"], no_labels()), host(), host(), pick(&["", "v1"]), labels(), export);
    let of = of.prop_map(|(metadata, host, to, subset, labels, export)| {
        let route = json!([{"destination": {"host": to, "subset": subset}}]);
        let export: Vec<&str> = export.into_iter().collect();
        let rules = json!([{"match": [{"sourceLabels": labels}], "route": route}]);
        let spec = json!({"hosts": [host], "exportTo": export, "http": rules});
        json!({"kind": "VirtualService", "metadata": metadata, "spec": spec})
    });
    let delegating = (metadata(&["v"], no_labels()), host(), pick(&["part", "w"]));
    let delegating = delegating.prop_map(|(metadata, host, name)| {
        let spec = json!({"hosts": [host], "http": [{"delegate": {"name": name}}]});
        json!({"kind": "VirtualService", "metadata": metadata, "spec": spec})
    });
    let part = (metadata(&["part"], no_labels()), host()).prop_map(|(metadata, to)| {
        let spec = json!({"http": [{"route": [{"destination": {"host": to}}]}]});
        json!({"kind": "VirtualService", "metadata": metadata, "spec": spec})
    });
    prop_oneof![2 => subsets, 3 => of, 1 => delegating, 1 => part]
}

fn edit() -> impl Strategy<Value = Edit> {
    let object = prop_oneof![
        4 => pods(),
        3 => services(),
        1 => slices(),
        1 => namespaces_and_nodes(),
        1 => gateways(),
        2 => policies(),
        2 => entries(),
        1 => routes(),
        2 => unserved(),
        2 => virtual_services(),
    ];
    (object, prop::bool::weighted(0.25)).prop_map(|(object, delete)| Edit { object, delete })
}

/// Carries out an edit as the source of a cluster does.
fn carry_out(objects: &mut Objects, edit: &Edit) -> (Kind, ObjectKey) {
    let kind = Kind::named(edit.object["kind"].as_str().unwrap()).unwrap();
    let text = |name: &str| edit.object["metadata"][name].as_str().unwrap_or_default();
    let namespace = if kind.is_namespaced() { text("namespace") } else { "" };
    let id = (kind, ObjectKey::new(namespace, text("name")));
    if edit.delete {
        objects.remove(&id);
    } else {
        let mut value = edit.object.clone();
        let version = if kind == Kind::EndpointSlice { "discovery.k8s.io/v1" } else { "v1" };
        value["apiVersion"] = version.into();
        objects.apply(id.clone(), kind.read(&value), 1, || Some(value.clone()));
    }
    id
}

/// Two thousand of everything, and the object at each place of a list changes alone.
#[test]
fn what_is_translated_follows_from_what_changed() {
    const MANY: usize = 2_000;
    let metadata = |name: &str| json!({"name": name, "namespace": "a", "labels": {"app": name}});
    let service = |at: usize, port: &str| {
        let ports = json!([{"name": port, "port": 80}]);
        json!({"kind": "Service", "metadata": metadata(&format!("s{at}")), "spec": {"clusterIP": "None", "ports": ports}})
    };
    let slice = |at: usize, ready: bool| {
        let labels = json!({"kubernetes.io/service-name": format!("s{at}")});
        json!({
            "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("e{at}"), "namespace": "a", "labels": labels},
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
            "ports": [{"name": "http", "port": 8080}],
        })
    };
    let entry = |at: usize| {
        let spec = json!({"hosts": [format!("h{at}.example")], "resolution": "DNS", "ports": [{"number": 80, "name": "http"}]});
        json!({"kind": "ServiceEntry", "metadata": metadata(&format!("n{at}")), "spec": spec})
    };
    let route = |at: usize, path: &str| {
        let parent = json!({"group": "", "kind": "Service", "name": format!("s{at}")});
        let rule = json!({"matches": [{"path": {"value": path}}], "backendRefs": [{"name": format!("s{at}"), "port": 80}]});
        json!({"kind": "HTTPRoute", "metadata": metadata(&format!("r{at}")), "spec": {"parentRefs": [parent], "rules": [rule]}})
    };
    let pod = |name: &str, phase: &str| json!({"kind": "Pod", "metadata": metadata(name), "spec": {"nodeName": "m"}, "status": {"phase": phase, "podIP": "10.0.0.9"}});
    let (mut objects, mut translator) =
        (Objects::default(), Translator::new(TranslateSettings::default()));
    let mut carry_out = |object: Value| carry_out(&mut objects, &Edit { object, delete: false });
    for at in 0..MANY {
        let all = [service(at, "http"), slice(at, true), entry(at), route(at, "/")];
        all.into_iter().for_each(|object| _ = carry_out(object));
    }
    // The first pod of all is another matter: from then on it is known what selects none.
    carry_out(pod("q", "Running"));
    let changes = [
        (slice(7, false), [1, 1, 0, 0]),
        (pod("p", "Running"), [0, 0, 0, 0]),
        (route(7, "/other"), [0, 0, 0, 1]),
        (service(7, "tcp"), [1, 0, 0, 1]),
        (entry(7), [0, 0, MANY, 0]),
    ];
    assert!(objects.complaints().is_empty(), "{:?}", objects.complaints().first());
    translator.translate(&objects, None);
    for (object, expected) in changes {
        let mut carry_out =
            |object: Value| super::tests::carry_out(&mut objects, &Edit { object, delete: false });
        let changed = BTreeSet::from([carry_out(object.clone())]);
        crate::base::work::take();
        translator.translate(&objects, Some(&changed));
        let done = crate::base::work::take();
        let kinds =
            ["services translated", "slices indexed", "entries translated", "routes translated"];
        let count = kinds.map(|kind| done.get(kind).copied().unwrap_or_default());
        assert_eq!(count, expected, "{object}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn following_changes_is_translating_anew(
        steps in prop::collection::vec(prop::collection::vec(edit(), 1..4), 1..24),
        missing_waypoint in prop::sample::select(&[MissingWaypoint::Refuse, MissingWaypoint::Layer4]),
    ) {
        let settings = TranslateSettings { missing_waypoint, ..TranslateSettings::default() };
        let (mut objects, mut translator) = (Objects::default(), Translator::new(settings.clone()));
        for step in steps {
            let changed: BTreeSet<_> = step.iter().map(|edit| carry_out(&mut objects, edit)).collect();
            let followed = translator.translate(&objects, Some(&changed));
            let anew = translate(&objects, &settings);
            prop_assert!(
                followed.says_the_same_as(&anew),
                "after {:#?}\nfollowed: {:#?}\nanew: {:#?}", step, followed, anew
            );
        }
    }

    #[test]
    fn what_did_not_change_is_shared(edits in prop::collection::vec(edit(), 0..40), last in edit()) {
        let (mut objects, mut translator) = (Objects::default(), Translator::new(TranslateSettings::default()));
        edits.iter().for_each(|edit| _ = carry_out(&mut objects, edit));
        let before = translator.translate(&objects, None).mesh;
        let changed = BTreeSet::from([carry_out(&mut objects, &last)]);
        let after = translator.translate(&objects, Some(&changed)).mesh;
        for new in &after.workloads {
            prop_assert!(before.workloads.iter().all(|old| old != new || Arc::ptr_eq(old, new)));
        }
        for new in &after.services {
            prop_assert!(before.services.iter().all(|old| old != new || Arc::ptr_eq(old, new)));
        }
        for new in &after.policies {
            prop_assert!(before.policies.iter().all(|old| old != new || Arc::ptr_eq(old, new)));
        }
    }
}

/// A template with a mistake is told of a few times, not once for each of its pods.
#[test]
fn what_is_said_of_alike_pods_is_said_of_few() {
    let mut objects = Objects::default();
    for index in 0..12 {
        let pod = json!({
            "kind": "Pod",
            "metadata": {
                "name": format!("p{index:02}"), "namespace": "a",
                "labels": {"istio.io/use-waypiont": "x"},
            },
        });
        objects.insert(Kind::Pod.read(&pod).unwrap());
    }
    let complaints =
        Translator::new(TranslateSettings::default()).translate(&objects, None).complaints;
    assert_eq!(complaints.len(), ALIKE);
    let told = "(so it is with 7 more pods of the namespace)";
    assert_eq!(complaints.iter().filter(|it| it.reason.ends_with(told)).count(), 1);
}

#[test]
fn a_gateway_without_a_label_takes_what_its_class_says() {
    let of = |own: Value| {
        let mut objects = Objects::default();
        let class = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": "istio-waypoint", "labels": {"istio.io/waypoint-for": "all"}},
            "spec": {"controllerName": "isthmus.io/controller"},
        });
        objects.insert(Kind::GatewayClass.read(&class).unwrap());
        let gateway = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "w", "namespace": "a", "labels": own},
            "spec": {
                "gatewayClassName": "istio-waypoint",
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            },
        });
        objects.insert(Kind::Gateway.read(&gateway).unwrap());
        let waypoint = Translator::new(TranslateSettings::default())
            .translate(&objects, None)
            .mesh
            .waypoints
            .remove(0);
        (waypoint.for_services, waypoint.for_workloads)
    };
    assert_eq!(of(json!({})), (true, true));
    assert_eq!(of(json!({"istio.io/waypoint-for": "service"})), (true, false));
}
