//! Links, addresses, routes and neighbours in namespaces of the test's own. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::IpAddr;

use ipnet::IpNet;
use seaway_kernel::rtnl::{Bridge, Mac, Route, RouteKind, RouteSocket, Veth, VethPeer};
use seaway_kernel::{NetNs, sysctl};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_veth_pair_is_made_across_namespaces_and_carries_packets() {
    let (left, right) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let (on_left, on_right) = (
        RouteSocket::open(&left).unwrap(),
        RouteSocket::open(&right).unwrap(),
    );
    let peer = VethPeer {
        name: "right",
        mac: Some(Mac([2, 0, 0, 0, 0, 2])),
        netns: Some(&right),
    };
    on_left
        .add_veth(&Veth {
            name: "left",
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: Some(1400),
            master: None,
            peer,
        })
        .await
        .unwrap();
    let left_end = on_left.link("left").await.unwrap();
    let right_end = on_right.link("right").await.unwrap();
    assert!(left_end.up && !right_end.up);
    on_right.set_up(right_end.index).await.unwrap();
    assert!(on_right.link("right").await.unwrap().up);
    assert_eq!((left_end.mtu, right_end.mtu), (1400, 1400));
    assert_eq!(left_end.mac.unwrap().to_string(), "02:00:00:00:00:01");
    assert_eq!(right_end.mac, Some(Mac([2, 0, 0, 0, 0, 2])));
    assert_eq!(left_end.kind.as_deref(), Some("veth"));
    assert_eq!(left_end.peer, Some(right_end.index));

    on_left
        .ensure_address(left_end.index, net("10.0.0.1/24"))
        .await
        .unwrap();
    on_left
        .ensure_address(left_end.index, net("10.0.0.1/24"))
        .await
        .unwrap();
    on_right
        .ensure_address(right_end.index, net("10.0.0.2/24"))
        .await
        .unwrap();
    assert!(
        on_left
            .addresses()
            .await
            .unwrap()
            .iter()
            .any(|a| a.address == net("10.0.0.1/24"))
    );
    let listener = right
        .run(|| std::net::TcpListener::bind("10.0.0.2:80"))
        .unwrap()
        .unwrap();
    left.run(|| std::net::TcpStream::connect("10.0.0.2:80"))
        .unwrap()
        .unwrap();
    drop(listener);

    assert!(
        on_left
            .remove_address(left_end.index, net("10.0.0.1/24"))
            .await
            .unwrap()
    );
    assert!(
        !on_left
            .remove_address(left_end.index, net("10.0.0.1/24"))
            .await
            .unwrap()
    );
    assert!(on_left.remove_link("left").await.unwrap());
    assert!(!on_left.remove_link("left").await.unwrap());
    assert_eq!(on_right.find_link("right").await.unwrap(), None);
}

