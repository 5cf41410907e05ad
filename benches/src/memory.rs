//! Memory a key takes when three nodes count it: rows, indexes, logs and all.

use std::sync::atomic::AtomicI64;

use crdts::{CmRDT, PNCounter};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tallymesh_schemas::Class;

use crate::add::KEYS;
use crate::counters::{Counters, Dash};
use crate::counting::in_use;
use crate::input;
use crate::measure::Figure;
use crate::replicas::Mesh;
use crate::report::Group;

const ACTORS: usize = 3;

fn figure(who: &str, bytes: i64, keys: usize) -> Figure {
    Figure { who: who.to_owned(), value: bytes as f64 / keys as f64 }
}

/// The figures of this file, as the counting allocator sees them; it has to be the program's.
///
/// # Panics
/// When the replicas do not come to agree: then the figures mean nothing.
pub fn measure() -> Vec<Group> {
    let keys = input::keys(KEYS);
    let (mesh, ours) = in_use(|| counted(ACTORS, &keys));
    let now = tallymesh_engine::Time(1);
    assert!(mesh.structures.iter().all(|s| keys.iter().all(|key| s.count(key.as_bytes(), now).total == 3)));
    let said = mesh.structures.iter().map(|structure| structure.bytes()).sum::<usize>() as i64;
    drop(mesh);
    let (_alone, alone) = in_use(|| counted(1, &keys));
    let (_dash, dash) = in_use(|| {
        let dash = Dash::default();
        keys.iter().for_each(|key| dash.add(key, 1));
        dash
    });
    let (_three, three) = in_use(|| {
        let map: HashMap<String, [AtomicI64; 2 * ACTORS], FixedState> =
            keys.iter().map(|key| (key.clone(), Default::default())).collect();
        map
    });
    let (_crdts, crdts) = in_use(|| {
        let counter = |key: &String| {
            let mut counter = PNCounter::<u8>::new();
            for actor in 0..ACTORS as u8 {
                counter.apply(counter.inc_many(actor, 2));
                counter.apply(counter.dec_many(actor, 1));
            }
            (key.clone(), counter)
        };
        keys.iter().map(counter).collect::<HashMap<_, _, FixedState>>()
    });
    let each = KEYS * ACTORS;
    let figures = vec![
        figure("tallymesh, by the allocator", ours, each),
        figure("tallymesh, as Structure::bytes says", said, each),
        figure("tallymesh, one actor, by the allocator", alone, KEYS),
        figure("DashMap<String, AtomicI64>, one counter", dash, KEYS),
        figure("hashbrown<String, [i64; 6]>, no versions", three, KEYS),
        figure("crdts PNCounter in hashbrown", crdts, KEYS),
    ];
    vec![
        Group::new(format!("memory a key, {ACTORS} actors, {KEYS} keys of 20 bytes"), "bytes", figures)
            .want("≤ 130 bytes, all indexes and logs included", 130.0),
    ]
}

/// So many nodes, each of which has counted every key and heard of the others.
fn counted(nodes: usize, keys: &[String]) -> Mesh {
    let mut mesh = Mesh::new(nodes, Class::OutboundDomains);
    for structure in &mesh.structures {
        keys.iter().for_each(|key| Counters::add(structure, key, 1));
    }
    mesh.settle();
    mesh
}
