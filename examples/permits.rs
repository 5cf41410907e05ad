//! Three nodes in one process share twenty permits. At most twenty sessions are open at a time in the whole cluster, whichever
//! node opens them. A node opens a session without a request to another node.
//!
//! Run it with `cargo run --example permits`. It makes its own certificates.

use std::error::Error;
use std::time::{Duration, Instant};

use tallymesh::{Class, Node, NodeName, OpenPermit};

mod common;

const NAMES: [&str; 3] = ["relay-0-1", "relay-0-2", "relay-0-3"];
const MAXIMUM: usize = 20;

/// How long permits may take to reach the node that needs them.
const PATIENCE: Duration = Duration::from_secs(20);

async fn cluster() -> Result<Vec<Node>, Box<dyn Error>> {
    let founders: Vec<_> = NAMES.iter().map(|name| NodeName::new(name)).collect::<Result<_, _>>()?;
    common::cluster(&NAMES, |builder| {
        builder
            .replicate(Class::SharedNamedThrottles.into())
            .founders(founders.clone(), Duration::from_secs(2))
            .permits("sessions", MAXIMUM as u64)
    })
    .await
}

/// Opens permits on a node until it has `wanted` of them.
async fn open(node: &Node, sessions: &mut Vec<OpenPermit>, wanted: usize) -> Result<(), Box<dyn Error>> {
    let (permits, start) = (node.permits("sessions")?, Instant::now());
    while sessions.len() < wanted {
        match permits.try_open() {
            Some(session) => sessions.push(session),
            None if start.elapsed() > PATIENCE => return Err(format!("{} of {wanted} are open", sessions.len()).into()),
            // The refusal has signalled the other nodes that this node needs more permits.
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = cluster().await?;
    let mut sessions = Vec::new();
    open(&nodes[0], &mut sessions, MAXIMUM).await?;
    let state = nodes[0].permits("sessions")?.state();
    println!("{}: {} open of {}, {} permits are here", nodes[0].name(), state.in_use, state.maximum, state.permits);
    for node in &nodes {
        println!("{}: one more? {}", node.name(), node.permits("sessions")?.try_open().is_some());
    }
    sessions.clear();
    open(&nodes[2], &mut sessions, MAXIMUM / 2).await?;
    println!("{}: {} are open after those were closed", nodes[2].name(), sessions.len());
    drop(sessions);
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tallymesh::ObjectError;

    use super::*;

    /// I9 on real nodes: every node in turn opens all permits that it can, and closes some; the test counts the open ones.
    #[tokio::test]
    async fn no_more_are_open_than_there_are_permits() {
        let nodes = cluster().await.unwrap();
        let mut sessions: Vec<Vec<OpenPermit>> = (0..nodes.len()).map(|_| Vec::new()).collect();
        let (start, mut most, mut hot_most) = (Instant::now(), 0, 0);
        // First all nodes, then single nodes one after the other.
        for hot in [None, Some(0), Some(2)] {
            hot_most = 0;
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE && (hot.is_none() || hot_most < MAXIMUM - 1) {
                for (n, node) in nodes.iter().enumerate() {
                    if hot.is_some_and(|hot| hot != n) {
                        sessions[n].pop();
                        continue;
                    }
                    let permits = node.permits("sessions").unwrap();
                    sessions[n].extend(std::iter::from_fn(|| permits.try_open()).take(2 * MAXIMUM));
                    let open: usize = sessions.iter().map(Vec::len).sum();
                    assert!(open <= MAXIMUM, "{open} are open, of {MAXIMUM}");
                    most = most.max(open);
                    hot_most = hot_most.max(sessions[n].len());
                }
                if hot.is_none() && most == MAXIMUM {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert!(most >= MAXIMUM - 1, "{most} of {MAXIMUM} were open at once");
        assert!(hot_most >= MAXIMUM - 1, "{hot_most} of {MAXIMUM} where alone they were wanted");
        let other = nodes[0].permits("other").unwrap_err();
        assert_eq!(other, ObjectError::NoPermits { name: "other".to_owned(), known: vec!["sessions".to_owned()] });
        assert!(start.elapsed() < 3 * PATIENCE);
        drop(sessions);
        for node in &nodes {
            node.shutdown().await;
        }
    }
}
