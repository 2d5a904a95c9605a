//! Session persistence: where requests of a session go, over endpoints that come and go.

use std::net::SocketAddr;
use std::time::SystemTime;

use http::Method;
use serde_json::{Value, json};

use super::support::*;
use super::traffic::{filters, with};
use crate::balance;
use crate::filter::HttpFilter;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::traffic::{Named, Ports, Subset};
use crate::world::fixture::{self, Fixture, backend as to, key};

const NAMES: [&str; 4] = ["one", "two", "three", "four"];

/// `echo` with an endpoint for each application, `ready` or not.
fn mesh(applications: &[(SocketAddr, bool)]) -> Fixture {
    let mut mesh = shop(applications[0].0);
    let mut service = mesh.mesh.services[0].as_ref().clone();
    let first = service.endpoints[0].clone();
    service.endpoints.clear();
    for (number, (at, ready)) in applications.iter().enumerate() {
        let workload = outsider(&format!("other-{number}"), *at);
        let mut endpoint = first.clone();
        endpoint.workload = Some(workload.uid.clone());
        endpoint.ports[0].target = at.port();
        endpoint.ready = *ready;
        service.endpoints.push(endpoint);
        mesh = mesh.workload(workload);
    }
    mesh.mesh.services[0] = service.into();
    mesh
}

async fn applications() -> Vec<(SocketAddr, bool)> {
    let mut all = Vec::new();
    for name in NAMES {
        all.push((application(name).await, true));
    }
    all
}

fn persistent(spec: Value) -> Vec<HttpFilter> {
    filters(json!({ "sessionPersistence": spec }))
}

/// The application that answers, and what it or the agent gave the client.
async fn ask(lab: &Lab, carried: Option<(&str, &str)>) -> (String, Answer) {
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    let headers: Vec<(&str, &str)> = carried.into_iter().collect();
    let answer = client.send(Method::GET, "/", &headers).await.unwrap();
    (answer.headers["x-from"].to_str().unwrap().to_owned(), answer)
}

