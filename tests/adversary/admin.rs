//! The agents' doors, tried by processes that have nothing to do with them: any user of the node, root of a user
//! namespace, a pod on the node's network. They may see metrics and whether the agent is ready, and nothing else; they
//! change nothing and keep no probe from its answer.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::support::lab::agents::{administer, socket};
use crate::support::lab::process::command;
use crate::support::lab::{Lab, wait};
use crate::{meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const NODE: &str = "node-a";
/// Nobody: a process of an application that got out of its container, or a user of the node.
const NOBODY: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
/// The same in root's group.
const GROUP: &[&str] = &["setpriv", "--reuid=65534", "--regid=0", "--clear-groups"];
/// Root of a user namespace of its own, where the machine lets users make them.
const PRETENDER: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "unshare",
    "--user",
    "--map-root-user",
];
/// Everything that the agent can be asked and told.
const PAGES: [(&str, &str); 12] = [
    ("GET", "/"),
    ("GET", "/config_dump"),
    ("GET", "/connections"),
    ("GET", "/status"),
    ("GET", "/flows"),
    ("GET", "/flows/summary"),
    ("GET", "/logging"),
    ("POST", "/logging?level=off"),
    ("GET", "/debug/pprof/profile?seconds=1"),
    ("POST", "/debug/pprof/heap/profiling?activate=true"),
    ("GET", "/debug/pprof/heap"),
    ("POST", "/quitquitquit"),
];

/// What curl of `who` on the node gets: the status, 0 without an answer, and the body.
fn attempt(lab: &Lab, who: &[&str], arguments: &[&str]) -> Result<(u16, String)> {
    let (program, before) = who.split_first().context("a program")?;
    let output = command(&lab.node(NODE)?.namespace, program)
        .args(before)
        .args(["curl", "--silent", "--max-time", "5", "--noproxy", "*"])
        .args(["--write-out", "\n%{http_code}"])
        .args(arguments)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap_or((&text, ""));
    Ok((code.trim().parse().unwrap_or(0), body.to_owned()))
}

/// That whoever it is gets nothing from the socket.
fn ensure_shut(lab: &Lab, who: &[&str]) -> Result<()> {
    for (method, page) in PAGES {
        let url = format!("http://agent{page}");
        let got = attempt(lab, who, &["--unix-socket", &socket(NODE), "-X", method, &url])?;
        ensure!(got == (0, String::new()), "{who:?}: {method} {page} was answered: {got:?}");
    }
    Ok(())
}

