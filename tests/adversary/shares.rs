//! One client that takes what it can of a waypoint worker: connections, requests, bytes, time. Others are served as if it
//! were not there, on both halves: from inside of the mesh, through the attacker's own node and the destination's, and
//! from outside, in plaintext. How much longer others wait is printed; it is no timed test.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::settle;
use crate::siege::{
    ATTACKS, Aim, END_HEADERS, END_STREAM, GO_AWAY, HEADERS, PREFACE, SETTINGS, Times, Victim,
    beside, block, frame, hold, raise_descriptors, read_answer,
};
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, PORT, wait};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const WORKER: [(&str, &str); 1] = [("namespace", "bookinfo")];

/// The destination's half looks at each request.
const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing-secret, namespace: bookinfo}
spec:
  targetRefs: [{kind: Service, group: '', name: details}]
  action: DENY
  rules: [{to: [{operation: {paths: ['/secret']}}]}]
";

pub(crate) fn guarded(settings: &str) -> Result<Lab> {
    let mut lab = crate::application(&[include_str!("evil.yaml"), crate::WAYPOINT, POLICY])?;
    lab.start_agents(settings)?;
    crate::enrol(&mut lab)?;
    crate::captured_in(&lab, "evil")?;
    let namespace = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])?;
    settle(&lab, "curl", &["http://details.bookinfo:9080/secret"], 403)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    settle(&lab, "attacker", &[DETAILS], 200)?;
    settle(
        &lab,
        "outsider",
        &[&format!("http://{}:{PORT}/details/0", lab.address("details-v1")?)],
        200,
    )?;
    Ok(lab)
}

/// Connections that may be there when an attack is over: the victim's, and those to the destination's half that rest for a
/// minute, 64 for each client and version of HTTP.
const AT_REST: f64 = 150.0;

/// Waits until the worker holds nothing of an attack any more.
pub(crate) fn recovered(lab: &Lab) -> Result<()> {
    let patience = Duration::from_secs(60);
    wait::within(patience, "the worker to be free again", || {
        let metrics = lab.metrics()?;
        let requests = metrics.sum("isthmus_worker_requests", &WORKER);
        let connections = metrics.sum("isthmus_worker_connections", &WORKER);
        Ok((requests == 0.0 && connections < AT_REST).then_some(()))
    })
}

/// Lets `attacker` do all it can to what listens at `at`, while the victim uses the Service.
fn besiege(attacker: &str, at: fn(&Lab) -> Result<SocketAddr>) -> Result<()> {
    raise_descriptors()?;
    let lab = guarded("[log]\nlevel = \"info,access=off\"\n")?;
    let to = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let (host, path, large) = ("details.bookinfo", "/details/0", "/headers");
    let aim = Aim { host, path, large, to, at: at(&lab)? };
    let victims = [Victim { place: &lab.pod("curl")?.attachment.namespace, aim }];
    victims[0].times()?;
    let alone = victims[0].times()?;
    for (name, attack) in ATTACKS {
        let since = lab.moment()?;
        let [[burst], [later]] = beside(&lab, attacker, attack, &aim, &victims).context(name)?;
        let ratio = |times: &Times| times.p(99).as_secs_f64() / alone.p(99).as_secs_f64();
        let [at_once, then] = [ratio(&burst), ratio(&later)];
        let limited = lab.metrics()?.sum("isthmus_worker_limited_total", &[])
            - since.metrics.sum("isthmus_worker_limited_total", &[]);
        println!(
            "{attacker}, {name}: all requests of the victim were answered; p50 {:?} p99 {:?} in the burst (× {at_once:.2} \
             of alone), then {:?} {:?} (× {then:.2}); the attacker was refused {limited} places",
            burst.p(50),
            burst.p(99),
            later.p(50),
            later.p(99),
        );
        recovered(&lab).context(name)?;
    }
    // It is a client like any other as long as it does what everybody may.
    settle(&lab, attacker, &[&format!("http://{}/details/0", at(&lab)?)], 200)?;
    Ok(())
}

#[test]
fn a_client_in_the_mesh_does_not_take_the_waypoint_from_others() -> Result<()> {
    besiege("attacker", |lab| Ok(SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT)))
}

#[test]
fn a_client_without_identity_does_not_take_the_waypoint_from_others() -> Result<()> {
    besiege("outsider", |lab| Ok(SocketAddr::new(lab.address("details-v1")?, PORT)))
}

