//! A write that is on its way for long, and a removal that comes behind it and goes round meanwhile.

use std::time::Duration;

use tallymesh_engine::{Cache, Config};
use tallymesh_schemas::{Class, StructureName, StructureSpec};

use crate::wire::{NAME, Wire, config, is_entries};

pub(crate) const KEY: &[u8] = b"k";

pub(crate) fn cache_spec() -> StructureSpec {
    let mut spec = StructureSpec::new(StructureName::new(NAME).unwrap(), Class::Cache);
    spec.max_delay = Duration::ZERO;
    spec
}

pub(crate) fn cache_config() -> Config {
    Config { delta_bytes: 1 << 16, ..config() }
}

pub(crate) fn cache_wire(names: &[&str]) -> Wire {
    let mut wire = Wire::with(names, &cache_config(), &cache_spec());
    for a in 0..names.len() {
        for b in a + 1..names.len() {
            wire.up(a, b);
        }
    }
    wire.run(5);
    wire
}

pub(crate) fn cache(wire: &Wire, at: usize) -> Cache {
    wire.replicas[at].caches().into_iter().next().unwrap()
}

pub(crate) fn set(wire: &mut Wire, at: usize, key: &[u8], value: &[u8]) {
    let now = wire.now_at(at);
    cache(wire, at).set(key, value, Duration::ZERO, now.unix_ms).unwrap();
    wire.replicas[at].handle_changes(now);
}

pub(crate) fn remove(wire: &mut Wire, at: usize, key: &[u8]) {
    let now = wire.now_at(at);
    assert!(cache(wire, at).remove(key, now.unix_ms).unwrap().is_some());
    wire.replicas[at].handle_changes(now);
}

pub(crate) fn get(wire: &Wire, at: usize, key: &[u8]) -> Option<Vec<u8>> {
    cache(wire, at).get(key, wire.now_at(at).unix_ms).map(|value| value.to_vec())
}

/// b removes a key and compares what all nodes hold. Then a, which has not received the removal and whose clock is a little
/// behind, writes the key. The message to c arrives after all nodes have received the removal. Returns the value that c reads
/// when the message arrives.
pub(crate) fn comes_after_a_removal() -> Option<Vec<u8>> {
    let mut wire = cache_wire(&["a", "b", "c"]);
    wire.clock_off = Some((0, -5000));
    set(&mut wire, 1, KEY, b"first");
    wire.run(10);
    remove(&mut wire, 1, KEY);
    let all = |_: usize, _: usize| true;
    pass(&mut wire, 30, |from, to| (from, to) != (1, 0) && (from, to) != (2, 0));
    set(&mut wire, 0, KEY, b"second");
    let late: Vec<_> = wire.take(0, 2).into_iter().filter(|bytes| is_entries(bytes)).collect();
    assert_eq!(late.len(), 1, "one message is on its way");
    // From a everything else is lost, and all hear of the removal.
    pass(&mut wire, 1200, |from, _| from != 0);
    assert_eq!(get(&wire, 2, KEY), None);
    wire.give(0, 2, &late[0]).unwrap();
    let read = get(&wire, 2, KEY);
    pass(&mut wire, 1000, all);
    assert_eq!(get(&wire, 2, KEY), None, "once everything arrives it is gone");
    read
}

/// So many tenths of a second in which entries arrive only from and to whom `arrives` says.
fn pass(wire: &mut Wire, tenths: u32, arrives: impl Fn(usize, usize) -> bool) {
    for _ in 0..tenths {
        wire.now.mono = wire.now.mono.after(Duration::from_millis(100));
        wire.now.unix_ms.0 += 100;
        for at in 0..wire.replicas.len() {
            let now = wire.now_at(at);
            wire.replicas[at].handle_timeout(now);
        }
        for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)] {
            for bytes in wire.take(from, to) {
                if arrives(from, to) || !is_entries(&bytes) {
                    wire.give(from, to, &bytes).unwrap();
                }
            }
        }
    }
}
