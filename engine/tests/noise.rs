//! A peer that causes the same event over and over costs few lines of a log, no memory and no messages to others (I6).

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::replica::EventKind;
use tallymesh_engine::{Config, Event, Now, Replica, Time};
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest, Tombstone, Want};
use tallymesh_schemas::{Actor, Bound, Class, Incarnation, NodeName, StructureSpec, UnixMs, Version, bounds};

struct Target {
    replica: Replica,
    now: Now,
}

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn run(node: &str, incarnation: u64) -> Actor {
    Actor::new(name(node), Incarnation(incarnation))
}

impl Target {
    fn new(class: Class) -> Self {
        let mut replica = Replica::new(Config::default(), name("us"), Incarnation(1000));
        replica.replicate(StructureSpec::from(class), Arc::new(|| ())).unwrap();
        let now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };
        let mut target = Self { replica, now };
        for peer in ["liar", "q"] {
            target.replica.handle_link_up(now, &name(peer));
            target.says(peer, &[]);
        }
        target.drain("q");
        target.events();
        target
    }

    fn spec(&self) -> StructureSpec {
        self.replica.structures()[0].spec().clone()
    }

    fn give(&mut self, peer: &str, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        let _ = self.replica.handle_message(self.now, &name(peer), &bytes);
    }

    /// A digest that names these runs.
    fn says(&mut self, peer: &str, runs: &[Actor]) {
        let spec = self.spec();
        let entry = |actor: &Actor| DigestEntry {
            actor: actor.clone(),
            since: Version(0),
            applied: Version(7),
            low_water: Version(0),
            fingerprint: 1,
            age_ms: None,
        };
        let (name, kind) = (spec.name.as_str(), spec.class.kind());
        let entries = runs.iter().map(entry).collect();
        let digest = Digest {
            incarnation: Incarnation(5),
            clock_ms: self.now.unix_ms,
            answers: 0,
            complete: false,
            structures: vec![StructureDigest { structure: spec.name.id(), name, kind, entries }],
            tombstones: Vec::new(),
        };
        self.give(peer, &Message::Digest(digest));
    }

    fn unasked(&mut self) {
        let structure = self.spec().name.id();
        let delta = Delta {
            structure,
            actor: run("q", 5),
            since: Version(0),
            keys_complete: Version(0),
            after: Version(0),
            upto: Version(1),
            low_water: Version(0),
            snapshot: false,
            fingerprint: None,
            rows: &[],
        };
        self.give("liar", &Message::Delta(delta));
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.replica.poll_event()).collect()
    }

    /// How often a bound was reached.
    fn reached(&self, bound: Bound) -> u64 {
        self.replica.bounds().iter().filter(|report| report.bound == bound).map(|report| report.times).sum()
    }

    /// What is sent to a peer.
    fn drain(&mut self, peer: &str) -> usize {
        std::iter::from_fn(|| self.replica.poll_transmit(&name(peer), &mut Vec::new()).then_some(())).count()
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.mono.after(time);
        while self.now.mono < until {
            self.now.mono = self.now.mono.after(Duration::from_millis(500));
            self.replica.handle_timeout(self.now);
        }
    }
}

