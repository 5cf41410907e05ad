//! A million addresses: the sum under a prefix, and adding to an address.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::{IpNet, Ipv4Net};
use prefix_trie::PrefixMap;
use tallymesh_engine::{Now, Replica, Structure, Time};
use tallymesh_schemas::{Class, UnixMs};

use crate::add::COMMIT_EVERY;
use crate::input::{self, Spread, address_key};
use crate::measure::{Contender, cpu, interleaved, ns_each};
use crate::replicas;
use crate::report::Group;

const NOW: Now = Now { mono: Time(1), unix_ms: UnixMs(1) };

/// The same counts in ours and in the peers.
pub struct Trees {
    /// The addresses.
    pub addresses: Vec<u32>,
    /// Ours.
    pub ours: Arc<Structure>,
    /// What commits in ours.
    pub replica: Replica,
    /// A sorted map.
    pub sorted: BTreeMap<u32, i64>,
    /// A trie of prefixes.
    pub trie: PrefixMap<Ipv4Net, i64>,
    /// A hash map of the leaves, which knows no prefixes.
    pub leaves: HashMap<u32, i64, FixedState>,
}

/// A block of IPv4 addresses.
///
/// # Panics
/// When `bits` is over 32.
pub fn net(address: u32, bits: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::from(address), bits).expect("32 bits at most").trunc()
}

impl Trees {
    /// `n` addresses, each counted once.
    pub fn new(n: usize, spread: Spread) -> Self {
        let addresses = input::addresses(n, spread);
        let (mut replica, ours) = replicas::alone(Class::InboundCidr);
        for address in &addresses {
            let _ = ours.add(&address_key(*address), 1);
        }
        replica.handle_changes(NOW);
        // One by one in the order of drawing, as counting fills them; a sorted map that is built whole lies denser.
        let (mut sorted, mut trie, mut leaves) = (BTreeMap::new(), PrefixMap::new(), HashMap::default());
        for address in &addresses {
            sorted.insert(*address, 1);
            trie.insert(net(*address, 32), 1);
            leaves.insert(*address, 1);
        }
        Self { addresses, ours, replica, sorted, trie, leaves }
    }

    /// Ours: the sum under a prefix.
    pub fn ours(&self, net: Ipv4Net) -> i64 {
        self.ours.count_net(IpNet::V4(net), NOW.mono).total
    }

    /// The sorted map's.
    pub fn sorted(&self, net: Ipv4Net) -> i64 {
        self.sorted.range(u32::from(net.network())..=u32::from(net.broadcast())).map(|(_, n)| n).sum()
    }

    /// The trie's.
    pub fn trie(&self, net: Ipv4Net) -> i64 {
        self.trie.children(&net).map(|(_, n)| n).sum()
    }

    /// Prefixes of that many bits with something under them.
    pub fn blocks(&self, bits: u8) -> Vec<Ipv4Net> {
        input::draws(4096, self.addresses.len(), u64::from(bits))
            .into_iter()
            .map(|at| net(self.addresses[at as usize], bits))
            .collect()
    }
}

/// The figures of this file.
///
/// # Panics
/// When ours and the peers' sums differ: then the figures mean nothing.
pub fn measure(rounds: usize) -> Vec<Group> {
    [Spread::Clustered, Spread::Uniform].into_iter().flat_map(|spread| of_spread(spread, rounds)).collect()
}

fn of_spread(spread: Spread, rounds: usize) -> Vec<Group> {
    let mut trees = Trees::new(1_000_000, spread);
    let name = spread.name();
    for bits in [0, 7, 8, 13, 16, 20, 24, 27, 32] {
        for block in trees.blocks(bits).into_iter().take(if bits < 16 { 2 } else { 64 }) {
            let sums = [trees.ours(block), trees.sorted(block), trees.trie(block)];
            assert!(sums.iter().all(|sum| *sum == sums[0]), "the sums under {block} agree: {sums:?}");
        }
    }
    let mut groups: Vec<_> = [8, 16, 24].map(|bits| sum_under(&trees, bits, rounds, name)).into();
    groups.push(worst_mask(&trees, rounds, name));
    groups.push(add(&mut trees, rounds, name));
    groups
}

