//! The network is cut, and heals.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Authority, Node, name, until};
use tallymesh_transport::{Event, MemberState};

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_noticed_within_ten_seconds_and_a_healed_cluster_is_whole_within_ten() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
    let mut c = Node::start(&authority, "c", 1, &[a.addr()]);
    a.up("c").await;
    b.up("c").await;
    c.up("b").await;
    let cut = Instant::now();
    c.gate.close();
    let (reason, goodbye) = a.down("c").await;
    assert!(cut.elapsed() < Duration::from_secs(10), "{reason} after {:?}", cut.elapsed());
    assert!(!goodbye);
    b.down("c").await;
    a.expect("c dead", |event| match event {
        Event::Member { name, state: MemberState::Dead, .. } => {
            assert_eq!(name.as_str(), "c");
            Some(())
        }
        _ => None,
    })
    .await;
    assert!(cut.elapsed() < Duration::from_secs(10), "dead after {:?}", cut.elapsed());
    let sees_dead = |node: &Node, whom: &str| {
        node.endpoint.members().iter().any(|m| m.name == name(whom) && m.state == MemberState::Dead)
    };
    until("c to miss the others", || sees_dead(&c, "a") && sees_dead(&c, "b")).await;
    let (dropped_in, dropped_out) = c.gate.dropped();
    assert!(dropped_in > 0 && dropped_out > 0, "the cut bit: {dropped_in} in, {dropped_out} out");

    let healed = Instant::now();
    c.gate.open();
    let link = a.up("c").await;
    b.up("c").await;
    c.up("b").await;
    let all_linked = |node: &Node| node.endpoint.members().iter().all(|m| m.linked && m.state == MemberState::Alive);
    until("all nodes are linked", || all_linked(&a) && all_linked(&b) && all_linked(&c)).await;
    assert!(healed.elapsed() < Duration::from_secs(10), "linked after {:?}", healed.elapsed());
    assert_eq!(link.incarnation().0, 1, "it is the same run");
    link.send(Bytes::from_static(b"welcome back")).unwrap();
    assert_eq!(c.frame().await, (name("a"), Bytes::from_static(b"welcome back")));
}
