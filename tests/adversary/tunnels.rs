//! What a peer with a valid certificate does with its tunnels: floods of CONNECT, and tunnels and proxies asked for inside the
//! bytes of a tunnel. It uses up what is its own, and reaches the workload's application and nothing else.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use crate::frames::{DATA, END_HEADERS, HEADERS, Peer, RESET, connect, frame, run_in};
use crate::issued::{Certificate, Wrong, issue};
use crate::lies::{ATTACKER, CURL, GUARD, SECRET, VICTIM, secrets};
use crate::memory;
use crate::siege::{Aim, victim_of};
use crate::support::lab::manifests::Key;
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, PORT};
use crate::{WAYPOINT, besieged, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
/// Tunnels that flood at the same time, and for how long.
const TUNNELS: usize = 8;
const TIME: Duration = Duration::from_secs(3);
/// Streams of one batch; a tunnel may have 200 open.
const BATCH: u32 = 100;
/// What floods may make an agent hold besides what it holds at rest, in KiB.
const MOST: u64 = 64 * 1024;

/// What each stream of a flood asks for.
type Ask = fn(IpAddr, u32) -> String;

const FLOODS: [(&str, Ask); 4] = [
    ("places that are nobody's", |_, stream| format!("10.9.9.9:{}", 1 + stream % 60_000)),
    ("a port where nobody listens", |own, _| format!("{own}:7")),
    ("what is no place", |_, stream| format!("{stream}")),
    ("the application", |own, _| format!("{own}:{PORT}")),
];

/// Opens streams and resets them, batch after batch, in tunnels that are made again when they end; how many it opened.
async fn flood(certificate: &Certificate, to: SocketAddr, ask: Ask) -> Result<u32> {
    let (begin, mut opened) = (Instant::now(), 0);
    while begin.elapsed() < TIME {
        let Ok(mut peer) = Peer::connect(to, certificate).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut number = 0;
        while begin.elapsed() < TIME {
            let mut bytes = Vec::new();
            for stream in (number..number + BATCH).map(|it| 2 * it + 1) {
                bytes.extend(frame(HEADERS, END_HEADERS, stream, &connect(&ask(to.ip(), stream))));
                bytes.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
            }
            if peer.send(&bytes).await.is_err() {
                break;
            }
            (number, opened) = (number + BATCH, opened + BATCH);
            tokio::task::yield_now().await;
        }
    }
    Ok(opened)
}

#[test]
fn floods_of_tunnels_take_a_workload_from_nobody() -> Result<()> {
    let mut lab = besieged(&[])?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let processes = memory::agents(&mut lab);
    let rest = memory::all(&processes)?;
    let service = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let to = SocketAddr::new(lab.address(VICTIM)?, 15008);
    let (host, path) = ("details.bookinfo", "/details/0");
    let aim = Aim { host, path, large: path, to: service, at: to };
    let (outsider, victims) = (namespace(&lab, "outsider")?, namespace(&lab, "curl")?);
    let certificate = &issue(&lab, ATTACKER, Wrong::Nothing)?;
    for (what, ask) in FLOODS {
        let (opened, times) = std::thread::scope(|scope| -> Result<_> {
            let floods: Vec<_> = (0..TUNNELS)
                .map(|_| scope.spawn(|| run_in(&outsider, || flood(certificate, to, ask))))
                .collect();
            // Each of them on new connections and on one that is kept.
            let times = victims.run(|| victim_of(&aim, 40))?;
            let opened = floods.into_iter().map(|it| {
                it.join().map_err(|_| anyhow::anyhow!("the attacker panicked")).and_then(|it| it)
            });
            Ok((opened.sum::<Result<u32>>()?, times))
        })?;
        let times = times.with_context(|| format!("{what}: the victim"))?;
        println!(
            "{what}: {opened} streams; the victim's p50 {:?}, p99 {:?}",
            times.p(50),
            times.p(99)
        );
        ensure!(opened > 1_000, "{what}: the attack came through: {opened}");
        for (rest, now) in rest.iter().zip(memory::all(&processes)?) {
            ensure!(now < rest + MOST, "{what}: an agent holds {now} KiB, and {rest} at rest");
        }
    }
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

fn namespace(lab: &Lab, pod: &str) -> Result<Namespace> {
    Ok(lab.pod(pod)?.attachment.namespace.clone())
}

/// What a peer says inside of a tunnel to the application, as if somebody there made tunnels too.
fn nested(own: IpAddr) -> Vec<Vec<u8>> {
    let places = [format!("127.0.0.1:{SECRET}"), format!("{own}:15008"), format!("{own}:15001")];
    let mut all = Vec::new();
    for place in &places {
        for line in [
            format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
            format!("GET http://{place}/ HTTP/1.1\r\nHost: {place}\r\n\r\n"),
            format!(
                "PROXY TCP4 127.0.0.1 127.0.0.1 {SECRET} {SECRET}\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"
            ),
        ] {
            all.push(line.into_bytes());
        }
        // A tunnel of the same kind, without TLS.
        let greeting = [crate::siege::PREFACE, &frame(crate::siege::SETTINGS, 0, 0, &[])].concat();
        all.push([greeting, frame(HEADERS, END_HEADERS, 1, &connect(place))].concat());
    }
    all
}

/// With layer 4, where bytes are bytes, and with a waypoint, which parses them.
#[test]
fn a_tunnel_inside_of_a_tunnel_leads_nowhere() -> Result<()> {
    let mut lab = besieged(&[WAYPOINT, GUARD])?;
    let visitors = secrets(&lab)?;
    let own = lab.address(VICTIM)?;
    let (to, authority) = (SocketAddr::new(own, 15008), format!("{own}:{PORT}"));
    let certificate = issue(&lab, CURL, Wrong::Nothing)?;
    let said = nested(own);
    for parsed in [false, true] {
        if parsed {
            let namespace = Key::new("Namespace", "", "bookinfo");
            lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])?;
            settle(&lab, "attacker", &[DETAILS], 403)?;
            settle(&lab, "curl", &[DETAILS], 200)?;
        }
        run_in(&namespace(&lab, "outsider")?, || async {
            for bytes in &said {
                let mut peer = Peer::connect(to, &certificate).await?;
                ensure!(peer.open(1, &authority).await?, "the application is open to curl");
                peer.send(&frame(DATA, 0, 1, bytes)).await?;
                let answers = |it: &crate::frames::Frame| it.stream == 1 && it.kind != HEADERS;
                let answer = peer.within(Duration::from_secs(2), answers).await.ok().flatten();
                let answer = answer.map(|it| String::from_utf8_lossy(&it.payload).into_owned());
                println!("{:?}: {answer:?}", String::from_utf8_lossy(bytes));
                let told = answer.as_deref().unwrap_or_default();
                ensure!(!told.contains("secret"), "{told}");
            }
            Ok(())
        })?;
        ensure!(visitors.count() == 0, "{} visits", visitors.count());
    }
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}