#[tokio::test]
async fn a_link_becomes_a_port_is_renamed_moved_and_set_down() {
    let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let socket = RouteSocket::open(&here).unwrap();
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    socket
        .add_bridge(&Bridge {
            name: "br",
            mac: Some(mac),
            mtu: None,
        })
        .await
        .unwrap();
    let bridge = socket.link("br").await.unwrap();
    assert_eq!(
        (bridge.kind.as_deref(), bridge.mac, bridge.up),
        (Some("bridge"), Some(mac), true)
    );
    let peer = VethPeer {
        name: "b",
        mac: None,
        netns: None,
    };
    socket
        .add_veth(&Veth {
            name: "a",
            mac: None,
            mtu: None,
            master: Some(bridge.index),
            peer,
        })
        .await
        .unwrap();
    let a = socket.link("a").await.unwrap();
    assert_eq!(a.master, Some(bridge.index));
    socket.set_master(a.index, None).await.unwrap();
    socket.set_mtu(a.index, 1300).await.unwrap();
    socket.set_down(a.index).await.unwrap();
    socket.rename(a.index, "c").await.unwrap();
    let c = socket.link("c").await.unwrap();
    assert_eq!(
        (c.index, c.master, c.mtu, c.up),
        (a.index, None, 1300, false)
    );
    socket.move_link(c.index, &there).await.unwrap();
    assert_eq!(socket.find_link("c").await.unwrap(), None);
    assert!(
        RouteSocket::open(&there)
            .unwrap()
            .find_link("c")
            .await
            .unwrap()
            .is_some()
    );

    let again = socket
        .add_bridge(&Bridge {
            name: "br",
            mac: None,
            mtu: None,
        })
        .await
        .unwrap_err();
    assert!(again.is_already_there(), "{again}");
    assert!(
        again
            .to_string()
            .starts_with("add link br (bridge): File exists"),
        "{again}"
    );
    assert!(socket.link("none").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn routes_are_set_replaced_read_back_and_removed() {
    let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let socket = RouteSocket::open(&here).unwrap();
    let peer = VethPeer {
        name: "eth0",
        mac: None,
        netns: Some(&there),
    };
    socket
        .add_veth(&Veth {
            name: "eth0",
            mac: None,
            mtu: None,
            master: None,
            peer,
        })
        .await
        .unwrap();
    let device = socket.link("eth0").await.unwrap().index;
    socket
        .ensure_address(device, net("10.0.0.1/24"))
        .await
        .unwrap();

    let gateway = Route::new(net("10.1.0.0/16"), RouteKind::Unicast, 83)
        .via(ip("10.0.0.2"))
        .dev(device);
    let moved = Route {
        gateway: Some(ip("10.0.0.3")),
        ..gateway.clone()
    };
    let wall = Route::new(net("10.1.0.0/16"), RouteKind::Unreachable, 84).metric(4_000_000_000);
    let direct = Route::new(net("10.2.0.0/16"), RouteKind::Unicast, 83)
        .dev(device)
        .src(ip("10.0.0.1"));
    let default = Route::new(net("0.0.0.0/0"), RouteKind::Unicast, 83)
        .via(ip("169.254.1.1"))
        .dev(device)
        .on_link();
    let hole = Route::new(net("10.3.0.0/16"), RouteKind::Blackhole, 83);
    for route in [&gateway, &wall, &direct, &default, &hole, &moved, &moved] {
        socket.ensure_route(route).await.unwrap();
    }
    let mut ours: Vec<Route> = socket
        .routes()
        .await
        .unwrap()
        .into_iter()
        .filter(|route| [83, 84].contains(&route.protocol))
        .collect();
    ours.sort();
    let mut expected = vec![moved.clone(), wall.clone(), direct, default, hole];
    expected.sort();
    assert_eq!(ours, expected);

    // The wall stands when the door is gone: packets get no further than this machine.
    assert!(socket.remove_route(&moved).await.unwrap());
    assert!(!socket.remove_route(&moved).await.unwrap());
    let refused = here
        .run(|| std::net::TcpStream::connect("10.1.0.9:80"))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        refused.raw_os_error(),
        Some(113),
        "expected EHOSTUNREACH: {refused}"
    );
    assert!(socket.remove_route(&wall).await.unwrap());

    let unreachable_gateway =
        Route::new(net("10.9.0.0/16"), RouteKind::Unicast, 83).via(ip("192.168.7.7"));
    let error = socket.ensure_route(&unreachable_gateway).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("set route 10.9.0.0/16 via 192.168.7.7: "),
        "{error}"
    );
}

#[tokio::test]
async fn a_permanent_neighbour_is_told_and_retold() {
    let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let socket = RouteSocket::open(&here).unwrap();
    let peer = VethPeer {
        name: "eth0",
        mac: None,
        netns: Some(&there),
    };
    socket
        .add_veth(&Veth {
            name: "eth0",
            mac: None,
            mtu: None,
            master: None,
            peer,
        })
        .await
        .unwrap();
    let device = socket.link("eth0").await.unwrap().index;
    for last in [1, 2, 2] {
        socket
            .ensure_neighbour(device, ip("169.254.1.1"), Mac([2, 0, 0, 0, 0, last]))
            .await
            .unwrap();
    }
    let told: Vec<_> = socket
        .neighbours()
        .await
        .unwrap()
        .into_iter()
        .filter(|n| n.permanent)
        .collect();
    assert!(
        told.iter()
            .any(|n| n.address == ip("169.254.1.1") && n.mac == Some(Mac([2, 0, 0, 0, 0, 2]))),
        "{told:?}"
    );
}

#[test]
fn parameters_are_set_in_the_given_namespace_only() {
    let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let before = sysctl::read(&there, "ipv4/ip_forward").unwrap();
    let other = if before == "1" { "0" } else { "1" };
    sysctl::set(
        &here,
        &[("ipv4/ip_forward", other), ("ipv4/conf/lo/rp_filter", "2")],
    )
    .unwrap();
    assert_eq!(sysctl::read(&here, "ipv4/ip_forward").unwrap(), other);
    assert_eq!(sysctl::read(&here, "ipv4/conf/lo/rp_filter").unwrap(), "2");
    assert_eq!(sysctl::read(&there, "ipv4/ip_forward").unwrap(), before);
    assert!(sysctl::read(&here, "ipv4/none").unwrap_err().is_not_found());
    assert!(sysctl::set(&here, &[("../kernel/hostname", "x")]).is_err());
}
