//! Tests of the public API on running nodes.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use tallymesh_schemas::{Class, NodeName, OnPartition, Rate, Strength, ThrottleSpec};

use crate::fixtures::identities;
use crate::{
    Builder, Count, Counters, Decision, DeclaredError, Finding, Life, Member, Node, NodeEvent, NodeGone, OutboundScope,
    PoolStanding, Reason, Refusal, Scope, Standing, StartError, Verification,
};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Longer than any step of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

async fn alone(configure: impl Fn(Builder) -> Builder) -> Result<Node, StartError> {
    configure(Node::builder("n0").identity(identities(&["n0"]).remove(0))).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_when_it_has_joined_and_what_happens() {
    let mut identities = identities(&["n0", "n1"]);
    let builder = |name: &str, identity| Node::builder(name).identity(identity).replicate(Class::InboundCidr.into());
    let (second, first) = (identities.pop().unwrap(), identities.pop().unwrap());
    let n0 = builder("n0", first).start().await.unwrap();
    soon("a node with nobody to join has joined", n0.joined()).await.unwrap();
    let (mut events, mut changes) = (n0.events(), n0.changes("inbound_cidr").unwrap());
    assert!(n0.changes("nothing").is_err());

    let n1 = builder("n1", second).seed(n0.listen_addr().to_string()).start().await.unwrap();
    soon("n1 joins", n1.joined()).await.unwrap();
    let name = NodeName::new("n1").unwrap();
    let linked = NodeEvent::Linked { node: name.clone() };
    soon("n0 tells of the link", async { while events.next().await != Some(linked.clone()) {} }).await;
    let open = n1.cidr("inbound_cidr").unwrap().hold(ADDRESS).unwrap();
    let change = soon("n0 tells of the change", changes.next()).await.unwrap();
    assert_eq!((change.key.as_str(), change.count, change.lost), ("192.0.2.1", 1, 0));
    assert!(n0.counters().await.unwrap().deltas_in > 0);
    let members = n0.members().await.unwrap();
    assert!(members[1].to_string().starts_with(&format!("n1 alive at {}, linked", n1.listen_addr())), "{}", members[1]);
    let found = n0.verify(PATIENCE).await.unwrap().to_string();
    assert!(found.starts_with("converged: objects 1, actors 2, copies "), "{found}");
    drop(open);

    n1.shutdown().await;
    let left = NodeEvent::Life { node: name, life: Life::Left };
    soon("n0 tells that n1 has left", async { while events.next().await != Some(left.clone()) {} }).await;

    // A stopped node answers with an error.
    assert_eq!(n1.members().await, Err(NodeGone));
    assert_eq!(n1.counters().await, Err(NodeGone));
    assert_eq!(n1.verify(PATIENCE).await, Err(NodeGone));
    assert_eq!(n1.forget(n0.name()).await, Err(NodeGone));
    n0.shutdown().await;
    soon("the events end", async { while events.next().await.is_some() {} }).await;
    soon("the changes end", async { while changes.next().await.is_some() {} }).await;
    assert_eq!(soon("there are none", n0.events().next()).await, None);
}

/// A program waits until another node holds its change, and that node then reads it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_confirmed_by_another_node_and_read_there() {
    let mut identities = identities(&["n0", "n1"]);
    let builder = |name: &str, identity| Node::builder(name).identity(identity).replicate(Class::InboundCidr.into());
    let (second, first) = (identities.pop().unwrap(), identities.pop().unwrap());
    let n0 = builder("n0", first).start().await.unwrap();
    let n1 = builder("n1", second).seed(n0.listen_addr().to_string()).start().await.unwrap();
    soon("n1 joins", n1.joined()).await.unwrap();
    let nobody = n0.flush_until(3, Duration::ZERO).await.unwrap();
    assert!(!nobody.is_reached() && nobody.wanted == 3);
    n0.cidr("inbound_cidr").unwrap().add(ADDRESS, 3).unwrap();
    let confirmed = n0.flush_until(1, PATIENCE).await.unwrap();
    assert_eq!((confirmed.holders.clone(), confirmed.is_reached()), (vec![n1.name().clone()], true));
    let count = n1.cidr("inbound_cidr").unwrap().count(ADDRESS.into());
    assert_eq!(count.total, 3);
    assert!(n1.reach(&confirmed.position, Duration::ZERO).await.unwrap());
    assert_eq!(count.at_least_fresh(PATIENCE).unwrap().total, 3);

    // n1 does not get what n0 counts without a link to it.
    n1.shutdown().await;
    n0.cidr("inbound_cidr").unwrap().add(ADDRESS, 1).unwrap();
    let late = n0.flush_until(1, Duration::from_millis(50)).await.unwrap();
    assert!(!late.is_reached() && late.holders.is_empty());
    assert!(n0.reach(&late.position, PATIENCE).await.unwrap(), "a node holds its own changes");
    n0.shutdown().await;
    assert_eq!(n0.flush_until(0, PATIENCE).await, Err(NodeGone));
}

