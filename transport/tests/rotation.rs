//! Nodes that get another certificate, and other authorities, while they run.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Authority, Node, name, until};
use tallymesh_transport::{Event, Identity, Refusal, UseIdentityError};

/// The identity of a node whose certificate `issuer` has signed, and that trusts these authorities.
fn identity(node: &str, issuer: &Authority, trusted: &[&Authority]) -> Identity {
    let (cert, key) = issuer.issue(&[node]);
    let ca: String = trusted.iter().map(|authority| authority.pem()).collect();
    Identity::from_pem(ca.as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap()
}

fn is_linked(node: &Node, peer: &str) -> bool {
    node.endpoint.members().iter().any(|member| member.name == name(peer) && member.linked)
}

/// A rotation of the authority: first all nodes trust both, then all nodes get new certificates, then the old one goes. Links
/// stay up to the last step. There they end, because the peers have shown certificates of the old authority, and come back.
#[tokio::test(flavor = "multi_thread")]
async fn the_authority_of_running_nodes_is_replaced() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut a = Node::start(&old, "a", 1, &[]);
    let mut b = Node::start(&old, "b", 1, &[a.addr()]);
    let (link, _) = (a.up("b").await, b.up("a").await);
    let first = link.id();
    for trusted in [&old, &new] {
        for node in [&a, &b] {
            let name = node.endpoint.name().as_str();
            node.endpoint.use_identity(identity(name, trusted, &[&old, &new])).await.unwrap();
        }
    }
    link.send(Bytes::from_static(b"after four changes")).unwrap();
    assert_eq!(b.frame().await, (name("a"), Bytes::from_static(b"after four changes")));
    assert!(a.drain(Duration::from_millis(300)).await.iter().all(|event| !matches!(event, Event::Down { .. })));

    for node in [&a, &b] {
        let name = node.endpoint.name().as_str();
        node.endpoint.use_identity(identity(name, &new, &[&new])).await.unwrap();
    }
    let (reason, goodbye) = a.down("b").await;
    assert!(!goodbye, "{reason}");
    assert!(a.up("b").await.id() > first);
    until("both are linked", || is_linked(&a, "b") && is_linked(&b, "a")).await;

    // A node with a certificate of the old authority only does not come in any more.
    let mut late = Node::start(&old, "c", 1, &[a.addr()]);
    let refused = |event| matches!(event, Event::Refused { reason: Refusal::Authority, .. }).then_some(());
    late.expect("a refusal", refused).await;
    assert!(is_linked(&a, "b") && !is_linked(&a, "c"));
}

/// New nodes come in with the new certificate at once, and a certificate of another node changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_for_new_links_and_that_of_another_node_is_refused() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut a = Node::start(&old, "a", 1, &[]);
    let wrong = a.endpoint.use_identity(identity("b", &new, &[&new])).await;
    assert!(matches!(wrong, Err(UseIdentityError::Name { .. })), "{wrong:?}");
    a.endpoint.use_identity(identity("a", &new, &[&new])).await.unwrap();
    let mut b = Node::start(&new, "b", 1, &[a.addr()]);
    a.up("b").await;
    b.up("a").await;
    a.endpoint.clone().close(Duration::ZERO).await;
    let closed = a.endpoint.use_identity(identity("a", &new, &[&new])).await;
    assert!(matches!(closed, Err(UseIdentityError::Closed)), "{closed:?}");
}

/// Seeds that a running node gets are dialed, and a link stays when its seed goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_gets_other_seeds() {
    let authority = Authority::new();
    let mut a = Node::start(&authority, "a", 1, &[]);
    let mut b = Node::start(&authority, "b", 1, &[]);
    let mut c = Node::start(&authority, "c", 1, &[]);
    a.endpoint.set_seeds(vec![b.addr().to_string()]);
    a.up("b").await;
    b.up("a").await;
    a.endpoint.set_seeds(vec![c.addr().to_string()]);
    c.up("a").await;
    assert!(is_linked(&a, "b") && is_linked(&b, "a"));
}
