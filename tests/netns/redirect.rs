//! Capture rules in real network namespaces: what the kernel holds, what is redirected and what is not. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{net::SocketAddr, time::Duration};

use isthmus::{
    base::ports,
    redirect::{self, CapturePlan, Family, NodePlan, Place, Program},
};

mod forwards;
mod lab;
mod node;
mod timestamps;
mod traffic;

use lab::Namespace;

fn program() -> Program {
    redirect::plan_workload(&CapturePlan::default())
}

impl Namespace {
    fn apply(&self, program: &Program) {
        let applied = self.run(|| redirect::apply(program)).unwrap();
        assert_eq!(applied, redirect::Applied::default());
    }

    /// Everything that the rules of a namespace consist of.
    fn rules(&self) -> String {
        let commands = [
            "nft list ruleset",
            "ip -4 rule",
            "ip -6 rule",
            "ip -4 route show table all",
            "ip -6 route show table all",
        ];
        commands.map(|line| self.command(line)).join("--\n")
    }
}

#[test]
fn applying_twice_is_applying_once_and_removing_leaves_nothing() {
    let namespace = Namespace::new();
    let before = namespace.rules();
    assert!(!namespace.run(|| redirect::is_applied(Place::Workload)).unwrap());

    namespace.apply(&program());
    let once = namespace.rules();
    assert!(once.contains("table inet isthmus") && once.contains("fwmark 0x111/0xfff"), "{once}");
    assert!(once.contains("local default dev lo table 100"), "{once}");
    assert!(namespace.run(|| redirect::is_applied(Place::Workload)).unwrap());
    namespace.apply(&program());
    assert_eq!(namespace.rules(), once);

    namespace.run(|| redirect::remove(Place::Workload)).unwrap();
    assert_eq!(namespace.rules(), before);
    assert!(!namespace.run(|| redirect::is_applied(Place::Workload)).unwrap());
    namespace.run(|| redirect::remove(Place::Workload)).unwrap();
    assert_eq!(namespace.rules(), before);
}

#[test]
fn applying_leaves_the_tables_of_others_alone() {
    let namespace = Namespace::new();
    namespace.command("nft add table inet other");
    namespace.command("ip rule add fwmark 0x111 lookup 100 pref 5");
    let before = namespace.rules();
    namespace.apply(&program());
    namespace.run(|| redirect::remove(Place::Workload)).unwrap();
    assert_eq!(namespace.rules(), before);
}

/// The listing of a program is fed to `nft` in another namespace; both must then hold the same.
#[test]
fn the_kernel_holds_what_is_printed() {
    let all = CapturePlan::default();
    let workloads = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|one| one.parse().unwrap()).to_vec();
    let programs = [
        redirect::plan_workload(&all),
        redirect::plan_workload(&CapturePlan { dns: true, ..all }),
        redirect::plan_workload(&CapturePlan { inbound: false, ipv4: false, ..all }),
        redirect::plan_node(&NodePlan { workloads }),
        redirect::plan_node(&NodePlan::default()),
    ];
    let plain = |program: &Program| Program { table: program.table.plain(), ..program.clone() };
    let programs = programs.iter().flat_map(|program| [program.clone(), plain(program)]);
    for program in programs {
        let (ours, theirs) = (Namespace::new(), Namespace::new());
        // Else the kernel's table remembers what it was before.
        ours.set("ipv4/tcp_timestamps", "2");
        ours.apply(&program);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), program.to_string()).unwrap();
        theirs.command(&format!("nft -f {}", file.path().display()));
        let list = format!("nft list table inet {}", program.table.name);
        assert_eq!(ours.command(&list), theirs.command(&list));
    }
}

#[test]
fn a_changed_plan_replaces_the_rules() {
    let namespace = Namespace::new();
    namespace.apply(&redirect::plan_workload(&CapturePlan { dns: true, ..CapturePlan::default() }));
    assert!(namespace.rules().contains(":15053"));
    namespace.apply(&program());
    assert!(!namespace.rules().contains(":15053"));
}

#[test]
fn without_ipv6_on_loopback_ipv4_is_captured_all_the_same() {
    let namespace = Namespace::new();
    namespace.set("ipv6/conf/lo/disable_ipv6", "1");
    let applied = namespace.run(|| redirect::apply(&program())).unwrap();
    assert_eq!(applied.without_routes, [Family::Ipv6]);
    assert!(namespace.rules().contains("local default dev lo table 100"));
    namespace.run(|| redirect::remove(Place::Workload)).unwrap();
    assert_eq!(namespace.command("nft list ruleset"), "");
}

#[test]
fn a_refusal_names_what_is_missing() {
    let namespace = Namespace::new();
    namespace.command("ip link set lo down");
    let error = namespace.run(|| redirect::apply(&program())).unwrap_err().to_string();
    assert!(error.contains("route local default") && error.contains("lo up"), "{error}");
}

fn wait_a_little() -> Duration {
    Duration::from_millis(200)
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const APPLICATION: u16 = 8080;
const ILLEGAL: [u16; 3] = ports::ILLEGAL;
