//! Three nodes in one process: each counts connections, and all see the cluster-wide count.
//!
//! Run it with `cargo run --example three_nodes`. It makes its own certificates.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use tallymesh::Class;

mod common;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let names = ["relay-0-1", "relay-0-2", "relay-0-3"];
    let nodes = common::cluster(&names, |builder| builder.replicate(Class::InboundCidr.into())).await?;

    // Each node holds connections of its own.
    let addr: IpAddr = "192.0.2.7".parse()?;
    let mut open = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let inbound = node.cidr("inbound_cidr")?;
        for _ in 0..=i {
            open.push(inbound.hold(addr)?);
        }
    }

    // Verification asks every member and waits until all hold what the others count.
    let found = nodes[0].verify(Duration::from_secs(10)).await?;
    println!("{found}");
    for node in &nodes {
        let inbound = node.cidr("inbound_cidr")?;
        let count = inbound.count("192.0.2.0/24".parse()?);
        println!("{}: {} connections from 192.0.2.0/24, {} of them here", node.name(), count.total, count.local);
    }

    // At most ten connections from one address, in the whole cluster.
    let inbound = nodes[2].cidr("inbound_cidr")?;
    let admitted: Vec<_> = std::iter::from_fn(|| inbound.try_hold(addr, 10).transpose()).collect::<Result<_, _>>()?;
    println!("{} more were admitted under a limit of 10", admitted.len());

    drop((open, admitted));
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(())
}
