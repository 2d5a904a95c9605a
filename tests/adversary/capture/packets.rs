//! SYNs that do not look like SYNs to whoever judges packet by packet: cut into fragments, behind further headers of IPv6, with
//! data and a cookie of TCP Fast Open.

use anyhow::{Context, Result, ensure};

use super::means::{TcpServer, marked_request, namespace, places, port, quiet};
use super::raw::{ACK, MD5, Raw, SYN, Segment, Wrap};
use super::{VICTIM, strict, unseen};
use crate::support::lab::PORT;

/// Of each, whether there is something like it in IPv4.
const WRAPS: [(Wrap, bool); 5] = [
    (Wrap::Plain, true),
    // The flags of TCP are in the second fragment, which IPv6 forbids.
    (Wrap::Fragments(8), true),
    (Wrap::Fragments(16), true),
    (Wrap::Fragments(24), true),
    (Wrap::Headers, false),
];

/// What Linux refuses everywhere.
fn is_whole(wrap: Wrap, family: usize) -> bool {
    !matches!((wrap, family), (Wrap::Fragments(8 | 16), 1))
}

#[test]
fn odd_packets_open_nothing_past_the_capture() -> Result<()> {
    let lab = strict()?;
    let outsider = namespace(&lab, "outsider")?;
    quiet(&outsider, PORT)?;
    quiet(&outsider, 7500)?;
    let silent = Segment { flags: ACK, options: MD5.to_vec(), ..Segment::default() };
    for family in 0..2 {
        let open = places(&lab, "accomplice", 7500)?[family];
        let server = TcpServer::start(&namespace(&lab, "accomplice")?, open)?;
        for (wrap, _) in WRAPS.into_iter().filter(|(_, in_v4)| *in_v4 || family == 1) {
            // Through the agent it is a connection like any other.
            let from = places(&lab, "outsider", port())?[family];
            let raw = || Ok::<_, anyhow::Error>(Raw::open(from, open)?.wrapped(wrap));
            let answer = outsider.run(|| raw()?.ask(SYN, b"hello, whoever you are"))??;
            println!("{wrap:?} {from} -> {open}: {answer:?}");
            ensure!(answer.is_some() == is_whole(wrap, family), "{wrap:?} in family {family}");
            let peer = server.peers.try_recv();
            ensure!(peer != Ok(from), "{wrap:?}: {from} arrived uncaptured");

            let to = places(&lab, VICTIM, PORT)?[family];
            for prelude in [None, Some(&silent)] {
                let from = places(&lab, "outsider", port())?[family];
                let (mark, request) = marked_request();
                let answer = outsider.run(|| -> Result<_> {
                    let raw = Raw::open(from, to)?;
                    prelude.into_iter().try_for_each(|it| raw.send(it))?;
                    raw.wrapped(wrap).ask(SYN, request.as_bytes())
                })??;
                println!("{wrap:?} {from} -> {to}: {answer:?}");
                unseen(&lab, &mark, &format!("{wrap:?} {from} -> {to}"))?;
            }
        }
    }
    Ok(())
}

/// A SYN may carry a request, which a server that speaks TCP Fast Open hands to the application at once.
#[test]
fn a_request_in_the_syn_reaches_nobody() -> Result<()> {
    const FAST_OPEN: u8 = 34;
    let lab = strict()?;
    let (outsider, victim) = (namespace(&lab, "outsider")?, namespace(&lab, VICTIM)?);
    // For every listening socket, and without a cookie.
    victim.set("ipv4/tcp_fastopen", "0x602")?;
    quiet(&outsider, PORT)?;
    for family in 0..2 {
        let to = places(&lab, VICTIM, PORT)?[family];
        for options in
            [vec![FAST_OPEN, 2, 1, 1], [&[FAST_OPEN, 10], [7; 8].as_slice(), &[1, 1]].concat()]
        {
            let from = places(&lab, "outsider", port())?[family];
            let (mark, request) = marked_request();
            let segment = Segment {
                flags: SYN,
                sequence: fastrand::u32(..),
                options,
                data: request.into_bytes(),
                ..Segment::default()
            };
            let answer = outsider.run(|| -> Result<_> {
                let raw = Raw::open(from, to)?;
                raw.send(&segment)?;
                Ok(raw.receive(|it| it.flags & SYN != 0))
            })??;
            let answer = answer.context("the agent answers")?;
            println!("{from} -> {to}: {:#x}, {:?}", answer.flags, answer.options);
            unseen(&lab, &mark, &format!("in a SYN {from} -> {to}"))?;
        }
    }
    Ok(())
}
