//! libFuzzer over one of the targets of [`isthmus::fuzz`]: the one that the variable `FUZZ_TARGET` names. One program for
//! all, because linking it takes longer than what a minute's fuzzing finds. `scripts/fuzz` builds and runs it.

#![no_main]

use std::process::exit;
use std::sync::OnceLock;

use isthmus::fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
        match TARGETS.iter().find(|target| target.name == wanted) {
            Some(target) => _ = TARGET.set(target),
            None => {
                // `scripts/fuzz` reads the list.
                TARGETS.iter().for_each(|target| println!("{}", target.name));
                exit(2);
            }
        }
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(bytes);
        }
    }
);