/// A node that finds no other node has not joined. A caller that waits for it receives an error when the node stops.
#[tokio::test]
async fn who_waits_for_a_node_that_goes_is_told() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = socket.local_addr().unwrap().to_string();
    let node = alone(|builder| builder.seed(nobody.clone())).await.unwrap();
    let waiting = node.clone();
    let waiting = tokio::spawn(async move { waiting.joined().await });
    node.shutdown().await;
    assert_eq!(soon("it ends", waiting).await.unwrap(), Err(NodeGone));
}

/// A program can declare the same limits as a configuration file, and the same checks apply.
#[tokio::test]
async fn limits_are_declared_by_the_builder() {
    let maxima = |builder: Builder| {
        let domain = OutboundScope::Domain("Example.COM".to_owned());
        let rate = ThrottleSpec::new("2/1h".parse().unwrap(), Strength::Soft);
        let builder = builder.inbound_maximum(24, 2).inbound_maximum(64, 1).outbound_maximum(domain.clone(), 1);
        builder.outbound_messages(domain.clone(), rate).outbound_connections(domain, rate)
    };
    let counted = [Class::InboundCidr, Class::OutboundConnections, Class::OutboundMessages];
    let node =
        alone(|builder| counted.iter().fold(maxima(builder), |builder, class| builder.replicate((*class).into())));
    let node = node.await.unwrap();
    let limits = node.limits();
    let _open = [limits.try_accept(ADDRESS).unwrap(), limits.try_accept("192.0.2.2".parse().unwrap()).unwrap()];
    let full = limits.try_accept("192.0.2.3".parse().unwrap()).unwrap_err();
    assert_eq!(full.to_string(), "inbound 192.0.2.0/24: 2 are open and 2 are allowed");
    let _v6 = limits.try_accept("2001:db8::1".parse().unwrap()).unwrap();
    assert!(limits.try_accept("2001:db8::2".parse().unwrap()).is_err());
    let to = Scope::default().domain("example.com");
    let _out = limits.try_open(&to).unwrap();
    assert!(matches!(limits.try_open(&to), Err(Refusal::Maximum { maximum: 1, .. })));
    limits.try_send(&to, 2).unwrap();
    let refused = limits.try_send(&to, 1).unwrap_err();
    assert!(matches!(refused, Refusal::Rate { reason: Reason::Empty, after: Some(_), .. }), "{refused}");
    node.shutdown().await;

    let error = alone(maxima).await.unwrap_err();
    assert!(matches!(error, StartError::Declared(DeclaredError::NotReplicated(_))), "{error}");
}

