//! Series with a million addresses in the current window: recording an event, the sum under a block over all windows,
//! bytes on the wire, and memory.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::{IpNet, Ipv4Net};
use tallymesh_engine::{Config, Now, Replica, Scope, Series, Time};
use tallymesh_schemas::frame::HEADER_BYTES;
use tallymesh_schemas::{Incarnation, Kind, NodeName, SeriesName, SeriesSpec, UnixMs};

use crate::add::COMMIT_EVERY;
use crate::counting::in_use;
use crate::input::{self, Spread, address_key};
use crate::measure::{Contender, Figure, cpu, interleaved, ns_each};
use crate::prefix::net;
use crate::report::Group;

/// Addresses in the current window, and in each of the windows before it.
const CURRENT: usize = 1_000_000;
const BEFORE: usize = 100_000;
const WINDOWS: u32 = 6;

/// Additions of one run.
const ADDITIONS: usize = COMMIT_EVERY * 4;

/// A node that keeps one series, and the time there.
struct Node {
    replica: Replica,
    series: Arc<Series>,
    now: Now,
}

impl Node {
    fn new(name: &str) -> Self {
        let now = Now { mono: Time(1), unix_ms: UnixMs(1_700_000_100_000) };
        let name = NodeName::new(name).expect("a good name");
        let mut replica = Replica::new(Config { seed: 7, ..Config::default() }, name, Incarnation(1));
        let named = SeriesName::new("bench").expect("a good name");
        let mut spec = SeriesSpec::new(named, Kind::CidrTree, 300, WINDOWS);
        spec.max_delay = Duration::ZERO;
        let series = replica.replicate_series(now, spec, Arc::new(|| ())).expect("the only series");
        Self { replica, series, now }
    }

    fn add(&self, addresses: &[u32]) {
        for address in addresses {
            let _ = self.series.add(&address_key(*address), 1);
        }
    }

    fn commit(&mut self) {
        self.replica.handle_changes(self.now);
    }

    /// The next window begins.
    fn turn(&mut self) {
        self.commit();
        self.now.mono = self.now.mono.after(Duration::from_secs(300));
        self.now.unix_ms.0 += 300_000;
        self.replica.handle_timeout(self.now);
    }

    fn sum(&self, net: Ipv4Net) -> i64 {
        self.series.count(Scope::Net(IpNet::V4(net)), 0..=WINDOWS, self.now.mono).total
    }
}

/// The figures of this file.
///
/// # Panics
/// When sums differ from the peer's: then the figures mean nothing.
pub fn measure(rounds: usize) -> Vec<Group> {
    let addresses = input::addresses(CURRENT, Spread::Clustered);
    let mut node = Node::new("node-0");
    let mut sorted: BTreeMap<(u32, u32), i64> = BTreeMap::new();
    for window in 0..WINDOWS - 1 {
        let some = &addresses[window as usize * BEFORE..][..BEFORE];
        node.add(some);
        some.iter().for_each(|address| *sorted.entry((window, *address)).or_default() += 1);
        node.turn();
    }
    node.add(&addresses);
    node.commit();
    addresses.iter().for_each(|address| *sorted.entry((WINDOWS, *address)).or_default() += 1);
    let mut groups: Vec<_> = [16, 24].map(|bits| sum_under(&node, &sorted, &addresses, bits, rounds)).into();
    groups.push(record(&mut node, &addresses, rounds));
    groups.push(wire());
    groups.push(memory());
    groups
}

/// Rows of one flush.
const ROWS: usize = 1_000;

/// Bytes a changed row takes on the wire: the windows are as other structures are.
fn wire() -> Group {
    let addresses = input::addresses(BEFORE, Spread::Clustered);
    let (mut a, mut b) = (Node::new("node-0"), Node::new("node-1"));
    let names = [&a, &b].map(|node| node.replica.actor().node.clone());
    a.replica.handle_link_up(a.now, &names[1]);
    b.replica.handle_link_up(b.now, &names[0]);
    a.add(&addresses);
    a.commit();
    exchange(&mut a, &mut b, &names);
    for at in input::draws(ROWS, addresses.len(), 9) {
        a.add(&addresses[at as usize..][..1]);
    }
    a.commit();
    let bytes = exchange(&mut a, &mut b, &names);
    assert_eq!(b.sum(net(0, 0)), a.sum(net(0, 0)), "all has arrived");
    let figure = Figure { who: "tallymesh, frames included".to_owned(), value: bytes as f64 / ROWS as f64 };
    let what = format!("bytes a changed row, {ROWS} of {BEFORE} addresses of a window a flush");
    Group::new(what, "bytes", vec![figure])
}

