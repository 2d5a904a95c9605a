//! The `isthmus` program once more, for the image of a cluster that tests run on (`scripts/image --profile dev`). Cargo passes flags of
//! one target to the linker without compiling anything else again, so that this one can be static where the tests' is not.

#[path = "../src/main.rs"]
mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
