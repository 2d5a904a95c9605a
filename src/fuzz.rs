//! Fuzz targets of every parser of untrusted bytes. A target is a function of bytes that panics if an invariant is
//! violated. Each room keeps its targets beside its parsers (`<room>/fuzz.rs`); this file lists them. `fuzz/` is the
//! fuzzer, `scripts/fuzz` runs it, and `fuzz/corpus` keeps the seeds: small handwritten ones, and inputs that fuzzers
//! found. The tests here run these on every build.
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
pub const TARGETS: [Target; 29] = [
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
    use std::path::Path;

    use super::*;

    /// What was found once stays found, without a fuzzer.
    #[test]
    fn the_corpus_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for target in TARGETS {
            let folder = corpus.join(target.name);
            let mut seeds = 0;
            for entry in std::fs::read_dir(&folder).expect("each target has seeds") {
                let path = entry.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                // Tells which one, when it panics.
                println!("{}", path.display());
                (target.run)(&bytes);
                seeds += 1;
            }
            assert!(seeds > 0, "{} is empty", folder.display());
        }
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
