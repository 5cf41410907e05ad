//! Nodes whose configurations of a hard limit differ: no more than the smallest is ever admitted, also while a change goes round, and
//! every node says what differs.

use tallymesh_harness::{Cluster, Limits};

use super::{RECLAIM, SECOND, TABLE, ask, bit, hard, limited};

const NODES: [&str; 3] = ["n00", "n01", "n02"];

fn limits() -> Limits {
    Limits::founded(&NODES, RECLAIM).throttle(TABLE, "t", hard("100/1s"))
}

fn differences(cluster: &Cluster, node: &str) -> Vec<String> {
    let limiters = cluster.node(node).process().unwrap().limiters();
    let all = limiters.values().flat_map(|limiter| limiter.differences());
    all.map(|difference| format!("{}: {difference}", difference.node)).collect()
}

/// One node has 500/s, two have 100/s. The checker sees every admission (I9).
#[test]
fn a_node_has_a_larger_limit() {
    let mut cluster = limited(31, 3, limits().but_on("n02", "t", hard("500/1s")));
    ask(&mut cluster, SECOND * 30, &|_, _| 500).unwrap();
    for node in NODES {
        let said = differences(&cluster, node);
        assert!(!said.is_empty(), "{node} says nothing");
        assert!(said.iter().all(|line| line.contains("100/1000ms") && line.contains("500/1000ms")), "{said:?}");
    }
}

/// A node begins with another configuration while the others use theirs: they go on with their shares, and it uses nothing.
#[test]
fn a_node_comes_back_with_a_larger_limit() {
    let mut cluster = limited(32, 3, limits());
    ask(&mut cluster, SECOND * 15, &|_, _| 300).unwrap();
    cluster.configure("n02", "t", hard("500/1s"));
    cluster.script("at 1s restart n02").unwrap();
    ask(&mut cluster, SECOND * 20, &|_, _| 300).unwrap();
    let got = ask(&mut cluster, SECOND * 10, &|_, _| 300).unwrap();
    assert!(got >= 600, "{got} of 667 that the other two have");
    let got = ask(&mut cluster, SECOND * 5, &|node, _| if node == 2 { 300 } else { 0 }).unwrap();
    assert_eq!(got, 0, "the one that differs admits nothing");
    NODES.iter().for_each(|node| assert!(!differences(&cluster, node).is_empty(), "{node} says nothing"));
    bit(&cluster, &["restart"]);
}

/// All nodes get another configuration, one after the other, up and down.
#[test]
fn a_change_goes_round() {
    let mut cluster = limited(33, 3, limits());
    ask(&mut cluster, SECOND * 15, &|_, _| 300).unwrap();
    for rate in ["200/1s", "50/1s"] {
        let new = hard(rate);
        // Nobody uses the new one before all have it, and the checker demands the old one until then.
        for node in NODES {
            cluster.configure(node, "t", new);
            cluster.script(&format!("at 1s restart {node}")).unwrap();
            ask(&mut cluster, SECOND * 5, &|_, _| 300).unwrap();
        }
        cluster.demand_rate("t", new.rate, 500);
        ask(&mut cluster, SECOND * 20, &|_, _| 300).unwrap();
        let got = ask(&mut cluster, SECOND * 10, &|_, _| 300).unwrap();
        let whole = new.rate.tokens() * 10;
        assert!(got >= whole * 95 / 100 && got <= whole + whole / 10, "{got} of {whole}");
        NODES.iter().for_each(|node| assert_eq!(differences(&cluster, node), Vec::<String>::new(), "{node}"));
    }
    bit(&cluster, &["restart"]);
}

/// While a change goes round, a partition keeps one node with the old configuration apart. The others go on with the new one when
/// that node has lost its share, and not before: shares of two configurations are never there at the same time.
#[test]
fn a_change_goes_round_in_a_partition() {
    let mut cluster = limited(34, 3, limits());
    ask(&mut cluster, SECOND * 15, &|_, _| 300).unwrap();
    cluster.configure("n00", "t", hard("500/1s"));
    cluster.configure("n01", "t", hard("500/1s"));
    cluster.script("at 1s cut n02 from rest; at 2s restart n00,n01; at 25s heal").unwrap();
    ask(&mut cluster, SECOND * 2, &|_, _| 300).unwrap();
    cluster.demand_rate("t", hard("500/1s").rate, 500);
    let (mut old, mut new) = (0, 0);
    for _ in 0..400 {
        ask(&mut cluster, SECOND / 10, &|_, _| 300).unwrap();
        let [first, second, apart] = NODES.map(|node| units(&cluster, node));
        assert!(apart == 0 || first + second == 0, "{first} and {second} of the new, {apart} of the old");
        (old, new) = (old + u32::from(apart > 0), new + u32::from(first + second > 0));
    }
    assert!(old > 0 && new > 0, "{old} and {new}");
    bit(&cluster, &["cut", "restart"]);
}

/// What a node may use of the throttle.
fn units(cluster: &Cluster, node: &str) -> u64 {
    let now = cluster.structure(node, TABLE).1.mono;
    let limiters = cluster.node(node).process().unwrap().limiters();
    limiters.values().map(|limiter| limiter.units("t", now)).sum()
}
