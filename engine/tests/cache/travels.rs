//! What travels over which link: each entry about once, also through a relay, and only where both sides have the cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{CacheError, Replica};
use tallymesh_schemas::entries::EntryReader;
use tallymesh_schemas::message::Message;
use tallymesh_schemas::{Class, Incarnation, StructureName, StructureSpec, bounds};

use crate::late::{KEY, cache, cache_config, cache_spec, cache_wire, get, remove, set};
use crate::wire::{Wire, name, read};
use crate::{assert_agreed, state};

/// Entries and bytes that have crossed each link.
type Crossed = BTreeMap<(usize, usize), (usize, usize)>;

/// Lets time pass with everybody talking, and counts what crosses the links.
fn run_and_count(wire: &mut Wire, tenths: u32, crossed: &mut Crossed) {
    for _ in 0..tenths {
        wire.wait_a_little();
        for _ in 0..20 {
            for from in 0..wire.replicas.len() {
                for to in (0..wire.replicas.len()).filter(|to| *to != from) {
                    for bytes in wire.take(from, to) {
                        count(&bytes, crossed.entry((from, to)).or_default());
                        wire.give(from, to, &bytes).unwrap();
                    }
                }
            }
        }
    }
}

fn count(bytes: &[u8], crossed: &mut (usize, usize)) {
    assert!(bytes.len() <= bounds::FRAME_BYTES, "{} bytes", bytes.len());
    if let Message::CacheEntries(message) = read(bytes) {
        let mut reader = EntryReader::new(message.entries, message.runs.len());
        while reader.next_entry().unwrap().is_some() {
            crossed.0 += 1;
        }
        crossed.1 += bytes.len();
    }
}

fn written(wire: &mut Wire, at: usize, n: u16) {
    let [high, low] = n.to_be_bytes();
    set(wire, at, &[at as u8, high, low], &[b'v'; 50]);
}

/// Three nodes are linked with each other and write keys of their own. Each entry crosses each of its writer's links once, and
/// no other link.
#[test]
fn in_a_full_mesh_each_entry_crosses_each_link_once() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    let mut crossed = Crossed::new();
    for n in 0..100 {
        (0..3).for_each(|at| written(&mut wire, at, n));
        run_and_count(&mut wire, 2, &mut crossed);
    }
    run_and_count(&mut wire, 100, &mut crossed);
    assert_eq!(state(&wire, 0).0.len(), 300);
    assert_agreed(&wire, 0..3);
    let entries: Vec<_> = crossed.values().map(|(entries, _)| *entries).collect();
    assert_eq!(entries, [100; 6], "{crossed:?}");
    assert!(crossed.values().all(|(_, bytes)| *bytes < 100 * 140), "{crossed:?}");
}

/// All nodes write the same keys again and again. A write that another one has replaced before it was sent need not travel,
/// and hardly any write crosses a link twice: only one that replaces another one at the moment at which that is sent.
#[test]
fn of_contended_keys_hardly_a_write_crosses_a_link_twice() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    let mut crossed = Crossed::new();
    for n in 0..200_u8 {
        for at in 0..3 {
            set(&mut wire, at, &[n % 7], &[n, at as u8]);
        }
        run_and_count(&mut wire, 2, &mut crossed);
    }
    run_and_count(&mut wire, 50, &mut crossed);
    assert_agreed(&wire, 0..3);
    let entries: usize = crossed.values().map(|(entries, _)| entries).sum();
    assert!(entries <= 3 * 200 * 2 * 101 / 100, "{entries} entries for 600 writes: {crossed:?}");
}

/// Nodes without a link between them get each other's entries from the node between, each about once.
#[test]
fn through_a_relay_each_entry_crosses_each_link_about_once() {
    let mut wire = cache_wire(&["a", "relay", "c"]);
    wire.down(0, 2);
    for at in [0, 2] {
        written(&mut wire, at, 0);
    }
    wire.run(20);
    assert_agreed(&wire, 0..3);
    let mut crossed = Crossed::new();
    for n in 1..=100 {
        (0..3).for_each(|at| written(&mut wire, at, n));
        run_and_count(&mut wire, 2, &mut crossed);
    }
    run_and_count(&mut wire, 100, &mut crossed);
    assert_eq!(state(&wire, 0).0.len(), 302);
    assert_agreed(&wire, 0..3);
    for (link, expected) in [((0, 1), 100), ((1, 0), 200), ((1, 2), 200), ((2, 1), 100)] {
        assert!((expected..=expected + 10).contains(&crossed[&link].0), "own ones out, the others' in: {crossed:?}");
    }
}

/// A longer chain, and the link in its middle breaks for a while.
#[test]
fn entries_reach_the_end_of_a_chain() {
    let mut wire = cache_wire(&["a", "b", "c", "d"]);
    for (a, b) in [(0, 2), (0, 3), (1, 3)] {
        wire.down(a, b);
    }
    set(&mut wire, 0, b"before", b"v");
    wire.run(20);
    wire.down(1, 2);
    set(&mut wire, 0, KEY, b"of a");
    remove(&mut wire, 3, b"before");
    wire.run(5);
    wire.up(1, 2);
    wire.run(20);
    assert_eq!([2, 3].map(|at| get(&wire, at, KEY).unwrap_or_default()), [b"of a"; 2]);
    assert_agreed(&wire, 0..4);
}

