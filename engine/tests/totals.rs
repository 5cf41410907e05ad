//! Totals and sums at the end of their range, and gauges below zero.

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{Event, Structure};
use tallymesh_schemas::key::KeyError;
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{Class, MaskLimit, StructureName, StructureSpec, Version, bounds, key};
use wire::{Wire, config};

const KEY: &str = "a.example";

fn addresses(nodes: &[&str]) -> Wire {
    let mut spec = StructureSpec::new(StructureName::new(wire::NAME).unwrap(), Class::InboundCidr);
    spec.max_delay = Duration::ZERO;
    let mut wire = Wire::with(nodes, &config(), &spec);
    for a in 0..nodes.len() {
        (a + 1..nodes.len()).for_each(|b| wire.up(a, b));
    }
    wire.run(2);
    wire
}

fn events(wire: &mut Wire, at: usize) -> Vec<Event> {
    std::iter::from_fn(|| wire.replicas[at].poll_event()).collect()
}

/// What a node adds to a key, or takes off it, ends at its bound: the operation fails, and is counted.
#[test]
fn a_total_does_not_wrap() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.run(1);
    let structure = wire.structure(0);
    let steps = bounds::TOTAL / bounds::STEP.unsigned_abs();
    let counter = structure.counter(KEY.as_bytes()).unwrap();
    (0..steps).for_each(|_| counter.add(bounds::STEP));
    assert_eq!(structure.add(KEY.as_bytes(), 1), Err(KeyError::Total));
    counter.add(bounds::STEP);
    assert!(!counter.add_within(1, i64::MAX), "there is no room for it");
    wire.run(2);
    assert_eq!([0, 1].map(|at| wire.total(at, KEY)), [bounds::COUNT; 2]);
    assert_eq!(wire.replicas[0].counters().totals_full, 2);
    let told = events(&mut wire, 0);
    assert!(told.iter().any(|event| matches!(event, Event::TotalFull { times: 2, .. })), "{told:?}");
    (0..steps).for_each(|_| counter.add(-bounds::STEP));
    assert_eq!(structure.add(KEY.as_bytes(), -1), Err(KeyError::Total));
    wire.run(2);
    assert_eq!([0, 1].map(|at| wire.total(at, KEY)), [0; 2]);
    structure.audit().unwrap();
}

/// Whatever a member says of its totals, sums of them end at the end of their range.
#[test]
fn sums_do_not_wrap() {
    let mut wire = addresses(&["a", "b"]);
    let mut rows = RowWriter::new(Version(0));
    let keys = 10_000_u32;
    for n in 0..keys {
        let (key, len) = key::from_net(format!("10.0.{}.{}/32", n / 256, n % 256).parse().unwrap());
        let state = RowState::Live { key: Some(&key[..len]), added: u64::MAX, removed: 0 };
        rows.push(WireRow { slot: n, version: Version(u64::from(n) + 1), state });
    }
    let id = wire.structure(0).id();
    let bytes = wire.told_by(0, id, (0, u64::from(keys)), None, &rows.finish());
    wire.give(0, 1, &bytes).unwrap();
    let structure = wire.structure(1);
    let count = |net: &str| structure.count_net(net.parse().unwrap(), wire.now.mono).total;
    assert_eq!(count("10.0.7.9/32"), bounds::COUNT);
    assert_eq!(count("10.0.7.0/24"), 256 * bounds::COUNT);
    assert_eq!(count("10.0.0.0/16"), i64::MAX, "{keys} times 2^50 are more than that");
    assert_eq!(count("0.0.0.0/0"), i64::MAX);
    assert_eq!(count("10.0.0.0/20"), 4096 * bounds::COUNT);
    let node = wire.node(0);
    assert_eq!(structure.count_net_from(&node, "10.0.0.0/16".parse().unwrap()), Some(i64::MAX));
    let blocks = structure.list(Some(&node)).unwrap().blocks(usize::MAX);
    assert_eq!(blocks.iter().map(|block| block.count).max(), Some(i64::MAX));
    assert!(structure.list_all().blocks(usize::MAX).iter().all(|block| block.count > 0));
    structure.audit().unwrap();
}

/// A node takes back what it never added. The count is shown as it is. For limits the node counts as zero, on a key and on a
/// block, and all nodes report it.
#[test]
fn a_gauge_below_zero_makes_no_room() {
    let mut wire = addresses(&["a", "b", "c"]);
    let (key, n) = key::from_net("192.0.2.7/32".parse().unwrap());
    let key = &key[..n];
    let count =
        |structure: &Structure| structure.count_net("192.0.2.0/24".parse().unwrap(), tallymesh_engine::Time(0)).total;
    wire.structure(2).add(key, -5).unwrap();
    let held = wire.structure(0).counter(key).unwrap();
    let _open = [held.try_hold(2).unwrap(), held.try_hold(2).unwrap()];
    wire.run(2);
    for at in 0..3 {
        let structure = wire.structure(at);
        assert_eq!((count(&structure), structure.taken(key)), (-3, 2), "{at}");
        assert!(structure.counter(key).unwrap().try_hold(2).is_none(), "{at}: the limit is reached");
        for mask in [32, 24] {
            let limit = MaskLimit::from((mask, 2));
            assert!(structure.try_hold_within("192.0.2.7".parse().unwrap(), [limit]).is_err(), "{at}, /{mask}");
        }
        let told = events(&mut wire, at);
        let below = |event: &&Event| matches!(event, Event::BelowZero { actor, .. } if actor.node.as_str() == "c");
        assert_eq!(told.iter().filter(below).count(), 1, "{told:?}");
        assert_eq!(wire.replicas[at].counters().below_zero, 1);
        structure.audit().unwrap();
    }
    // It is right again, or gone.
    wire.structure(2).add(key, 5).unwrap();
    wire.run(2);
    assert_eq!([0, 1, 2].map(|at| wire.structure(at).taken(key)), [2; 3]);
    wire.structure(2).add(key, -5).unwrap();
    wire.run(2);
    let (now, node) = (wire.now, wire.node(2));
    wire.down(0, 2);
    wire.down(1, 2);
    assert!(wire.replicas[0].forget(now, &node));
    wire.run(5);
    for at in 0..2 {
        let structure: Arc<Structure> = wire.structure(at);
        assert_eq!((count(&structure), structure.taken(key)), (2, 2), "{at}");
        structure.audit().unwrap();
    }
}
