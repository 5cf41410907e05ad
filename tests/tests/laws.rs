//! The laws of the merge, over whole structures, with `crdts::PNCounter` as oracle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crdts::{CmRDT, CvRDT, PNCounter};
use proptest::prelude::*;
use tallymesh_engine::{Config, Life, Now, Replica, Row, Structure, Time};
use tallymesh_schemas::message::Message;
use tallymesh_schemas::{Actor, Class, Incarnation, NodeName, StructureName, StructureSpec, UnixMs};

const NAME: &str = "outbound_domains";

struct Bench {
    replicas: Vec<Replica>,
    now: Now,
}

fn spec() -> StructureSpec {
    let mut spec = StructureSpec::new(StructureName::new(NAME).unwrap(), Class::OutboundDomains);
    spec.max_delay = Duration::ZERO;
    spec
}

fn node(i: usize) -> NodeName {
    NodeName::new(&format!("n{i}")).unwrap()
}

impl Bench {
    fn new(count: usize, delta_bytes: usize) -> Self {
        let config = Config {
            delta_bytes,
            idle_after: Duration::from_secs(1),
            retention: Duration::from_secs(2),
            full_digest_interval: Duration::from_secs(2),
            ..Config::default()
        };
        let replicas = (0..count).map(|i| {
            let mut replica = Replica::new(config.clone(), node(i), Incarnation(100));
            replica.replicate(spec(), Arc::new(|| ())).unwrap();
            replica
        });
        Self { replicas: replicas.collect(), now: Now { mono: Time(1), unix_ms: UnixMs(1_700_000_000_000) } }
    }

    fn structure(&self, at: usize) -> Arc<Structure> {
        Arc::clone(self.replicas[at].structure(NAME).unwrap())
    }

    fn up(&mut self, a: usize, b: usize) {
        self.replicas[a].handle_link_up(self.now, &node(b));
        self.replicas[b].handle_link_up(self.now, &node(a));
    }

    fn full_mesh(&mut self) {
        for a in 0..self.replicas.len() {
            for b in a + 1..self.replicas.len() {
                self.up(a, b);
            }
        }
    }

    fn add(&mut self, at: usize, key: &str, n: i64) {
        self.structure(at).add(key.as_bytes(), n).unwrap();
        self.replicas[at].handle_changes(self.now);
    }

