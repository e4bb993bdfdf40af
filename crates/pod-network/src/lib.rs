//! Pod addresses and the paths between Pods: IPAM, veth, routes, masquerade.
