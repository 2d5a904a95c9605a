//! Connections that a route leads to a third namespace.

use super::*;
use crate::world::fixture::identity;

/// Only these may reach `echo`; `None`: everybody.
fn admitting(port: u16, allowed: Option<&[&str]>, waypoint: Binding) -> Fixture {
    let front = Service { waypoint, ..service("evil/front", "10.96.0.2", &[]) };
    let mesh = guarded(&["127.0.0.1"], port)
        .service(front)
        .waypoint(fixture::waypoint("evil/wp"))
        .workload(workload("prod/client", "10.0.9.1"));
    let Some(allowed) = allowed else { return mesh };
    let principals = allowed.iter().map(|it| StringMatch::Exact(identity(it).principal().into()));
    let principals = Values { any: principals.collect(), none: Vec::new() };
    let from = vec![Source { principals, ..Source::default() }];
    let scope = Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    mesh.policy(policy("only", Action::Allow, scope, vec![Rule { from, ..Rule::default() }]))
}

/// Whoever leads the client on uses its name where the client, the route and the destination are of three namespaces, and nowhere else.
#[tokio::test]
async fn a_third_namespace_must_permit_both() {
    let (_listener, port) = listening().await;
    let (client, wp) = ("prod/client", "evil/wp");
    for (route, waypoint, allowed, is_let) in [
        ("evil/r", bound_to(wp), Some(&[client][..]), false),
        ("evil/r", bound_to(wp), Some(&[wp]), false),
        ("evil/r", bound_to(wp), Some(&[client, wp]), true),
        ("evil/r", bound_to(wp), None, true),
        // Without a waypoint there is no name, and what is open to a name is not open.
        ("evil/r", Binding::None, Some(&[client]), false),
        ("evil/r", Binding::None, Some(&[client, wp]), false),
        ("evil/r", Binding::None, None, true),
        ("evil/r", bound_to("evil/gone"), Some(&[client]), false),
        // The client's own word, the operator's, and the destination's.
        ("prod/r", bound_to(wp), Some(&[client]), true),
        ("istio-system/r", bound_to(wp), Some(&[client]), true),
        ("shop/r", bound_to(wp), Some(&[client]), true),
        ("prod/r", bound_to(wp), Some(&[wp]), false),
    ] {
        let mut bench = Bench::new(admitting(port, allowed, waypoint.clone()));
        bench.client = workload(client, "10.0.9.1");
        let world = bench.world();
        let front = world.service(&key("evil/front")).unwrap();
        let lent = Lent::of(&world, &bench.client, front, ("TCPRoute", &key(route)));
        let echo = world.service(&key("echo")).unwrap().clone();
        let ask = Ask { lent: lent.as_deref(), ..ask(Asked::Decided(&echo)) };
        let reached = bench.reach.endpoint(&bench.from(), &ask).await;
        let case = format!("{route} {waypoint:?} {allowed:?}");
        assert_eq!(reached.is_ok(), is_let, "{case}");
        if let Err(unreached) = reached {
            assert_eq!(unreached.failure.reason, Reason::Denied, "{case}");
            assert!(bench.recording.dialled().is_empty(), "{case}: not even a SYN");
        }
    }
}

/// What was permitted when it was opened is not for ever, also where the destination's agent judges the client by itself.
#[tokio::test]
async fn an_open_connection_ends_when_the_name_may_not_go_there_any_more() {
    let (client, wp) = ("prod/client", "evil/wp");
    for tunnelled in [false, true] {
        let mesh = |allowed: Option<&[&str]>| {
            let mut mesh = admitting(80, allowed, bound_to(wp));
            if tunnelled {
                let echo = Service {
                    waypoint: bound_to("wp"),
                    ..service("echo", "10.96.0.1", &[&workload("pod", "10.0.0.7")])
                };
                mesh.mesh.services.retain(|it| it.key != key("echo"));
                mesh = mesh.service(echo).workload(workload("pod", "10.0.0.7"));
            }
            mesh
        };
        let mut bench = Bench::new(mesh(Some(&[client, wp])));
        bench.client = workload(client, "10.0.9.1");
        let world = bench.world();
        let front = world.service(&key("evil/front")).unwrap();
        let lent = Lent::of(&world, &bench.client, front, ("TCPRoute", &key("evil/r")));
        let echo = world.service(&key("echo")).unwrap().clone();
        let from = bench.from();
        let to = match tunnelled {
            true => {
                let pod = world.workload(&workload("pod", "10.0.0.7").uid).unwrap().clone();
                Picked::dialled("10.0.0.7:8080".parse().unwrap(), Some(pod))
            }
            false => Picked::dialled("127.0.0.1:80".parse().unwrap(), None),
        };
        let ask = Ask { lent: lent.as_deref(), ..ask(Asked::Decided(&echo)) };
        let mut until = std::pin::pin!(bench.reach.until_denied(&from, &ask, (&to, None)));
        let open = tokio::time::timeout(A_MOMENT, until.as_mut()).await;
        assert!(open.is_err(), "{tunnelled}: {open:?}");
        bench.store.publish(mesh(Some(&[client])).mesh);
        let cut = tokio::time::timeout(SOON, until).await;
        let cut = cut.unwrap_or_else(|_| panic!("{tunnelled}: still open"));
        assert_eq!(cut.reason, Reason::Denied, "{cut}");
        assert!(cut.why.contains("evil/r leads clients of prod to shop"), "{cut}");
    }
}
