//! Services and EndpointSlices to forwarding rules.
