//! Taking in what another node has counted: decode and join, in nanoseconds of the receiver a row.

use crdts::pncounter::Op;
use crdts::{CmRDT, CvRDT, Map, PNCounter};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tallymesh_schemas::Class;

use crate::add::KEYS;
use crate::input;
use crate::measure::{Contender, cpu, interleaved, ns_each};
use crate::replicas::Mesh;
use crate::report::Group;

/// Actors as the peers know them: small numbers, to their advantage.
const SENDER: u8 = 1;

/// A sender and a receiver that both know all keys.
#[derive(Debug)]
pub struct Feed {
    mesh: Mesh,
    keys: Vec<String>,
    random: input::Random,
}

impl Feed {
    /// Both know `keys` keys.
    pub fn new(keys: usize) -> Self {
        let mut feed =
            Self { mesh: Mesh::new(2, Class::OutboundDomains), keys: input::keys(keys), random: input::Random(7) };
        for key in &feed.keys {
            crate::counters::Counters::add(&feed.mesh.structures[0], key, 100);
        }
        feed.mesh.settle();
        feed
    }

    /// Changes `rows` different keys at the sender; returns what it then says.
    pub fn flush(&mut self, rows: usize) -> Vec<Vec<u8>> {
        for at in distinct(rows, self.keys.len(), &mut self.random) {
            crate::counters::Counters::add(&self.mesh.structures[0], &self.keys[at], 1);
        }
        self.mesh.commit(0);
        self.mesh.messages(0, 1)
    }

    /// The receiver takes it in.
    pub fn deliver(&mut self, messages: &[Vec<u8>]) {
        self.mesh.deliver(0, 1, messages);
    }

    /// Whether the receiver has what the sender has.
    pub fn agrees(&self) -> bool {
        let [a, b] = [0, 1].map(|at| &self.mesh.structures[at]);
        let now = tallymesh_engine::Time(1);
        self.keys.iter().all(|key| a.count(key.as_bytes(), now).total == b.count(key.as_bytes(), now).total)
    }
}

/// `n` different positions below `bound`, uniformly; in random order unless it is all of them.
pub fn distinct(n: usize, bound: usize, random: &mut input::Random) -> Vec<usize> {
    if n >= bound {
        return (0..bound).collect();
    }
    let mut taken = hashbrown::HashSet::with_hasher(FixedState::default());
    std::iter::repeat_with(|| random.below(bound)).filter(|at| taken.insert(*at)).take(n).collect()
}

/// The figures of this file.
///
/// # Panics
/// When a receiver does not end up with what was sent: then the figures mean nothing.
pub fn measure(rounds: usize) -> Vec<Group> {
    let groups = [1_000, KEYS].map(|rows| {
        let group = batches(rows, rounds);
        if rows == 1_000 { group.want("≤ 60 ns", 60.0) } else { group }
    });
    let mut groups: Vec<_> = groups.into();
    let all_crdts = crdts_map(KEYS, rounds.min(5));
    let ours = groups.last().and_then(|group| group.figures.first()).cloned();
    if let (Some(group), Some(ours)) = (groups.last_mut(), ours) {
        group.figures.push(all_crdts);
        let best = group.figures.iter().filter(|figure| figure.who.contains("crdts")).map(|figure| figure.value);
        let best = best.fold(f64::INFINITY, f64::min);
        let factor = ours.value / best;
        group.wanted = Some(crate::report::Wanted {
            text: "≥ 8 × the best crdts way: ≤ 0.125 of it".to_owned(),
            is: factor,
            at_most: 0.125,
        });
    }
    groups
}

/// Nanoseconds a row that the engine takes to apply deltas of so many rows.
fn delivered(feed: &mut Feed, rows: usize) -> f64 {
    let flushes = (100_000 / rows).max(1);
    let mut spent = 0.0;
    for _ in 0..flushes {
        let messages = feed.flush(rows);
        let start = cpu();
        feed.deliver(&messages);
        spent += (cpu() - start).as_nanos() as f64;
    }
    spent / (flushes * rows) as f64
}

