//! What one pod can make its node write, ask and count: long lines of the log that escapes make longer, questions of DNS
//! without end, series of metrics for ever more services. It gets its part, and neighbours get answers meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::authority::service;
use crate::siege::read_answer;
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, PORT, wait};
use crate::ways::DETAILS;
use crate::{besieged, besieged_with, settle};

const PATIENCE: Duration = Duration::from_secs(5);
/// Where pods believe that their name server is; the mesh answers.
const NAME_SERVER: &str = "10.96.0.10:53";
/// A waypoint of bookinfo, so that requests are parsed and logged.
const WAYPOINT: &str = include_str!("../../config/bookinfo/mesh/waypoint.yaml");

#[test]
fn no_request_makes_the_log_longer_than_a_few_fields() -> Result<()> {
    /// A field is cut, and each of its characters takes six at the most (`\u0001`).
    const LINE: usize = 32 * 1024;
    const REQUESTS: usize = 50;
    let mut lab = besieged_with(&[WAYPOINT], "[log]\nformat = \"json\"\n")?;
    let bookinfo = crate::support::lab::manifests::Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&bookinfo, &["istio.io/use-waypoint=waypoint"])?;
    let start = lab.moment()?;
    // Layer 4, which logs no paths, answers alike until the label is read.
    wait::until("a request to be parsed", || {
        lab.curl("attacker", &[DETAILS])?;
        let lines = lab.lines_since(&start);
        Ok(lines.iter().any(|(_, line)| line.contains("/details/0")).then_some(()))
    })?;
    let to = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let since = lab.moment()?;
    // Quotes, backslashes, tabs and bytes that are no UTF-8, well within the 60 KiB that a head may have.
    let target = format!("/details/0?{}", "\"\\".repeat(8_000));
    let fields = [("user-agent", "\"\t"), ("x-forwarded-for", "\\\""), ("x-request-id", "\"}\\")]
        .map(|(name, text)| format!("{name}: {}\r\n", text.repeat(2_000)).into_bytes());
    let foreign = [&b"referer: "[..], &[0xff; 4_000], b"\r\n"].concat();
    let start = format!("GET {target} HTTP/1.1\r\nHost: details.bookinfo\r\n");
    let request = [start.as_bytes(), &fields.concat(), &foreign, b"\r\n"].concat();
    lab.pod("attacker")?.attachment.namespace.run(|| -> Result<()> {
        for _ in 0..REQUESTS {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            _ = stream.write_all(&request);
            let answer = read_answer(&mut stream).unwrap_or_default();
            ensure!(answer.starts_with("HTTP/1.1 "), "no answer: {answer:?}");
        }
        Ok(())
    })??;
    let lines = wait::until("the requests to be logged", || {
        let lines = lab.lines_since(&since);
        let logged = lines.iter().filter(|(_, line)| line.contains("details/0?")).count();
        Ok((logged >= REQUESTS).then_some(lines))
    })?;
    let longest = lines.iter().map(|(_, line)| line.len()).max().unwrap_or_default();
    let all: usize = lines.iter().map(|(_, line)| line.len()).sum();
    println!(
        "{} lines of at most {longest} bytes for {} sent",
        lines.len(),
        REQUESTS * request.len()
    );
    ensure!(longest < LINE, "a line of {longest} bytes");
    ensure!(all < REQUESTS * request.len(), "{all} bytes for {} sent", REQUESTS * request.len());
    for (node, line) in &lines {
        // Nobody writes a field of another's, or a line.
        let line: serde_json::Value = serde_json::from_str(line).with_context(|| line.clone())?;
        ensure!(line.is_object(), "{node}: {line}");
    }
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

fn question(name: &str) -> Result<Vec<u8>> {
    let mut query = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    Ok(query.to_vec()?)
}

/// Asks as a resolver of a program does. `None` when there is no answer with an address.
fn address(namespace: &Namespace, name: &str) -> Result<Option<Message>> {
    let query = question(name)?;
    namespace.run(|| -> Result<_> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(NAME_SERVER)?;
        socket.send(&query)?;
        let mut answer = [0; 4096];
        let Ok(length) = socket.recv(&mut answer) else { return Ok(None) };
        let answer = Message::from_vec(&answer[..length])?;
        Ok(Some(answer).filter(|answer| !answer.answers.is_empty()))
    })?
}

