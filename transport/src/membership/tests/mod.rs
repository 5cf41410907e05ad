//! The membership protocol in virtual time.

mod hostile;
mod sim;

use tallymesh_schemas::actor::Incarnation;

use crate::member::MemberState;
use crate::membership::protocol::{Membership, MembershipEvent};
use crate::membership::tests::sim::{Sim, name, secs};

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn a_node_that_joins_one_member_is_known_to_all() {
    let mut sim = Sim::new(&FIVE);
    for name in &FIVE[1..] {
        sim.link("a", name);
    }
    sim.run(secs(2));
    sim.assert_whole(&FIVE);
}

#[test]
fn a_lost_join_is_asked_again() {
    let mut sim = Sim::new(&FIVE[..3]);
    sim.link("b", "c");
    sim.run(secs(2));
    sim.cut = true;
    sim.link("a", "b");
    sim.run(secs(1));
    assert!(sim.lost > 0, "the cut bit");
    assert_eq!((sim.sees("a", "c"), sim.sees("c", "a")), (None, None));
    sim.cut = false;
    sim.run(secs(2));
    sim.assert_whole(&FIVE[..3]);
}

#[test]
fn a_peer_that_sends_no_datagram_is_declared_dead() {
    let mut sim = Sim::new(&["a", "b"]);
    sim.cut = true;
    sim.link("a", "b");
    sim.run(secs(1));
    sim.assert_whole(&["a", "b"]);
    sim.unlink("a", "b");
    sim.run(secs(9));
    assert_eq!(sim.sees("a", "b"), Some((1, MemberState::Dead)));
}

#[test]
fn a_death_is_noticed_within_ten_seconds() {
    for size in 2..=5 {
        let names = &FIVE[..size];
        let mut sim = Sim::new(names);
        sim.mesh(names);
        sim.run(secs(20));
        sim.assert_whole(names);
        let death = sim.now;
        sim.kill("a");
        sim.run(secs(10));
        for name in &names[1..] {
            assert_eq!(sim.sees(name, "a"), Some((1, MemberState::Dead)), "{name} of {size}");
            assert!(sim.since(name, "a", MemberState::Suspect).is_some_and(|at| at > death));
            assert!(sim.since(name, "a", MemberState::Dead).is_some_and(|at| at > death + secs(2)), "not rash");
        }
        for name in names[1..].iter().flat_map(|a| names[1..].iter().filter(move |b| *b != a).map(move |b| (a, b))) {
            assert_eq!(sim.sees(name.0, name.1), Some((1, MemberState::Alive)));
        }
    }
}

#[test]
fn a_missing_link_alone_makes_no_member_dead() {
    let mut sim = Sim::new(&FIVE);
    sim.mesh(&FIVE);
    sim.run(secs(5));
    sim.unlink("a", "b");
    sim.run(secs(60));
    sim.assert_whole(&FIVE);
    assert!(sim.node("a").swim.unreachable() > 0, "a probed b without a link");
}

#[test]
fn a_cut_cluster_is_whole_again_soon_after() {
    let mut sim = Sim::new(&FIVE);
    sim.mesh(&FIVE);
    sim.run(secs(5));
    sim.cut = true;
    for (i, a) in FIVE.iter().enumerate() {
        for b in &FIVE[i + 1..] {
            sim.unlink(a, b);
        }
    }
    sim.run(secs(180));
    for a in FIVE {
        for b in FIVE.iter().filter(|b| **b != a) {
            assert_eq!(sim.sees(a, b), Some((1, MemberState::Dead)), "{a} of {b}");
        }
    }
    sim.cut = false;
    sim.mesh(&FIVE);
    sim.run(secs(3));
    sim.assert_whole(&FIVE);
    sim.run(secs(60));
    sim.assert_whole(&FIVE);
}

#[test]
fn two_nodes_that_declared_each_other_dead_come_back() {
    let mut sim = Sim::new(&["a", "b"]);
    sim.link("a", "b");
    sim.run(secs(5));
    sim.unlink("a", "b");
    sim.run(secs(20));
    assert_eq!(sim.sees("a", "b"), Some((1, MemberState::Dead)));
    assert_eq!(sim.sees("b", "a"), Some((1, MemberState::Dead)));
    sim.link("a", "b");
    sim.run(secs(3));
    sim.assert_whole(&["a", "b"]);
}

