//! The demo
fn main() {}
