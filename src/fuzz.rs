//! Fuzz targets of every parser of untrusted bytes. A target is a function of bytes that panics if an invariant is
//! violated. Each room keeps its targets beside its parsers (`<room>/fuzz.rs`); this file lists them. `fuzz/` is the
//! fuzzer, `scripts/fuzz` runs it, and `fuzz/corpus` keeps the seeds: small handwritten ones, and inputs that fuzzers
//! found. The tests here run these on every build, and inputs near them; `scripts/fuzz` follows the coverage, for hours.
//!
//! A new parser gets a target here, and seeds. Release builds do not contain this room (the feature `fuzzing`).

use crate::{
    cni, config, controller, dns, expression, identity, jwt, l4, l7, policy, quota, redirect,
};
use crate::{resolver, source, takeover, trace, tunnel};

/// What a fuzzer can try.
#[derive(Debug)]
pub struct Target {
    /// Of the folder in `fuzz/corpus`, too.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them, with who sends such bytes.
pub const TARGETS: [Target; 30] = [
    // Anybody who can reach 15008.
    Target { name: "connect", run: tunnel::fuzz::connect },
    Target { name: "frames", run: tunnel::fuzz::frames },
    Target { name: "certificate", run: identity::fuzz::certificate },
    Target { name: "spiffe", run: identity::fuzz::spiffe },
    // Any application of the mesh.
    Target { name: "hello", run: l4::fuzz::hello },
    // Anybody who can reach an application.
    Target { name: "detect", run: l7::fuzz::detect },
    Target { name: "head", run: l7::fuzz::head },
    Target { name: "http1", run: l7::fuzz::http1 },
    Target { name: "trace_context", run: trace::fuzz::context },
    Target { name: "original", run: l7::fuzz::original },
    Target { name: "messages", run: l7::fuzz::messages },
    Target { name: "token", run: jwt::fuzz::token },
    Target { name: "path", run: policy::fuzz::path },
    Target { name: "host", run: policy::fuzz::host },
    // Applications, and DNS servers.
    Target { name: "dns_question", run: dns::fuzz::question },
    Target { name: "dns_answer", run: resolver::fuzz::answer },
    // Users who may write objects.
    Target { name: "manifest", run: source::fuzz::manifest },
    Target { name: "expression", run: expression::fuzz::parse },
    // Issuers of tokens.
    Target { name: "keys", run: jwt::fuzz::keys },
    // Agents, and CAs.
    Target { name: "sign_call", run: controller::fuzz::call },
    Target { name: "exchange", run: quota::fuzz::exchange },
    Target { name: "signing_request", run: identity::fuzz::signing_request },
    Target { name: "issued", run: identity::fuzz::issued },
    Target { name: "revocations", run: identity::fuzz::revocations },
    // Processes of the node.
    Target { name: "takeover", run: takeover::fuzz::message },
    Target { name: "cni_config", run: cni::fuzz::config },
    Target { name: "cni_arguments", run: cni::fuzz::arguments },
    Target { name: "cni_message", run: cni::fuzz::message },
    Target { name: "settings", run: config::fuzz::settings },
    Target { name: "netlink", run: redirect::fuzz::answer },
];

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// Inputs near the seeds that each build tries, of each target: the same ones each time, so that what fails was broken by
    /// the change at hand.
    const MUTATIONS: usize = 200;
    const SEED: u64 = 1;

    /// What stands in the corpus for a target, with where it stands.
    fn seeds(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        let files = std::fs::read_dir(&folder).expect("each target has seeds");
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        };
        let mut seeds: Vec<_> = files.map(read).collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{} is empty", folder.display());
        seeds
    }

    /// What was found once stays found, without a fuzzer.
    #[test]
    fn the_corpus_holds() {
        for target in TARGETS {
            for (path, bytes) in seeds(&target) {
                // Tells which one, when it panics.
                println!("{}", path.display());
                (target.run)(&bytes);
            }
        }
    }

    #[test]
    fn what_is_near_the_corpus_holds() {
        for target in TARGETS {
            let (seeds, mut random) = (seeds(&target), fastrand::Rng::with_seed(SEED));
            for _ in 0..MUTATIONS {
                let bytes = mutated(&seeds, &mut random);
                let ran = std::panic::catch_unwind(|| (target.run)(&bytes));
                assert!(ran.is_ok(), "{} (above): b\"{}\"", target.name, bytes.escape_ascii());
            }
        }
    }

    /// A seed with up to eight changes.
    fn mutated(seeds: &[(PathBuf, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = seeds[random.usize(..seeds.len())].1.clone();
        for _ in 0..random.usize(1..=8) {
            let (from, to) = part(bytes.len(), random);
            match random.u8(..6) {
                0 => bytes[from..to].iter_mut().for_each(|byte| *byte ^= 1 << random.u8(..8)),
                1 => bytes[from..to].fill(random.choice([0, b' ', b'\n', 0x7f, 0xff]).unwrap()),
                2 => drop(bytes.drain(from..to)),
                3 => bytes.truncate(to),
                4 => bytes.splice(from..from, bytes[from..to].to_vec()).for_each(drop),
                _ => {
                    let other = &seeds[random.usize(..seeds.len())].1;
                    let (first, last) = part(other.len(), random);
                    bytes.splice(from..to, other[first..last].iter().copied()).for_each(drop);
                }
            }
        }
        bytes
    }

    /// A part of so many bytes, a short one as often as not.
    fn part(length: usize, random: &mut fastrand::Rng) -> (usize, usize) {
        let from = random.usize(..=length);
        let most = if random.bool() { length } else { length.min(from + 4) };
        (from, random.usize(from..=most))
    }

    #[test]
    fn no_folder_is_of_no_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for entry in std::fs::read_dir(corpus).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(TARGETS.iter().any(|target| *target.name == *name), "{name:?}");
        }
    }
}
