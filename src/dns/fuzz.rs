//! Fuzz target of the DNS stub: queries of applications, and answers of resolvers that it forwards.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use hickory_proto::op::{Message, MessageType, ResponseCode};

use super::resolve::{Asker, Place, Resolution, resolve};
use super::server;
use crate::resolver::Protocol;
use crate::source::{File, Objects, TranslateSettings, parse, translate};
use crate::world::{MeshNames, World, WorldStore};

/// Services of every kind that names resolve to.
const MESH: &str = include_str!("fuzz.yaml");

/// A query and its answer: two bytes with the length of the query, then both.
pub fn question(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (asked, answered) = rest.split_at(length);
    let Ok(query) = Message::from_vec(asked) else { return };
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        answers(&query, protocol);
        if let Some(passed) = server::existing(answered.to_vec(), &query, protocol) {
            let code = Message::from_vec(&passed).map(|message| message.metadata.response_code);
            assert_ne!(code.ok(), Some(ResponseCode::NXDomain));
        }
    }
}

fn answers(query: &Message, protocol: Protocol) {
    let failed = server::response(query, ResponseCode::ServFail);
    check(server::encode(&failed, query, protocol), query, protocol);
    let Some(question) = query.queries.first() else { return };
    let name = question.name.to_ascii();
    let asked = (name.as_str(), question.query_type, question.query_class);
    let world = world();
    let asker =
        Asker { world: &world, namespace: "shop", cluster_domain: "cluster.local", alone: true };
    let found = resolve(&asker, asked);
    // More than any UDP answer.
    let last = 0..200u8;
    let many = match &found {
        Resolution::Addresses { canonical, .. } => Resolution::Addresses {
            addresses: last.map(|last| IpAddr::from([10, 0, 0, last])).collect(),
            canonical: canonical.clone(),
        },
        Resolution::Places { canonical, .. } => {
            let place = |port: u8| Place {
                port: port.into(),
                target: format!("{port}.db.shop.svc.cluster.local."),
                addresses: vec![IpAddr::from([10, 0, 0, port])],
            };
            Resolution::Places { places: last.map(place).collect(), canonical: canonical.clone() }
        }
        _ => return,
    };
    for found in [found, many] {
        let answer = server::of_the_mesh(query, question.name.clone(), &found);
        let encoded = answer.and_then(|it| server::encode(&it, query, protocol));
        check(encoded, query, protocol);
    }
}

/// The answer parses, belongs to the query, and is within the size limit.
fn check(answer: Option<Vec<u8>>, query: &Message, protocol: Protocol) {
    let Some(bytes) = answer else { return };
    let answer = Message::from_vec(&bytes);
    assert!(answer.is_ok(), "an answer that nobody can read");
    let Ok(answer) = answer else { return };
    assert_eq!(answer.metadata.id, query.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    let asked = query.edns.as_ref().map_or(512, |edns| edns.max_payload().clamp(512, 4096));
    let limit = if protocol == Protocol::Tcp { u16::MAX } else { asked };
    let cut = answer.metadata.truncation;
    assert!(bytes.len() <= usize::from(limit) || cut, "{} of {limit} bytes", bytes.len());
}

fn world() -> Arc<World> {
    static WORLD: OnceLock<Arc<World>> = OnceLock::new();
    WORLD.get_or_init(make_world).clone()
}

fn make_world() -> Arc<World> {
    let settings = TranslateSettings::default();
    let file = File { name: "fuzz.yaml".into(), documents: Ok(parse(MESH).into()) };
    let translation = translate(&Objects::from_files(&[file], &Objects::default()), &settings);
    let TranslateSettings { trust_domains, root_namespace, .. } = settings;
    let names = MeshNames { trust_domains, root_namespace };
    WorldStore::new(names).publish(translation.mesh)
}