/// Entries of the largest size, more than a frame holds.
#[test]
fn entries_of_the_largest_size_arrive() {
    let mut wire = cache_wire(&["a", "b"]);
    let mut crossed = Crossed::new();
    let value = vec![b'v'; bounds::VALUE_BYTES];
    for n in 0..40_u8 {
        let mut key = [0; bounds::KEY_BYTES];
        key[0] = n;
        set(&mut wire, 0, &key, &value);
    }
    run_and_count(&mut wire, 30, &mut crossed);
    assert_eq!(crossed[&(0, 1)].0, 40);
    assert_agreed(&wire, 0..2);
}

/// A node exchanges a cache with the nodes that have it. The others do not keep removals from being collected.
#[test]
fn a_cache_that_some_nodes_do_not_have() {
    let mut wire = Wire::with(&["a", "b"], &cache_config(), &cache_spec());
    let other = StructureSpec::new(StructureName::new("other").unwrap(), Class::Cache);
    wire.add("c", &cache_config(), &other);
    [(0, 1), (0, 2), (1, 2)].iter().for_each(|(a, b)| wire.up(*a, *b));
    wire.run(5);
    set(&mut wire, 0, KEY, b"value");
    set(&mut wire, 2, KEY, b"of c");
    wire.run(2);
    assert_eq!([0, 1, 2].map(|at| get(&wire, at, KEY).unwrap()), [&b"value"[..], b"value", b"of c"]);
    remove(&mut wire, 1, KEY);
    remove(&mut wire, 2, KEY);
    wire.run(80);
    assert_eq!([0, 1, 2].map(|at| cache(&wire, at).held()), [0; 3]);
}

/// Over a link of protocol version 1 no message about caches goes, and such a peer keeps no removal from being collected.
#[test]
fn a_peer_of_protocol_version_1_gets_nothing() {
    let mut wire = cache_wire(&["a", "b", "old"]);
    for at in [0, 1] {
        wire.down(at, 2);
        let (old, us, now) = (wire.node(2), wire.node(at), wire.now);
        wire.replicas[at].handle_link_up_with(now, &old, 1);
        wire.replicas[2].handle_link_up_with(now, &us, 1);
    }
    set(&mut wire, 0, KEY, b"value");
    for _ in 0..30 {
        wire.wait_a_little();
        for (from, to) in [(0, 2), (2, 0), (0, 1), (1, 0), (1, 2), (2, 1)] {
            for bytes in wire.take(from, to) {
                let message = read(&bytes);
                let of_caches = matches!(
                    message,
                    Message::CacheReport(_)
                        | Message::CacheEntries(_)
                        | Message::CacheCompare(_)
                        | Message::CacheKeys(_)
                );
                assert!(!of_caches || (from != 2 && to != 2), "{message:?}");
                wire.give(from, to, &bytes).unwrap();
            }
        }
    }
    assert_eq!([1, 2].map(|at| get(&wire, at, KEY)), [Some(b"value".to_vec()), None]);
    remove(&mut wire, 0, KEY);
    wire.run(80);
    assert_eq!([0, 1].map(|at| cache(&wire, at).held()), [0; 2]);
}

/// A node that leaves sends what it has written, before its goodbye, and takes no further writes.
#[test]
fn a_node_that_leaves_sends_its_writes() {
    let mut spec = cache_spec();
    spec.max_delay = Duration::from_secs(3600);
    let mut wire = Wire::with(&["a", "b"], &cache_config(), &spec);
    wire.up(0, 1);
    wire.run(3);
    set(&mut wire, 0, b"first", b"v");
    set(&mut wire, 0, KEY, b"value");
    let now = wire.now;
    wire.replicas[0].leave(now);
    let refused = cache(&wire, 0).set(b"later", b"v", Duration::ZERO, now.unix_ms);
    assert_eq!(refused, Err(CacheError::Leaving));
    let messages = wire.take(0, 1);
    assert!(matches!(read(messages.last().unwrap()), Message::Goodbye), "{:?}", read(messages.last().unwrap()));
    messages.iter().for_each(|bytes| wire.give(0, 1, bytes).unwrap());
    assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"value"[..]));
}

/// A node whose cache takes no snapshot has what is written after it joined. It answers no other node for what was written
/// before, and nobody says that it lags.
#[test]
fn a_cache_without_snapshot_begins_when_its_node_joins() {
    let mut wire = Wire::with(&["a", "b"], &cache_config(), &cache_spec());
    wire.up(0, 1);
    set(&mut wire, 0, b"before", b"v");
    wire.run(5);
    let mut spec = cache_spec();
    spec.snapshot = false;
    let mut replica = Replica::new(cache_config(), name("late"), Incarnation(5));
    replica.replicate_cache(spec, Arc::new(|| ())).unwrap();
    wire.replicas.push(replica);
    [0, 1].iter().for_each(|at| wire.up(*at, 2));
    wire.run(5);
    for at in 0..3 {
        set(&mut wire, at, &[at as u8], b"v");
    }
    wire.run(10);
    let keys = |at| state(&wire, at).0.into_iter().map(|(key, _, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(0), [b"\0".to_vec(), b"\x01".to_vec(), b"\x02".to_vec(), b"before".to_vec()]);
    assert_eq!(keys(1), keys(0));
    assert!([0_u8, 1, 2].iter().all(|at| keys(2).contains(&vec![*at])), "{:?}", keys(2));
    // A node that knows only the late one does not take what that has for all there is.
    let fourth = wire.add("fourth", &cache_config(), &cache_spec());
    wire.up(2, fourth);
    wire.run(10);
    wire.down(2, fourth);
    wire.up(0, fourth);
    wire.run(15);
    assert_agreed(&wire, [0, 1, fourth]);
}
