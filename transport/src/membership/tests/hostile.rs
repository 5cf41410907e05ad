//! What other members must not be able to do.

use std::collections::BTreeSet;
use std::time::Duration;

use foca::{Codec, State};
use tallymesh_schemas::actor::Incarnation;
use tallymesh_schemas::bounds::{INCARNATION, INCARNATION_REPORTED};

use crate::bounds::{INTRODUCED, INTRODUCED_ALL, MEMBERS};
use crate::member::MemberState;
use crate::membership::codec::{Datagram, IdCodec};
use crate::membership::id::Id;
use crate::membership::protocol::{DatagramError, Membership, MembershipEvent, Peer};
use crate::membership::swim::Swim;
use crate::membership::tests::FIVE;
use crate::membership::tests::sim::{Sim, name, peer, secs};

/// A datagram from one run to another with statements about members.
fn words(from: &Peer, to: &Peer, members: &[foca::Member<Id>]) -> Vec<u8> {
    says(foca::Message::Gossip, from, to, members)
}

fn says(message: foca::Message<Id>, from: &Peer, to: &Peer, members: &[foca::Member<Id>]) -> Vec<u8> {
    let header = foca::Header { src: Id::first(from), src_incarnation: 0, dst: Id::first(to), message };
    Datagram { header, members: members.to_vec() }.write().unwrap()
}

fn deliver(swim: &mut Swim, now: Duration, from: &Peer, us: &Peer, members: &[foca::Member<Id>]) {
    swim.handle_datagram(now, &from.name, &words(from, us, members)).unwrap();
}

fn events(swim: &mut Swim) -> Vec<MembershipEvent> {
    std::iter::from_fn(|| swim.poll_event()).collect()
}

