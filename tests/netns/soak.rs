//! Short connections for as long as it takes that ports are used again: none may stall. All that a pod opens is led to one
//! local address, where a port that is used again towards another destination meets what is left of the connection
//! before; the kernel must not take its SYN for an old one.
//!
//! CI opens them for some seconds, from few ports; `ISTHMUS_SOAK=60` does so for as many seconds, and then times each as
//! well, which takes a machine that does nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::time::Instant;

use crate::meshed;
use crate::support::lab::Lab;
use crate::support::lab::command::feed;
use crate::support::lab::netns::Namespace;

/// How long connections are opened, in seconds.
const SECONDS: &str = "ISTHMUS_SOAK";
/// At the most; a debug build on a busy machine does fewer.
const PER_SECOND: u32 = 2000;
const CLIENTS: u32 = 16;
const SERVERS: usize = 4;
/// Of each family.
const ADDRESSES: u16 = 25;
const PORT: u16 = 7000;
/// So few that each is used again every second or two, as 28,000 are within a minute of load.
const PORTS: &str = "20000 20999";
/// Fewer show nothing: no port was used again.
const ENOUGH: usize = 3000;
/// The most that a connection takes on a machine that does nothing else.
const SLOW: Duration = Duration::from_millis(200);
/// The kernel repeats a SYN after a second (`TCP_TIMEOUT_INIT`), so a connection that stalled took at least as long.
const STALLED: Duration = Duration::from_secs(1);

#[test]
fn ports_that_are_used_again_do_not_stall() -> Result<()> {
    let seconds = std::env::var(SECONDS).ok().map(|it| it.parse()).transpose()?;
    let lab = meshed()?;
    let destinations = serve(&lab)?;
    let client = lab.pod("curl")?.attachment.namespace.clone();
    // The wires of a lab that has just been built take a second or two to know one another.
    client.run(|| destinations.iter().try_for_each(|it| ask(*it)))??;
    client.set("ipv4/ip_local_port_range", PORTS)?;
    let before = Counters::of(&client)?;
    let duration = Duration::from_secs(seconds.unwrap_or(15));
    let mut took = open(&client, &destinations, duration)?;
    let counted = Counters::of(&client)?.since(&before);
    took.sort_unstable();
    let longer = |than: Duration| took.iter().filter(|it| **it >= than).count();
    let (slow, stalled) = (longer(SLOW), longer(STALLED));
    let last = took.last().copied().unwrap_or_default();
    println!(
        "{} connections in {duration:?}: {slow} took {SLOW:?} and more, {stalled} {STALLED:?} and more, the slowest \
         {last:?}; {counted:?}",
        took.len()
    );
    ensure!(took.len() >= ENOUGH, "only {} connections", took.len());
    ensure!(counted.taken_for_old == 0, "SYNs were taken for old ones: {counted:?}");
    ensure!(stalled == 0 && (seconds.is_none() || slow == 0), "{slow} slow, {stalled} stalled");
    Ok(())
}

/// What the kernel of a namespace counts of SYNs.
#[derive(Debug)]
struct Counters {
    /// `TcpExtPAWSTimewait`: dropped for a timestamp that runs backwards.
    taken_for_old: u64,
    /// `TcpExtTCPSynRetrans`, which also rises where the machine is too busy to answer within a second.
    repeated: u64,
}

impl Counters {
    fn of(namespace: &Namespace) -> Result<Self> {
        let text = namespace.run(|| fs::read_to_string("/proc/thread-self/net/netstat"))??;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        let of = |wanted: &str| -> Result<u64> {
            let mut all = names.split_whitespace().zip(values.split_whitespace());
            let (_, value) = all.find(|(name, _)| *name == wanted).context("no such counter")?;
            Ok(value.parse()?)
        };
        Ok(Self { taken_for_old: of("PAWSTimewait")?, repeated: of("TCPSynRetrans")? })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            taken_for_old: self.taken_for_old - before.taken_for_old,
            repeated: self.repeated - before.repeated,
        }
    }
}

/// Many addresses outside of the mesh, with a server that closes after each answer, so that what remains of a connection
/// remains at the agent.
fn serve(lab: &Lab) -> Result<Vec<SocketAddr>> {
    let own = lab.network().own();
    // Every node reaches the lab's own namespace there.
    let node = lab.pod("curl")?.plan.node.clone();
    let routes = "route add 198.18.7.0/24 via 172.30.0.254\nroute add fd18:7::/64 via fd30::fe\n";
    feed("ip", &["-n", &node, "-batch", "-"], routes)?;
    let address = |number: u16| -> [IpAddr; 2] {
        let v4 = Ipv4Addr::new(198, 18, 7, number as u8);
        let v6 = Ipv6Addr::new(0xfd18, 7, 0, 0, 0, 0, 0, number);
        [v4.into(), v6.into()]
    };
    let addresses: Vec<IpAddr> = (1..=ADDRESSES).flat_map(address).collect();
    let script: String =
        addresses.iter().map(|it| format!("address add {it} dev lo nodad\n")).collect();
    own.run(|| feed("ip", &["-batch", "-"], &script))??;
    let listener = own.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))??;
    for _ in 0..SERVERS {
        let listener = listener.try_clone()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = answer(stream);
            }
        });
    }
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, PORT)).collect())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.read_exact(&mut [0])?;
    stream.write_all(b"!")
}

/// Opens connections for so long, to all destinations in turn, and returns how long each took from its first packet to
/// the end of its answer.
fn open(
    client: &Namespace,
    destinations: &[SocketAddr],
    duration: Duration,
) -> Result<Vec<Duration>> {
    let one_client = |number: usize| -> Result<Vec<Duration>> {
        let pause = Duration::from_secs(1) * CLIENTS / PER_SECOND;
        let mut took = Vec::new();
        let (start, mut due) = (Instant::now(), Duration::ZERO);
        for destination in destinations.iter().cycle().skip(number * 3) {
            if start.elapsed() >= duration {
                break;
            }
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            due = start.elapsed().max(due) + pause;
            let began = Instant::now();
            ask(*destination).with_context(|| format!("{destination}"))?;
            took.push(began.elapsed());
        }
        Ok(took)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS as usize)
            .map(|number| scope.spawn(move || client.run(|| one_client(number))?))
            .collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(all)
    })
}

fn ask(destination: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&destination, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"?")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer == b"!", "{answer:?}");
    Ok(())
}
