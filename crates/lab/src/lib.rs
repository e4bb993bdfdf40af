//! A whole cluster on this machine: nodes as network namespaces, and what runs in each.
