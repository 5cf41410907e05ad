//! Tests of reloads on running nodes.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use tallymesh_schemas::config::OutboundScope;
use tallymesh_schemas::key::KeyError;
use tallymesh_schemas::{
    Bounds, Class, Kind, NodeName, SeriesName, SeriesSpec, Strength, StructureName, StructureSpec, ThrottleSpec,
};

use crate::fixtures::identities;
use crate::{Builder, CacheError, ConfigChange, Effect, Node, ReloadError, ReloadMode, Scope, StartError};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Longer than any step of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn started(configure: impl Fn(Builder) -> Builder) -> Node {
    configure(Node::builder("n0").identity(identities(&["n0"]).remove(0))).start().await.unwrap()
}

/// Reloads. Returns what was changed at once, and what waits for a restart.
async fn reload(node: &Node, configure: impl Fn(Builder) -> Builder) -> (Vec<String>, Vec<String>) {
    let dry = node.reload(configure(Node::builder("n0")), ReloadMode::DryRun).await.unwrap();
    let changes = node.reload(configure(Node::builder("n0")), ReloadMode::Apply).await.unwrap();
    assert_eq!(dry, changes);
    let (now, later): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.effect == Effect::Now);
    let what = |changes: Vec<ConfigChange>| changes.into_iter().map(|change| change.what).collect::<Vec<_>>();
    (what(now), what(later))
}

fn named(name: &str, class: Class) -> StructureSpec {
    StructureSpec::new(StructureName::new(name).unwrap(), class)
}

fn soft(rate: &str) -> ThrottleSpec {
    ThrottleSpec::new(rate.parse().unwrap(), Strength::Soft)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

/// An object that goes refuses additions, and what is open can be closed. When it comes back, it has what is still open.
#[tokio::test]
async fn an_object_that_goes_and_comes_back_has_what_is_open() {
    let with = |builder: Builder| builder.replicate(Class::InboundCidr.into()).replicate(named("c", Class::Cache));
    let node = started(with).await;
    let (open, cache) = (node.cidr("inbound_cidr").unwrap(), node.cache("c").unwrap());
    let (first, second) = (open.hold(ADDRESS).unwrap(), open.hold(ADDRESS).unwrap());
    open.add(ADDRESS, 3).unwrap();
    cache.set("k", "v", Duration::ZERO).unwrap();
    let without = |builder: Builder| builder.replicate(Class::OutboundCidr.into());
    let (now, later) = reload(&node, without).await;
    assert_eq!(now, ["object outbound_cidr", "object inbound_cidr", "object c"]);
    assert!(later.is_empty(), "{later:?}");
    let unknown = node.cidr("inbound_cidr").unwrap_err().to_string();
    assert_eq!(unknown, "no object \"inbound_cidr\"; this node replicates outbound_cidr");
    assert_eq!(open.add(ADDRESS, 1), Err(KeyError::Detached));
    assert!(open.hold(ADDRESS).is_err() && open.counter(ADDRESS).is_err());
    assert!(matches!(cache.set("k", "w", Duration::ZERO), Err(CacheError::Detached)));
    open.add(ADDRESS, -1).unwrap();
    drop(first);

    let (now, _) = reload(&node, with).await;
    assert_eq!(now, ["object inbound_cidr", "object c", "object outbound_cidr"]);
    assert_eq!(node.cidr("inbound_cidr").unwrap().count(ADDRESS.into()).total, 3);
    assert_eq!(&*cache.get("k").unwrap(), b"v");
    open.add(ADDRESS, 1).unwrap();
    drop(second);
    assert_eq!(open.count(ADDRESS.into()).total, 3);
    node.shutdown().await;
}

/// A node that gets an object later than its peer receives what the peer has, and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_object_has_the_rows_of_peers() {
    let mut identities = identities(&["n0", "n1"]);
    let second = Node::builder("n1").identity(identities.pop().unwrap());
    let all = |builder: Builder| {
        let series = SeriesSpec::new(SeriesName::new("logins").unwrap(), Kind::GaugeTable, 3600, 3);
        builder.replicate(Class::InboundCidr.into()).replicate(named("c", Class::Cache)).series(series)
    };
    let n1 = all(second).start().await.unwrap();
    let seed = n1.listen_addr().to_string();
    let n0 = Node::builder("n0").identity(identities.pop().unwrap()).seed(seed.clone()).start().await.unwrap();
    n0.joined().await.unwrap();
    n1.cidr("inbound_cidr").unwrap().add(ADDRESS, 2).unwrap();
    n1.cache("c").unwrap().set("k", "v", Duration::ZERO).unwrap();
    n1.series("logins").unwrap().add("alice", 4).unwrap();
    reload(&n0, |builder| all(builder.seed(seed.clone()))).await;
    let (open, cache, logins) =
        (n0.cidr("inbound_cidr").unwrap(), n0.cache("c").unwrap(), n0.series("logins").unwrap());
    until("the rows come", || open.count(ADDRESS.into()).total == 2).await;
    until("the entries come", || cache.get("k").is_some()).await;
    until("the events come", || logins.count("alice", 0..=1).unwrap().total == 4).await;
    open.add(ADDRESS, 1).unwrap();
    cache.set("l", "w", Duration::ZERO).unwrap();
    until("the rows go", || n1.cidr("inbound_cidr").unwrap().count(ADDRESS.into()).total == 3).await;
    until("the entries go", || n1.cache("c").unwrap().get("l").is_some()).await;
    assert!(n0.differences().is_empty() && n1.differences().is_empty());
    let found = n0.verify(PATIENCE).await.unwrap().to_string();
    assert!(found.starts_with("converged"), "{found}");
    n0.shutdown().await;
    n1.shutdown().await;
}

