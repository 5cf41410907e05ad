//! Memory of structures whose keys go.

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::net::IpAddr;
use std::time::Duration;

use tallymesh_engine::Config;
use tallymesh_schemas::{Class, StructureName, StructureSpec, key};
use wire::Wire;

const KEYS: u64 = 4000;

type KeyOf = fn(u64) -> Vec<u8>;

fn address(n: u64) -> Vec<u8> {
    let mut octets = [0x20; 16];
    octets[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let (key, len) = key::from_net(IpAddr::from(octets).into());
    key[..len].to_vec()
}

fn name(n: u64) -> Vec<u8> {
    format!("a-long-name-of-number-{n}.example").into_bytes()
}

/// A structure gives memory back when its keys go: what is left is the cells, for further keys. Addresses have the index that takes
/// most, and long names do not fit into their cells.
#[test]
fn memory_goes_with_the_keys() {
    let kinds: [(Class, KeyOf); 2] = [(Class::InboundCidr, address), (Class::OutboundDomains, name)];
    for (class, key) in kinds {
        let mut spec = StructureSpec::new(StructureName::new(wire::NAME).unwrap(), class);
        spec.max_delay = Duration::ZERO;
        let mut wire = Wire::with(&["a", "b"], &Config { delta_bytes: 1 << 16, ..wire::config() }, &spec);
        wire.up(0, 1);
        wire.run(3);
        let bytes = |wire: &Wire| [0, 1].map(|at| wire.structure(at).bytes());
        let add_to_all = |wire: &mut Wire, n: i64| {
            (0..KEYS).for_each(|number| wire.structure(0).add(&key(number), n).unwrap());
            wire.replicas[0].handle_changes(wire.now);
            wire.run(3);
        };
        let start = bytes(&wire);
        add_to_all(&mut wire, 1);
        let most = bytes(&wire);
        add_to_all(&mut wire, -1);
        wire.run(30);
        // A copy hears with the next change that everybody knows which rows are gone.
        for n in [1, -1] {
            wire.structure(0).add(&key(KEYS), n).unwrap();
            wire.replicas[0].handle_changes(wire.now);
            wire.run(30);
        }
        let left = bytes(&wire);
        for at in 0..2 {
            assert!(wire.structure(at).keys() <= 1);
            wire.structure(at).audit().unwrap();
            let (most, left) = ((most[at] - start[at]) as u64, left[at].saturating_sub(start[at]) as u64);
            assert!(left < 100 * KEYS && left * 3 < most * 2, "{class:?} at {at}: {most} bytes, and then {left}");
        }
        // The same keys come again.
        add_to_all(&mut wire, 1);
        assert_eq!((0..KEYS).filter(|n| wire.structure(1).count(&key(*n), wire.now.mono).total == 1).count(), 4000);
        (0..2).for_each(|at| wire.structure(at).audit().unwrap());
    }
}