#[test]
fn a_stopped_node_comes_back_and_declares_no_member_dead() {
    let mut sim = Sim::new(&FIVE[..3]);
    sim.mesh(&FIVE[..3]);
    sim.run(secs(5));
    sim.node("a").stopped = true;
    sim.run(secs(30));
    assert_eq!(sim.sees("b", "a"), Some((1, MemberState::Dead)));
    sim.node("a").stopped = false;
    sim.run(secs(5));
    sim.assert_whole(&FIVE[..3]);
    let resumed = secs(35);
    for other in ["b", "c"] {
        assert!(sim.since("a", other, MemberState::Suspect).is_none_or(|at| at < resumed), "the pause was forgiven");
    }
}

#[test]
fn a_restarted_node_replaces_its_earlier_run_at_once() {
    let mut sim = Sim::new(&FIVE[..3]);
    sim.mesh(&FIVE[..3]);
    sim.run(secs(5));
    sim.kill("a");
    sim.start("a", 2);
    sim.link("a", "b");
    sim.run(secs(1));
    for other in ["b", "c"] {
        assert_eq!(sim.sees(other, "a"), Some((2, MemberState::Alive)));
        assert_eq!(sim.since(other, "a", MemberState::Dead), None, "it was never seen dead");
    }
    sim.run(secs(30));
    assert_eq!(sim.sees("c", "a"), Some((2, MemberState::Alive)));
}

#[test]
fn a_node_that_leaves_is_not_declared_dead() {
    let mut sim = Sim::new(&FIVE);
    sim.mesh(&FIVE);
    sim.run(secs(5));
    let now = sim.now;
    sim.node("a").swim.leave(now);
    sim.run(secs(2));
    for other in &FIVE[1..] {
        let now = sim.now;
        sim.node(other).swim.handle_goodbye(now, &name("a"), Incarnation(1));
    }
    sim.kill("a");
    sim.run(secs(30));
    for other in &FIVE[1..] {
        assert_eq!(sim.sees(other, "a"), Some((1, MemberState::Left)), "{other}");
        assert_eq!(sim.since(other, "a", MemberState::Dead), None);
    }
    sim.start("a", 2);
    sim.link("a", "b");
    sim.run(secs(1));
    assert_eq!(sim.sees("c", "a"), Some((2, MemberState::Alive)));
}

#[test]
fn a_goodbye_counts_at_its_receivers_and_is_a_death_elsewhere() {
    let mut sim = Sim::new(&FIVE);
    sim.mesh(&FIVE);
    sim.run(secs(5));
    let now = sim.now;
    sim.node("b").swim.handle_goodbye(now, &name("a"), Incarnation(1));
    sim.kill("a");
    sim.run(secs(2));
    assert_eq!(sim.sees("b", "a"), Some((1, MemberState::Left)));
    for other in &FIVE[2..] {
        assert_eq!(sim.sees(other, "a"), Some((1, MemberState::Dead)), "{other} has only b's word");
    }
}

#[test]
fn a_renewed_run_is_seen_as_such() {
    let mut sim = Sim::new(&FIVE[..3]);
    sim.mesh(&FIVE[..3]);
    sim.run(secs(5));
    let now = sim.now;
    sim.unlink("a", "b");
    sim.unlink("a", "c");
    sim.node("a").swim.renew(now, Incarnation(9));
    sim.node("a").us.incarnation = Incarnation(9);
    sim.link("a", "b");
    sim.run(secs(1));
    assert_eq!(sim.sees("c", "a"), Some((9, MemberState::Alive)));
}

#[test]
fn a_forgotten_member_is_gone_and_may_return() {
    let mut sim = Sim::new(&FIVE[..3]);
    sim.mesh(&FIVE[..3]);
    sim.run(secs(5));
    sim.kill("a");
    sim.run(secs(15));
    let now = sim.now;
    sim.node("b").swim.forget(now, &name("a"));
    sim.run(secs(1));
    assert!(matches!(sim.nodes[&name("b")].history.last(), Some((_, MembershipEvent::Dropped(n))) if *n == name("a")));
    sim.start("a", 1);
    sim.link("a", "b");
    sim.link("a", "c");
    sim.run(secs(3));
    assert_eq!(sim.sees("b", "a"), Some((1, MemberState::Alive)));
    assert_eq!(sim.sees("c", "a"), Some((1, MemberState::Alive)), "c had it dead, and it renewed");
}

#[test]
fn an_idle_cluster_is_quiet() {
    let names: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut sim = Sim::new(&names);
    sim.mesh(&names);
    sim.run(secs(60));
    let before: Vec<(usize, usize)> = sim.nodes.values().map(|node| (node.sent, node.sent_bytes)).collect();
    sim.run(secs(100));
    for (node, (sent, bytes)) in sim.nodes.values().zip(before) {
        let a_second = (node.sent - sent, node.sent_bytes - bytes);
        assert!(a_second.0 < 400 && a_second.1 < 40_000, "in 100 s {} sent {a_second:?}", node.us.name);
    }
}