#[test]
fn rows_without_a_request_are_reported_once_and_then_counted() {
    let mut target = Target::new(Class::OutboundDomains);
    (0..20_000).for_each(|_| target.unasked());
    let events = target.events();
    assert!(matches!(&events[..], [Event::Unasked { peer, .. }] if *peer == name("liar")), "{} events", events.len());
    target.wait(Duration::from_secs(61));
    let events = target.events();
    let [Event::Repeated { node, kind, times, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((node, kind, times), (&Some(name("liar")), &Some(EventKind::Unasked), &19_999));
    assert_eq!(target.replica.counters().unasked, 20_000, "each one is counted");
}

#[test]
fn the_noise_of_one_peer_does_not_drive_out_the_events_of_others() {
    let mut target = Target::new(Class::OutboundDomains);
    target.says("q", &[run("q", 5)]);
    target.replica.forget(target.now, &name("q"));
    for round in 0..20 {
        target.unasked();
        target.says("liar", &(0..1000).map(|n| run("liar", 6 + round * 1000 + n)).collect::<Vec<_>>());
    }
    let events = target.events();
    assert!(events.len() < 10, "{} events", events.len());
    assert!(events.iter().any(|event| matches!(event, Event::Forgotten { node } if *node == name("q"))));
}

/// The replica reports each forgotten node to its caller, also when more nodes are forgotten than the event queue can hold.
#[test]
fn no_forgotten_node_is_lost_among_the_events() {
    let mut target = Target::new(Class::OutboundDomains);
    let names: Vec<_> = (0..2000).map(|n| run(&format!("n{n:04}"), 5)).collect();
    for (reporter, runs) in ["liar", "q"].into_iter().zip(names.chunks(1000)) {
        target.says(reporter, runs);
    }
    names.iter().for_each(|run| assert!(target.replica.forget(target.now, &run.node)));
    let forgotten: Vec<_> = std::iter::from_fn(|| target.replica.poll_forgotten()).collect();
    assert_eq!(forgotten, names.into_iter().map(|run| run.node).collect::<Vec<_>>());
}

/// A peer that names new runs of another node without end does not make this node ask that node about each run.
#[test]
fn a_peer_does_not_have_us_flood_another_one_with_questions() {
    let mut target = Target::new(Class::OutboundDomains);
    let mut sent = 0;
    for round in 0..100 {
        target.says("liar", &(0..1000).map(|n| run("q", 6 + round * 1000 + n)).collect::<Vec<_>>());
        sent += target.drain("q");
    }
    assert!(sent <= bounds::RUN_QUESTIONS as usize, "{sent} messages to q");
    assert!(sent > 0, "it may be true");
    assert!(target.reached(Bound::RunQuestions) > 90_000, "each question that was not asked is counted");
}

/// A node that is forgotten when there is no place for another tombstone is reported (I14).
#[test]
fn tombstones_that_find_no_place_are_counted() {
    let mut target = Target::new(Class::OutboundDomains);
    let until_ms = UnixMs(target.now.unix_ms.0 + 100_000);
    let tombstone = |n: usize| Tombstone {
        node: name(&format!("ghost{n}")),
        from: Incarnation(0),
        incarnation: Incarnation(1),
        until_ms,
    };
    let tombstones: Vec<_> = (0..bounds::TOMBSTONES + 10).map(tombstone).collect();
    for tombstones in tombstones.chunks(1000) {
        let digest = Digest {
            incarnation: Incarnation(5),
            clock_ms: target.now.unix_ms,
            answers: 0,
            complete: false,
            structures: Vec::new(),
            tombstones: tombstones.to_vec(),
        };
        target.give("liar", &Message::Digest(digest));
    }
    assert_eq!(target.reached(Bound::Tombstones), 10);
}

/// Nor are they kept while that node's link has no room.
#[test]
fn requests_that_wait_are_bounded() {
    let mut target = Target::new(Class::OutboundDomains);
    let before = target.replica.link_entries();
    for round in 0..200 {
        target.says("liar", &(0..1000).map(|n| run("q", 6 + round * 1000 + n)).collect::<Vec<_>>());
    }
    let more = target.replica.link_entries() - before;
    assert!(more < 64, "{more} entries");
}

/// A peer that asks for rows that nobody has leaves nothing behind.
#[test]
fn requests_for_what_is_not_there_leave_nothing_behind() {
    let mut target = Target::new(Class::OutboundDomains);
    let structure = target.spec().name.id();
    let entries = |target: &Target| target.replica.link_entries() + target.replica.relay_entries();
    let before = entries(&target);
    for n in 0..100_000 {
        let want = Want {
            structure,
            actor: run(&format!("ghost{n}"), 1),
            since: Version(0),
            after: Version(0),
            snapshot: false,
        };
        target.give("liar", &Message::Want(want));
    }
    assert_eq!(entries(&target), before);
}
