//! Links between well-behaved nodes.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Authority, Node, Stranger, framed_as, hello_payload, name, own_addr, until};
use tallymesh_schemas::bounds::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use tallymesh_transport::{Event, MemberState};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_link_and_exchange_frames_in_order() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
    let (to_b, to_a) = (a.up("b").await, b.up("a").await);
    assert_eq!((to_b.incarnation().0, to_b.version(), to_b.advertised()), (1, PROTOCOL_VERSION, b.addr()));
    let sizes = [1, 2, 4096, 4097, 70_000, 1 << 20];
    let payload = |round: usize, size: usize| Bytes::from(vec![round as u8; size]);
    for round in 0..20 {
        for size in sizes {
            while !to_a.has_room() || !to_b.has_room() {
                tokio::task::yield_now().await;
            }
            to_b.send(payload(round, size)).unwrap();
            to_a.send(payload(round, size)).unwrap();
        }
        for size in sizes {
            assert_eq!(a.frame().await, (name("b"), payload(round, size)));
            assert_eq!(b.frame().await, (name("a"), payload(round, size)));
        }
    }
    let frames = 20 * sizes.len() as u64;
    until("the counters", || a.endpoint.counters().frames_out == frames).await;
    let counters = b.endpoint.counters();
    assert_eq!((counters.frames_in, counters.links_up, counters.links_down), (frames, 1, 0));
    assert_eq!(counters.bytes_in, 20 * sizes.iter().sum::<usize>() as u64);
}

/// A peer of the previous version refuses frames of a later one, so all frames on its link have its version.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_peer_of_the_previous_version_has_frames_of_that_version() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let peer = Stranger::new(&authority, authority.issue(&["x"]), &format!("tallymesh/{PROTOCOL_VERSION_MIN}"));
    let conn = peer.connect(&a).await.unwrap();
    let mut stream = conn.open_uni().await.unwrap();
    stream.write_all(&framed_as(PROTOCOL_VERSION_MIN, &hello_payload("x", 1))).await.unwrap();
    let link = a.up("x").await;
    assert_eq!(link.version(), PROTOCOL_VERSION_MIN);
    link.send(Bytes::from_static(b"payload")).unwrap();
    let mut received = conn.accept_uni().await.unwrap();
    for _ in ["hello", "payload"] {
        let mut header = [0; 4];
        received.read_exact(&mut header).await.unwrap();
        let len = tallymesh_schemas::frame::payload_len(header).unwrap();
        assert_eq!(header[0], PROTOCOL_VERSION_MIN);
        received.read_exact(&mut vec![0; len]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_lists_its_member_alive_with_its_round_trip() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let b = Node::start(&authority, "b", 7, &[a.addr()]);
    a.expect("b alive", |event| match event {
        Event::Member { name, state: MemberState::Alive, incarnation, addr, .. } => {
            assert_eq!((name.as_str(), incarnation.0, addr), ("b", 7, b.addr()));
            Some(())
        }
        _ => None,
    })
    .await;
    let members = a.endpoint.members();
    assert_eq!(members.len(), 1);
    assert!(members[0].linked && members[0].rtt.is_some_and(|rtt| rtt < Duration::from_secs(1)), "{members:?}");
    until("a in b's eyes", || b.endpoint.members().iter().any(|member| member.name == name("a"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_dials_leave_one_link() {
    for round in 0..10 {
        let authority = Authority::new();
        // Both addresses have to be known before either node starts.
        let addrs = [1, 2].map(|number| own_addr(2 * round + number));
        let mut a = Node::start_with(&authority, "a", 1, &[addrs[1]], |config| config.listen = addrs[0]);
        let mut b = Node::start_with(&authority, "b", 1, &[addrs[0]], |config| config.listen = addrs[1]);
        a.up("b").await;
        b.up("a").await;
        // Whatever came second is settled within this time; the link that stays carries frames both ways.
        let mut live = [None, None];
        for (node, live) in [&mut a, &mut b].into_iter().zip(&mut live) {
            node.drain(Duration::from_millis(300)).await;
            let members = node.endpoint.members();
            assert_eq!(members.iter().filter(|member| member.linked).count(), 1, "round {round}");
            let counters = node.endpoint.counters();
            assert_eq!(counters.links_up, counters.links_down + 1, "round {round}: {counters:?}");
            *live = Some(counters.links_up);
        }
        assert!(live.iter().flatten().all(|links| *links <= 2), "round {round}: {live:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_with_one_seed_become_a_full_mesh() {
    let authority = Authority::new();
    let mut seed = Node::start(&authority, "seed", 1, &[]);
    let mut a = Node::start(&authority, "a", 1, &[seed.addr()]);
    let mut b = Node::start(&authority, "b", 1, &[seed.addr()]);
    let (to_b, to_a) = tokio::join!(a.up("b"), b.up("a"));
    to_b.send(Bytes::from_static(b"from a")).unwrap();
    to_a.send(Bytes::from_static(b"from b")).unwrap();
    assert_eq!(a.frame().await, (name("b"), Bytes::from_static(b"from b")));
    assert_eq!(b.frame().await, (name("a"), Bytes::from_static(b"from a")));
    for node in [&mut seed, &mut a, &mut b] {
        until("a full mesh", || node.endpoint.members().iter().filter(|member| member.linked).count() == 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_its_own_seed_is_not_dialed_again() {
    let authority = Authority::new();
    let addr = own_addr(0);
    let mut a = Node::start_with(&authority, "a", 1, &[addr], |config| {
        config.listen = addr;
        config.timings.seed_check = Duration::from_millis(20);
    });
    until("a dial", || a.endpoint.counters().dials > 0).await;
    let events = a.drain(Duration::from_millis(500)).await;
    assert!(events.is_empty(), "{events:?}");
    let counters = a.endpoint.counters();
    assert_eq!((counters.dials, counters.dials_failed, counters.links_up, counters.refused_total()), (1, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_link_comes_back() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
    let (link, _) = (a.up("b").await, b.up("a").await);
    link.close("for a change");
    assert!(link.send(Bytes::from_static(b"x")).is_err());
    assert_eq!(a.down("b").await, ("closed by this node: for a change".to_owned(), false));
    assert_eq!(b.down("a").await, ("closed by the peer: for a change".to_owned(), false));
    let again = a.up("b").await;
    assert!(again.id() > link.id());
}
