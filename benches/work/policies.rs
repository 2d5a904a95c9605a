//! Whether a request may reach a workload: allowed by the last of so many policies, which differ in one thing or in many.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, ensure};
use isthmus::base::Identity;
use isthmus::gate::{Gate, addressed};
use isthmus::policy::{Bearer, Connection, PolicySet, Request, check};
use serde_json::{Value, json};

use super::{COUNTS, Meter, heads, mesh};

/// Policies that all apply to the same Service.
struct Sort {
    name: &'static str,
    counts: &'static [usize],
    /// The spec of a policy, by its number and that of the last one.
    spec: fn(usize, usize) -> Value,
}

/// One, and far too many.
const ENDS: &[usize] = &[1, 1000];

const SORTS: [Sort; 5] = [
    Sort { name: "policy", counts: &COUNTS, spec: clients_and_paths },
    Sort { name: "policy/sources", counts: ENDS, spec: sources },
    Sort { name: "policy/paths", counts: ENDS, spec: paths },
    Sort { name: "policy/hosts", counts: ENDS, spec: hosts },
    // One of each kind, and as many of each.
    Sort { name: "policy/mixed", counts: &[8, 1000], spec: mixed },
];

pub fn measure(meter: &mut impl Meter) -> Result<()> {
    for sort in &SORTS {
        for count in sort.counts {
            let piece = format!("{}/{count}", sort.name);
            if meter.wants(&piece) {
                decide(meter, &piece, *count, sort)?;
            }
        }
    }
    for count in ENDS {
        tokens(meter, *count)?;
    }
    index(meter)
}

/// RequestAuthentications of as many issuers, and a request without a token.
fn tokens(meter: &mut impl Meter, count: usize) -> Result<()> {
    let piece = format!("policy/tokens/{count}");
    if !meter.wants(&piece) {
        return Ok(());
    }
    let mesh = mesh::with(1, (0..count).map(authentication))?;
    let sent = heads::request("/items/1/reviews?page=2")?;
    let set = mesh.world.service_policies(&mesh.service.key).context("policies of web")?;
    ensure!(set.authenticate.len() == count, "{} apply", set.authenticate.len());
    set.prepare();
    let request = Request {
        method: sent.method(),
        path: sent.uri().path_and_query().map_or("/", |target| target.as_str()),
        host: "web.shop.example",
        headers: sent.headers(),
    };
    let run = |()| {
        let checked = check([&**set].into_iter(), Some(&request), &mesh.world.keys);
        matches!(checked.bearer(), Bearer::Nobody)
    };
    ensure!(run(()), "there is no token");
    meter.measure(&piece, || (), run);
    Ok(())
}

fn authentication(number: usize) -> Value {
    let issuer = format!("https://issuer-{number}.example");
    let rule = json!({"issuer": issuer, "jwksUri": format!("{issuer}/keys")});
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": name(number), "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "web"}], "jwtRules": [rule],
        },
    })
}

fn decide(meter: &mut impl Meter, piece: &str, count: usize, sort: &Sort) -> Result<()> {
    let last = count - 1;
    let mesh = mesh::with(1, (0..count).map(|number| policy(number, (sort.spec)(number, last))))?;
    let web = mesh::pod_address(0);
    let workload = mesh.world.workload_at(web.into()).context("Pod web")?;
    let client = Identity::new("cluster.local", "shop", format!("client-{last}"));
    let service = Some(mesh.service.hostname.as_str());
    let to = addressed(&mesh.world, workload, mesh::TARGET_PORT, service, Some(&client));
    let gate = Gate::new(&mesh.world, workload, mesh::TARGET_PORT, &to);
    let connection = Connection {
        client: Some(&client),
        source: mesh::CLIENT.into(),
        destination: SocketAddr::from((web, mesh::TARGET_PORT)),
        server_name: None,
    };
    let sent = heads::request(&format!("/items/{last}/reviews?page=2"))?;
    let request = Request {
        method: sent.method(),
        path: sent.uri().path_and_query().map_or("/", |target| target.as_str()),
        host: &format!("web-{last}.shop.example"),
        headers: sent.headers(),
    };
    let permit = gate.decide(&connection, Some(&request)).map_err(|denial| anyhow!(denial.why))?;
    let by = permit.policy.context("the policy that allowed")?;
    ensure!(by.name == name(last), "{by} allowed");
    let run = |()| gate.decide(&connection, Some(&request));
    meter.measure(piece, || (), run);
    Ok(())
}

