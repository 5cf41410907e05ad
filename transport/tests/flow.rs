//! Pressure and farewell.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Authority, Node, name, until};
use tallymesh_transport::bounds::{INBOX_BYTES, OUTBOX_HARD};
use tallymesh_transport::{Event, MemberState, SendError};

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_stops_its_sender_and_reading_lets_it_go_on() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
    let (to_b, _) = (a.up("b").await, b.up("a").await);
    const SIZE: usize = 100_000;
    let frame = |number: u32| {
        let mut bytes = vec![0; SIZE];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        Bytes::from(bytes)
    };
    // b does not read. What a can send is bounded by the windows and b's inbox, and then it stops.
    let mut sent = 0u32;
    loop {
        while to_b.has_room() {
            to_b.send(frame(sent)).unwrap();
            sent += 1;
        }
        let writable = a.drain(Duration::from_millis(500)).await;
        if !writable.iter().any(|event| matches!(event, Event::Writable { .. })) {
            break;
        }
    }
    assert!(sent as usize * SIZE > INBOX_BYTES, "{sent} frames");
    assert!((sent as usize) * SIZE < INBOX_BYTES + (16 << 20), "{sent} frames");
    while to_b.send(frame(sent)).is_ok() {
        sent += 1;
    }
    let full = to_b.send(frame(sent));
    assert!(matches!(full, Err(SendError::Full { queued, .. }) if queued <= OUTBOX_HARD), "{full:?}");
    assert!(!to_b.has_room());

    // While frames are stuck, the link does not die: membership and keep-alives go on beside them.
    let quiet = a.drain(Duration::from_secs(8)).await;
    assert!(!quiet.iter().any(|e| matches!(e, Event::Down { .. } | Event::Writable { .. })), "{quiet:?}");

    for expected in 0..sent {
        let (peer, payload) = b.frame().await;
        assert_eq!((peer, u32::from_le_bytes(payload[..4].try_into().unwrap())), (name("a"), expected));
    }
    a.expect("writable", |event| match event {
        Event::Writable { peer, link } => {
            assert_eq!((peer, link), (name("b"), to_b.id()));
            Some(())
        }
        _ => None,
    })
    .await;
    assert!(to_b.has_room());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_close_delivers_queued_frames_and_says_goodbye() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
    let (to_b, _) = (a.up("b").await, b.up("a").await);
    let mut sent = 0u32;
    while to_b.has_room() {
        to_b.send(Bytes::from([&sent.to_le_bytes()[..], &[0; 999]].concat())).unwrap();
        sent += 1;
    }
    let (_, ()) = tokio::join!(a.endpoint.close(Duration::from_secs(10)), async {
        for expected in 0..sent {
            let (_, payload) = b.frame().await;
            assert_eq!(u32::from_le_bytes(payload[..4].try_into().unwrap()), expected);
        }
        assert_eq!(b.down("a").await, ("the peer left".to_owned(), true));
    });
    assert!(to_b.send(Bytes::from_static(b"late")).is_err());
    b.expect("a to have left", |event| match event {
        Event::Member { name, state: MemberState::Left, .. } => {
            assert_eq!(name.as_str(), "a");
            Some(())
        }
        _ => None,
    })
    .await;
    let dials = b.endpoint.counters().dials;
    let after = b.drain(Duration::from_secs(1)).await;
    assert!(after.is_empty(), "{after:?}");
    // b knows a by its seed only now, and looks there again no faster than a seed is looked up.
    assert!(b.endpoint.counters().dials <= dials + 5);
    let left = tokio::time::timeout(Duration::from_secs(1), async { while a.events.recv().await.is_some() {} });
    left.await.expect("a's events end");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_leave_at_once_both_deliver() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
    let (to_b, to_a) = (a.up("b").await, b.up("a").await);
    for _ in 0..200 {
        to_b.send(Bytes::from(vec![1; 1000])).unwrap();
        to_a.send(Bytes::from(vec![2; 1000])).unwrap();
    }
    let (a_end, b_end) = (a.endpoint.clone(), b.endpoint.clone());
    let within = Duration::from_secs(10);
    let frames = |mut node: Node| async move {
        let mut frames = 0;
        drop(node.endpoint);
        while let Some(event) = node.events.recv().await {
            frames += usize::from(matches!(event, Event::Frame { .. }));
        }
        frames
    };
    let (_, _, at_a, at_b) = tokio::join!(a_end.close(within), b_end.close(within), frames(a), frames(b));
    assert_eq!((at_a, at_b), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_beside_a_peer_that_does_not_read_ends_in_time() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
    let (to_b, _) = (a.up("b").await, b.up("a").await);
    for _ in 0..200 {
        while to_b.send(Bytes::from(vec![0; 1 << 20])).is_ok() {}
        tokio::task::yield_now().await;
    }
    let started = tokio::time::Instant::now();
    a.endpoint.close(Duration::from_secs(2)).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_handles_end_the_links_without_a_goodbye() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let b = Node::start(&authority, "b", 1, &[a.addr()]);
    a.up("b").await;
    drop(b);
    let (reason, goodbye) = a.down("b").await;
    assert!(!goodbye, "{reason}");
    until("b to be unlinked", || a.endpoint.members().iter().all(|member| !member.linked)).await;
}
