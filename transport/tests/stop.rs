//! A process that is stopped and goes on.

mod common;

use std::time::Duration;

use common::{Authority, Node, name, until};
use tallymesh_transport::{Event, MemberState};

/// The node runs in a thread of its own, which is put to sleep: to the others, and to the node's own timers, that is what
/// a stop signal looks like.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_noticed_and_comes_back_by_itself() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut c = Node::start(&authority, "c", 1, &[a.addr()]);
    let addr = a.addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<Duration>();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut b = Node::start(&authority, "b", 1, &[addr]);
            b.up("a").await;
            b.up("c").await;
            std::thread::sleep(stopped.await.unwrap());
            let back = |b: &Node| {
                let members = b.endpoint.members();
                members.len() == 2 && members.iter().all(|m| m.linked && m.state == MemberState::Alive)
            };
            until("b to see the others", || back(&b)).await;
            ended.await.unwrap();
        });
    });
    a.up("b").await;
    c.up("b").await;
    stop.send(Duration::from_secs(11)).unwrap();
    let began = std::time::Instant::now();
    a.down("b").await;
    a.expect("b dead", |event| match event {
        Event::Member { name, state: MemberState::Dead, .. } if name.as_str() == "b" => Some(()),
        _ => None,
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(10), "after {:?}", began.elapsed());
    let link = a.up("b").await;
    assert_eq!(link.incarnation().0, 1);
    c.up("b").await;
    for node in [&a, &c] {
        let alive = || {
            let members = node.endpoint.members();
            members.iter().any(|m| m.name == name("b") && m.linked && m.state == MemberState::Alive)
        };
        until("b alive", alive).await;
    }
    assert!(began.elapsed() < Duration::from_secs(21), "back after {:?}", began.elapsed());
    end.send(()).unwrap();
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap();
}
