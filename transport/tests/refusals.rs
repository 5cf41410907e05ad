//! Peers that are refused.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Authority, Node, PATIENCE, Stranger, framed, hello, name, until};
use rcgen::ExtendedKeyUsagePurpose;
use tallymesh_schemas::Bound;
use tallymesh_transport::{Config, Event, Identity, IdentityError, Refusal};

async fn refused(node: &mut Node, wanted: Refusal) -> Option<String> {
    node.expect(&format!("refusal: {wanted}"), |event| match event {
        Event::Refused { name, reason, .. } if reason == wanted => Some(name.map(|name| name.to_string())),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_is_refused_and_counted_on_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut a = Node::start(&ours, "a", 1, &[]);
    let mut b = Node::start(&theirs, "b", 1, &[a.addr()]);
    refused(&mut a, Refusal::Authority).await;
    refused(&mut b, Refusal::Authority).await;
    assert!(a.endpoint.counters().refused(Refusal::Authority) > 0);
    assert!(b.endpoint.counters().refused(Refusal::Authority) > 0);
    assert!(a.endpoint.members().is_empty() && b.endpoint.members().is_empty());
    assert_eq!(a.endpoint.counters().links_up + b.endpoint.counters().links_up, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialer_of_another_authority_that_trusts_ours_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut a = Node::start(&ours, "a", 1, &[]);
    let stranger = Stranger::new(&ours, theirs.issue(&["b"]), "tallymesh/1");
    if let Ok(conn) = stranger.connect(&a).await {
        conn.closed().await;
    }
    refused(&mut a, Refusal::Authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_protocol_version_is_refused() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let stranger = Stranger::new(&authority, authority.issue(&["b"]), "tallymesh/0");
    assert!(stranger.connect(&a).await.is_err());
    refused(&mut a, Refusal::ProtocolVersion).await;
    assert_eq!(a.endpoint.counters().refused(Refusal::ProtocolVersion), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_two_names_or_servers_only_is_refused() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let server_only = authority.issue_for(&["b"], &[ExtendedKeyUsagePurpose::ServerAuth]);
    for own in [authority.issue(&["b", "c"]), server_only] {
        let stranger = Stranger::new(&authority, own, "tallymesh/1");
        if let Ok(conn) = stranger.connect(&a).await {
            conn.closed().await;
        }
        refused(&mut a, Refusal::Certificate).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_with_another_name_than_the_certificate_is_refused() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let stranger = Stranger::new(&authority, authority.issue(&["b"]), "tallymesh/1");
    let conn = stranger.connect(&a).await.unwrap();
    conn.open_uni().await.unwrap().write_all(&hello("c", 1)).await.unwrap();
    assert_eq!(refused(&mut a, Refusal::WrongName).await.as_deref(), Some("b"));
    conn.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_a_member_s_address_is_refused() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let b = Node::start(&authority, "b", 1, &[a.addr()]);
    let addr = b.addr();
    a.up("b").await;
    // Gone without a goodbye, so that a goes on dialing its address.
    drop(b);
    a.down("b").await;
    let bind = || std::net::UdpSocket::bind(addr);
    until("the port to be free", || bind().is_ok()).await;
    let mut c = Node::start_with(&authority, "c", 1, &[], |config| config.listen = addr);
    assert_eq!(refused(&mut a, Refusal::WrongName).await.as_deref(), Some("c"));
    refused(&mut c, Refusal::WrongName).await;
    assert!(!a.endpoint.members().iter().any(|member| member.linked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_or_babbling_stranger_is_refused() {
    let authority = Authority::new();
    let short = Duration::from_millis(200);
    let mut hasty = Node::start_with(&authority, "hasty", 1, &[], |config| config.timings.hello = short);
    let stranger = Stranger::new(&authority, authority.issue(&["b"]), "tallymesh/1");
    let silent = stranger.connect(&hasty).await.unwrap();
    refused(&mut hasty, Refusal::Hello).await;
    silent.closed().await;
    // This node waits for as long as a machine under load may need for the few bytes below.
    let mut a = Node::start_with(&authority, "a", 1, &[], |config| config.timings.hello = PATIENCE);
    for (bytes, reason) in [
        (framed(&[0xff; 40]), Refusal::Hello),
        (framed(&[0; 600]), Refusal::Hello),
        (vec![9, 1, 0, 0], Refusal::Frame),
        (vec![1, 0xff, 0xff, 0xff], Refusal::Frame),
    ] {
        let conn = stranger.connect(&a).await.unwrap();
        conn.open_uni().await.unwrap().write_all(&bytes).await.unwrap();
        refused(&mut a, reason).await;
        conn.closed().await;
    }
    assert_eq!((hasty.endpoint.counters().links_up, a.endpoint.counters().links_up), (0, 0));
}

/// A stranger with a proper hello, linked to `node`.
async fn linked(node: &mut Node, stranger: &Stranger) -> (quinn::Connection, quinn::SendStream) {
    let conn = stranger.connect(node).await.unwrap();
    let mut stream = conn.open_uni().await.unwrap();
    stream.write_all(&hello("x", 1)).await.unwrap();
    node.up("x").await;
    (conn, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_frame_or_a_second_stream_closes_only_that_link() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[a.addr()]);
    let (_, to_a) = (a.up("b").await, b.up("a").await);
    let stranger = Stranger::new(&authority, authority.issue(&["x"]), "tallymesh/1");

    let (conn, mut stream) = linked(&mut a, &stranger).await;
    stream.write_all(&framed(b"good")).await.unwrap();
    assert_eq!(a.frame().await, (name("x"), Bytes::from_static(b"good")));
    stream.write_all(&[1, 0xff, 0xff, 0xff]).await.unwrap();
    let (reason, goodbye) = a.down("x").await;
    refused(&mut a, Refusal::Frame).await;
    assert!(reason.contains("16777215") && !goodbye, "{reason}");
    conn.closed().await;

    // A second stream is not granted while the first is open; once it is finished, opening one is a mistake.
    let (conn, mut stream) = linked(&mut a, &stranger).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), conn.open_bi()).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(200), conn.open_uni()).await.is_err());
    stream.write_all(&[1]).await.unwrap();
    stream.finish().unwrap();
    refused(&mut a, Refusal::Frame).await;
    conn.closed().await;

    to_a.send(Bytes::from_static(b"still here")).unwrap();
    assert_eq!(a.frame().await, (name("b"), Bytes::from_static(b"still here")));
    let counters = a.endpoint.counters();
    assert_eq!((counters.refused(Refusal::Frame), counters.refused_total()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_are_bounded() {
    use tallymesh_transport::bounds::{HANDSHAKES, HANDSHAKES_PER_SOURCE, HANDSHAKES_UNPROVEN};
    let authority = Authority::new();
    // No other time limit ends a handshake, however long the 64 handshakes of this test take: the limits are far beyond it.
    let long = |config: &mut Config| {
        let minute = Duration::from_secs(60);
        (config.timings.handshake, config.timings.hello, config.timings.idle) = (minute, minute, minute);
    };
    let mut a = Node::start_with(&authority, "a", 1, &[], long);
    // Strangers that connect and say nothing: each keeps a slot until its hello is overdue.
    let mut held = Vec::new();
    for host in ["127.0.0.2:0", "127.0.0.3:0"] {
        let stranger = Stranger::at(host, &authority, authority.issue(&["x"]), "tallymesh/1");
        for _ in 0..HANDSHAKES_PER_SOURCE {
            held.push(stranger.connect(&a).await.unwrap());
        }
        assert!(stranger.connect(&a).await.is_err(), "one address has its share and no more");
        refused(&mut a, Refusal::Overload).await;
    }
    assert_eq!(held.len(), HANDSHAKES);
    // The later ones proved their address.
    assert!(a.endpoint.counters().retries >= (HANDSHAKES - HANDSHAKES_UNPROVEN) as u64);
    let reached = a.endpoint.bounds();
    assert!(reached.iter().any(|report| report.bound == Bound::Handshakes), "the bound is reported: {reached:?}");
    // All slots are taken, and a node from another address gets in, long before a hello is overdue.
    let mut b = Node::start_with(&authority, "b", 1, &[a.addr()], long);
    b.up("a").await;
    a.up("b").await;
    let is_thrown_out = |conn: &quinn::Connection| conn.close_reason().is_some();
    until("the oldest of one of them to be thrown out", || held.iter().any(is_thrown_out)).await;
    assert!(held.iter().filter(|conn| is_thrown_out(conn)).count() <= 4, "the others stay");
}

#[test]
fn an_identity_that_the_cluster_would_refuse_does_not_start() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let build = |ca: &Authority, (cert, key): (String, String)| {
        Identity::from_pem(ca.pem().as_bytes(), cert.as_bytes(), key.as_bytes())
    };
    assert_eq!(build(&ours, ours.issue(&["Node-1.example"])).unwrap().name().as_str(), "node-1.example");
    assert_eq!(build(&ours, ours.issue(&["node_7"])).unwrap().name().as_str(), "node_7");
    assert!(matches!(build(&ours, theirs.issue(&["a"])), Err(IdentityError::Untrusted { .. })));
    assert!(matches!(build(&ours, ours.issue(&["a", "b"])), Err(IdentityError::Name(_))));
    assert!(matches!(build(&ours, ours.issue(&["*.example"])), Err(IdentityError::Name(_))));
    assert!(matches!(build(&ours, ours.issue(&[])), Err(IdentityError::Name(_))));
    let client_only = ours.issue_for(&["a"], &[ExtendedKeyUsagePurpose::ClientAuth]);
    assert!(matches!(build(&ours, client_only), Err(IdentityError::Untrusted { role: "server", .. })));
    let (cert, _) = ours.issue(&["a"]);
    let (_, key) = ours.issue(&["a"]);
    assert!(matches!(build(&ours, (cert.clone(), key)), Err(IdentityError::Key(_))));
    let no_key = Identity::from_pem(ours.pem().as_bytes(), cert.as_bytes(), b"nothing");
    assert!(matches!(no_key, Err(IdentityError::Pem { what: "key", .. })));
}
