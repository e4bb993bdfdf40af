//! The `seaway` command: reads the command line and wires the crates together, nothing else.
fn main() {}