    fn take(&mut self, from: usize, to: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let mut bytes = Vec::new();
            if !self.replicas[from].poll_transmit(&node(to), &mut bytes) {
                return all;
            }
            all.push(bytes);
        }
    }

    fn give(&mut self, from: usize, to: usize, bytes: &[u8]) {
        self.replicas[to].handle_message(self.now, &node(from), bytes).unwrap();
    }

    fn pass(&mut self, micros: u64) {
        self.now.mono = Time(self.now.mono.0 + micros);
        self.now.unix_ms.0 += micros / 1000;
        for replica in &mut self.replicas {
            replica.handle_timeout(self.now);
        }
    }

    /// Everybody talks to everybody, without loss, for so many seconds.
    fn talk(&mut self, seconds: u64) {
        for _ in 0..seconds * 5 {
            self.pass(200_000);
            for _ in 0..50 {
                let mut silent = true;
                for from in 0..self.replicas.len() {
                    for to in (0..self.replicas.len()).filter(|to| *to != from) {
                        for bytes in self.take(from, to) {
                            silent = false;
                            self.give(from, to, &bytes);
                        }
                    }
                }
                if silent {
                    break;
                }
            }
        }
    }

    fn rows(&self, at: usize, actor: &Actor) -> BTreeMap<Vec<u8>, Row> {
        self.structure(at).rows_of(actor).into_iter().collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Add {
        at: usize,
        key: u8,
        n: i64,
    },
    /// What one has to say to another goes to the pool.
    Say {
        from: usize,
        to: usize,
    },
    /// A message of the pool arrives; it stays in the pool if it is doubled.
    Arrive {
        pick: prop::sample::Index,
        doubled: bool,
    },
    Lose {
        pick: prop::sample::Index,
    },
    Pass {
        millis: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..4, 0u8..6, -5i64..20).prop_map(|(at, key, n)| Step::Add { at, key, n }),
        3 => (0usize..4, 0usize..4).prop_map(|(from, to)| Step::Say { from, to }),
        5 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(pick, doubled)| Step::Arrive { pick, doubled }),
        1 => any::<prop::sample::Index>().prop_map(|pick| Step::Lose { pick }),
        1 => (1u64..1500).prop_map(|millis| Step::Pass { millis }),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// I2, I5: whatever was counted where, and however messages were delivered, dropped, doubled and reordered, in the end
    /// every replica reads what the merged oracles read. I10: and its aggregates are sound at every step.
    #[test]
    fn i2_i5_i10_every_replica_reads_what_the_oracle_reads(count in 2usize..5, bytes in prop::sample::select(vec![1usize, 20, 100_000]), steps in steps()) {
        let mut bench = Bench::new(count, bytes);
        bench.full_mesh();
        let mut oracles: Vec<BTreeMap<u8, PNCounter<usize>>> = vec![BTreeMap::new(); count];
        let mut pool: Vec<(usize, usize, Vec<u8>)> = Vec::new();
        for step in steps {
            match step {
                Step::Add { at, key, n } => {
                    let at = at % count;
                    bench.add(at, &format!("k{key}"), n);
                    let oracle = oracles[at].entry(key).or_default();
                    let op = if n < 0 { oracle.dec_many(at, n.unsigned_abs()) } else { oracle.inc_many(at, n.unsigned_abs()) };
                    oracle.apply(op);
                }
                Step::Say { from, to } if from % count != to % count => {
                    let (from, to) = (from % count, to % count);
                    pool.extend(bench.take(from, to).into_iter().map(|bytes| (from, to, bytes)));
                }
                Step::Arrive { pick, doubled } if !pool.is_empty() => {
                    let at = pick.index(pool.len());
                    let (from, to, bytes) = if doubled { pool[at].clone() } else { pool.swap_remove(at) };
                    bench.give(from, to, &bytes);
                    prop_assert_eq!(bench.structure(to).audit(), Ok(()));
                }
                Step::Lose { pick } if !pool.is_empty() => {
                    let at = pick.index(pool.len());
                    pool.swap_remove(at);
                }
                Step::Pass { millis } => bench.pass(millis * 1000),
                _ => {}
            }
        }
        bench.talk(15);
        for key in 0..6u8 {
            let mut merged = PNCounter::new();
            for oracle in &oracles {
                merged.merge(oracle.get(&key).cloned().unwrap_or_default());
            }
            for at in 0..count {
                let read = bench.structure(at).count(format!("k{key}").as_bytes(), bench.now.mono).total;
                prop_assert_eq!(read.to_string(), merged.read().to_string(), "k{} at n{}", key, at);
            }
        }
        // I3: and holds exactly the owner's rows.
        for owner in 0..count {
            let actor = bench.replicas[owner].actor().clone();
            for at in 0..count {
                prop_assert_eq!(bench.rows(owner, &actor), bench.rows(at, &actor));
            }
        }
    }

    /// I2: an owner's deltas, delivered in any order and any number of times until all gaps are closed, give one state; and
    /// delivering all of them again changes nothing.
    #[test]
    fn i2_order_and_repetition_do_not_matter(adds in prop::collection::vec((0u8..5, 1i64..9), 1..25), order in prop::collection::vec(any::<prop::sample::Index>(), 30), bytes in prop::sample::select(vec![1usize, 100_000])) {
        let mut bench = Bench::new(3, bytes);
        bench.up(0, 1);
        bench.up(0, 2);
        bench.talk(1);
        let mut deltas = Vec::new();
        for (key, n) in adds {
            bench.add(0, &format!("k{key}"), n);
            let sent = bench.take(0, 1);
            sent.iter().filter(|b| matches!(Message::decode(b), Ok(Message::Delta(_)))).for_each(|b| deltas.push(b.clone()));
        }
        let actor = bench.replicas[0].actor().clone();
        for bytes in deltas.clone() {
            bench.give(0, 1, &bytes);
        }
        let mut shuffled = deltas.clone();
        for (i, pick) in order.iter().enumerate() {
            let at = pick.index(shuffled.len());
            let other = i % shuffled.len();
            shuffled.swap(at, other);
        }
        // n2 was told the same beginning, so n1's deltas are good for it as well.
        for _ in 0..=deltas.len() {
            for bytes in &shuffled {
                bench.give(0, 2, bytes);
            }
        }
        prop_assert_eq!(bench.rows(1, &actor), bench.rows(0, &actor));
        prop_assert_eq!(bench.rows(2, &actor), bench.rows(1, &actor));
        let before = bench.rows(2, &actor);
        for bytes in &shuffled {
            bench.give(0, 2, bytes);
        }
        prop_assert_eq!(bench.rows(2, &actor), before);
        prop_assert_eq!(bench.structure(2).audit(), Ok(()));
    }

    /// I4: whatever the membership says meanwhile, what is stored stays, and comes to be read again as it was.
    #[test]
    fn i4_liveness_changes_nothing_that_is_stored(adds in prop::collection::vec((0u8..5, -9i64..9), 1..20), lives in prop::collection::vec(0u8..4, 1..10)) {
        let mut bench = Bench::new(2, 1000);
        bench.full_mesh();
        for (key, n) in adds {
            bench.add(0, &format!("k{key}"), n);
        }
        bench.talk(1);
        let actor = bench.replicas[0].actor().clone();
        let rows = bench.rows(1, &actor);
        let reads = |bench: &Bench| (0..5).map(|k| bench.structure(1).count(format!("k{k}").as_bytes(), bench.now.mono).total).collect::<Vec<_>>();
        let before = reads(&bench);
        bench.replicas[1].handle_link_down(&actor.node);
        for life in lives {
            let life = [Life::Alive, Life::Suspect, Life::Dead, Life::Left][usize::from(life)];
            let now = bench.now;
            bench.replicas[1].handle_member(now, &actor.node, actor.incarnation, life);
            prop_assert_eq!(&bench.rows(1, &actor), &rows);
            prop_assert_eq!(bench.structure(1).audit(), Ok(()));
        }
        bench.replicas[0].handle_link_down(&node(1));
        bench.up(0, 1);
        prop_assert_eq!(reads(&bench), before);
    }

    /// I7: what is kept about links does not grow with changes.
    #[test]
    fn i7_a_peer_that_does_not_read_costs_a_cursor(rounds in 1usize..60) {
        let mut bench = Bench::new(3, 50);
        bench.full_mesh();
        bench.talk(1);
        // The first change is due to be sent, and that is noted.
        bench.add(0, "k0", 1);
        bench.pass(100_000);
        let entries = bench.replicas[0].link_entries();
        for i in 0..rounds {
            bench.add(0, &format!("k{}", i % 7), 1);
            bench.pass(100_000);
        }
        prop_assert_eq!(bench.replicas[0].link_entries(), entries);
        bench.talk(3);
        let actor = bench.replicas[0].actor().clone();
        prop_assert_eq!(bench.rows(1, &actor), bench.rows(0, &actor));
    }

    /// I6: any bytes are read or refused, and change nothing of ours.
    #[test]
    fn i6_nonsense_is_refused(bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..20), kinds in prop::collection::vec(0u8..5, 20)) {
        let mut bench = Bench::new(2, 1000);
        bench.full_mesh();
        bench.add(0, "k", 7);
        bench.talk(1);
        let before = bench.rows(0, bench.replicas[0].actor());
        let before: Vec<_> = before.into_values().map(|row| (row.added, row.removed)).collect();
        for (mut bytes, kind) in bytes.into_iter().zip(kinds) {
            bytes.insert(0, kind);
            let now = bench.now;
            let _ = bench.replicas[0].handle_message(now, &node(1), &bytes);
            prop_assert_eq!(bench.structure(0).audit(), Ok(()));
        }
        let after = bench.rows(0, bench.replicas[0].actor());
        let after: Vec<_> = after.into_values().map(|row| (row.added, row.removed)).collect();
        prop_assert_eq!(after, before);
    }
}

/// I1: a peer that sends our own rows, or others' that nobody asked for, is not believed.
#[test]
fn i1_i6_rows_of_others_are_not_taken_from_a_peer() {
    let mut bench = Bench::new(3, 1000);
    bench.full_mesh();
    bench.add(0, "k", 7);
    let sent = bench.take(0, 1);
    bench.talk(1);
    let more = {
        bench.add(0, "k", 1);
        bench.take(0, 1)
    };
    // n1 says what n0 said: to n0 itself, and to n2, which is linked to n0.
    for bytes in sent.iter().chain(&more) {
        if matches!(Message::decode(bytes), Ok(Message::Delta(_))) {
            bench.give(1, 0, bytes);
            bench.give(1, 2, bytes);
        }
    }
    assert_eq!(bench.replicas[0].counters().unasked, 1);
    assert_eq!(bench.replicas[2].counters().unasked, 1);
    assert_eq!(bench.structure(2).count(b"k", bench.now.mono).total, 7);
    bench.talk(5);
    assert_eq!(bench.structure(2).count(b"k", bench.now.mono).total, 8);
}
