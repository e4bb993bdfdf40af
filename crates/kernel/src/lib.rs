//! Linux as typed Rust: nf_tables, rtnetlink, namespaces, processes. The only crate with unsafe code.
