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

/// Who dials a node that stands still is answered late, and that is not the path's round trip time: the link is as quick as
/// the path once the node goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_makes_no_slow_link() {
    const STANDS: Duration = Duration::from_millis(2800);
    const FRAMES: usize = 64;
    let authority = std::sync::Arc::new(Authority::new());
    let theirs = std::sync::Arc::clone(&authority);
    let (sender, address) = tokio::sync::oneshot::channel();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut b = Node::start(&authority, "b", 1, &[]);
            sender.send(b.addr()).unwrap();
            std::thread::sleep(STANDS);
            b.up("a").await;
            for _ in 0..FRAMES {
                b.frame().await;
            }
            ended.await.unwrap();
        });
    });
    let mut a = Node::start(&theirs, "a", 1, &[address.await.unwrap()]);
    let began = std::time::Instant::now();
    let link = a.up("b").await;
    assert!(began.elapsed() > STANDS / 2, "b stood still when it was dialed");
    assert!(link.rtt() < Duration::from_millis(300), "{:?}", link.rtt());
    let began = std::time::Instant::now();
    for _ in 0..FRAMES {
        until("room", || link.has_room()).await;
        link.send(bytes::Bytes::from(vec![7; 8192])).unwrap();
    }
    until("all is delivered", || a.endpoint.counters().frames_out == FRAMES as u64).await;
    end.send(()).unwrap();
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "half a megabyte took {:?}", began.elapsed());
}
