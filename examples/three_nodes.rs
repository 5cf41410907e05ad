//! Three nodes in one process: each counts connections, all see the cluster-wide figure.
//!
//! Run it with `cargo run --example three_nodes`. It makes its own certificates.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tallymesh::{Class, Identity, Node};

/// A certificate authority, and a certificate for each node.
fn identities(names: &[&str]) -> Result<Vec<Identity>, Box<dyn Error>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let one = |name: &&str| -> Result<Identity, Box<dyn Error>> {
        let key = KeyPair::generate()?;
        let cert = CertificateParams::new([(*name).to_owned()])?.signed_by(&key, &ca)?;
        Ok(Identity::from_pem(ca.pem().as_bytes(), cert.pem().as_bytes(), key.serialize_pem().as_bytes())?)
    };
    names.iter().map(one).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let names = ["relay-0-1", "relay-0-2", "relay-0-3"];
    let mut nodes: Vec<Node> = Vec::new();
    for (name, identity) in names.iter().zip(identities(&names)?) {
        let mut builder = Node::builder(name).identity(identity).replicate(Class::InboundCidr.into());
        if let Some(first) = nodes.first() {
            builder = builder.seed(first.listen_addr().to_string());
        }
        nodes.push(builder.start().await?);
    }

    // Each node holds some connections of its own.
    let addr: IpAddr = "192.0.2.7".parse()?;
    let mut open = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let inbound = node.cidr("inbound_cidr")?;
        open.extend((0..=i).map(|_| inbound.hold(addr)));
    }

    // Verification asks every member and waits until all hold what the others count.
    while nodes[0].members().await.len() < names.len() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let found = nodes[0].verify(Duration::from_secs(10)).await.ok_or("the node has been shut down")?;
    println!("converged: {} ({} copies compared)", found.converged(), found.copies);
    for node in &nodes {
        let inbound = node.cidr("inbound_cidr")?;
        let count = inbound.count("192.0.2.0/24".parse()?);
        println!("{}: {} connections from 192.0.2.0/24, {} of them here", node.name(), count.total, count.local);
    }

    // At most ten connections from one address, in the whole cluster.
    let inbound = nodes[2].cidr("inbound_cidr")?;
    let admitted: Vec<_> = std::iter::from_fn(|| inbound.try_hold(addr, 10)).collect();
    println!("{} more were admitted under a limit of 10", admitted.len());

    drop((open, admitted));
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(())
}
