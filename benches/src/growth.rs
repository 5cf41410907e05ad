//! How the cost of each thing grows with keys and with actors.

use std::hint::black_box;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use tallymesh_engine::{Now, Structure, Time};
use tallymesh_schemas::{Class, UnixMs};

use crate::apply::distinct;
use crate::counting::in_use;
use crate::input::{self, Spread, address_key};
use crate::measure::{cpu, ns_each};
use crate::prefix::net;
use crate::replicas::{self, Mesh};

/// Changes and additions of one figure.
const CHANGES: usize = 100_000;

/// Rows of a batch that is taken in; fewer where there are fewer keys.
const ROWS: usize = 1_000;

/// Sums of one figure take at least so long.
const SUMS: Duration = Duration::from_millis(20);

const NOW: Now = Now { mono: Time(1), unix_ms: UnixMs(1) };

/// One size with its figures by name, in the order in which they are shown.
#[derive(Debug, Serialize)]
pub struct Column {
    /// Keys, or actors.
    pub size: usize,
    /// Figures by what they are of, with their unit.
    pub figures: Vec<(&'static str, f64)>,
}

fn domain(n: usize) -> String {
    format!("m{n:08}.example.net")
}

/// What a node with so many keys takes for each thing, and a receiver of them.
///
/// # Panics
/// When a receiver does not end up with what was sent.
pub fn by_keys(keys: usize) -> Column {
    let mut figures = Vec::new();
    {
        let ((mut replica, structure), bytes) = in_use(|| {
            let (mut replica, structure) = replicas::alone(Class::OutboundDomains);
            (0..keys).for_each(|n| add(&structure, domain(n).as_bytes()));
            replica.handle_changes(NOW);
            (replica, structure)
        });
        let counter = structure.counter(domain(0).as_bytes()).expect("a good key");
        figures.push(("add to a counter at hand, ns", ns_each(CHANGES, || (0..CHANGES).for_each(|_| counter.add(1)))));
        let drawn: Vec<_> = input::draws(CHANGES, keys, 5).into_iter().map(|n| domain(n as usize)).collect();
        let by_key = || ns_each(drawn.len(), || drawn.iter().for_each(|key| add(&structure, key.as_bytes())));
        // The first time lists what has changed, and warms nothing: keys are drawn from all.
        figures.push(("add by key, ns", by_key()));
        let changed = structure.pending().max(1);
        figures.push(("commit a changed row, ns", ns_each(changed, || replica.handle_changes(NOW))));
        figures.push(("memory a key, one actor, bytes", bytes as f64 / keys as f64));
    }
    figures.push(("take in a row, ns", apply(keys, 1).0));
    figures.extend(sums(keys));
    Column { size: keys, figures }
}

/// What a node takes that holds the rows of so many other nodes for each of `keys` keys.
///
/// # Panics
/// As [`by_keys`].
pub fn by_actors(actors: usize, keys: usize) -> Column {
    let (apply, mesh, bytes) = apply(keys, actors);
    let receiver = &mesh.structures[0];
    let drawn: Vec<_> = input::draws(CHANGES, keys, 5).into_iter().map(|n| domain(n as usize)).collect();
    let read = ns_each(drawn.len(), || {
        drawn.iter().for_each(|key| {
            black_box(receiver.count(key.as_bytes(), NOW.mono));
        });
    });
    let add = ns_each(drawn.len(), || drawn.iter().for_each(|key| add(receiver, key.as_bytes())));
    let figures = vec![
        ("add by key, ns", add),
        ("read a key, ns", read),
        ("take in a row, ns", apply),
        ("memory a key, bytes", bytes as f64 / keys as f64),
        ("memory a key and actor, bytes", bytes as f64 / (keys * actors) as f64),
    ];
    Column { size: actors, figures }
}

fn add(structure: &Structure, key: &[u8]) {
    // Refused keys would show in the counts that are checked.
    let _ = structure.add(key, 1);
}

/// Nanoseconds of a receiver that holds the rows of `actors` senders for a row out of all of them, with the receiver, and
/// the bytes that those rows have added to it.
fn apply(keys: usize, actors: usize) -> (f64, Mesh, i64) {
    // The senders know the receiver alone; it says nothing to them once they are linked.
    let mut mesh = Mesh::linked(actors + 1, Class::OutboundDomains, |a, b| a == 0 || b == 0);
    let mut bytes = 0;
    for sender in 1..=actors {
        (0..keys).for_each(|n| add(&mesh.structures[sender], domain(n).as_bytes()));
        mesh.commit(sender);
        // The messages of millions of rows come one by one, and none of them is kept.
        while let Some(message) = mesh.message(sender, 0) {
            bytes += in_use(|| mesh.deliver(sender, 0, std::slice::from_ref(&message))).1;
        }
        if sender < actors {
            mesh.empty(sender);
        }
    }
    let rows = ROWS.min(keys);
    let mut random = input::Random(7);
    let (mut spent, mut taken) = (0.0, 0);
    while taken < CHANGES {
        for at in distinct(rows, keys, &mut random) {
            add(&mesh.structures[actors], domain(at).as_bytes());
        }
        mesh.commit(actors);
        let messages = mesh.messages(actors, 0);
        let start = cpu();
        mesh.deliver(actors, 0, &messages);
        spent += (cpu() - start).as_nanos() as f64;
        taken += rows;
    }
    let total = |of: usize| mesh.structures[of].count(domain(0).as_bytes(), NOW.mono).total;
    assert_eq!(total(0), total(actors) + actors as i64 - 1, "the receiver has what was sent");
    (spent / taken as f64, mesh, bytes)
}

/// Sums under blocks of addresses that lie anywhere, and adding to one of them.
fn sums(addresses: usize) -> Vec<(&'static str, f64)> {
    let list = input::addresses(addresses, Spread::Uniform);
    let ((mut replica, structure), bytes) = in_use(|| {
        let (mut replica, structure) = replicas::alone(Class::InboundCidr);
        list.iter().for_each(|address| add(&structure, &address_key(*address)));
        replica.handle_changes(NOW);
        (replica, structure)
    });
    let mut figures = Vec::new();
    let masks = [(8, "sum under a /8, ns"), (16, "sum under a /16, ns"), (24, "sum under a /24, ns")];
    for (bits, what) in masks {
        let draws = input::draws(4096, list.len(), u64::from(bits));
        let blocks: Vec<_> = draws.into_iter().map(|at| IpNet::V4(net(list[at as usize], bits))).collect();
        let (start, mut done) = (cpu(), 0);
        while cpu() - start < SUMS {
            blocks.iter().for_each(|block| {
                black_box(structure.count_net(*block, NOW.mono));
            });
            done += blocks.len();
        }
        figures.push((what, (cpu() - start).as_nanos() as f64 / done as f64));
    }
    let drawn = input::draws(CHANGES, list.len(), 9);
    let ns = ns_each(drawn.len(), || {
        drawn.iter().for_each(|at| add(&structure, &address_key(list[*at as usize])));
        replica.handle_changes(NOW);
    });
    figures.push(("add to an address and commit, ns", ns));
    figures.push(("memory an address, one actor, bytes", bytes as f64 / addresses as f64));
    figures
}