fn batches(rows: usize, rounds: usize) -> Group {
    let mut feed = Feed::new(KEYS);
    let keys = input::keys(KEYS);
    let mut peers = Peers::new(&keys);
    let mut random = [8, 9, 10].map(input::Random);
    let [for_ops, for_states, for_floor] = &mut random;
    // Senders have maps of their own: what a sender has just touched must not be warm at the receiver.
    let mut senders = Peers::new(&keys);
    let Peers { ops: sent_ops, states: sent_states, plain: sent_plain } = &mut senders;
    let Peers { ops, states, plain } = &mut peers;
    let figures = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh", || delivered(&mut feed, rows)),
            Contender::new("crdts PNCounter a key, op applied", || {
                let changed = distinct(rows, keys.len(), for_ops);
                let bytes = encode(changed.iter().filter_map(|at| {
                    let counter = sent_ops.get_mut(&keys[*at])?;
                    let op = counter.inc_many(SENDER, 1);
                    counter.apply(op.clone());
                    Some((&keys[*at], op))
                }));
                ns_each(rows, || {
                    for (key, op) in decode::<Op<u8>>(&bytes, rows) {
                        if let Some(counter) = ops.get_mut(key) {
                            counter.apply(op);
                        }
                    }
                })
            }),
            Contender::new("crdts PNCounter a key, state merged", || {
                let changed = distinct(rows, keys.len(), for_states);
                let bytes = encode(changed.iter().filter_map(|at| {
                    let counter = sent_states.get_mut(&keys[*at])?;
                    counter.apply(counter.inc_many(SENDER, 1));
                    Some((&keys[*at], counter.clone()))
                }));
                ns_each(rows, || {
                    for (key, counter) in decode::<PNCounter<u8>>(&bytes, rows) {
                        if let Some(mine) = states.get_mut(key) {
                            mine.merge(counter);
                        }
                    }
                })
            }),
            Contender::new("postcard into hashbrown by &str, no join", || {
                let changed = distinct(rows, keys.len(), for_floor);
                let bytes = encode(changed.iter().filter_map(|at| {
                    let totals = sent_plain.get_mut(&keys[*at])?;
                    totals.0 += 1;
                    Some((&keys[*at], *totals))
                }));
                ns_each(rows, || {
                    for (key, totals) in decode::<(u64, u64)>(&bytes, rows) {
                        if let Some(mine) = plain.get_mut(key) {
                            *mine = totals;
                        }
                    }
                })
            }),
        ],
    );
    assert!(feed.agrees(), "the receiver has what the sender has");
    assert!(peers == senders, "the peers' receivers have what was sent");
    Group::new(format!("apply a received row, {rows} of {KEYS} known keys a batch"), "ns", figures)
}

#[derive(PartialEq)]
struct Peers {
    ops: HashMap<String, PNCounter<u8>, FixedState>,
    states: HashMap<String, PNCounter<u8>, FixedState>,
    plain: HashMap<String, (u64, u64), FixedState>,
}

impl Peers {
    fn new(keys: &[String]) -> Self {
        let counter = |key: &String| {
            let mut counter = PNCounter::new();
            counter.apply(counter.inc_many(SENDER, 100));
            (key.clone(), counter)
        };
        Self {
            ops: keys.iter().map(counter).collect(),
            states: keys.iter().map(counter).collect(),
            plain: keys.iter().map(|key| (key.clone(), (100, 0))).collect(),
        }
    }
}

fn encode<'a, T: serde::Serialize>(rows: impl Iterator<Item = (&'a String, T)>) -> Vec<u8> {
    // Numbers and strings into memory: there is nothing that could fail.
    rows.fold(Vec::new(), |bytes, row| postcard::to_extend(&row, bytes).unwrap_or_default())
}

fn decode<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8], rows: usize) -> impl Iterator<Item = (&'a str, T)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (row, left) = postcard::take_from_bytes::<(&str, T)>(rest).ok()?;
        rest = left;
        Some(row)
    })
    .take(rows)
}

/// `crdts`' own map, all of its keys changed: it has no smaller unit to merge. Without decoding, to its advantage.
fn crdts_map(keys: usize, rounds: usize) -> crate::measure::Figure {
    let keys = input::keys(keys);
    let mut mine: Map<String, PNCounter<u8>, u8> = Map::new();
    let step = |map: &mut Map<String, PNCounter<u8>, u8>| {
        for key in &keys {
            let add = map.read_ctx().derive_add_ctx(SENDER);
            let op = map.update(key.clone(), add, |counter, _| counter.inc_many(SENDER, 1));
            map.apply(op);
        }
    };
    step(&mut mine);
    let mut theirs = mine.clone();
    let run = || {
        step(&mut theirs);
        let copy = theirs.clone();
        ns_each(keys.len(), || mine.merge(copy))
    };
    interleaved(rounds, vec![Contender::new("crdts Map merge, not decoded", run)]).remove(0)
}