/// Questions that no resolver answers, the same ones again and again, and connections that are held open.
#[test]
fn a_flood_of_questions_takes_no_answer_from_a_neighbour() -> Result<()> {
    const QUESTIONS: usize = 5_000;
    const CONNECTIONS: usize = 100;
    let mut lab = crate::application(&[crate::EVIL])?;
    let silent = lab.address("outsider")?;
    std::fs::write("/run/resolv.conf", format!("nameserver {silent}\n"))?;
    lab.start_agents("[dns]\nresolv_conf = \"/run/resolv.conf\"\n")?;
    crate::enrol(&mut lab)?;
    crate::captured_in(&lab, "evil")?;
    // A resolver that swallows everything.
    let swallows =
        lab.pod("outsider")?.attachment.namespace.run(|| UdpSocket::bind("0.0.0.0:53"))??;
    let name = "details.bookinfo.svc.cluster.local.";
    let place = |pod: &str| lab.pod(pod).map(|it| it.attachment.namespace.clone());
    let (attacker, curl) = (place("attacker")?, place("curl")?);
    wait::until("names to be known", || Ok(address(&curl, name)?.map(drop)))?;
    let processes = crate::memory::agents(&mut lab);
    let rest = crate::memory::all(&processes)?;
    let held = attacker.run(|| -> Result<Vec<TcpStream>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(NAME_SERVER)?;
        let known = question(name)?;
        for number in 0..QUESTIONS {
            let random = question(&format!("{:x}.{number}.example.test.", fastrand::u64(..)))?;
            // It may be told that nobody takes them any more.
            _ = socket.send(&random);
            _ = socket.send(&known);
        }
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let Ok(mut stream) = TcpStream::connect_timeout(&NAME_SERVER.parse()?, PATIENCE) else {
                break;
            };
            // Half a question.
            _ = stream.write_all(&[0, 40, 1, 2, 3]);
            held.push(stream);
        }
        Ok(held)
    })??;
    for number in 0..20 {
        ensure!(address(&curl, name)?.is_some(), "question {number} of a neighbour has no answer");
    }
    let highest = crate::memory::all(&processes)?;
    println!("at rest {rest:?} KiB, then {highest:?}, {} connections held", held.len());
    for (rest, highest) in rest.iter().zip(&highest) {
        // 256 questions, 64 connections, and what the allocator makes of it.
        ensure!(highest.saturating_sub(*rest) < 40 * 1024, "{highest} KiB of {rest}");
    }
    drop((swallows, held));
    wait::until("the attacker to be answered", || Ok(address(&attacker, name)?.map(drop)))
}

/// Services without number, and a connection to each.
#[test]
fn a_namespace_of_many_services_has_its_part_of_the_metrics() -> Result<()> {
    const SERVICES: usize = 300;
    const MOST: usize = 200;
    let settings = format!("[metrics]\nmax_series = 2000\nmax_namespace_series = {MOST}\n");
    let mut lab = besieged_with(&[], &settings)?;
    let endpoint = lab.address("accomplice")?.to_string();
    let vip = |number: usize| format!("10.96.{}.{}", 70 + number / 200, 1 + number % 200);
    let services: String = (0..SERVICES)
        .map(|number| service(&format!("own-{number}"), &vip(number), "", &endpoint))
        .collect();
    lab.manifests.apply(&services)?;
    let listener = lab
        .pod("accomplice")?
        .attachment
        .namespace
        .run(|| std::net::TcpListener::bind(("0.0.0.0", PORT)))??;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            _ = stream.write_all(b"hello");
        }
    });
    let attacker = lab.pod("attacker")?.attachment.namespace.clone();
    let visit = |number: usize| -> Result<bool> {
        let to: SocketAddr = format!("{}:{PORT}", vip(number)).parse()?;
        attacker.run(|| -> Result<bool> {
            let Ok(mut stream) = TcpStream::connect_timeout(&to, PATIENCE) else {
                return Ok(false);
            };
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream.read(&mut [0; 8]).is_ok_and(|read| read > 0))
        })?
    };
    wait::until("the services to be known", || Ok(visit(SERVICES - 1)?.then_some(())))?;
    for number in 0..SERVICES {
        ensure!(visit(number)?, "service {number} is not served");
    }
    let own = |lab: &Lab| -> Result<f64> {
        lab.metrics().map(|it| it.sum("isthmus_metrics_series", &[]))
    };
    let folded = wait::until("what is beyond the part to be told", || {
        let folded = lab.metrics()?.sum("isthmus_metrics_folded_total", &[]);
        Ok((folded > 0.0).then_some(folded))
    })?;
    println!("{} series on both nodes, folded {folded} times", own(&lab)?);
    ensure!(own(&lab)? < 3.0 * 2.0 * MOST as f64, "{} series", own(&lab)?);
    // A neighbour's requests are still counted under its own name.
    settle(&lab, "curl", &[DETAILS], 200)?;
    wait::until("the neighbour's connection to be counted", || {
        let labels = [("source_workload", "curl"), ("destination_service_name", "details")];
        let counted = lab.metrics()?.sum("istio_tcp_connections_opened_total", &labels);
        Ok((counted > 0.0).then_some(()))
    })
}

/// The same name, of a lab without more settings: nobody else's stub can be reached at all.
#[test]
fn a_pods_names_are_answered_in_the_pod_alone() -> Result<()> {
    let lab = besieged(&[])?;
    let attacker = lab.pod("attacker")?.attachment.namespace.clone();
    for pod in ["curl", "details-v1"] {
        for port in [53, 15053] {
            let to = SocketAddr::new(lab.address(pod)?, port);
            let answered = attacker.run(|| -> Result<bool> {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.set_read_timeout(Some(Duration::from_millis(500)))?;
                socket.connect(to)?;
                socket.send(&question("details.bookinfo.svc.cluster.local.")?)?;
                // To port 53 of anybody the attacker's own stub answers, with what the attacker may know.
                Ok(port != 53 && socket.recv(&mut [0; 512]).is_ok())
            })??;
            ensure!(!answered, "{pod} answers on port {port}");
        }
    }
    Ok(())
}