/// Nanoseconds a sum, over as many blocks as take a few milliseconds.
fn ns_a_sum(blocks: &[Ipv4Net], sum: impl Fn(Ipv4Net) -> i64) -> f64 {
    let (start, mut done) = (cpu(), 0);
    for batch in blocks.chunks(16).cycle() {
        for block in batch {
            black_box(sum(black_box(*block)));
        }
        done += batch.len();
        if cpu() - start >= Duration::from_millis(4) {
            break;
        }
    }
    (cpu() - start).as_nanos() as f64 / done as f64
}

fn sum_under(trees: &Trees, bits: u8, rounds: usize, name: &str) -> Group {
    let blocks = trees.blocks(bits);
    let figures = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh", || ns_a_sum(&blocks, |block| trees.ours(block))),
            Contender::new("BTreeMap range", || ns_a_sum(&blocks, |block| trees.sorted(block))),
            Contender::new("prefix-trie", || ns_a_sum(&blocks, |block| trees.trie(block))),
        ],
    );
    Group::new(format!("sum under a /{bits}, 1 M {name} addresses"), "ns", figures)
}

/// Every mask from /1 to /32, and of those the one at which ours takes longest.
fn worst_mask(trees: &Trees, rounds: usize, name: &str) -> Group {
    let blocks: Vec<_> = (1..=32).map(|bits| trees.blocks(bits)).collect();
    let masks = blocks.iter().zip(1..).map(|(blocks, bits)| {
        Contender::new(format!("tallymesh, at /{bits}"), || ns_a_sum(blocks, |block| trees.ours(block)))
    });
    let mut figures = interleaved(rounds, masks.collect());
    figures.sort_by(|a, b| b.value.total_cmp(&a.value));
    figures.truncate(1);
    Group::new(format!("sum at the worst mask, 1 M {name} addresses"), "ns", figures).want("≤ 300 ns", 300.0)
}

/// Additions of one run. Each run has its own, so that no cache has seen them before.
const ADDITIONS: usize = COMMIT_EVERY * 8;

fn add(trees: &mut Trees, rounds: usize, name: &str) -> Group {
    let draws = input::draws(ADDITIONS * (rounds + 1), trees.addresses.len(), 3);
    let drawn: Vec<u32> = draws.into_iter().map(|at| trees.addresses[at as usize]).collect();
    let Trees { ours, replica, sorted, trie, leaves, .. } = trees;
    let committed = std::cell::RefCell::new(replica);
    let add_ours = |address: &u32| drop(ours.add(&address_key(*address), 1));
    let commit = || committed.borrow_mut().handle_changes(NOW);
    let runs = || drawn.chunks(ADDITIONS).cycle();
    let figures = interleaved(
        rounds,
        vec![
            adder("tallymesh, additions and commits", runs(), |run| {
                for batch in run.chunks(COMMIT_EVERY) {
                    batch.iter().for_each(add_ours);
                    commit();
                }
            }),
            adder("hashbrown of leaves", runs(), |run| {
                run.iter().for_each(|address| *leaves.entry(*address).or_default() += 1);
            }),
            adder("tallymesh, additions alone", runs(), |run| run.iter().for_each(add_ours)),
            adder("BTreeMap", runs(), |run| {
                run.iter().for_each(|address| *sorted.entry(*address).or_default() += 1);
            }),
            adder("prefix-trie", runs(), |run| {
                run.iter().for_each(|address| *trie.entry(net(*address, 32)).or_default() += 1);
            }),
        ],
    );
    let text = "≤ 2 × the plain hash map of leaves";
    Group::new(format!("add to an address, 1 M {name} addresses"), "ns", figures).want_ratio(text, "hashbrown", 2.0)
}

fn adder<'a>(
    who: &str,
    mut runs: impl Iterator<Item = &'a [u32]> + 'a,
    mut add: impl FnMut(&[u32]) + 'a,
) -> Contender<'a> {
    Contender::new(who, move || {
        let run = runs.next().unwrap_or_default();
        ns_each(run.len(), || add(run))
    })
}