#[test]
fn an_older_run_learns_that_it_is_superseded_and_declares_no_member_dead() {
    let (us, from) = (peer("a", 1), peer("b", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, from.clone());
    let newer = foca::Member::alive(Id::first(&peer("a", 7)));
    swim.handle_datagram(Duration::ZERO, &from.name, &words(&from, &us, &[newer])).unwrap();
    let events: Vec<_> = std::iter::from_fn(|| swim.poll_event()).collect();
    assert_eq!(events.last(), Some(&MembershipEvent::Superseded { by: Incarnation(7), addr: Some(peer("a", 7).addr) }));
    assert!(!swim.members.contains_key(&us.name), "a run does not judge its own name");
}

#[test]
fn a_life_that_this_run_did_not_live_is_answered_with_the_next() {
    let (us, from) = (peer("a", 1), peer("b", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, from.clone());
    while swim.poll_transmit().is_some() {}
    let other = foca::Member::down(Id { generation: 5, left: true, ..Id::first(&us) });
    swim.handle_datagram(Duration::ZERO, &from.name, &words(&from, &us, &[other])).unwrap();
    let (to, data) = swim.poll_transmit().expect("it says so");
    assert_eq!(to, from.name);
    let header = IdCodec.decode_header(&data[..]).unwrap();
    assert_eq!(header.src.generation, 6);
}

#[test]
fn only_the_run_at_the_other_end_is_believed_and_nonsense_is_not() {
    let (us, from) = (peer("b", 1), peer("x", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, from.clone());
    let alive = foca::Member::alive(Id::first(&peer("c", 1)));
    for liar in [peer("y", 1), peer("x", 2)] {
        let said = swim.handle_datagram(Duration::ZERO, &from.name, &words(&liar, &us, std::slice::from_ref(&alive)));
        assert!(matches!(said, Err(DatagramError::Sender { .. })));
    }
    let good = words(&from, &us, std::slice::from_ref(&alive));
    let header = words(&from, &us, &[]).len() - 2;
    for len in (0..good.len()).filter(|len| *len != header) {
        let cut = swim.handle_datagram(Duration::ZERO, &from.name, &good[..len]);
        assert!(cut.is_err(), "{len} of {}", good.len());
    }
    let noise = swim.handle_datagram(Duration::ZERO, &from.name, &[0xff; 300]);
    assert!(matches!(noise, Err(DatagramError::Malformed(_))));
    let nowhere = Peer { addr: "0.0.0.0:0".parse().unwrap(), ..peer("c", 1) };
    let impossible = words(&from, &us, &[foca::Member::alive(Id::first(&nowhere))]);
    assert!(matches!(swim.handle_datagram(Duration::ZERO, &from.name, &impossible), Err(DatagramError::Malformed(_))));
}

#[test]
fn runs_that_no_node_has_begun_are_ignored_and_the_rest_of_the_datagram_is_not() {
    let (us, from) = (peer("a", 1), peer("b", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, from.clone());
    let other = foca::Member::alive(Id::first(&peer("e", 1)));
    for victim in ["a", "c"] {
        let beyond = foca::Member::alive(Id::first(&peer(victim, INCARNATION - 1)));
        deliver(&mut swim, Duration::ZERO, &from, &us, &[beyond, other.clone()]);
        assert!(!swim.members.contains_key(&name("c")));
        assert!(swim.members.contains_key(&name("e")));
        assert!(!events(&mut swim).iter().any(|event| matches!(event, MembershipEvent::Superseded { .. })));
    }
    let last = foca::Member::alive(Id::first(&peer("c", INCARNATION_REPORTED)));
    deliver(&mut swim, Duration::ZERO, &from, &us, &[last]);
    assert!(swim.members.contains_key(&name("c")));
}

/// This node answers a peer's probes, even if the peer's table names no member that this node may believe.
#[test]
fn a_probe_is_answered_with_any_contents() {
    let (us, from) = (peer("a", 1), peer("b", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, from.clone());
    while swim.poll_transmit().is_some() {}
    let beyond = foca::Member::alive(Id::first(&peer("c", INCARNATION - 1)));
    let ping = says(foca::Message::Ping(7), &from, &us, &[beyond]);
    swim.handle_datagram(Duration::ZERO, &from.name, &ping).unwrap();
    let answers = std::iter::from_fn(|| swim.poll_transmit());
    let acks = answers.filter(|(_, data)| {
        let header = IdCodec.decode_header(&data[..]).unwrap();
        header.message == foca::Message::Ack(7)
    });
    assert_eq!(acks.count(), 1);
}

/// One member introduces a bounded number of names, all members together a bounded number, and a member that says hello always
/// gets a place.
#[test]
fn the_table_is_bounded_and_has_a_place_for_members_that_say_hello() {
    let us = peer("z", 1);
    let mut swim = Swim::new(&us, 1);
    let liars: Vec<_> = (0..8).map(|n| peer(&format!("liar{n}"), 1)).collect();
    liars.iter().for_each(|liar| swim.link_up(Duration::ZERO, liar.clone()));
    let never_met = |swim: &Swim| swim.members.values().filter(|known| known.introduced_by.is_some()).count();
    for (n, liar) in liars.iter().enumerate() {
        for number in 0..600 {
            let ghost = foca::Member::alive(Id::first(&peer(&format!("ghost{n}x{number}"), 1)));
            deliver(&mut swim, Duration::ZERO, liar, &us, &[ghost]);
        }
        assert_eq!(never_met(&swim), ((n + 1) * INTRODUCED).min(INTRODUCED_ALL));
    }
    for number in 0..MEMBERS - liars.len() {
        swim.link_up(Duration::ZERO, peer(&format!("real{number}"), 1));
    }
    assert_eq!((swim.members.len(), never_met(&swim)), (MEMBERS, 0), "those who said hello took the places");
    let real = (0..MEMBERS - liars.len()).all(|number| swim.members.contains_key(&name(&format!("real{number}"))));
    assert!(real && liars.iter().all(|liar| swim.members.contains_key(&liar.name)));
}

/// A node does not gossip names that it never had a link with, and drops them when it cannot reach them.
#[test]
fn a_name_that_never_said_hello_is_not_gossiped_and_is_dropped_soon() {
    let mut sim = Sim::new(&["a", "b", "c"]);
    sim.mesh(&["a", "b", "c"]);
    sim.run(secs(2));
    let liar = peer("b", 1);
    let us = peer("a", 1);
    let now = sim.now;
    for number in 0..200 {
        let ghost = foca::Member::alive(Id::first(&peer(&format!("ghost{number}"), 1)));
        deliver(&mut sim.node("a").swim, now, &liar, &us, &[ghost]);
    }
    assert_eq!(sim.node("a").swim.members.len(), 2 + INTRODUCED);
    sim.run(secs(60));
    assert_eq!(sim.node("c").swim.members.len(), 2, "a did not gossip about them");
    sim.run(secs(240));
    assert_eq!(sim.node("a").swim.members.len(), 2);
    sim.assert_whole(&["a", "b", "c"]);
}

/// When an operator forgets a member, the names that only that member has reported are dropped as well. A name that says hello
/// is no longer hearsay, and the node reports that.
#[test]
fn names_end_with_the_forgotten_member_that_introduced_them() {
    let (us, liar) = (peer("a", 1), peer("b", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, liar.clone());
    let names = ["ghost0", "ghost1", "real"];
    let members = names.map(|who| foca::Member::alive(Id::first(&peer(who, 1))));
    deliver(&mut swim, Duration::ZERO, &liar, &us, &members);
    let introducers = |events: Vec<MembershipEvent>| -> Vec<_> {
        let changed = events.into_iter().filter_map(|event| match event {
            MembershipEvent::Changed { peer, introduced_by, .. } => Some((peer.name.to_string(), introduced_by)),
            _ => None,
        });
        changed.filter(|(who, _)| names.contains(&who.as_str())).collect()
    };
    let hearsay = |who: &str| (who.to_owned(), Some(liar.name.clone()));
    let mut seen = introducers(events(&mut swim));
    seen.sort();
    assert_eq!(seen, names.map(hearsay));
    swim.link_up(Duration::ZERO, peer("real", 1));
    assert_eq!(introducers(events(&mut swim)), [("real".to_owned(), None)]);
    swim.forget(Duration::ZERO, &liar.name);
    assert_eq!(swim.members.keys().collect::<Vec<_>>(), [&name("real")]);
    let dropped = ["b", "ghost0", "ghost1"].map(|who| MembershipEvent::Dropped(name(who)));
    assert_eq!(events(&mut swim), dropped);
}

/// A member can say that a dead member lives. Only nodes without a link to the dead member believe it, and only while the lie
/// lasts. `forget` ends it, too.
#[test]
fn a_dead_member_is_alive_while_another_member_claims_it() {
    let names = ["a", "b", "c"];
    let mut sim = Sim::new(&names);
    sim.mesh(&names);
    sim.run(secs(5));
    sim.kill("c");
    sim.run(secs(60));
    assert_eq!(sim.sees("a", "c"), Some((1, MemberState::Dead)));
    let (us, liar) = (peer("a", 1), peer("b", 1));
    let lie = |sim: &mut Sim, generation| {
        let lives = foca::Member::alive(Id { generation, ..Id::first(&peer("c", 1)) });
        let now = sim.now;
        deliver(&mut sim.node("a").swim, now, &liar, &us, &[lives]);
        sim.run(secs(1));
    };
    lie(&mut sim, 1);
    assert_eq!(sim.sees("a", "c"), Some((1, MemberState::Alive)), "no better source exists");
    sim.run(secs(60));
    assert_eq!(sim.sees("a", "c"), Some((1, MemberState::Dead)), "the lie has ended");
    lie(&mut sim, 2);
    // An operator forgets a member on all nodes.
    let now = sim.now;
    for who in ["a", "b"] {
        sim.node(who).swim.forget(now, &name("c"));
    }
    sim.run(secs(60));
    assert!(!sim.node("a").swim.members.contains_key(&name("c")));
}

/// The false statements that one member can make about another: that it left, is dead, is suspect, or has another life or run.
fn lies(of: &Peer) -> Vec<foca::Member<Id>> {
    let id = Id::first(of);
    let life = |generation, left| Id { generation, left, ..id.clone() };
    let later = Peer { incarnation: Incarnation(of.incarnation.0 + 1_000_000), ..of.clone() };
    let moved = Id { addr: "198.51.100.9:9".parse().unwrap(), ..id.clone() };
    vec![
        foca::Member::down(life(0, true)),
        foca::Member::down(life(0, false)),
        foca::Member::new(life(0, false), 0, State::Suspect),
        foca::Member::new(life(0, false), u16::MAX, State::Suspect),
        foca::Member::new(life(0, false), u16::MAX, State::Alive),
        foca::Member::alive(life(1 << 30, false)),
        foca::Member::down(life(1 << 30, true)),
        foca::Member::alive(life(1 << 29, false)),
        foca::Member::down(life(1 << 29, false)),
        foca::Member::alive(Id::first(&later)),
        foca::Member::down(Id { left: true, ..Id::first(&later) }),
        foca::Member::alive(moved),
    ]
}

/// Number 2 of what a member must not do: a node with a link to the victim always sees it as alive in its run.
#[test]
fn no_lie_about_a_linked_member_is_believed() {
    for (number, lie) in lies(&peer("b", 1)).into_iter().enumerate() {
        let mut sim = Sim::new(&FIVE);
        sim.mesh(&FIVE);
        sim.run(secs(5));
        let now = sim.now;
        let histories: Vec<usize> = ["a", "c", "d"].map(|who| sim.nodes[&name(who)].history.len()).to_vec();
        for who in ["a", "c", "d"] {
            let us = peer(who, 1);
            deliver(&mut sim.node(who).swim, now, &peer("e", 1), &us, std::slice::from_ref(&lie));
        }
        sim.run(secs(60));
        for (who, before) in ["a", "c", "d"].into_iter().zip(histories) {
            assert_eq!(sim.sees(who, "b"), Some((1, MemberState::Alive)), "lie {number}: {who}");
            let since: Vec<_> = sim.nodes[&name(who)].history[before..].iter().collect();
            assert!(since.is_empty(), "lie {number}: {who} saw {since:?}");
        }
    }
}

/// If the victim has no link, a node believes the lie, until the victim speaks. The victim renews once, or not at all.
#[test]
fn a_lie_about_a_member_without_a_link_ends_when_it_speaks() {
    for (number, lie) in lies(&peer("b", 1)).into_iter().enumerate() {
        let mut sim = Sim::new(&FIVE[..3]);
        sim.mesh(&FIVE[..3]);
        sim.run(secs(5));
        for other in ["a", "c"] {
            sim.unlink("b", other);
        }
        let (now, us) = (sim.now, peer("a", 1));
        deliver(&mut sim.node("a").swim, now, &peer("c", 1), &us, std::slice::from_ref(&lie));
        sim.run(secs(1));
        assert_ne!(
            sim.sees("a", "b").map(|(_, state)| state),
            Some(MemberState::Left),
            "no member can leave for another one"
        );
        sim.link("a", "b");
        sim.link("b", "c");
        sim.run(secs(4));
        for who in ["a", "c"] {
            assert_eq!(sim.sees(who, "b"), Some((1, MemberState::Alive)), "lie {number}: {who}");
        }
        sim.run(secs(60));
        sim.assert_whole(&FIVE[..3]);
        assert_eq!(sim.sees("a", "b"), Some((1, MemberState::Alive)), "lie {number}");
    }
}

/// A lie about a member reaches that member, so that it answers for the nodes that have no link to it.
#[test]
fn nodes_without_a_link_to_the_victim_receive_its_answer_through_others() {
    for lie in [lies(&peer("b", 1))[1].clone(), lies(&peer("b", 1))[3].clone(), lies(&peer("b", 1))[8].clone()] {
        let mut sim = Sim::new(&FIVE);
        sim.mesh(&FIVE);
        sim.run(secs(5));
        sim.unlink("a", "b");
        let (now, us) = (sim.now, peer("a", 1));
        deliver(&mut sim.node("a").swim, now, &peer("e", 1), &us, &[lie]);
        sim.run(secs(30));
        let seen = sim.sees("a", "b").unwrap();
        let superseded =
            sim.nodes[&name("b")].history.iter().any(|(_, e)| matches!(e, MembershipEvent::Superseded { .. }));
        assert!(seen.1 == MemberState::Alive || superseded, "b is {seen:?} for a, and begins no new run");
    }
}

/// A member cannot force another one to begin life after life: probes of the previous life get no answer.
#[test]
fn lives_are_begun_at_a_bounded_rate() {
    let (us, from) = (peer("a", 1), peer("b", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, from.clone());
    let mut lives = BTreeSet::new();
    for milli in 0..3000 {
        let now = Duration::from_millis(milli);
        let id = Id { generation: swim.foca.identity().generation, ..Id::first(&us) };
        let mut header = Datagram::read(&words(&from, &us, &[])).unwrap().header;
        (header.dst, header.message) = (id.clone(), foca::Message::TurnUndead);
        swim.handle_datagram(now, &from.name, &Datagram::write_header(&header).unwrap()).unwrap();
        deliver(&mut swim, now, &from, &us, &[foca::Member::down(id)]);
        lives.insert(swim.foca.identity().generation);
        while swim.poll_transmit().is_some() {}
    }
    assert_eq!(lives.len(), 3, "one a second: {lives:?}");
}

/// After its last life, the run continues as a new one, which exceeds every lie.
#[test]
fn the_last_life_is_followed_by_a_new_run() {
    let (us, from) = (peer("a", 1), peer("b", 1));
    for generation in [1 << 29, 1 << 30] {
        let mut swim = Swim::new(&us, 1);
        swim.link_up(Duration::ZERO, from.clone());
        let last = foca::Member::alive(Id { generation, ..Id::first(&us) });
        deliver(&mut swim, Duration::ZERO, &from, &us, &[last]);
        assert_eq!(swim.foca.identity().generation, 0);
        assert_eq!(events(&mut swim).last(), Some(&MembershipEvent::Superseded { by: us.incarnation, addr: None }));
    }
}
/// If a linked member does not answer hearsay, this node accepts the hearsay: the process is stopped, and the link does not
/// show it yet.
#[test]
fn hearsay_that_a_member_does_not_answer_is_accepted() {
    let mut sim = Sim::new(&FIVE);
    sim.mesh(&FIVE);
    sim.run(secs(5));
    sim.node("b").stopped = true;
    sim.run(Duration::from_millis(10));
    let (now, us) = (sim.now, peer("a", 1));
    let dead = foca::Member::down(Id::first(&peer("b", 1)));
    deliver(&mut sim.node("a").swim, now, &peer("e", 1), &us, &[dead]);
    sim.run(Duration::from_millis(2900));
    assert_ne!(sim.sees("a", "b"), Some((1, MemberState::Dead)), "it has time to answer");
    sim.run(Duration::from_millis(200));
    assert_eq!(sim.sees("a", "b"), Some((1, MemberState::Dead)));
    sim.node("b").stopped = false;
    sim.run(secs(5));
    sim.assert_whole(&FIVE);
}
