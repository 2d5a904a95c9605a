//! Packets in somebody else's name: with the address of a neighbour, of a node, of the victim itself, of loopback. No answer
//! reaches who sent them, and what they ask for reaches no application.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};

use super::means::{marked_request, namespace, places, port};
use super::raw::{ACK, MD5, PSH, RST, Raw, SYN, Segment};
use super::{DETAILS, VICTIM, strict, unseen};
use crate::settle;
use crate::support::lab::{Lab, PORT};

/// In whose name, by the family.
fn names(lab: &Lab, family: usize) -> Result<Vec<IpAddr>> {
    let loopback = [IpAddr::V4([127, 0, 0, 1].into()), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
    let mut names = vec![loopback[family]];
    for pod in [VICTIM, "curl", "accomplice"] {
        names.push(lab.pod(pod)?.attachment.addresses[family]);
    }
    for node in ["node-a", "node-b"] {
        names.push(lab.node(node)?.addresses[family]);
    }
    Ok(names)
}

/// A request that comes with everything that could open a connection, or slip into one.
fn segments(request: &str) -> Vec<Segment> {
    let data = request.as_bytes().to_vec();
    let segment = |flags, data: &[u8], options: &[u8]| Segment {
        flags,
        sequence: 1000,
        acknowledged: 2000,
        options: options.to_vec(),
        data: data.to_vec(),
    };
    vec![
        segment(SYN, &data, &[]),
        segment(ACK, &[], &MD5),
        segment(SYN, &[], &[]),
        segment(ACK | PSH, &data, &[]),
        segment(SYN | ACK, &[], &[]),
        segment(RST | ACK, &[], &[]),
        segment(SYN, &data, &[]),
    ]
}

#[test]
fn nobody_is_reached_in_the_name_of_another() -> Result<()> {
    let lab = strict()?;
    for attacker in ["outsider", "attacker", "accomplice"] {
        for family in 0..2 {
            let to = places(&lab, VICTIM, PORT)?[family];
            let own = places(&lab, attacker, port())?[family];
            for name in names(&lab, family)? {
                let (mark, request) = marked_request();
                namespace(&lab, attacker)?.run(|| -> Result<()> {
                    let raw = Raw::open(own, to)?;
                    for segment in segments(&request) {
                        // The kernel lets some of them not leave at all.
                        _ = raw.send_as(SocketAddr::new(name, own.port()), &segment);
                    }
                    Ok(())
                })??;
                unseen(&lab, &mark, &format!("{attacker} as {name} -> {to}"))?;
            }
        }
        let own = places(&lab, attacker, port())?;
        let to = places(&lab, VICTIM, PORT)?;
        for (own, to) in own.into_iter().zip(to).filter(|_| attacker == "outsider") {
            // In its own name it does hear from the agent: such packets arrive.
            let answered = namespace(&lab, attacker)?.run(|| -> Result<bool> {
                let raw = Raw::open(own, to)?;
                raw.send_as(own, &Segment { flags: SYN, ..Segment::default() })?;
                Ok(raw.receive(|it| it.flags & (SYN | ACK) == SYN | ACK).is_some())
            })??;
            ensure!(answered, "{own} hears nothing of {to}");
        }
        // Whose names they took are served as before.
        settle(&lab, "curl", &[DETAILS], 200)?;
    }
    Ok(())
}
