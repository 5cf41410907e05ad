//! A `tower` layer that limits the requests in progress by address and by block, across all nodes of a cluster.
//!
//! Run it with `cargo run --example limited_service`. It makes its own certificates.
//!
//! The layer wraps any service whose requests carry their source address. With `axum` or `hyper`, the request is an HTTP
//! request, the peer address is in `ConnectInfo<SocketAddr>`, and a refusal becomes the status 429 or 503.

use std::error::Error;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tallymesh::{Cidr, Class, MaskLimit, Node};
use tower::{Layer, Service, ServiceExt, service_fn};

mod common;

type BoxError = Box<dyn Error + Send + Sync>;

/// A request with its source address.
struct Request {
    peer: IpAddr,
    work: Duration,
}

/// Counts each request while it is in progress, and refuses it when its address or a block around it is full.
#[derive(Clone)]
struct LimitByAddress {
    inbound: Cidr,
    limits: Vec<MaskLimit>,
}

impl<S> Layer<S> for LimitByAddress {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, limit: self.clone() }
    }
}

/// The service with the limit around it.
#[derive(Clone)]
struct Limited<S> {
    inner: S,
    limit: LimitByAddress,
}

impl<S> Service<Request> for Limited<S>
where
    S: Service<Request>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.limit.inbound.try_hold_within(request.peer, &self.limit.limits) {
            Ok(open) => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let answer = answer.await.map_err(Into::into);
                    drop(open);
                    answer
                })
            }
            Err(refused) => Box::pin(async move { Err(refused.into()) }),
        }
    }
}

/// Two requests at a time from one address and three from its block; the IPv6 block has the same limit.
fn layer(node: &Node) -> Result<LimitByAddress, Box<dyn Error>> {
    let limits = [(32, 2), (24, 3), (64, 3)].map(MaskLimit::from).to_vec();
    Ok(LimitByAddress { inbound: node.cidr("inbound_cidr")?, limits })
}

/// The service itself: it works for a while.
async fn serve(request: Request) -> Result<String, BoxError> {
    tokio::time::sleep(request.work).await;
    Ok(format!("served {}", request.peer))
}

/// Waits until a node counts `total` requests from a block.
async fn counted(node: &Node, block: &str, total: i64) -> Result<(), Box<dyn Error>> {
    let (inbound, block) = (node.cidr("inbound_cidr")?, block.parse()?);
    while inbound.count(block).total != total {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = common::cluster(&["web-1", "web-2"], |builder| builder.replicate(Class::InboundCidr.into())).await?;
    let first = layer(&nodes[0])?.layer(service_fn(serve));
    let second = layer(&nodes[1])?.layer(service_fn(serve));
    let request = |peer: &str, work| Ok::<_, Box<dyn Error>>(Request { peer: peer.parse()?, work });

    // Two slow requests on one node.
    let (slow, quick) = (Duration::from_secs(600), Duration::ZERO);
    let slow = [request("192.0.2.7", slow)?, request("192.0.2.7", slow)?];
    let slow = slow.map(|request| tokio::spawn(first.clone().oneshot(request)));
    counted(&nodes[1], "192.0.2.7/32", 2).await?;

    // The other node has received their counts.
    for peer in ["192.0.2.7", "192.0.2.8", "2001:db8::7"] {
        match second.clone().oneshot(request(peer, quick)?).await {
            Ok(answer) => println!("{answer}"),
            Err(refused) => println!("refused: {refused}"),
        }
    }
    slow.iter().for_each(|task| task.abort());
    counted(&nodes[1], "0.0.0.0/0", 0).await?;
    let served = second.oneshot(request("192.0.2.7", quick)?).await.map_err(|error| error.to_string())?;
    println!("{served}");
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The block is full though no address in it is full, whichever node received the requests; each request makes room when it
    /// ends.
    #[tokio::test]
    async fn a_block_is_limited_on_both_nodes() {
        let replicate = |builder: tallymesh::Builder| builder.replicate(Class::InboundCidr.into());
        let nodes = common::cluster(&["web-1", "web-2"], replicate).await.unwrap();
        let services = [0, 1].map(|n: usize| layer(&nodes[n]).unwrap().layer(service_fn(serve)));
        let request = |peer: &str, work| Request { peer: peer.parse().unwrap(), work };
        let slow = Duration::from_secs(600);
        let tasks = [(0, "192.0.2.1"), (0, "192.0.2.2"), (1, "192.0.2.3")]
            .map(|(n, peer): (usize, _)| tokio::spawn(services[n].clone().oneshot(request(peer, slow))));
        for node in &nodes {
            counted(node, "192.0.2.0/24", 3).await.unwrap();
        }
        for service in &services {
            let refused = service.clone().oneshot(request("192.0.2.4", slow)).await.unwrap_err();
            assert_eq!(refused.to_string(), "192.0.2.0/24: 3 are counted and 3 are allowed");
        }
        tasks[2].abort();
        counted(&nodes[0], "192.0.2.0/24", 2).await.unwrap();
        let served = services[0].clone().oneshot(request("192.0.2.4", Duration::ZERO)).await.unwrap();
        assert_eq!(served, "served 192.0.2.4");
        drop(tasks);
        for node in &nodes {
            node.shutdown().await;
        }
    }
}
