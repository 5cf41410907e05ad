//! x
mod common;
use bytes::Bytes;
use common::{Authority, Node};
use tallymesh_transport::Event;
#[tokio::test(flavor = "multi_thread")]
async fn bulk() {
    let authority = Authority::new();
    for round in 0..3 {
        let mut a = Node::start(&authority, "a", 1, &[]);
        let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
        let (to_b, _) = (a.up("b").await, b.up("a").await);
        const SIZE: usize = 64 << 10;
        const N: usize = 4000;
        let t = std::time::Instant::now();
        let reader = tokio::spawn(async move { for _ in 0..N { b.frame().await; } b });
        let mut sent = 0;
        while sent < N {
            while sent < N && to_b.has_room() { to_b.send(Bytes::from(vec![1; SIZE])).unwrap(); sent += 1; }
            if sent < N { a.expect("writable", |e| matches!(e, Event::Writable { .. }).then_some(())).await; }
        }
        let _b = reader.await.unwrap();
        eprintln!("round {round}: {:.0} MB/s rtt {:?}", (N * SIZE) as f64 / 1e6 / t.elapsed().as_secs_f64(), to_b.rtt());
        // small messages, one at a time: latency
    }
}
