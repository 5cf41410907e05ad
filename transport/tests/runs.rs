//! Runs of one node: restarts, copies, renewals.

mod common;

use common::{Authority, Node};
use tallymesh_schemas::actor::Incarnation;
use tallymesh_transport::{Event, Refusal};

async fn superseded(node: &mut Node) -> u64 {
    node.expect("superseded", |event| match event {
        Event::Superseded { by, .. } => Some(by.0),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_replaces_its_earlier_run_at_once() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut old = Node::start(&authority, "b", 5, &[a.addr()]);
    a.up("b").await;
    old.up("a").await;
    // The old run is still there and its link alive: an unnoticed crash looks the same.
    let new = Node::start(&authority, "b", 6, &[a.addr()]);
    let mut order = Vec::new();
    a.expect("the new run", |event| match event {
        Event::Down { reason, .. } => {
            order.push(reason);
            None
        }
        Event::Up(link) => {
            assert_eq!(link.incarnation(), Incarnation(6));
            Some(())
        }
        _ => None,
    })
    .await;
    assert_eq!(order, ["replaced by a newer run"]);
    a.expect("the new run as member", |event| match event {
        Event::Member { incarnation: Incarnation(6), .. } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(superseded(&mut old).await, 6, "the old run dials again and learns of the newer one");
    drop(new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_incarnation_is_refused_with_the_newer_one_and_may_renew() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let newer = Node::start(&authority, "b", 9, &[a.addr()]);
    a.up("b").await;
    let mut older = Node::start(&authority, "b", 3, &[a.addr()]);
    assert_eq!(superseded(&mut older).await, 9);
    assert!(a.endpoint.counters().refused(Refusal::Stale) > 0);
    assert!(older.endpoint.counters().refused(Refusal::Stale) > 0);
    assert_eq!(a.endpoint.members()[0].incarnation, Incarnation(9));
    older.endpoint.renew(Incarnation(10));
    let link = a.up("b").await;
    assert_eq!(link.incarnation(), Incarnation(10));
    assert_eq!(older.endpoint.incarnation(), Incarnation(10));
    drop(newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_node_links_again_as_the_new_run() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
    a.up("b").await;
    b.up("a").await;
    b.endpoint.renew(Incarnation(2));
    assert_eq!(a.down("b").await, ("the peer continues as a new run".to_owned(), false));
    assert_eq!(a.up("b").await.incarnation(), Incarnation(2));
    b.down("a").await;
    b.up("a").await;
    a.expect("the new run as member", |event| match event {
        Event::Member { incarnation: Incarnation(2), .. } => Some(()),
        _ => None,
    })
    .await;
    // Not higher: ignored.
    b.endpoint.renew(Incarnation(2));
    assert_eq!(b.endpoint.incarnation(), Incarnation(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_with_one_name_the_older_run_learns_of_the_newer() {
    let authority = Authority::new();
    let mut newer = Node::start(&authority, "b", 9, &[]);
    let mut older = Node::start(&authority, "b", 3, &[newer.addr()]);
    assert_eq!(superseded(&mut older).await, 9);
    newer
        .expect("refusal", |event| match event {
            Event::Refused { reason: Refusal::Stale, .. } => Some(()),
            _ => None,
        })
        .await;
    // The other way round, and with the very same incarnation: a copy of a virtual machine.
    let mut rival = Node::start(&authority, "b", 9, &[newer.addr()]);
    let learned = async {
        tokio::select! {
            by = superseded(&mut rival) => by,
            by = superseded(&mut newer) => by,
        }
    };
    assert_eq!(learned.await, 9);
}