/// Lets two nodes talk until both are silent; how many bytes that took.
fn exchange(a: &mut Node, b: &mut Node, names: &[NodeName; 2]) -> usize {
    let mut bytes = 0;
    loop {
        let mut message = Vec::new();
        if a.replica.poll_transmit(&names[1], &mut message) {
            b.replica.handle_message(b.now, &names[0], &message).expect("a sound message");
        } else if b.replica.poll_transmit(&names[0], &mut message) {
            a.replica.handle_message(a.now, &names[1], &message).expect("a sound message");
        } else {
            return bytes;
        }
        bytes += message.len() + HEADER_BYTES;
    }
}

fn sum_under(node: &Node, sorted: &BTreeMap<(u32, u32), i64>, addresses: &[u32], bits: u8, rounds: usize) -> Group {
    let blocks: Vec<_> =
        input::draws(1024, CURRENT, 5).into_iter().map(|at| net(addresses[at as usize], bits)).collect();
    let range = |block: Ipv4Net| -> i64 {
        let (from, to) = (u32::from(block.network()), u32::from(block.broadcast()));
        (0..=WINDOWS).flat_map(|window| sorted.range((window, from)..=(window, to))).map(|(_, n)| n).sum()
    };
    for block in blocks.iter().take(64) {
        assert_eq!(node.sum(*block), range(*block), "the sums under {block} agree");
    }
    let ns = |sum: &dyn Fn(Ipv4Net) -> i64| {
        let (start, mut done) = (cpu(), 0);
        for block in blocks.iter().cycle() {
            black_box(sum(black_box(*block)));
            done += 1;
            if done % 16 == 0 && cpu() - start >= Duration::from_millis(4) {
                break;
            }
        }
        (cpu() - start).as_nanos() as f64 / f64::from(done)
    };
    let figures = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh", || ns(&|block| node.sum(block))),
            Contender::new("BTreeMap by window and address, ranges", || ns(&range)),
        ],
    );
    Group::new(format!("sum under a /{bits} over {WINDOWS} windows, 1.5 M keys"), "ns", figures)
}

fn record(node: &mut Node, addresses: &[u32], rounds: usize) -> Group {
    let drawn: Vec<u32> = input::draws(ADDITIONS * (rounds + 1), addresses.len(), 3)
        .into_iter()
        .map(|at| addresses[at as usize])
        .collect();
    let runs = || drawn.chunks(ADDITIONS).cycle();
    let mut map: HashMap<(u64, u32), i64, FixedState> = HashMap::default();
    let window = node.series.current();
    map.extend(addresses.iter().map(|address| ((window, *address), 1)));
    let node = std::cell::RefCell::new(node);
    let (mut ours, mut committed, mut theirs) = (runs(), runs(), runs());
    let figures = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh, additions", || {
                let run = ours.next().unwrap_or_default();
                let ns = ns_each(run.len(), || node.borrow().add(run));
                node.borrow_mut().commit();
                ns
            }),
            Contender::new("tallymesh, additions and commits", || {
                let run = committed.next().unwrap_or_default();
                ns_each(run.len(), || {
                    for batch in run.chunks(COMMIT_EVERY) {
                        node.borrow().add(batch);
                        node.borrow_mut().commit();
                    }
                })
            }),
            Contender::new("hashbrown by window and address, not replicated", || {
                let run = theirs.next().unwrap_or_default();
                ns_each(run.len(), || run.iter().for_each(|address| *map.entry((window, *address)).or_default() += 1))
            }),
        ],
    );
    Group::new("record an event, 1 M addresses in the window".to_owned(), "ns", figures)
}

/// What a million addresses take, each counted in one window; zero where the counting allocator is not the program's.
fn memory() -> Group {
    let addresses = input::addresses(CURRENT, Spread::Clustered);
    let (mut node, ours) = in_use(|| {
        let mut node = Node::new("node-0");
        node.add(&addresses);
        node.commit();
        node
    });
    let (_, after) = in_use(|| (0..=WINDOWS).for_each(|_| node.turn()));
    let (_map, theirs) = in_use(|| {
        let map: HashMap<(u64, u32), i64, FixedState> = addresses.iter().map(|address| ((1, *address), 1)).collect();
        map
    });
    let figure = |who: &str, bytes: i64| Figure { who: who.to_owned(), value: bytes as f64 / CURRENT as f64 };
    let figures = vec![
        figure("tallymesh, one actor", ours),
        figure("tallymesh, when the window has aged out", ours + after),
        figure("hashbrown by window and address, no sums, not replicated", theirs),
    ];
    Group::new("memory a key and window, 1 M addresses".to_owned(), "bytes", figures)
}
