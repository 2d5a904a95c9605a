//! The filter ExternalAuth: who asks the authorizer, and that nobody gets past it.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::authorizers::{authorizer, with_authorizer};
use super::destination::captured;
use super::mirrors::mirror;
use super::scripted::{Script, Step};
use super::support::*;
use crate::filter::{AuthProtocol, ExternalAuth, HttpFilter};
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::world::fixture::{self, Fixture, backend, identity};

const HOST: &str = "echo.shop.svc.cluster.local";

/// Of all requests but those to `/open`, by a route of this name; `target` is the authorizer.
fn asking(route: &str, to: &str, target: Option<&str>) -> HttpRoute {
    let target = target.map(|name| BackendRef::Service { service: fixture::key(name), port: 80 });
    let (allowed, copied) =
        (vec!["x-token".into()], vec!["x-user".into(), "x-role".into(), "x-saw".into()]);
    let protocol = AuthProtocol::Http { path: "/check".into(), allowed, copied };
    let filter = HttpFilter::ExternalAuth(ExternalAuth { target, protocol, body: 0 });
    let open = HttpMatch { path: PathMatch::Exact("/open".into()), ..HttpMatch::default() };
    let rules = vec![
        HttpRule { filters: vec![filter], ..fixture::rule(vec![backend(to, 1)]) },
        HttpRule { matches: vec![open], ..fixture::rule(vec![backend(to, 1)]) },
    ];
    fixture::route(route, "echo", rules)
}

async fn with_route(mesh: Fixture, route: HttpRoute) -> Lab {
    let mesh = with_authorizer(mesh, authorizer().await).route(route);
    Lab::new(mesh, WorkerSettings::for_tests())
}

/// What a client gets who forges what the authorizer says.
async fn get(client: &mut Client, path: &str) -> Answer {
    let forged = [("x-user", "root"), ("x-role", "admin"), ("x-token", "t")];
    client.send(Method::GET, path, &forged).await.unwrap()
}

/// The authorizer decides, wherever it is asked.
async fn asks(client: &mut Client) {
    assert_eq!(get(client, "/deny").await.body, "denied by rule");
    let login = get(client, "/login").await;
    assert_eq!(
        (login.status, &login.headers["set-cookie"]),
        (StatusCode::FOUND, &"state=1".parse().unwrap())
    );
    let allowed = get(client, "/a").await;
    assert_eq!(allowed.status, StatusCode::OK, "{}", allowed.body);
    assert!(
        allowed.body.contains("x-user: alice") && !allowed.body.contains("root"),
        "{}",
        allowed.body
    );
    assert!(!allowed.body.contains("x-role"), "{}", allowed.body);
    assert_eq!(get(client, "/fail").await.status, StatusCode::FORBIDDEN);
    let open = get(client, "/open").await;
    assert!(open.body.contains("x-role: admin"), "{}", open.body);
}

#[tokio::test]
async fn the_destination_asks_whatever_way_a_request_comes() {
    let at = application("app").await;
    let lab = with_route(captured(at), asking("r", "echo", Some("auth"))).await;
    for host in [Some(HOST), None] {
        for client in [Some(identity("client")), Some(identity("evil/other")), None] {
            let stream = lab.arrive("echo", at, client, host).await;
            asks(&mut Client::http1(stream).await).await;
        }
        let mut stream = lab.arrive("echo", at, Some(identity("client")), host).await;
        stream.write_all(b"\x00binary\n").await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0, "there is nothing to ask about");
    }
}

/// The rule that takes a path as it was sent has no authorizer, and the application may read another path.
#[tokio::test]
async fn no_spelling_of_a_path_leads_past_the_authorizer() {
    let at = application("app").await;
    let mut route = asking("r", "echo", Some("auth"));
    let prefix =
        |path: &str| HttpMatch { path: PathMatch::Prefix(path.into()), ..HttpMatch::default() };
    route.rules[0].matches = vec![prefix("/account")];
    route.rules[1].matches = vec![prefix("/")];
    let lab = with_route(captured(at), route).await;
    for host in [Some(HOST), None] {
        let stream = lab.arrive("echo", at, Some(identity("client")), host).await;
        let mut client = Client::http1(stream).await;
        for (path, asked) in [
            ("/account/a", true),
            ("//account/a", true),
            ("/x/../account/a", true),
            ("/%61ccount/a", true),
            ("/account%2Fa", true),
            ("/account;v=1/a", true),
            ("/\\account", true),
            ("/x/..;/account", true),
            ("/account%00", true),
            ("/accounts", false),
            ("/a?account=/account/a", false),
            ("/a//b", false),
            ("/a%20b", false),
        ] {
            let answer = get(&mut client, path).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
            let user = if asked { "x-user: alice" } else { "x-user: root" };
            assert!(answer.body.contains(user), "{path}: {}", answer.body);
        }
    }
}