/// That the agent is as it was: its log levels, its readiness, its traffic.
fn ensure_unharmed(lab: &Lab) -> Result<()> {
    let levels = administer(lab.node(NODE)?, &[], "/logging")?;
    ensure!(levels.status == 200 && levels.body == "info\n", "{}", levels.body);
    let heap = administer(lab.node(NODE)?, &[], "/debug/pprof/heap")?;
    ensure!(heap.status == 409, "allocations are recorded: {}", heap.summary());
    settle(lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

#[test]
fn no_port_of_the_node_tells_secrets_or_takes_orders() -> Result<()> {
    let lab = meshed()?;
    let node = lab.node(NODE)?.addresses[0];
    for host in [Ipv4Addr::LOCALHOST.into(), node] {
        let url = |port: u16, page: &str| format!("http://{}{page}", SocketAddr::new(host, port));
        for (method, page) in PAGES {
            for (port, expected) in [(15000, 0), (15020, 404), (15021, 404)] {
                let got = attempt(&lab, NOBODY, &["-X", method, &url(port, page)])?;
                ensure!(got.0 == expected, "{method} {}: {got:?}", url(port, page));
            }
        }
        let ready = attempt(&lab, NOBODY, &[&url(15021, "/healthz/ready")])?;
        ensure!(ready == (200, "ready\n".to_owned()), "{ready:?}");
        ensure!(attempt(&lab, NOBODY, &[&url(15020, "/metrics")])?.0 == 200);
    }
    // From a pod of the mesh, too, which is on another network.
    for page in ["/config_dump", "/quitquitquit"] {
        let url = format!("http://{node}:15000{page}");
        ensure!(lab.curl("curl", &["--max-time", "2", "-X", "POST", &url])?.status == 0);
    }
    ensure_unharmed(&lab)
}

#[test]
fn only_root_administers_over_the_socket() -> Result<()> {
    let lab = meshed()?;
    for who in [NOBODY, GROUP, PRETENDER] {
        ensure_shut(&lab, who)?;
    }
    // Nor is there a name without a file, which no mode protects.
    let sockets =
        lab.node(NODE)?.namespace.run(|| fs::read_to_string("/proc/thread-self/net/unix"))??;
    ensure!(sockets.contains("/proc/self/fd/"), "the agent's socket is not among these: {sockets}");
    ensure!(!sockets.contains('@'), "an abstract socket: {sockets}");

    // Whoever opens directory and file for everybody has not opened the agent.
    let since = lab.moment()?;
    let path = socket(NODE);
    let directory = Path::new(&path).parent().context("a directory")?;
    fs::set_permissions(directory, Permissions::from_mode(0o777))?;
    fs::set_permissions(&path, Permissions::from_mode(0o777))?;
    for who in [NOBODY, GROUP, PRETENDER] {
        ensure_shut(&lab, who)?;
    }
    let refused = |(_, line): &(_, String)| line.contains("administration is refused");
    let lines = lab.lines_since(&since);
    let line = lines.iter().find(|it| refused(it)).context("the attempts are logged")?;
    ensure!(line.1.contains("65534"), "{}", line.1);
    ensure_unharmed(&lab)
}

#[test]
fn what_root_changes_is_logged_whatever_the_levels_are() -> Result<()> {
    let lab = meshed()?;
    let since = lab.moment()?;
    let post = |path: &str| administer(lab.node(NODE)?, &["-X", "POST"], path);
    ensure!(post("/logging?level=off,audit=off")?.status == 200);
    ensure!(post("/logging?level=isthmus::l4=error")?.status == 200);
    ensure!(post("/logging?reset")?.status == 200);
    let logged = |query: &str| {
        wait::until(&format!("a line about {query}"), || {
            let lines = lab.lines_since(&since);
            let says = |line: &&String| line.contains("an operator asks") && line.contains(query);
            Ok(lines.iter().map(|(_, line)| line).find(says).cloned())
        })
    };
    for query in ["level=off,audit=off", "level=isthmus::l4=error", "reset"] {
        let line = logged(query)?;
        ensure!(line.contains("uid=0") && line.contains("pid="), "{line}");
    }
    // The program asks in the same way.
    let program = &lab.programs().isthmus;
    let mut told = command(&lab.node(NODE)?.namespace, program);
    let output = told.args(["admin", "--node", NODE, "--post", "/quitquitquit"]).output()?;
    ensure!(output.stdout == b"draining\n", "{output:?}");
    logged("quitquitquit").map(drop)
}

/// In an upgrade the successor has the socket, and the same rules hold for it; one that goes away leaves it to the agent
/// that serves.
#[test]
fn an_upgrade_opens_nothing_and_loses_nothing() -> Result<()> {
    let mut lab = meshed()?;
    let mut predecessor = lab.upgrade_agent(NODE)?;
    ensure_shut(&lab, NOBODY)?;
    ensure_unharmed(&lab)?;
    predecessor.process().wait_for_end()?;
    ensure_shut(&lab, NOBODY)?;
    ensure_unharmed(&lab)?;
    for after in [100, 200, 300] {
        if lab.upgrade_agent_and_give_up(NODE, Duration::from_millis(after))? {
            break;
        }
        wait::until("the agent that serves to be found", || {
            let asked = administer(lab.node(NODE)?, &[], "/logging")?;
            Ok((asked.status == 200).then_some(()))
        })?;
        ensure_shut(&lab, NOBODY)?;
        ensure_unharmed(&lab)?;
    }
    Ok(())
}

/// Clients that say nothing, half of something, or do not read: a probe gets its answer within its second.
#[test]
fn slow_clients_keep_no_probe_from_its_answer() -> Result<()> {
    use std::io::Write;

    let lab = meshed()?;
    let namespace = &lab.node(NODE)?.namespace;
    let mut slow = Vec::new();
    for (port, page) in [(15021, "/healthz/ready"), (15020, "/metrics")] {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        namespace.run(|| -> Result<()> {
            for number in 0..200 {
                let mut stream = TcpStream::connect(address)?;
                let whole = format!("GET {page} HTTP/1.1\r\nhost: node\r\n\r\n").repeat(4);
                let said = [0, 20, whole.len()][number % 3];
                // It may have been sent away already.
                _ = stream.write_all(&whole.as_bytes()[..said]);
                slow.push(stream);
            }
            Ok(())
        })??;
        let url = format!("http://{address}{page}");
        for _ in 0..10 {
            let got = attempt(&lab, NOBODY, &["--max-time", "1", &url])?;
            ensure!(got.0 == 200, "{page}: {got:?}");
        }
    }
    ensure_unharmed(&lab)
}