/// What a change of policies costs, apart from the requests.
fn index(meter: &mut impl Meter) -> Result<()> {
    let (piece, count) = ("policy/index/1000", 1000);
    if meter.wants(piece) {
        let mesh =
            mesh::with(1, (0..count).map(|number| policy(number, mixed(number, count - 1))))?;
        let run = |()| {
            let set: PolicySet = mesh.world.mesh.policies.iter().cloned().collect();
            set.prepare();
            set
        };
        meter.measure(piece, || (), run);
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("policy-{number:04}")
}

fn policy(number: usize, mut spec: Value) -> Value {
    let dry_run = spec["dryRun"].take() == true;
    let annotations = if dry_run { json!({"istio.io/dry-run": "true"}) } else { json!({}) };
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("dryRun");
    }
    spec["targetRefs"] = json!([{"group": "", "kind": "Service", "name": "web"}]);
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name(number), "namespace": "shop", "annotations": annotations},
        "spec": spec,
    })
}

fn rule(action: &str, source: &Value, operation: &Value) -> Value {
    json!({"action": action, "rules": [{"from": [{"source": source}], "to": [{"operation": operation}]}]})
}

fn principal(number: usize) -> String {
    format!("cluster.local/ns/shop/sa/client-{number}")
}

fn clients_and_paths(number: usize, _: usize) -> Value {
    let operation = json!({"methods": ["GET"], "paths": [format!("/items/{number}/*")]});
    rule("ALLOW", &json!({"principals": [principal(number)]}), &operation)
}

/// The client's own address for the last one, and blocks elsewhere.
fn block(number: usize, last: usize) -> String {
    let [.., high, low] = number.to_be_bytes();
    match number == last {
        true => std::net::Ipv4Addr::from(mesh::CLIENT).to_string(),
        false => format!("172.{}.{low}.0/24", 16 + high),
    }
}

fn sources(number: usize, last: usize) -> Value {
    json!({"rules": [{"from": [{"source": {"ipBlocks": [block(number, last)]}}]}]})
}

/// In each form that paths have; the last one as a whole.
fn paths(number: usize, last: usize) -> Value {
    let path = match (last - number) % 4 {
        0 => format!("/items/{number}/reviews"),
        1 => format!("/items/{number}/*"),
        2 => format!("*/{number}/reviews"),
        _ => format!("/items/{{*}}/{number}/{{**}}"),
    };
    json!({"rules": [{"to": [{"operation": {"paths": [path]}}]}]})
}

fn hosts(number: usize, last: usize) -> Value {
    let star = if (last - number).is_multiple_of(2) { "" } else { "*." };
    let host = format!("{star}web-{number}.shop.example");
    json!({"rules": [{"to": [{"operation": {"hosts": [host]}}]}]})
}

/// Policies of all actions, which differ in all that rules can say.
fn mixed(number: usize, last: usize) -> Value {
    let any = json!({"methods": ["GET", "POST"], "ports": [mesh::PORT.to_string()]});
    let of = principal(number);
    match (last - number) % 8 {
        0 => clients_and_paths(number, last),
        1 => {
            let paths = json!({"paths": [format!("/admin/{number}/*")]});
            rule("DENY", &json!({"notPrincipals": [of]}), &paths)
        }
        2 => rule("DENY", &json!({"namespaces": [format!("tenant-{number}")]}), &any),
        3 => {
            let blocks = json!({"ipBlocks": [block(number, last)], "notIpBlocks": ["10.1.0.0/16"]});
            rule("ALLOW", &blocks, &any)
        }
        4 => json!({"action": "AUDIT", "rules": [{"when": [
            {"key": "request.headers[x-tenant]", "values": [format!("tenant-{number}")]},
        ]}]}),
        5 => {
            let mut spec = rule("ALLOW", &json!({"principals": [of]}), &any);
            spec["dryRun"] = true.into();
            spec
        }
        6 => {
            let hosts =
                json!({"hosts": [format!("admin-{number}.shop.example")], "notMethods": ["HEAD"]});
            rule("DENY", &json!({"notNamespaces": ["istio-system"]}), &hosts)
        }
        _ => rule("ALLOW", &json!({"principals": [of]}), &json!({"notPaths": ["/private/*"]})),
    }
}