/// The cookie that the response sets, as the client sends it.
fn cookie(answer: &Answer) -> String {
    let text = answer.headers["set-cookie"].to_str().unwrap();
    text.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_stays_with_its_endpoint_over_all_agents() {
    let applications = applications().await;
    let mesh = || with(mesh(&applications), &persistent(json!({"sessionName": "cart"})));
    // Two labs are two agents: they share nothing but what the client carries.
    let labs = [
        Lab::new(mesh(), WorkerSettings::for_tests()),
        Lab::new(mesh(), WorkerSettings::for_tests()),
    ];
    for _ in 0..5 {
        let (name, answer) = ask(&labs[0], None).await;
        let cookie = cookie(&answer);
        assert!(cookie.starts_with("cart="), "{cookie}");
        let addresses = applications.iter().map(|(at, _)| at.to_string());
        for address in addresses.chain(["127.0.0.1".to_owned()]) {
            assert!(!cookie.contains(&address), "{cookie} tells an address");
        }
        for at in 0..10 {
            let (again, answer) = ask(&labs[at % 2], Some(("cookie", &cookie))).await;
            assert_eq!(again, name);
            assert!(!answer.headers.contains_key("set-cookie"), "the client knows it");
        }
    }
}

#[tokio::test]
async fn a_header_carries_a_session_as_well() {
    let applications = applications().await;
    let spec = json!({"type": "Header", "sessionName": "x-cart"});
    let lab = Lab::new(with(mesh(&applications), &persistent(spec)), WorkerSettings::for_tests());
    let (name, answer) = ask(&lab, None).await;
    let token = answer.headers["x-cart"].to_str().unwrap().to_owned();
    for _ in 0..10 {
        assert_eq!(ask(&lab, Some(("x-cart", &token))).await.0, name);
    }
}

#[tokio::test]
async fn a_session_whose_endpoint_is_gone_gets_another() {
    let mut applications = applications().await;
    let spec = persistent(json!({}));
    let lab = Lab::new(with(mesh(&applications), &spec), WorkerSettings::for_tests());
    let (name, answer) = ask(&lab, None).await;
    let first = cookie(&answer);
    let gone = NAMES.iter().position(|it| *it == name).unwrap();
    applications[gone].1 = false;
    lab.store.publish(with(mesh(&applications), &spec).mesh);
    let (other, answer) = ask(&lab, Some(("cookie", &first))).await;
    assert_ne!(other, name);
    let second = cookie(&answer);
    applications[gone].1 = true;
    lab.store.publish(with(mesh(&applications), &spec).mesh);
    for _ in 0..10 {
        assert_eq!(ask(&lab, Some(("cookie", &second))).await.0, other, "it stays there");
    }
}

/// What clients make up: addresses of others, hashes of nothing, other people's tokens.
#[tokio::test]
async fn a_client_reaches_nobody_but_endpoints_of_the_service() {
    let applications = applications().await;
    let stranger = application("stranger").await;
    let strange = outsider("stranger", stranger);
    let mut mesh = with(mesh(&applications), &persistent(json!({"sessionName": "s"})));
    let mut service = bound("stranger", "10.96.0.9", &strange, stranger);
    service.filters = persistent(json!({"sessionName": "s"}));
    mesh = mesh.workload(strange).service(service);
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut client = Client::http1(lab.dial("client", "stranger").await).await;
    let theirs = cookie(&client.get("/").await);
    for made_up in [
        theirs,
        format!("s={stranger}"),
        "s=AQAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        "s=MTI3LjAuMC4xOjgw".to_owned(),
    ] {
        let (name, answer) = ask(&lab, Some(("cookie", &made_up))).await;
        assert!(NAMES.contains(&name.as_str()), "{made_up} led to {name}");
        assert!(answer.headers.contains_key("set-cookie"), "it is given another: {made_up}");
    }
}

#[tokio::test]
async fn a_session_stays_with_its_backend_whatever_the_weights_are() {
    let (one, two) = (application("one").await, application("two").await);
    let (first, second) = (outsider("one", one), outsider("two", two));
    let mesh = |weights: [u32; 2]| {
        let rule = HttpRule {
            filters: persistent(json!({})),
            ..fixture::rule(vec![to("one", weights[0]), to("two", weights[1])])
        };
        shop(one)
            .service(bound("one", "10.96.0.2", &first, one))
            .service(bound("two", "10.96.0.3", &second, two))
            .workload(first.clone())
            .workload(second.clone())
            .route(fixture::route("routes", "echo", vec![rule]))
    };
    let lab = Lab::new(mesh([1, 1]), WorkerSettings::for_tests());
    let mut cookies = Vec::new();
    while cookies.len() < 2 {
        let (name, answer) = ask(&lab, None).await;
        if cookies.iter().all(|(known, _)| *known != name) {
            cookies.push((name, cookie(&answer)));
        }
    }
    lab.store.publish(mesh([1, 0]).mesh);
    for (name, cookie) in &cookies {
        for _ in 0..4 {
            assert_eq!(ask(&lab, Some(("cookie", cookie))).await.0, *name);
        }
    }
    assert_eq!(ask(&lab, None).await.0, "one", "new sessions follow the weights");
}

#[tokio::test]
async fn a_retry_goes_elsewhere_and_the_session_with_it() {
    // Nobody listens where the session is, and nobody has said so yet.
    let gone = SocketAddr::from(([127, 0, 0, 1], 1));
    let applications = [(application("one").await, true), (gone, true)];
    let spec = persistent(json!({}));
    let lab = Lab::new(with(mesh(&applications), &spec), WorkerSettings::for_tests());
    let HttpFilter::SessionPersistence(persistence) = &spec[0] else { panic!("{spec:?}") };
    let world = lab.world();
    let session = balance::session_of(world.service(&key("echo")).unwrap(), 80, gone).unwrap();
    let (_, value) = persistence.told(None, session, SystemTime::now()).unwrap();
    let there = value.to_str().unwrap().split(';').next().unwrap().to_owned();
    let (name, answer) = ask(&lab, Some(("cookie", &there))).await;
    assert_eq!(name, "one");
    assert_ne!(cookie(&answer), there);
}

/// A VirtualService splits one Service into subsets.
#[tokio::test]
async fn a_session_stays_with_its_subset() {
    let applications = [(application("one").await, true), (application("two").await, true)];
    let mut mesh = with(mesh(&applications), &persistent(json!({})));
    let mut echo = mesh.mesh.services[0].as_ref().clone();
    for (number, endpoint) in (0..).zip(&mut echo.endpoints) {
        endpoint.subsets = [number].into_iter().collect();
    }
    let of = |labels: u32| Subset { labels: Some(labels), ports: Ports::default() };
    let subsets: Named = [("v1".into(), of(0)), ("v2".into(), of(1))].into_iter().collect();
    echo.traffic.set_subsets(None, subsets);
    mesh.mesh.services[0] = echo.into();
    let split = ["v1", "v2"].map(|subset| Backend { subset: Some(subset.into()), ..to("echo", 1) });
    mesh = mesh.route(fixture::route("r", "echo", vec![fixture::rule(split.into())]));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut known = std::collections::BTreeSet::new();
    while known.len() < 2 {
        let (name, answer) = ask(&lab, None).await;
        let cookie = cookie(&answer);
        for _ in 0..5 {
            let (again, answer) = ask(&lab, Some(("cookie", &cookie))).await;
            assert_eq!((again, answer.headers.contains_key("set-cookie")), (name.clone(), false));
        }
        known.insert(name);
    }
}