/// Bounds, windows and limits change in place.
#[tokio::test]
async fn bounds_windows_and_limits_change_in_place() {
    let with = |windows: u32, keys: u64, entries: u64, rate: &'static str| {
        move |builder: Builder| {
            let max = NonZeroU64::new(keys).unwrap();
            let bounds = Bounds { elements: NonZeroU64::new(entries), bytes: None };
            let series = SeriesSpec::new(SeriesName::new("logins").unwrap(), Kind::GaugeTable, 3600, windows);
            let scope = OutboundScope::Domain("example.com".to_owned());
            [Class::SharedNamedThrottles, Class::OutboundMessages, Class::OutboundConnections]
                .into_iter()
                .fold(builder, |builder, class| builder.replicate(class.into()))
                .replicate(StructureSpec::from(Class::InboundCidr).with_max_keys(max))
                .replicate(named("c", Class::Cache).with_bounds(bounds))
                .series(series)
                .throttle("campaign", soft(rate))
                .outbound_messages(scope.clone(), soft(rate))
                .outbound_maximum(scope, keys)
        }
    };
    let node = started(with(3, 1, 9, "5/1h")).await;
    let (open, cache, logins) =
        (node.cidr("inbound_cidr").unwrap(), node.cache("c").unwrap(), node.series("logins").unwrap());
    let (limits, to) = (node.limits(), Scope::default().domain("example.com"));
    open.add(ADDRESS, 1).unwrap();
    assert!(open.add("192.0.2.2".parse::<IpAddr>().unwrap(), 1).is_err());
    for n in 0..9 {
        cache.set(n.to_string(), "v", Duration::ZERO).unwrap();
    }
    logins.add("alice", 4).unwrap();
    limits.try_send(&to, 5).unwrap();
    let held = limits.try_open(&to).unwrap();
    assert!(limits.try_open(&to).is_err());
    let campaign = node.throttle("campaign").unwrap();
    assert!(campaign.take(4).admitted());

    let (now, later) = reload(&node, with(6, 2, 4, "7/1h")).await;
    assert_eq!(later, Vec::<String>::new());
    let expected = [
        "object inbound_cidr",
        "object c",
        "series logins of 3600 s",
        "throttle campaign",
        "throttle of messages domain example.com",
        "maximum domain example.com",
    ];
    assert_eq!(now, expected);
    open.add("192.0.2.2".parse::<IpAddr>().unwrap(), 1).unwrap();
    assert_eq!(cache.len(), 9);
    cache.set("x", "v", Duration::ZERO).unwrap();
    cache.set("y", "v", Duration::ZERO).unwrap();
    assert!(cache.len() <= 9 && cache.get("y").is_some(), "{}", cache.len());
    assert_eq!(logins.count("alice", 0..=5).unwrap().total, 4);
    assert_eq!(logins.spec().windows, 6);
    let _second = limits.try_open(&to).unwrap();
    assert!(limits.try_open(&to).is_err() && limits.try_send(&to, 5).is_err());
    assert!(!campaign.take(4).admitted() && campaign.take(1).admitted());
    drop(held);

    let (now, _) = reload(&node, with(2, 2, 4, "7/1h")).await;
    assert_eq!(now, ["series logins of 3600 s"]);
    assert_eq!((logins.count("alice", 0..=5).unwrap().total, logins.spec().windows), (4, 2));
    node.shutdown().await;
}

/// What a running node cannot change is named, and everything else is done. What is wrong changes nothing.
#[tokio::test]
async fn what_needs_a_restart_is_named_and_what_is_wrong_changes_nothing() {
    let founders = || ["n0", "n1"].map(|name| NodeName::new(name).unwrap());
    let hard = |rate: &str| ThrottleSpec::new(rate.parse().unwrap(), Strength::Hard);
    let with = |rate: &'static str, permits: u64| {
        move |builder: Builder| {
            let builder = builder.replicate(Class::SharedNamedThrottles.into());
            builder.founders(founders(), PATIENCE).throttle("hard", hard(rate)).permits("uploads", permits)
        }
    };
    let node = started(with("5/1h", 4)).await;
    let (now, later) = reload(&node, with("6/1h", 5)).await;
    assert_eq!((now, later), (vec![], vec!["throttle hard".to_owned(), "permits uploads".to_owned()]));
    let (now, later) = reload(&node, |builder| builder.replicate(Class::InboundCidr.into())).await;
    assert_eq!(now, ["object inbound_cidr"]);
    let waits = ["founders", "object shared_named_throttles", "throttle hard", "permits uploads"];
    let mut sorted = later.clone();
    sorted.sort();
    let mut waits = waits.to_vec();
    waits.sort();
    assert_eq!(sorted, waits, "{later:?}");
    assert_eq!(node.limits().config().permits.len(), 1);

    let unreplicated = with("5/1h", 4)(Node::builder("n0")).inbound_maximum(64, 3).throttle("hard", hard("5/1h"));
    let refused = node.reload(unreplicated, ReloadMode::Apply).await.unwrap_err();
    assert!(matches!(refused, ReloadError::Refused(StartError::Declared(_))), "{refused}");
    let other = node.reload(Node::builder("n7"), ReloadMode::Apply).await.unwrap_err();
    assert!(matches!(other, ReloadError::OtherNode { .. }), "{other}");
    assert!(node.cidr("inbound_cidr").is_ok());
    #[cfg(feature = "config")]
    assert!(matches!(node.reload_file(ReloadMode::Apply).await, Err(ReloadError::NoFile)));
    node.shutdown().await;
    let gone = node.reload(Node::builder("n0"), ReloadMode::Apply).await;
    assert!(matches!(gone, Err(ReloadError::Gone)));
}