/// A client that is over its share is told so, in words that name it and the setting; another one is not concerned.
#[test]
fn a_full_share_is_answered_and_told() -> Result<()> {
    let lab = guarded("[layer7]\nmax_requests = 20\nclient_share = 50\n")?;
    let to = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let attacker = &lab.pod("attacker")?.attachment.namespace;
    let since = lab.moment()?;
    let endless =
        b"POST /details/0 HTTP/1.1\r\nHost: details.bookinfo\r\nContent-Length: 100\r\n\r\nx";
    let held = attacker.run(|| hold(to, 30, endless))??;
    let full = settle(&lab, "attacker", &[DETAILS], 503)?;
    ensure!(full.body == "upstream overflow", "{full:?}");
    for _ in 0..20 {
        let answer = lab.curl("curl", &[DETAILS])?;
        ensure!(answer.status == 200, "another client: {answer:?}");
    }
    wait::until("a line that says who may hold how much", || {
        let lines = lab.lines_since(&since);
        let names = |line: &str| {
            ["ns/evil/sa/attacker", "8 requests in flight", "max_requests, client_share"]
                .iter()
                .all(|text| line.contains(text))
        };
        Ok(lines.iter().any(|(_, line)| names(line)).then_some(()))
    })?;
    drop(held);
    settle(&lab, "attacker", &[DETAILS], 200)?;
    Ok(())
}

/// How long the other end took to close, given what was sent.
fn closed_after(mut stream: TcpStream, drip: Option<&[u8]>) -> Result<(Duration, Vec<u8>)> {
    let start = SystemTime::now();
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(more) => read.extend_from_slice(&buffer[..more]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                ensure!(start.elapsed()? < Duration::from_secs(15), "it is still waited for");
                if let Some(drip) = drip {
                    _ = stream.write(drip);
                }
            }
            Err(_) => break,
        }
    }
    Ok((start.elapsed()?, read))
}

#[test]
fn heads_must_come_within_seconds_and_rest_may_last() -> Result<()> {
    let lab = guarded("[layer7]\nhead_timeout = \"1s\"\nidle_timeout = \"6s\"\n")?;
    let at = [
        ("attacker", SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT)),
        ("outsider", SocketAddr::new(lab.address("details-v1")?, PORT)),
    ];
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let head = block(0x82, "/details/0", "details.bookinfo");
    let begun = [&greeting[..], &frame(HEADERS, 0, 1, &head)].concat();
    let request = [
        &greeting[..],
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &head),
        &frame(HEADERS, 0, 3, &head),
    ]
    .concat();
    let attacks = [
        ("says nothing", &b""[..], None),
        ("says one byte", b"G", None),
        ("a header, byte by byte", b"GET / HTTP/1.1\r\nx: ", Some(&b"y"[..])),
        ("a preface without settings", PREFACE, None),
        ("half a frame of HTTP/2", &begun[..greeting.len() + 12], None),
        ("CONTINUATION does not come", &begun, None),
        ("the second head has no end", &request, None),
    ];
    for (client, to) in at {
        let place = &lab.pod(client)?.attachment.namespace;
        for (name, first, drip) in attacks {
            let (took, _) = place.run(|| -> Result<_> {
                let stream = hold(to, 1, first)?.remove(0);
                closed_after(stream, drip)
            })??;
            println!("{client} {name}: closed after {took:?}");
            ensure!(took < Duration::from_secs(5), "{client} {name}: {took:?}");
        }
        // Who has been answered may rest longer than that, and goes on.
        place.run(|| -> Result<()> {
            let mut stream = hold(to, 1, b"GET /details/0 HTTP/1.1\r\nHost: x\r\n\r\n")?.remove(0);
            ensure!(read_answer(&mut stream)?.starts_with("HTTP/1.1 200"), "the first");
            std::thread::sleep(Duration::from_secs(4));
            stream.write_all(b"GET /details/0 HTTP/1.1\r\nHost: x\r\n\r\n")?;
            ensure!(read_answer(&mut stream)?.starts_with("HTTP/1.1 200"), "after a rest");
            let (took, _) = closed_after(stream, None)?;
            ensure!(took > Duration::from_secs(5), "it rested for {took:?} only");
            // Over HTTP/2 the peer is told.
            let stream = hold(to, 1, &greeting)?.remove(0);
            let (took, read) = closed_after(stream, None)?;
            ensure!(took > Duration::from_secs(5), "it rested for {took:?} only");
            ensure!(frames(&read).contains(&GO_AWAY), "no GOAWAY: {read:?}");
            Ok(())
        })??;
    }
    Ok(())
}

/// The kinds of the frames.
fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        kinds.push(*kind);
        bytes = rest.get(length..).unwrap_or_default();
    }
    kinds
}