/// A copy would leave before anybody asks.
#[tokio::test]
async fn what_an_authorizer_is_asked_about_is_not_mirrored() {
    let (copy, script) = Script::start(&[Step::Status(200)]).await;
    let pod = outsider("copy", copy);
    let mesh = shop(application("app").await).service(bound("copy", "10.96.0.2", &pod, copy));
    let mut route = asking("r", "echo", Some("auth"));
    route.rules.iter_mut().for_each(|rule| rule.filters.push(mirror("copy", 1, 1)));
    let lab = with_route(mesh.workload(pod), route).await;
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    for (path, status) in [("/a", 200), ("/deny", 403), ("/open", 200)] {
        assert_eq!(get(&mut client, path).await.status.as_u16(), status, "{path}");
    }
    // The rule without an authorizer is mirrored, and its request was the last.
    let came = script.wait_for(1).await;
    assert_eq!(came.iter().map(|one| &*one.target).collect::<Vec<_>>(), ["/open"]);
}

/// A client of a lying peer can only have its own requests rejected.
#[tokio::test]
async fn checks_that_lead_to_checks_end() {
    let at = application("app").await;
    let lab = with_route(captured(at), asking("r", "echo", Some("auth"))).await;
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http1(stream).await;
    for (checks, status) in
        [("0", 200), ("3", 200), ("4", 403), ("255", 403), ("999", 403), ("x", 403)]
    {
        let sent = [("x-isthmus-checks", checks)];
        let answer = client.send(Method::GET, "/a", &sent).await.unwrap();
        assert_eq!(answer.status, status, "{checks}: {}", answer.body);
        assert!(!answer.body.contains("x-isthmus"), "{}", answer.body);
        let open = client.send(Method::GET, "/open", &sent).await.unwrap();
        assert_eq!(open.status, StatusCode::OK, "nobody is asked about it");
    }
}

#[tokio::test]
async fn an_authorizer_that_is_missing_permits_nothing() {
    for target in [None, Some("gone")] {
        for is_captured in [true, false] {
            let at = application("app").await;
            let mesh = if is_captured { captured(at) } else { shop(at) };
            let lab = with_route(mesh, asking("r", "echo", target)).await;
            let stream = match is_captured {
                true => lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await,
                false => lab.dial("client", "echo").await,
            };
            let mut client = Client::http1(stream).await;
            let refused = get(&mut client, "/a").await;
            assert!(matches!(refused.status.as_u16(), 403 | 500), "{}", refused.status);
            assert_eq!(get(&mut client, "/open").await.status, StatusCode::OK);
        }
    }
}

/// The application in a namespace of its own, behind a service of the route's.
fn foreign(at: SocketAddr) -> Fixture {
    let echo = fixture::workload("far/echo", &at.ip().to_string());
    let service = bound("echo", "10.96.0.1", &echo, at);
    Fixture::default()
        .workload(fixture::workload("client", "127.0.0.9"))
        .workload(echo)
        .waypoint(fixture::waypoint("waypoint"))
        .service(service)
}

/// With the identity of a foreign pod the owner of a route could send any request in its name.
#[tokio::test]
async fn nobody_asks_on_behalf_of_another_namespace() {
    let at = application("app").await;
    let lab = with_route(foreign(at), asking("r", "echo", Some("auth"))).await;
    let stream = lab.arrive("far/echo", at, Some(identity("evil/other")), Some(HOST)).await;
    assert_eq!(get(&mut Client::http1(stream).await, "/a").await.status, 500);
    // A client of the route's namespace has asked itself.
    let stream = lab.arrive("far/echo", at, Some(identity("client")), Some(HOST)).await;
    assert_eq!(get(&mut Client::http1(stream).await, "/deny").await.status, StatusCode::OK);
    // The service is outside of the mesh, and the client of another namespace.
    let mesh = shop(at).workload(fixture::workload("evil/other", "127.0.0.8"));
    let lab = with_route(mesh, asking("r", "echo", Some("auth"))).await;
    let mut client = Client::http1(lab.dial("evil/other", "echo").await).await;
    assert_eq!(get(&mut client, "/a").await.status, 500);
    assert_eq!(get(&mut client, "/open").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_clients_half_asks_for_its_own_routes() {
    for route in ["r", "clients/r"] {
        let at = application("app").await;
        let mut mesh = shop(at);
        let name = if route == "r" { "client" } else { "clients/client" };
        if route != "r" {
            mesh = mesh.workload(fixture::workload(name, "127.0.0.9"));
        }
        let lab = with_route(mesh, asking(route, "echo", Some("auth"))).await;
        asks(&mut Client::http1(lab.dial(name, "echo").await).await).await;
    }
}