/// A refusal states its reason.
#[tokio::test]
async fn a_refusal_has_its_reason() {
    let founders = ["n0", "n1"].map(|name| NodeName::new(name).unwrap());
    let node = alone(|builder| {
        let builder = builder.replicate(Class::SharedNamedThrottles.into());
        builder.founders(founders.clone(), Duration::from_secs(30)).permits("uploads", 4)
    });
    let node = node.await.unwrap();
    let rate = |text: &str| text.parse::<Rate>().unwrap();
    let soft = node.create_throttle("soft", ThrottleSpec::new(rate("4/1h"), Strength::Soft)).unwrap();
    let refused = |decision: Decision| match decision {
        Decision::Refused { reason, .. } => reason,
        Decision::Admitted => panic!("it is admitted"),
    };
    assert_eq!(refused(soft.take(5)), Reason::Burst);
    while soft.take(1).admitted() {}
    assert_eq!((refused(soft.take(1)), refused(soft.check(1))), (Reason::Empty, Reason::Empty));
    // One of two founders runs: no node has a share yet.
    let hard = node.create_throttle("hard", ThrottleSpec::new(rate("4/1h"), Strength::Hard)).unwrap();
    assert_eq!(refused(hard.take(1)), Reason::Founding);
    let permits = node.permits("uploads").unwrap();
    assert_eq!(permits.open().map(drop), Err(Reason::Founding));
    assert!(permits.try_open().is_none());
    node.shutdown().await;
}

/// Two programs create a throttle of the same name with another rate, burst or behaviour in a partition. Each node reports it,
/// until the throttles are alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttles_that_programs_create_are_compared() {
    let mut identities = identities(&["n0", "n1"]);
    let builder =
        |name: &str, identity| Node::builder(name).identity(identity).replicate(Class::SharedNamedThrottles.into());
    let (second, first) = (identities.pop().unwrap(), identities.pop().unwrap());
    let n0 = builder("n0", first).start().await.unwrap();
    let n1 = builder("n1", second).seed(n0.listen_addr().to_string()).start().await.unwrap();
    let soft = |rate: &str| ThrottleSpec::new(rate.parse().unwrap(), Strength::Soft);
    let ours = soft("4/1s");
    let burst = ThrottleSpec::new(ours.rate.with_burst(9).unwrap(), Strength::Soft);
    let closed = ours.with_on_partition(OnPartition::FailClosed);
    n0.create_throttle("campaign", ours).unwrap();
    for (theirs, there) in [(soft("5/1s"), "5/1000ms"), (burst, "burst=9"), (closed, "fail_closed")] {
        n1.create_throttle("campaign", theirs).unwrap();
        for (node, has) in [(&n0, there.to_owned()), (&n1, "4/1000ms".to_owned())] {
            let named = |lines: &[String]| lines.len() == 1 && lines[0].starts_with("throttle campaign is ");
            let differs = |lines: &[String]| named(lines) && lines[0].contains(&has) && lines[0].contains(" here and ");
            soon("the difference is reported", async {
                while !differs(&node.differences().iter().map(ToString::to_string).collect::<Vec<_>>()) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    }
    n1.create_throttle("campaign", ours).unwrap();
    soon("the throttles are alike", async {
        while !n0.differences().is_empty() || !n1.differences().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[test]
fn results_can_be_written_as_json() {
    fn serialize<T: Serialize>() {}
    serialize::<Count>();
    serialize::<Verification>();
    serialize::<Finding>();
    serialize::<Member>();
    serialize::<Counters>();
    serialize::<Standing>();
    serialize::<PoolStanding>();
    serialize::<Decision>();
    serialize::<NodeEvent>();
    serialize::<crate::Change>();
    serialize::<crate::Block>();
    serialize::<crate::Entry>();
    serialize::<crate::CacheEntry>();
    serialize::<crate::SeriesEntry>();
    serialize::<crate::Refusal>();
    serialize::<crate::Joining>();
    #[cfg(feature = "state")]
    serialize::<crate::StateStanding>();
    serialize::<crate::Difference>();
}
