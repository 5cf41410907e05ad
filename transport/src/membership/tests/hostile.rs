//! What others must not be able to do.

use std::time::Duration;

use foca::{Codec, State};
use tallymesh_schemas::actor::Incarnation;
use tallymesh_schemas::limits::{INCARNATION, INCARNATION_REPORTED};

use super::sim::{name, peer};
use crate::limits::MEMBERS;
use crate::membership::codec::IdCodec;
use crate::membership::id::Id;
use crate::membership::{DatagramError, Membership, MembershipEvent, Peer, Swim};

/// A datagram from one run to another that tells of members.
fn words(from: &Peer, to: &Peer, members: &[foca::Member<Id>]) -> Vec<u8> {
    let mut data = Vec::new();
    let message = foca::Message::Gossip;
    let header = foca::Header { src: Id::first(from), src_incarnation: 0, dst: Id::first(to), message };
    IdCodec.encode_header(&header, &mut data).unwrap();
    data.extend_from_slice(&(members.len() as u16).to_be_bytes());
    for member in members {
        IdCodec.encode_member(member, &mut data).unwrap();
    }
    data
}

#[test]
fn an_older_run_learns_that_it_is_superseded_and_buries_nobody() {
    let (us, from) = (peer("a", 1), peer("b", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, from.clone());
    let newer = foca::Member::alive(Id::first(&peer("a", 7)));
    swim.handle_datagram(Duration::ZERO, &from.name, &words(&from, &us, &[newer])).unwrap();
    let events: Vec<_> = std::iter::from_fn(|| swim.poll_event()).collect();
    assert_eq!(events.last(), Some(&MembershipEvent::Superseded(Incarnation(7))));
    assert!(!swim.known.contains_key(&us.name), "a run does not judge its own name");
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
fn runs_that_no_node_has_begun_are_not_believed() {
    let (us, from) = (peer("a", 1), peer("b", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, from.clone());
    for victim in ["a", "c"] {
        let member = |run| foca::Member::alive(Id::first(&peer(victim, run)));
        let said = swim.handle_datagram(Duration::ZERO, &from.name, &words(&from, &us, &[member(INCARNATION)]));
        assert!(matches!(said, Err(DatagramError::Run { .. })));
        swim.handle_datagram(Duration::ZERO, &from.name, &words(&from, &us, &[member(INCARNATION_REPORTED)])).unwrap();
    }
    // What a peer says at its end of a link goes, and others may repeat it.
    let late = peer("d", INCARNATION);
    swim.link_up(Duration::ZERO, late.clone());
    let repeated = foca::Member::alive(Id::first(&late));
    swim.handle_datagram(Duration::ZERO, &from.name, &words(&from, &us, &[repeated])).unwrap();
}

#[test]
fn the_table_is_bounded_and_the_dead_give_way() {
    let (us, from) = (peer("z", 1), peer("x", 1));
    let mut swim = Swim::new(&us, 1);
    swim.link_up(Duration::ZERO, from.clone());
    let mut tell = |number: usize, state| {
        let member = foca::Member::new(Id::first(&peer(&format!("n{number}"), 1)), 0, state);
        let told = swim.handle_datagram(Duration::ZERO, &from.name, &words(&from, &us, &[member]));
        let dropped: Vec<_> = std::iter::from_fn(|| swim.poll_event())
            .filter(|event| matches!(event, MembershipEvent::Dropped(_)))
            .collect();
        (told, dropped, swim.known.len())
    };
    for number in 0..MEMBERS - 1 {
        tell(number, State::Alive).0.unwrap();
    }
    assert_eq!(tell(9000, State::Alive), (Err(DatagramError::Full), Vec::new(), MEMBERS));
    tell(3, State::Down).0.unwrap();
    let gone = MembershipEvent::Dropped(name("n3"));
    assert_eq!(tell(9000, State::Alive), (Ok(()), vec![gone], MEMBERS));
}
